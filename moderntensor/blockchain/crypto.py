"""Hashes, keys, signatures and addresses: the only module that knows the curve's binding.

The curve is secp256k1. Headers carry BIP-340 Schnorr signatures under 32-byte x-only keys;
transactions carry recoverable ECDSA signatures, so that their sender need not be sent. The
functions below call libsecp256k1 through cffi without layers in between. Each call releases the
GIL and has to get it back, which beside a busy thread takes longer than the signature: whoever
has several uses `verify_signatures` and `recover_addresses`, which release it once for all.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

from btclib_libsecp256k1 import ffi, lib
from btclib_libsecp256k1.context import ctx
from Crypto.Hash import keccak

from ..backend import signatures
from ..errors import CryptoError
from ..runtime import Runtime, SignatureMemo

__all__ = [
    "CURVE_ORDER",
    "HALF_ORDER",
    "KeyPair",
    "address_of",
    "keccak256",
    "recover_addresses",
    "recover_public_key",
    "sha256",
    "validator_address",
    "verify_signature",
    "verify_signatures",
]

CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
HALF_ORDER: Final = CURVE_ORDER // 2

# Parsed keys save the square root of each verification. Two generations of this many: enough
# for any set of validators, and some 1.5 MiB however many keys an open network brings.
PARSED_KEYS_PER_GENERATION: Final = 2048
# Senders recur, and a Keccak through its binding takes 6 µs, nearly all of them with the GIL; one
# that is known takes 0.2. About 5 MiB of addresses by key.
CACHED_ADDRESSES: Final = 16_384

_UNCOMPRESSED: Final = 2  # SECP256K1_EC_UNCOMPRESSED
_HALF_ORDER_BYTES: Final = HALF_ORDER.to_bytes(32, "big")

# Looked up once: a verification costs one call into C and little else.
_schnorr_verify: Final = lib.secp256k1_schnorrsig_verify
_recoverable_parse: Final = lib.secp256k1_ecdsa_recoverable_signature_parse_compact
_recover: Final = lib.secp256k1_ecdsa_recover
_pubkey_serialize: Final = lib.secp256k1_ec_pubkey_serialize
_XONLY: Final = ffi.typeof("secp256k1_xonly_pubkey *")


def sha256(data: bytes) -> bytes:
    """SHA-256 of `data`, 32 bytes."""
    return hashlib.sha256(data).digest()


def keccak256(data: bytes) -> bytes:
    """Keccak-256 of `data`, 32 bytes: the padding from before it became SHA3-256."""
    return keccak.new(digest_bits=256, data=data).digest()


# --- BIP-340 -------------------------------------------------------------------------------


class _ParsedKeys:
    """Parsed x-only keys, at most two generations of them.

    Needs no lock: each step is one operation on a dict, and a race costs a second parse.
    """

    def __init__(self, generation: int) -> None:
        self._generation = generation
        self._young: dict[bytes, Any] = {}
        self._old: dict[bytes, Any] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, public_key: bytes) -> Any:
        """The parsed key, or None if the bytes are no x coordinate of the curve."""
        parsed = self._young.get(public_key)
        if parsed is None:
            parsed = self._old.get(public_key)
            if parsed is None:
                parsed = ffi.new(_XONLY)
                if len(public_key) != 32 or not lib.secp256k1_xonly_pubkey_parse(
                    ctx, parsed, public_key
                ):
                    return None
            young = self._young
            if len(young) >= self._generation:
                self._old, self._young = young, (young := {})
            young[public_key] = parsed
        return parsed


_parsed_keys: Final = _ParsedKeys(PARSED_KEYS_PER_GENERATION)


def verify_signature(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is a BIP-340 one over `message` under an x-only key.

    `public_key` has 32 bytes and `signature` 64; others are False, as is a key that is not on
    the curve. Headers sign 32 bytes; BIP-340 allows any length of message. All three must be
    `bytes`, else TypeError. Safe on any thread; the GIL is released during the check.
    """
    if not (type(public_key) is type(message) is type(signature) is bytes):
        raise TypeError("public key, message and signature are bytes")
    parsed = _parsed_keys.get(public_key)
    if parsed is None or len(signature) != 64:
        return False
    return bool(_schnorr_verify(ctx, signature, message, len(message), parsed) == 1)


# --- recoverable ECDSA ---------------------------------------------------------------------


class _Scratch(threading.local):
    """Memory that libsecp256k1 writes into, once per thread."""

    def __init__(self) -> None:
        self.signature = ffi.new("secp256k1_ecdsa_recoverable_signature *")
        self.public_key = ffi.new("secp256k1_pubkey *")
        self.length = ffi.new("size_t *", 65)
        self.output = ffi.new("unsigned char[65]")
        self.output_bytes = ffi.buffer(self.output)


_scratch: Final = _Scratch()


def _serialize(scratch: _Scratch, public_key: Any) -> bytes:
    scratch.length[0] = 65
    _pubkey_serialize(ctx, scratch.output, scratch.length, public_key, _UNCOMPRESSED)
    return scratch.output_bytes[1:65]  # type: ignore[no-any-return]


def recover_public_key(message: bytes, v: int, r: bytes, s: bytes) -> bytes:
    """The 64-byte public key whose owner signed the 32-byte `message`.

    `v` (0 or 1) says whether the nonce point's y is odd; `r` and `s` have 32 bytes. There is
    exactly one acceptable signature per nonce: `s` in the upper half of the group order is
    refused. CryptoError if no key can have made this signature.
    """
    if len(message) != 32 or len(r) != 32 or len(s) != 32:
        raise CryptoError("message, r and s have 32 bytes each")
    if v not in (0, 1):
        raise CryptoError(f"v is {v}, not 0 or 1")
    if s > _HALF_ORDER_BYTES:
        raise CryptoError("s is in the upper half of the group order")
    scratch = _scratch
    if not _recoverable_parse(ctx, scratch.signature, r + s, v):
        raise CryptoError("r is not below the group order")
    if not _recover(ctx, scratch.public_key, scratch.signature, message):
        raise CryptoError("no public key has this signature")
    return _serialize(scratch, scratch.public_key)


# --- addresses -----------------------------------------------------------------------------


def address_of(public_key64: bytes) -> bytes:
    """The 20-byte address of a 64-byte public key (x ‖ y): the end of its Keccak-256."""
    if len(public_key64) != 64:
        raise CryptoError(f"a full public key has 64 bytes, not {len(public_key64)}")
    return keccak256(public_key64)[-20:]


@lru_cache(maxsize=PARSED_KEYS_PER_GENERATION)
def validator_address(public_key: bytes) -> bytes:
    """The 20-byte address of an x-only key, lifted to the point with even y.

    CryptoError if the 32 bytes are no x coordinate of the curve.
    """
    scratch = _scratch
    if len(public_key) != 32 or not lib.secp256k1_ec_pubkey_parse(
        ctx, scratch.public_key, b"\x02" + public_key, 33
    ):
        raise CryptoError(f"{public_key.hex()} is not an x-only public key")
    return address_of(_serialize(scratch, scratch.public_key))


# --- many at once --------------------------------------------------------------------------


class _Curve(NamedTuple):
    """The curve library as `backend.signatures` takes it: addresses of functions for one twin,
    callables for the other."""

    context: int
    xonly_pubkey_parse: int
    schnorrsig_verify: int
    ec_pubkey_parse: int
    ec_pubkey_combine: int
    ec_pubkey_create: int
    ec_pubkey_cmp: int
    ec_pubkey_tweak_mul: int
    ec_seckey_tweak_mul: int
    ec_seckey_tweak_add: int
    tagged_sha256: int
    recoverable_signature_parse_compact: int
    ecdsa_recover: int
    ec_pubkey_serialize: int
    verify_signature: Callable[[bytes, bytes, bytes], bool]
    recover_public_key: Callable[[bytes, int, bytes, bytes], bytes]


def _address(name: str, arguments: str) -> int:
    """Where a function of the library is. CryptoError unless it is the one that we call."""
    function = ffi.addressof(lib, name)
    if ffi.typeof(function) is not ffi.typeof(f"int(*)(const secp256k1_context *, {arguments})"):
        raise CryptoError(f"the curve library's {name} is {ffi.typeof(function).cname}")
    return int(ffi.cast("uintptr_t", function))


def _curve() -> _Curve:
    for struct, size in signatures.STRUCT_SIZES.items():
        if ffi.sizeof(struct) != size:
            raise CryptoError(
                f"the curve library's {struct} has {ffi.sizeof(struct)} bytes, not {size}"
            )
    data, key = "const unsigned char *", "secp256k1_pubkey"
    return _Curve(
        int(ffi.cast("uintptr_t", ctx)),
        _address("secp256k1_xonly_pubkey_parse", f"secp256k1_xonly_pubkey *, {data}"),
        _address(
            "secp256k1_schnorrsig_verify",
            f"{data}, {data}, size_t, const secp256k1_xonly_pubkey *",
        ),
        _address("secp256k1_ec_pubkey_parse", f"{key} *, {data}, size_t"),
        _address("secp256k1_ec_pubkey_combine", f"{key} *, const {key} * const *, size_t"),
        _address("secp256k1_ec_pubkey_create", f"{key} *, {data}"),
        _address("secp256k1_ec_pubkey_cmp", f"const {key} *, const {key} *"),
        _address("secp256k1_ec_pubkey_tweak_mul", f"{key} *, {data}"),
        _address("secp256k1_ec_seckey_tweak_mul", f"unsigned char *, {data}"),
        _address("secp256k1_ec_seckey_tweak_add", f"unsigned char *, {data}"),
        _address("secp256k1_tagged_sha256", f"unsigned char *, {data}, size_t, {data}, size_t"),
        _address(
            "secp256k1_ecdsa_recoverable_signature_parse_compact",
            f"secp256k1_ecdsa_recoverable_signature *, {data}, int",
        ),
        _address(
            "secp256k1_ecdsa_recover",
            f"secp256k1_pubkey *, const secp256k1_ecdsa_recoverable_signature *, {data}",
        ),
        _address(
            "secp256k1_ec_pubkey_serialize",
            "unsigned char *, size_t *, const secp256k1_pubkey *, unsigned int",
        ),
        verify_signature,
        recover_public_key,
    )


# The binding's module keeps the library and the context for as long as there is a process.
CURVE: Final = _curve()

_cached_address: Final = lru_cache(CACHED_ADDRESSES)(address_of)


def verify_signatures(items: bytes, memo: SignatureMemo | None = None) -> int | None:
    """The index of the first bad one of many BIP-340 signatures, None if all are good.

    `items` has 128 bytes for each: x-only key 32 ‖ message 32 ‖ signature 64; DecodeError if it
    is no whole number of them. The GIL is released once for all: threads that share a run of
    signatures each take a slice. An item takes some 50 µs; half as long, or less, in slices of
    192 and more that few keys signed. A `memo` is asked in place of the curve.
    """
    if memo is not None:
        return memo.first_bad(items)
    return signatures.verify_many(CURVE, items)


def recover_addresses(items: bytes, memo: SignatureMemo | None = None) -> list[bytes | None]:
    """The 20-byte addresses of those who made recoverable signatures.

    `items` has 97 bytes for each: message 32 ‖ v 1 ‖ r 32 ‖ s 32; DecodeError if it is no whole
    number of them. None where `recover_public_key` raises. The GIL is released, and a `memo` asked,
    as above.
    """
    if memo is not None:
        return memo.addresses(items)
    return [
        None if key is None else _cached_address(key)
        for key in signatures.recover_many(CURVE, items)
    ]


# --- keys ----------------------------------------------------------------------------------


class KeyPair:
    """A secret key and what follows from it; signs headers and transactions.

    The secret is negated where that is needed to make the public key's y even, so that a
    validator's x-only key and the key that signs its transactions share one address.
    """

    __slots__ = ("_keypair", "_secret", "address", "public_key", "public_key64")

    public_key: bytes
    """x-only, 32 bytes: what a header names as its validator."""
    public_key64: bytes
    """x ‖ y, 64 bytes, y even."""
    address: bytes
    """20 bytes."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes, as a number in 1 … group order - 1; CryptoError otherwise."""
        if type(secret) is not bytes or len(secret) != 32:
            raise CryptoError("a secret key has 32 bytes")
        if not lib.secp256k1_ec_seckey_verify(ctx, secret):
            raise CryptoError("a secret key is in 1 … group order - 1")
        scratch = _scratch
        lib.secp256k1_ec_pubkey_create(ctx, scratch.public_key, secret)
        if _serialize(scratch, scratch.public_key)[63] & 1:
            secret = (CURVE_ORDER - int.from_bytes(secret, "big")).to_bytes(32, "big")
            lib.secp256k1_ec_pubkey_create(ctx, scratch.public_key, secret)
        self._secret = secret
        self._keypair = ffi.new("secp256k1_keypair *")
        lib.secp256k1_keypair_create(ctx, self._keypair, secret)
        self.public_key64 = _serialize(scratch, scratch.public_key)
        self.public_key = self.public_key64[:32]
        self.address = address_of(self.public_key64)

    @classmethod
    def from_secret(cls, secret: bytes) -> KeyPair:
        """The key of 32 secret bytes; CryptoError if they are none."""
        return cls(secret)

    @classmethod
    def generate(cls, source: Runtime | Callable[[int], bytes] | None = None) -> KeyPair:
        """A new key from a runtime's entropy, or from a function that returns n random bytes."""
        if source is None:
            source = Runtime()
        # One draw in 2^128 is no key: CryptoError then, rather than a loop that a broken source
        # of entropy would keep turning.
        return cls((source.entropy if isinstance(source, Runtime) else source)(32))

    @property
    def secret(self) -> bytes:
        """32 bytes, normalised to an even public key. Whoever has them can spend."""
        return self._secret

    def sign(self, message: bytes, *, aux: bytes | None = None) -> bytes:
        """The 64-byte BIP-340 signature over 32 bytes.

        Without `aux` (32 auxiliary random bytes) the same message always gives the same
        signature, which reproducible runs need; it then is the one for 32 zero bytes.
        """
        if len(message) != 32 or (aux is not None and len(aux) != 32):
            raise CryptoError("message and auxiliary bytes have 32 bytes each")
        signature = ffi.new("unsigned char[64]")
        if not lib.secp256k1_schnorrsig_sign32(
            ctx, signature, message, self._keypair, ffi.NULL if aux is None else aux
        ):
            raise CryptoError("the curve library did not sign")
        return bytes(ffi.buffer(signature))

    def sign_recoverable(self, message: bytes) -> tuple[int, bytes, bytes]:
        """`(v, r, s)` over 32 bytes, with v 0 or 1 and s low; RFC 6979, so deterministic."""
        if len(message) != 32:
            raise CryptoError("a message to sign has 32 bytes")
        scratch = _scratch
        compact = ffi.new("unsigned char[64]")
        recovery_id = ffi.new("int *")
        if not lib.secp256k1_ecdsa_sign_recoverable(
            ctx, scratch.signature, message, self._secret, ffi.NULL, ffi.NULL
        ):
            raise CryptoError("the curve library did not sign")
        lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(
            ctx, compact, recovery_id, scratch.signature
        )
        v = int(recovery_id[0])
        if v > 1:  # r above the group order: nobody has met such a nonce, and v has no room
            raise CryptoError("this message cannot be signed by this key")
        both = bytes(ffi.buffer(compact))
        return v, both[:32], both[32:]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyPair) and self.public_key == other.public_key

    def __hash__(self) -> int:
        return hash(self.public_key)

    def __repr__(self) -> str:
        return f"<KeyPair address=0x{self.address.hex()}>"  # never the secret
