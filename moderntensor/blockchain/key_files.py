"""Keys on disk: one small JSON file each, that only its owner may read."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Final

from ..errors import ConfigError, CryptoError
from .crypto import KeyPair

__all__ = ["KEY_FORMAT", "load_key", "save_key"]

KEY_FORMAT: Final = "moderntensor/key/1"
# A key file is one small JSON object; whatever is longer is something else.
KEY_FILE_CAP: Final = 4096

_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)


def save_key(path: str | os.PathLike[str], key: KeyPair) -> None:
    """Write `key` to a new file that only its owner may read (mode 0600).

    ConfigError naming the file if it exists (a key is never overwritten) or cannot be written.
    """
    document = {
        "format": KEY_FORMAT,
        "address": "0x" + key.address.hex(),
        "public_key": key.public_key.hex(),
        "secret": key.secret.hex(),
    }
    target = Path(path)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"key file {target}: exists and is not overwritten") from None
    except OSError as error:
        raise ConfigError(f"key file {target}: {error.strerror or error}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)  # half a key is worse than none
        raise ConfigError(f"key file {target}: {error.strerror or error}") from error


def load_key(path: str | os.PathLike[str]) -> KeyPair:
    """Read a key file: the JSON that `save_key` writes, or the secret as 64 hex digits.

    ConfigError naming the file if it cannot be read, is readable by its group or by others, or
    does not hold a key.
    """
    target = Path(path)
    try:
        # Without O_NONBLOCK a named pipe would be waited for.
        with os.fdopen(os.open(target, os.O_RDONLY | _NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"key file {target}: not a regular file")
            if os.name == "posix" and status.st_mode & 0o077:
                raise ConfigError(
                    f"key file {target}: others may read it (mode {status.st_mode & 0o777:04o}); "
                    f"make it private with `chmod 600 {target}`"
                )
            data = file.read(KEY_FILE_CAP + 1)
    except OSError as error:
        raise ConfigError(f"key file {target}: {error.strerror or error}") from error
    if len(data) > KEY_FILE_CAP:
        raise ConfigError(f"key file {target}: over {KEY_FILE_CAP} bytes long")
    try:
        return _parse_key(data)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError, JSONDecodeError too
        raise ConfigError(f"key file {target}: {_without_content(error)}") from None


def _parse_key(data: bytes) -> KeyPair:
    text = data.decode("ascii").strip()
    if not text.startswith("{"):
        return KeyPair(_secret_from_hex(text))
    document = json.loads(text)
    if document.get("format") != KEY_FORMAT:
        raise ConfigError(f"format is not {KEY_FORMAT!r}")
    key = KeyPair(_secret_from_hex(document.get("secret")))
    for name, value in (("public_key", key.public_key), ("address", key.address)):
        claimed = document.get(name)
        if claimed is not None and claimed not in (value.hex(), "0x" + value.hex()):
            raise ConfigError(f"{name} is not the one of its secret")
    return key


def _secret_from_hex(text: object) -> bytes:
    if isinstance(text, str):
        digits = text.removeprefix("0x")
        if len(digits) == 64:
            with contextlib.suppress(ValueError):
                return bytes.fromhex(digits)
    raise ConfigError("secret is not 64 hex digits")


def _without_content(error: Exception) -> str:
    """What is wrong, for a message that must not quote a secret."""
    if isinstance(error, (ConfigError, CryptoError)):
        return str(error)
    return "neither JSON nor hex digits"
