"""The key that names a node.

The public half of an X25519 key is the `node_id`; the encrypted transport proves that a node holds
the private half.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ..errors import ConfigError
from ..runtime import Runtime
from .state_file import sync_directory

__all__ = ["NodeIdentity"]

_SECRET_SIZE = 32
_TOO_OPEN = stat.S_IRWXG | stat.S_IRWXO


class NodeIdentity:
    """A node's static X25519 key. Its secret never shows in `repr`."""

    __slots__ = ("_key", "_node_id")

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes. Raises `ConfigError` for another size."""
        if len(secret) != _SECRET_SIZE:
            raise ConfigError(f"node key: {len(secret)} bytes, needs {_SECRET_SIZE}")
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self._node_id = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, runtime: Runtime | None = None) -> NodeIdentity:
        """A new identity, kept only in memory."""
        return cls((runtime or Runtime()).entropy(_SECRET_SIZE))

    @classmethod
    def load(cls, path: str | Path, runtime: Runtime | None = None) -> NodeIdentity:
        """The identity in the file at `path` (hex), which is created on the first run.

        Raises `ConfigError` if it cannot be read or written, holds no key, belongs to another
        user, or may be read by others. A link is followed: what counts is the file.
        """
        path = Path(path)
        try:
            try:
                text = _read_private(path)
            except FileNotFoundError:
                identity = cls.generate(runtime)
                try:
                    identity._write(path, runtime or Runtime())
                except FileExistsError:  # another process was faster: its key counts
                    text = _read_private(path)
                else:
                    return identity
        except OSError as error:
            raise ConfigError(f"node key {path}: {error.strerror or error}") from error
        try:
            return cls(bytes.fromhex(text.strip()))
        except ValueError as error:
            raise ConfigError(f"node key {path}: needs {2 * _SECRET_SIZE} hex digits") from error

    def _write(self, path: Path, runtime: Runtime) -> None:
        # Whole or not at all: written aside, then linked, which fails if `path` has appeared. What
        # a killed process left aside has another name: its pid may be ours, as in a container.
        aside = path.with_name(f".{path.name}.{os.getpid()}.{runtime.entropy(8).hex()}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(self._key.private_bytes_raw().hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(aside, path)
        finally:
            aside.unlink()
        sync_directory(path.parent)

    @property
    def node_id(self) -> bytes:
        """The public key, 32 bytes."""
        return self._node_id

    @property
    def key(self) -> X25519PrivateKey:
        """The private key, for the transport's handshake."""
        return self._key

    def __repr__(self) -> str:
        return f"<NodeIdentity {self._node_id.hex()[:16]}>"


def _read_private(path: Path) -> str:
    # Without waiting for who writes to a pipe.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"node key {path}: not a regular file")
        # Whoever owns it can read it, whatever its mode.
        if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
            raise ConfigError(
                f"node key {path}: belongs to user {found.st_uid}, "
                f"but this node runs as user {os.geteuid()}"
            )
        if found.st_mode & _TOO_OPEN:
            raise ConfigError(
                f"node key {path}: readable by others (mode {stat.S_IMODE(found.st_mode):04o}); "
                "it must be 0600"
            )
        return os.read(descriptor, 4 * _SECRET_SIZE).decode("ascii", "replace")
    finally:
        os.close(descriptor)
