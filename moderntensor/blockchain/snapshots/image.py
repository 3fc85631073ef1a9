"""Bytes at rest that are read at offsets: of a file, or in memory where the store is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol

from ...errors import StorageError

__all__ = ["FileImage", "Image", "MemoryImage"]


class Image(Protocol):
    """What a snapshot is read from. Safe to read on several threads."""

    size: int

    def read(self, at: int, size: int) -> bytes:
        """Exactly `size` bytes from offset `at` on. Raises `StorageError`."""

    def close(self) -> None:
        """Let go of it. Idempotent; nobody may be reading."""


class FileImage:
    """A file, read without mapping it: an error of the disk is an exception, not a signal."""

    def __init__(self, path: Path) -> None:
        """Raises `StorageError` if it cannot be opened."""
        self.path: Final = path
        self._descriptor = -1
        try:
            # Without waiting for a writer, should it be a pipe.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            self._state = self._look()
            self.size = self._state[0]
        except OSError as error:
            self.close()
            raise StorageError(f"{path}: {error.strerror or error}") from error

    def _look(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def read(self, at: int, size: int) -> bytes:
        """As `Image`. A file that was written to since it was opened is not read."""
        try:
            data = os.pread(self._descriptor, size, at)
            while len(data) < size:
                more = os.pread(self._descriptor, size - len(data), at + len(data))
                if not more:
                    raise StorageError(f"{self.path}: ends before byte {at + size}")
                data += more
            if self._look() != self._state:
                raise StorageError(f"{self.path}: somebody has changed it")
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from error
        return data

    def close(self) -> None:
        """As `Image`."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class MemoryImage:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, at: int, size: int) -> bytes:
        """As `Image`."""
        if at + size > self.size:
            raise StorageError(f"the image ends before byte {at + size}")
        return self._data[at : at + size]

    def close(self) -> None:
        """As `Image`."""
