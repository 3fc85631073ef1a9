"""Signatures checked many at a time over packed bytes.

A call into the curve library gives up the GIL and has to get it back; beside a thread that is
busy in Python that takes a switch interval, 5 ms, for each signature of 40 µs. The compiled twin
walks a whole run of them in one go, without the GIL, and shows many BIP-340 signatures of few
keys to be good in one equation. This is the reference that `ext/signatures.pyx` equals, results
and errors included.

Neither twin is linked to a curve library: `blockchain/crypto.py`, which knows the one in use,
hands it over as a `Curve`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from ..errors import CryptoError, DecodeError

__all__ = ["RECOVERY_SIZE", "STRUCT_SIZES", "VERIFY_SIZE", "recover_many", "verify_many"]

VERIFY_SIZE: Final = 128
"""Bytes of one item of `verify_many`: x-only key 32 ‖ message 32 ‖ signature 64."""

RECOVERY_SIZE: Final = 97
"""Bytes of one item of `recover_many`: message 32 ‖ v 1 ‖ r 32 ‖ s 32."""

STRUCT_SIZES: Final = {
    "secp256k1_xonly_pubkey": 64,
    "secp256k1_pubkey": 64,
    "secp256k1_ecdsa_recoverable_signature": 65,
}
"""Bytes that the compiled twin sets aside for the library's opaque structs. Whoever makes a
`Curve` has to compare them with the library's own."""


class Curve(Protocol):
    """The curve library. This twin needs its functions, the compiled one their addresses."""

    @property
    def verify_signature(self) -> Callable[[bytes, bytes, bytes], bool]:
        """Key, message, signature: whether it is good. Never raises for bytes of these sizes."""

    @property
    def recover_public_key(self) -> Callable[[bytes, int, bytes, bytes], bytes]:
        """Message, v, r, s: the 64-byte key. CryptoError where there is none or s is high."""


def _need_items(name: str, items: bytes, size: int) -> None:
    if type(items) is not bytes:
        raise TypeError(f"{name} needs bytes, not {type(items).__name__}")
    if len(items) % size:
        raise DecodeError(f"{name}: {len(items)} bytes are no whole number of {size}-byte items")


def verify_many(curve: Curve, items: bytes) -> int | None:
    """The index of the first item whose BIP-340 signature is bad, None if all are good.

    DecodeError if `items` is no whole number of items. Not to be interrupted before its end.
    """
    _need_items("verify_many", items, VERIFY_SIZE)
    for at in range(0, len(items), VERIFY_SIZE):
        if not curve.verify_signature(
            items[at : at + 32], items[at + 32 : at + 64], items[at + 64 : at + 128]
        ):
            return at // VERIFY_SIZE
    return None


def recover_many(curve: Curve, items: bytes) -> list[bytes | None]:
    """The 64-byte public key (x ‖ y) behind each recoverable ECDSA signature.

    None where no key can have made it, where v is neither 0 nor 1, or where s is in the upper
    half of the group order. DecodeError if `items` is no whole number of items.
    """
    _need_items("recover_many", items, RECOVERY_SIZE)
    found: list[bytes | None] = []
    for at in range(0, len(items), RECOVERY_SIZE):
        message, v = items[at : at + 32], items[at + 32]
        r, s = items[at + 33 : at + 65], items[at + 65 : at + 97]
        try:
            found.append(curve.recover_public_key(message, v, r, s))
        except CryptoError:
            found.append(None)
    return found
