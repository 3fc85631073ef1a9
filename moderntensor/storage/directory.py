"""The directory of a store on disk: whose it is, who holds it, and how it comes to be.

    LOCK             held by `flock` while the store is open; the kernel lets go when we die
    FORMAT           one line: the format id
    data.mdb         LMDB's data, and data.mdb-lock, LMDB's table of readers
    new.mdb          data while the store is being made

A store is made under another name and renamed last, so that a directory whose making was
interrupted is either still empty or finished by the next one that opens it. A directory with
anything else in it, and no FORMAT, belongs to someone else and is left alone.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import StorageError

LOCK: Final = "LOCK"
FORMAT: Final = "FORMAT"
DATA: Final = "data.mdb"

_NEW_DATA: Final = "new.mdb"
_NEW_FORMAT: Final = "FORMAT.new"
_TRACES = frozenset({LOCK, _NEW_DATA, f"{_NEW_DATA}-lock", _NEW_FORMAT, "lost+found"})
_MAX_FORMAT: Final = 256  # bytes; a format id is a short line


class StoreDirectory:
    """A directory held for this store alone, from `__init__` to `release`."""

    def __init__(self, path: Path, format_id: str, create: Callable[[Path], None]) -> None:
        """Hold the directory at `path`, making it and the store in it if there is none.

        `create` writes a new data file at the path that it is given. StorageError if the
        directory is someone else's, of another format, held already, or not accessible.
        """
        self.path = path
        self.data = path / DATA
        self._format_id = format_id
        self._lock = -1
        try:
            self._make_directory()
            self._is_store()  # refuse before the lock file is put into a foreign directory
            self._acquire()
            try:
                if not self._is_store():
                    self._make_store(create)
                self._finish_store()
            except BaseException:
                self.release()
                raise
        except OSError as error:
            raise StorageError(f"{error.filename or path}: {error.strerror}") from error

    def release(self) -> None:
        """Let another process have the directory. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _make_directory(self) -> None:
        missing = self.path
        made: list[Path] = []
        while not missing.exists():
            made.append(missing)
            missing = missing.parent
        for directory in reversed(made):
            directory.mkdir(mode=0o700, exist_ok=True)
            sync_directory(directory.parent)
        if not self.path.is_dir():
            raise StorageError(f"{self.path}: not a directory")

    def _is_store(self) -> bool:
        """Whether a store is here (False: it is ours to make). StorageError if it is foreign."""
        names = set(os.listdir(self.path)) - _TRACES  # noqa: PTH208 - names are enough
        if FORMAT not in names:
            if names:
                raise StorageError(
                    f"{self.path}: the directory is not empty and holds no store of ours "
                    f"(it has {min(names)!r}); nothing was changed"
                )
            return False
        with (self.path / FORMAT).open("rb") as file:
            found = file.read(_MAX_FORMAT)
        if found != self._format_id.encode() + b"\n":
            raise StorageError(
                f"{self.path}: holds a store of format {found!r}, not {self._format_id!r}; "
                "nothing was changed"
            )
        return True

    def _acquire(self) -> None:
        lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            os.close(lock)
            raise StorageError(f"{self.path}: in use by process {holder or 'unknown'}") from None
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        with suppress(OSError):  # a courtesy for whoever is refused; a full disk may deny it
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)

    def _make_store(self, create: Callable[[Path], None]) -> None:
        new = self.path / _NEW_DATA
        for trace in (new, self.path / f"{_NEW_DATA}-lock", self.path / _NEW_FORMAT):
            trace.unlink(missing_ok=True)
        create(new)
        (self.path / f"{_NEW_DATA}-lock").unlink(missing_ok=True)
        _sync_file(new)
        _write_file(self.path / _NEW_FORMAT, self._format_id.encode() + b"\n")
        sync_directory(self.path)
        (self.path / _NEW_FORMAT).rename(self.path / FORMAT)
        sync_directory(self.path)

    def _finish_store(self) -> None:
        if self.data.exists():
            return
        new = self.path / _NEW_DATA
        if not new.exists():
            raise StorageError(f"{self.data}: missing")
        new.rename(self.data)
        sync_directory(self.path)


def _write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make names in `path` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
