"""A store in memory, with the semantics of the one on disk.

The writer changes the tables in place and notes, per transaction, what each changed key held
before. A reader that is older than a change looks into those notes first, so that its view
stands still; an aborted write is undone from them. Notes are dropped with their last reader.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Self

from sortedcontainers import SortedDict  # type: ignore[import-untyped]

from ..errors import StorageError
from .gate import Gate
from .interface import MAX_KEY_SIZE, Item, ReadTransaction, Store, WriteTransaction

# Per table: what a key held before the change; None where it was absent.
_Notes = dict[str, dict[bytes, bytes | None]]


class MemoryStore(Store):
    """Tables in memory; gone when the process is."""

    def __init__(self, tables: Sequence[str]) -> None:
        self._tables: dict[str, SortedDict] = {name: SortedDict() for name in tables}
        self._gate = Gate("memory")
        self._lock = threading.RLock()  # held for single operations only
        self._size = 0  # of all keys and values
        self._version = 0
        self._readers: dict[int, int] = {}  # version -> open readers
        self._notes: list[tuple[int, _Notes]] = []  # (version that the change leads to, notes)

    @property
    def path(self) -> None:
        return None

    def read(self) -> ReadTransaction:
        return _MemoryRead(self)

    def write(self) -> WriteTransaction:
        return _MemoryWrite(self)

    def size_on_disk(self) -> int:
        with self._lock:
            return self._size

    def sync(self) -> None:
        if self._gate.closed:
            raise StorageError("memory: the store is closed")

    def close(self) -> None:
        if self._gate.close():
            self._tables = {}
            self._size = 0

    def _table(self, name: str) -> SortedDict:
        try:
            return self._tables[name]
        except KeyError:
            raise StorageError(f"memory: no table {name!r}") from None

    def _count(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        """Note that a key's value has changed; None where it is absent."""
        if old is not None:
            self._size -= len(key) + len(old)
        if new is not None:
            self._size += len(key) + len(new)

    def _forget(self) -> None:
        """Drop the notes that no open reader is older than."""
        oldest = min(self._readers, default=self._version)
        keep = 0
        while keep < len(self._notes) and self._notes[keep][0] <= oldest:
            keep += 1
        del self._notes[:keep]


def _check_key(key: bytes) -> None:
    if not 0 < len(key) <= MAX_KEY_SIZE:
        raise StorageError(f"a key has 1 to {MAX_KEY_SIZE} bytes, not {len(key)}")


class _MemoryRead(ReadTransaction):
    __slots__ = ("_admitted", "_store", "_version")

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._version = -1  # not entered
        self._admitted = 0

    def __enter__(self) -> Self:
        if self._version >= 0:
            raise StorageError("memory: the transaction is open already")
        store = self._store
        self._admitted = store._gate.enter_read()
        with store._lock:
            self._version = store._version
            store._readers[self._version] = store._readers.get(self._version, 0) + 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        store = self._store
        with store._lock:
            left = store._readers[self._version] - 1
            if left:
                store._readers[self._version] = left
            else:
                del store._readers[self._version]
                store._forget()
            self._version = -1
        store._gate.leave_read(self._admitted)

    def _check_open(self) -> None:
        if self._version < 0:
            raise StorageError("memory: the transaction is not open")

    def _past(self, table: str) -> dict[bytes, bytes | None]:
        """What this view sees in place of what the table holds now."""
        past: dict[bytes, bytes | None] = {}
        for version, notes in reversed(self._store._notes):
            if version <= self._version:
                break
            past.update(notes.get(table, {}))  # the oldest note of a key is written last
        return past

    def get(self, table: str, key: bytes) -> bytes | None:
        self._check_open()
        _check_key(key)
        with self._store._lock:
            rows = self._store._table(table)
            for version, notes in self._store._notes:
                if version > self._version and key in (changed := notes.get(table, {})):
                    return changed[key]
            value: bytes | None = rows.get(key)
            return value

    def _select(
        self, table: str, start: bytes, stop: bytes | None, reverse: bool
    ) -> Iterator[Item]:
        """The items of an interval; the caller holds the lock."""
        self._check_open()
        rows = self._store._table(table)
        if stop is not None and start >= stop:
            return iter(())
        past = self._past(table)
        keys: Iterator[bytes] = rows.irange(start, stop, (True, False), reverse)
        if not past:
            return ((key, rows[key]) for key in keys)
        seen = {key: rows[key] for key in keys if key not in past}
        seen |= {
            key: value
            for key, value in past.items()
            if value is not None and key >= start and (stop is None or key < stop)
        }
        return iter(sorted(seen.items(), reverse=reverse))

    def range(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Item]:
        with self._store._lock:
            return list(islice(self._select(table, start, stop, reverse), limit))

    def values(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        limit: int | None = None,
    ) -> list[bytes]:
        return [value for _, value in self.range(table, start, stop, limit=limit)]

    def count(self, table: str) -> int:
        self._check_open()
        with self._store._lock:
            rows = self._store._table(table)
            gone = sum(
                (value is not None) - (key in rows) for key, value in self._past(table).items()
            )
            return len(rows) + gone


class _MemoryWrite(_MemoryRead, WriteTransaction):
    __slots__ = ("_undo",)

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self._undo: _Notes = {}

    def __enter__(self) -> Self:
        if self._version >= 0:
            raise StorageError("memory: the transaction is open already")
        store = self._store
        store._gate.enter_write()
        with store._lock:
            # Its own changes lead to this version, so none of them is hidden from it.
            self._version = store._version + 1
            self._undo = {}
            store._notes.append((self._version, self._undo))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        store = self._store
        with store._lock:
            if kind is None:
                store._version = self._version
            else:
                for table, notes in self._undo.items():
                    rows = store._tables[table]
                    for key, value in notes.items():
                        store._count(key, rows.get(key), value)
                        if value is None:
                            rows.pop(key, None)
                        else:
                            rows[key] = value
                store._notes.pop()
            store._forget()
            self._version = -1
        store._gate.leave_write()

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._check_open()
        _check_key(key)
        with self._store._lock:
            rows = self._store._table(table)
            old = rows.get(key)
            self._undo.setdefault(table, {}).setdefault(key, old)
            self._store._count(key, old, value)
            rows[bytes(key)] = bytes(value)

    def append(self, table: str, key: bytes, value: bytes) -> None:
        self._check_open()
        rows = self._store._table(table)
        if rows and key <= rows.keys()[-1]:
            raise StorageError(f"{table}: an appended key is not above all others")
        self.put(table, key, value)

    def delete(self, table: str, key: bytes) -> bool:
        self._check_open()
        _check_key(key)
        with self._store._lock:
            rows = self._store._table(table)
            if key not in rows:
                return False
            old = rows.pop(key)
            self._store._count(key, old, None)
            self._undo.setdefault(table, {}).setdefault(key, old)
            return True

    def delete_range(self, table: str, start: bytes = b"", stop: bytes | None = None) -> int:
        with self._store._lock:
            doomed = [key for key, _ in self._select(table, start, stop, reverse=False)]
            for key in doomed:
                self.delete(table, key)
            return len(doomed)
