"""Small files that a node keeps between its runs: written whole or not at all, read within a cap.

These functions block: call them on a worker thread (`Runtime.run`).
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from ..errors import ModernTensorError, StorageError

__all__ = [
    "Directory",
    "DiskFile",
    "StateFile",
    "load",
    "place",
    "read_capped",
    "set_aside",
    "sync_directory",
    "write_atomically",
]

T = TypeVar("T")
logger = logging.getLogger(__name__)


class StateFile(Protocol):
    """One small file, wherever it is kept. What goes wrong is a `StorageError`."""

    def read(self, cap: int) -> bytes | None:
        """As `read_capped`."""

    def write(self, data: bytes) -> None:
        """As `write_atomically`."""

    def set_aside(self) -> str:
        """As `set_aside`; how that is to be called in a log."""

    def stamp(self) -> Hashable | None:
        """Another one after each change, None while there is no such file."""

    def locked(self) -> AbstractContextManager[None]:
        """While nobody else, in another process either, reads, changes and writes it in one."""


class Directory(Protocol):
    """Where a node keeps such files, if not in a directory of the file system."""

    def file(self, name: str) -> StateFile:
        """The file of this name, which need not exist."""


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


class DiskFile:
    """A `StateFile` in the file system."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_path = path.with_suffix(".lock")

    def __str__(self) -> str:
        return str(self._path)

    def read(self, cap: int) -> bytes | None:
        """As `StateFile`."""
        return read_capped(self._path, cap)

    def write(self, data: bytes) -> None:
        """As `StateFile`."""
        write_atomically(self._path, data)

    def set_aside(self) -> str:
        """As `StateFile`."""
        return str(set_aside(self._path))

    def stamp(self) -> Hashable | None:
        """As `StateFile`."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror or error}") from error
        return found.st_mtime_ns, found.st_size, found.st_ino

    @contextmanager
    def locked(self) -> Iterator[None]:
        """As `StateFile`, by a lock file beside it."""
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{self._lock_path}: {error.strerror or error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # others hold it for one write
            yield
        finally:
            os.close(descriptor)


def place(directory: Path | Directory, name: str) -> StateFile:
    """The file of this name in a directory of either kind."""
    return DiskFile(directory / name) if isinstance(directory, Path) else directory.file(name)


def load(path: Path | StateFile, cap: int, decode: Callable[[bytes], T]) -> T | None:
    """What `decode` makes of a file; None if there is no such file, or if it cannot be used: then
    it is set aside, and one line in the log says why.

    `decode` raises any `ModernTensorError` for a file that it refuses.
    """
    file = DiskFile(path) if isinstance(path, Path) else path
    try:
        data = file.read(cap)
        return None if data is None else decode(data)
    except ModernTensorError as error:
        try:
            logger.warning("cannot use %s, now set aside as %s: %s", file, file.set_aside(), error)
        except StorageError as stuck:
            logger.warning("cannot use %s (%s), nor set it aside: %s", file, error, stuck)
        return None
