"""Small files that a node keeps between its runs: written whole or not at all, read within a cap.

These functions block: call them on a worker thread (`Runtime.run`).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..errors import ModernTensorError, StorageError

__all__ = ["load", "read_capped", "set_aside", "sync_directory", "write_atomically"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()  # two writers of one file would share the name of its draft


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file at `path` (mode 0600): whoever is killed here, or loses power, leaves the
    old file or the new one. Raises `StorageError`.

    The directory must belong to one process, as a node's data directory does.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        with _one_at_a_time:
            with suppress(FileNotFoundError):
                draft.unlink()  # of a process that was killed
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            sync_directory(path.parent)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def sync_directory(path: Path) -> None:
    """So that the names in the directory survive a loss of power. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_at_once(path: str, flags: int) -> int:
    """Without waiting for a writer, should it be a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def read_capped(path: Path, cap: int) -> bytes | None:
    """The content of the file at `path`, None if there is none. Raises `StorageError` if it
    cannot be read or has more than `cap` bytes, of which no more are read."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            data = file.read(cap + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    if len(data) > cap:
        raise StorageError(f"{path}: larger than {cap} bytes")
    return data


def set_aside(path: Path) -> Path:
    """Keep a file that cannot be used under the same name with ``.bad`` behind it, in place of
    an earlier one. Raises `StorageError`."""
    bad = path.with_name(f"{path.name}.bad")
    try:
        path.replace(bad)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    return bad


def load(path: Path, cap: int, decode: Callable[[bytes], T]) -> T | None:
    """What `decode` makes of the file at `path`; None if there is no such file, or if it cannot
    be used: then it is set aside, and one line in the log says why.

    `decode` raises any `ModernTensorError` for a file that it refuses.
    """
    try:
        data = read_capped(path, cap)
        return None if data is None else decode(data)
    except ModernTensorError as error:
        try:
            logger.warning("cannot use %s, now set aside as %s: %s", path, set_aside(path), error)
        except StorageError as stuck:
            logger.warning("cannot use %s (%s), nor set it aside: %s", path, error, stuck)
        return None
