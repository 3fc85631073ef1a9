"""Noise, as far as one suite needs it: `Noise_XX_25519_AESGCM_SHA256` (noiseprotocol.org,
revision 34). Bytes in, bytes out; nothing here knows a socket.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import SecureChannelError

__all__ = ["KEY_SIZE", "TAG_SIZE", "CipherState", "XXHandshake"]

KEY_SIZE: Final = 32
TAG_SIZE: Final = 16
MESSAGE_MAX: Final = 65535  # of a handshake message, payload included

_NAME: Final = b"Noise_XX_25519_AESGCM_SHA256"
# The XX pattern: what each message carries, the initiator's first.
_PATTERN: Final = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
_NONCE: Final = Struct(">4xQ")
_LAST_NONCE: Final = 2**64 - 1  # kept for REKEY


class CipherState:
    """A key and the number of the message that it encrypts next; one per direction."""

    __slots__ = ("_aead", "_key", "nonce")

    def __init__(self, key: bytes) -> None:
        """`key`: 32 bytes."""
        self._key = key
        self._aead = AESGCM(key)
        self.nonce = 0

    def encrypt(self, data: bytes | memoryview, associated: bytes) -> bytes:
        """The ciphertext of `data` and its tag, 16 bytes more. Raises `SecureChannelError` when
        the nonces are used up."""
        return self._aead.encrypt(_NONCE.pack(self._take_nonce()), data, associated)

    def decrypt(self, data: bytes | memoryview, associated: bytes | memoryview) -> bytes:
        """What `encrypt` was given. Raises `SecureChannelError` if anyone else made `data`, or if
        it does not come in its turn; the state is then as before."""
        nonce = self._take_nonce()
        try:
            return self._aead.decrypt(_NONCE.pack(nonce), data, associated)
        except InvalidTag:
            self.nonce = nonce
            raise SecureChannelError("authentication failed") from None

    def encrypt_into(
        self, data: bytes | memoryview, associated: bytes | memoryview, out: memoryview
    ) -> None:
        """As `encrypt`, into `out`, which is 16 bytes longer than `data`."""
        self._aead.encrypt_into(_NONCE.pack(self._take_nonce()), data, associated, out)

    def decrypt_into(self, data: memoryview, associated: memoryview, out: memoryview) -> None:
        """As `decrypt`, into `out`, which is 16 bytes shorter than `data` and must not be looked
        at after an error."""
        nonce = self._take_nonce()
        try:
            self._aead.decrypt_into(_NONCE.pack(nonce), data, associated, out)
        except InvalidTag:
            self.nonce = nonce
            raise SecureChannelError("authentication failed") from None

    def _take_nonce(self) -> int:
        nonce = self.nonce
        if nonce == _LAST_NONCE:
            raise SecureChannelError("no nonce is left")
        self.nonce = nonce + 1
        return nonce

    def rekey(self) -> None:
        """Noise's REKEY: a key from which the old one cannot be found. The nonce goes on."""
        self._key = self._aead.encrypt(_NONCE.pack(_LAST_NONCE), bytes(KEY_SIZE), b"")[:KEY_SIZE]
        self._aead = AESGCM(self._key)


class _Symmetric:
    """The chaining key, the hash of all that was said, and the key of the moment."""

    __slots__ = ("_chaining_key", "_cipher", "hash")

    def __init__(self, prologue: bytes) -> None:
        self.hash = _NAME.ljust(32, b"\0")
        self._chaining_key = self.hash
        self._cipher: CipherState | None = None
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.hash = sha256(self.hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self._chaining_key, key = self._derive(secret)
        self._cipher = CipherState(key)

    def encrypt(self, data: bytes) -> bytes:
        sealed = data if self._cipher is None else self._cipher.encrypt(data, self.hash)
        self.mix_hash(sealed)
        return sealed

    def decrypt(self, sealed: bytes) -> bytes:
        data = sealed if self._cipher is None else self._cipher.decrypt(sealed, self.hash)
        self.mix_hash(sealed)
        return data

    @property
    def overhead(self) -> int:
        """What encryption adds by now, in bytes."""
        return 0 if self._cipher is None else TAG_SIZE

    def split(self) -> tuple[CipherState, CipherState]:
        """The initiator's direction, then the responder's."""
        first, second = self._derive(b"")
        return CipherState(first), CipherState(second)

    def _derive(self, secret: bytes) -> tuple[bytes, bytes]:
        """HKDF of two outputs."""
        temporary = hmac.digest(self._chaining_key, secret, "sha256")
        first = hmac.digest(temporary, b"\1", "sha256")
        return first, hmac.digest(temporary, first + b"\2", "sha256")


class XXHandshake:
    """One side of an XX handshake: `write` and `read` in turns, three messages, then `split`.

    After an error it must not be used any more.
    """

    def __init__(
        self,
        static: X25519PrivateKey,
        *,
        initiator: bool,
        entropy: Callable[[int], bytes],
        prologue: bytes = b"",
    ) -> None:
        """`entropy(32)` gives the secret of the ephemeral key. Both sides must know the same
        `prologue`."""
        self._initiator = initiator
        self._static = static
        self._entropy = entropy
        self._ephemeral: X25519PrivateKey | None = None
        self._symmetric = _Symmetric(prologue)
        self._remote_ephemeral: bytes | None = None
        self._turn = 0
        # The static key that the other side proved to hold, once its message was read.
        self.remote_static: bytes | None = None

    @property
    def done(self) -> bool:
        """Whether all three messages were written and read."""
        return self._turn == len(_PATTERN)

    @property
    def hash(self) -> bytes:
        """32 bytes that name this session, the same on both sides once `done`."""
        return self._symmetric.hash

    def write(self, payload: bytes = b"") -> bytes:
        """Our next message. Raises `SecureChannelError` for a low-order key of the other side."""
        symmetric, message = self._symmetric, b""
        for token in self._next(writing=True):
            if token == "e":  # noqa: S105 - a token of the pattern
                self._ephemeral = X25519PrivateKey.from_private_bytes(self._entropy(KEY_SIZE))
                public = self._ephemeral.public_key().public_bytes_raw()
                symmetric.mix_hash(public)
                message += public
            elif token == "s":  # noqa: S105
                message += symmetric.encrypt(self._static.public_key().public_bytes_raw())
            else:
                symmetric.mix_key(self._agree(token))
        return message + symmetric.encrypt(payload)

    def read(self, message: bytes) -> bytes:
        """The payload of their next message. Raises `SecureChannelError` if it is too short or too
        long, was made by anyone else, or holds a low-order key."""
        if len(message) > MESSAGE_MAX:
            raise SecureChannelError(f"a handshake message of {len(message)} bytes")
        symmetric, at = self._symmetric, 0
        for token in self._next(writing=False):
            if token == "e":  # noqa: S105
                self._remote_ephemeral, at = _cut(message, at, KEY_SIZE)
                symmetric.mix_hash(self._remote_ephemeral)
            elif token == "s":  # noqa: S105
                sealed, at = _cut(message, at, KEY_SIZE + symmetric.overhead)
                self.remote_static = symmetric.decrypt(sealed)
            else:
                symmetric.mix_key(self._agree(token))
        rest, _ = _cut(message, at, max(len(message) - at, symmetric.overhead))
        return symmetric.decrypt(rest)

    def split(self) -> tuple[CipherState, CipherState]:
        """The states for what we send and for what we receive."""
        first, second = self._symmetric.split()
        return (first, second) if self._initiator else (second, first)

    def _next(self, *, writing: bool) -> tuple[str, ...]:
        if self.done or writing != (self._initiator == (self._turn % 2 == 0)):
            raise SecureChannelError("a handshake message out of turn")
        self._turn += 1
        return _PATTERN[self._turn - 1]

    def _agree(self, token: str) -> bytes:
        """Diffie and Hellman's secret; the first letter is the initiator's key."""
        ours, theirs = token[not self._initiator], token[self._initiator]
        secret = self._ephemeral if ours == "e" else self._static
        public = self._remote_ephemeral if theirs == "e" else self.remote_static
        assert secret is not None and public is not None  # noqa: S101 - the pattern's order
        try:
            return secret.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:  # the secret would be zero, whatever our key
            raise SecureChannelError("a low-order key") from None


def _cut(message: bytes, at: int, size: int) -> tuple[bytes, int]:
    """`size` bytes from `at` on, and where they end."""
    end = at + size
    if end > len(message):
        raise SecureChannelError(f"a handshake message of {len(message)} bytes")
    return message[at:end], end
