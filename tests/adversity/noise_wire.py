"""Noise XX_25519_AESGCM_SHA256 and its records, by hand from the Noise specification and
docs/protocol.md, over a blocking socket. Nothing of moderntensor is imported here."""

from __future__ import annotations

import hmac
import os
import socket
import struct
import threading
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NAME = b"Noise_XX_25519_AESGCM_SHA256"
PROLOGUE = b"moderntensor/1"
RECORD_MAX = 256 * 1024  # plaintext bytes
REKEY_EVERY = 1 << 20  # records


def public_of(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def _dh(secret: bytes, public: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).exchange(
        X25519PublicKey.from_public_bytes(public)
    )


def _hkdf(chaining: bytes, material: bytes) -> tuple[bytes, bytes]:
    key = hmac.digest(chaining, material, "sha256")
    first = hmac.digest(key, b"\x01", "sha256")
    return first, hmac.digest(key, first + b"\x02", "sha256")


class Cipher:
    """One direction: a key and the count of what went under it."""

    def __init__(self, key: bytes) -> None:
        self.key, self.n = key, 0

    def nonce(self) -> bytes:
        return bytes(4) + struct.pack(">Q", self.n)

    def seal(self, data: bytes, associated: bytes) -> bytes:
        sealed = AESGCM(self.key).encrypt(self.nonce(), data, associated)
        self.n += 1
        return sealed

    def open(self, data: bytes, associated: bytes) -> bytes:
        opened = AESGCM(self.key).decrypt(self.nonce(), data, associated)
        self.n += 1
        return opened

    def rekey_if_due(self) -> None:
        if self.n and self.n % REKEY_EVERY == 0:
            last = bytes(4) + b"\xff" * 8
            self.key = AESGCM(self.key).encrypt(last, bytes(32), b"")[:32]


class Handshake:
    """The symmetric state of XX, and both sides' three messages."""

    def __init__(self, static: bytes, *, prologue: bytes = PROLOGUE) -> None:
        self.static = static
        self.ephemeral = os.urandom(32)
        self.h = NAME + bytes(32 - len(NAME))
        self.ck = self.h
        self.cipher: Cipher | None = None
        self.remote_ephemeral = b""
        self.remote_static = b""
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.h = sha256(self.h + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self.ck, key = _hkdf(self.ck, secret)
        self.cipher = Cipher(key)

    def _seal(self, data: bytes) -> bytes:
        assert self.cipher is not None
        sealed = self.cipher.seal(data, self.h)
        self.mix_hash(sealed)
        return sealed

    def _open(self, data: bytes) -> bytes:
        assert self.cipher is not None
        opened = self.cipher.open(data, self.h)
        self.mix_hash(data)
        return opened

    def first(self, payload: bytes = b"") -> bytes:
        """-> e"""
        e = public_of(self.ephemeral)
        self.mix_hash(e)
        self.mix_hash(payload)
        return e + payload

    def read_second(self, message: bytes) -> bytes:
        """<- e, ee, s, es; its payload."""
        self.remote_ephemeral = message[:32]
        self.mix_hash(self.remote_ephemeral)
        self.mix_key(_dh(self.ephemeral, self.remote_ephemeral))
        self.remote_static = self._open(message[32:80])
        self.mix_key(_dh(self.ephemeral, self.remote_static))
        return self._open(message[80:])

    def third(self, payload: bytes = b"") -> bytes:
        """-> s, se"""
        sealed = self._seal(public_of(self.static))
        self.mix_key(_dh(self.static, self.remote_ephemeral))
        return sealed + self._seal(payload)

    def read_first(self, message: bytes) -> bytes:
        self.remote_ephemeral = message[:32]
        self.mix_hash(self.remote_ephemeral)
        self.mix_hash(message[32:])
        return message[32:]

    def second(self, payload: bytes = b"") -> bytes:
        e = public_of(self.ephemeral)
        self.mix_hash(e)
        self.mix_key(_dh(self.ephemeral, self.remote_ephemeral))
        sealed = self._seal(public_of(self.static))
        self.mix_key(_dh(self.static, self.remote_ephemeral))
        return e + sealed + self._seal(payload)

    def read_third(self, message: bytes) -> bytes:
        self.remote_static = self._open(message[:48])
        self.mix_key(_dh(self.ephemeral, self.remote_static))
        return self._open(message[48:])

    def split(self) -> tuple[Cipher, Cipher]:
        """Initiator's sending, and receiving, direction."""
        first, second = _hkdf(self.ck, b"")
        return Cipher(first), Cipher(second)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """`size` bytes; fewer only where the stream ends."""
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(min(size - len(data), 1 << 20))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def send_message(sock: socket.socket, message: bytes) -> None:
    sock.sendall(struct.pack(">H", len(message)) + message)


def read_message(sock: socket.socket, size: int) -> bytes:
    head = read_exactly(sock, 2)
    if len(head) < 2:
        raise EOFError("closed in the handshake")
    assert struct.unpack(">H", head)[0] == size, head
    message = read_exactly(sock, size)
    if len(message) < size:
        raise EOFError("closed in the handshake")
    return message


class NoiseLine:
    """Bytes in and out of a socket through records; shaken hands when it is made."""

    def __init__(
        self,
        sock: socket.socket,
        static: bytes,
        *,
        initiator: bool = True,
        prologue: bytes = PROLOGUE,
    ) -> None:
        self.sock = sock
        handshake = Handshake(static, prologue=prologue)
        if initiator:
            send_message(sock, handshake.first())
            handshake.read_second(read_message(sock, 96))
            send_message(sock, handshake.third())
            self.outgoing, self.incoming = handshake.split()
        else:
            handshake.read_first(read_message(sock, 32))
            send_message(sock, handshake.second())
            handshake.read_third(read_message(sock, 64))
            self.incoming, self.outgoing = handshake.split()
        self.remote_id = handshake.remote_static
        self._plain = bytearray()
        self._sending = threading.Lock()  # records of two threads must not overtake each other

    def seal(self, data: bytes) -> bytes:
        """Records that hold `data`."""
        out = bytearray()
        for at in range(0, len(data), RECORD_MAX):
            self.outgoing.rekey_if_due()
            part = data[at : at + RECORD_MAX]
            length = struct.pack(">I", len(part) + 16)
            out += length + self.outgoing.seal(part, length)
        return bytes(out)

    def send(self, data: bytes) -> None:
        with self._sending:
            self.sock.sendall(self.seal(data))

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer only where the stream ends."""
        while len(self._plain) < size:
            length = read_exactly(self.sock, 4)
            if len(length) < 4:
                break
            sealed = read_exactly(self.sock, struct.unpack(">I", length)[0])
            self.incoming.rekey_if_due()
            self._plain += self.incoming.open(sealed, length)
        data = bytes(self._plain[:size])
        del self._plain[:size]
        return data


class PlainLine:
    """The same without encryption, for nodes that were told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.remote_id = b""
        self._sending = threading.Lock()

    def seal(self, data: bytes) -> bytes:
        return data

    def send(self, data: bytes) -> None:
        with self._sending:
            self.sock.sendall(data)

    def read(self, size: int) -> bytes:
        return read_exactly(self.sock, size)
