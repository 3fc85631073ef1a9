"""What a store is: tables of ordered byte keys, read and written in transactions.

Both stores behave alike. A transaction sees the store as it was when it was entered, whatever
is committed meanwhile; a write transaction also sees its own changes, becomes visible whole when
its `with` block ends, and leaves nothing behind when an exception ends it. One write transaction
is open at a time; the others wait. A transaction is used by the thread that entered it, kept
short, and is over when its `with` block is: everything it returned is plain `bytes` and stays.

Keys are 1 to 511 bytes, compared as unsigned bytes. Every failure is a `StorageError`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

MAX_KEY_SIZE: Final = 511  # bytes; what LMDB is built with everywhere

Item = tuple[bytes, bytes]


class ReadTransaction(ABC):
    """A view of the whole store at one moment. Enter it with `with`."""

    __slots__ = ()

    @abstractmethod
    def __enter__(self) -> Self:
        """Begin: from here on the view stands still."""

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; a write transaction commits unless an exception passes through."""

    @abstractmethod
    def get(self, table: str, key: bytes) -> bytes | None:
        """The value at `key`, or None."""

    @abstractmethod
    def range(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Item]:
        """(key, value) of all keys in [start, stop), ascending; `stop` None: to the end.

        `reverse` gives the same interval descending; `limit` keeps the first so many.
        """

    @abstractmethod
    def values(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        limit: int | None = None,
    ) -> list[bytes]:
        """As `range`, the values alone."""

    @abstractmethod
    def count(self, table: str) -> int:
        """How many keys the table holds."""

    def first(self, table: str) -> Item | None:
        """The lowest key and its value, or None."""
        found = self.range(table, limit=1)
        return found[0] if found else None

    def last(self, table: str) -> Item | None:
        """The highest key and its value, or None."""
        found = self.range(table, limit=1, reverse=True)
        return found[0] if found else None


class WriteTransaction(ReadTransaction):
    """A view that can be changed; its changes reach the store together or not at all."""

    __slots__ = ()

    @abstractmethod
    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Set `key` to `value`, whether or not it was there."""

    def put_many(self, table: str, items: Sequence[Item]) -> None:
        """`put` each; fastest in the order of their keys."""
        for key, value in items:
            self.put(table, key, value)

    @abstractmethod
    def append(self, table: str, key: bytes, value: bytes) -> None:
        """As `put`, for a key above all others of the table; StorageError if it is not."""

    def append_many(self, table: str, items: Sequence[Item]) -> None:
        """`append` each, in this order."""
        for key, value in items:
            self.append(table, key, value)

    @abstractmethod
    def delete(self, table: str, key: bytes) -> bool:
        """Remove `key`; whether it was there."""

    @abstractmethod
    def delete_range(self, table: str, start: bytes = b"", stop: bytes | None = None) -> int:
        """Remove all keys in [start, stop); how many there were. A whole table of any size costs
        next to nothing on disk."""


class Store(ABC):
    """Where a chain lives. Safe to use from several threads."""

    @property
    @abstractmethod
    def path(self) -> Path | None:
        """The directory of the store; None in memory."""

    @abstractmethod
    def read(self) -> ReadTransaction:
        """A read transaction, begun when it is entered."""

    @abstractmethod
    def write(self) -> WriteTransaction:
        """A write transaction, begun when it is entered, once no other is open."""

    @abstractmethod
    def size_on_disk(self) -> int:
        """Bytes of the data file, free pages included; in memory, bytes of keys and values."""

    @abstractmethod
    def sync(self) -> None:
        """Force to disk what is committed. Commits do so themselves."""

    @abstractmethod
    def close(self) -> None:
        """Wait for the transactions of other threads to end, then close. Idempotent.

        StorageError if this thread itself is inside a transaction, or if others do not end.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
