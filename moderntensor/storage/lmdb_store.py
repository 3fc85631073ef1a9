"""A store on disk: one LMDB environment.

LMDB keeps every committed state readable while the next one is written beside it, and moves to
it by writing one page. A process killed at any moment leaves the last commit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import lmdb

from ..errors import StorageError
from .directory import StoreDirectory
from .gate import Gate
from .interface import MAX_KEY_SIZE, Item, ReadTransaction, Store, WriteTransaction
from .lmdb_file import check_data_file

_PAGE: Final = 4096
_MAX_READERS: Final = 512  # slots for read transactions open at once; far above our threads
_LOCK_FILE: Final = (
    64 * _MAX_READERS + _PAGE
)  # bytes; a slot is one cache line, before them a header
_SPARE_TRANSACTIONS: Final = 32  # read transactions kept for reuse; beginning one costs a malloc
_SPARE_TABLES: Final = 16  # room for tables that a newer version has added

_Tables = dict[str, "lmdb._Database"]


class LmdbStore(Store):
    """Tables in a directory that this object holds alone.

    The map is address space, not memory or disk. It is doubled, at a moment when no
    transaction is open, once half of it is in use, up to `max_map_size`. A single transaction
    that overflows it is a StorageError and leaves nothing; the map has grown when the next one
    begins.
    """

    def __init__(
        self, path: Path, tables: Sequence[str], *, map_size: int, max_map_size: int, format_id: str
    ) -> None:
        """Open or make the store; sizes in bytes. StorageError if that is not possible."""
        self._path = path
        self._gate = Gate(str(path))
        self._max_map_size = max_map_size
        self._map_was_full = False
        self._directory = StoreDirectory(
            path, format_id, lambda new: _create(new, tables, min(map_size, max_map_size))
        )
        try:
            meta = check_data_file(self._directory.data)
            self._page_size = meta.page_size
            used = (meta.last_page + 1) * meta.page_size
            self._map_size = _map_size(used, map_size, max_map_size)
            self._env, self._tables = _open(self._directory.data, tables, self._map_size)
        except BaseException:
            self._directory.release()
            raise

    @property
    def path(self) -> Path:
        return self._path

    @property
    def map_size(self) -> int:
        """Bytes of address space that the data file may fill before the map has to grow."""
        return self._map_size

    def read(self) -> ReadTransaction:
        return _LmdbRead(self)

    def write(self) -> WriteTransaction:
        return _LmdbWrite(self)

    def size_on_disk(self) -> int:
        try:
            return self._directory.data.stat().st_size
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}") from error

    def sync(self) -> None:
        with self.read():
            try:
                self._env.sync(True)
            except lmdb.Error as error:
                raise StorageError(f"{self._path}: {error}") from error

    def close(self) -> None:
        if self._gate.close():
            self._env.close()
            self._directory.release()

    def _grow_if_needed(self) -> None:
        """Double the map if half of it is in use. Called by the writer, before it begins."""
        used = (self._env.info()["last_pgno"] + 1) * self._page_size
        if self._map_size >= self._max_map_size or not (
            self._map_was_full or 2 * used > self._map_size
        ):
            return
        if not self._gate.drain():
            if self._map_was_full:
                raise StorageError(f"{self._path}: the map is full, and readers stay open")
            return  # there is room yet; the next writer tries again
        try:
            size = min(2 * self._map_size, self._max_map_size)
            self._env.set_mapsize(size)
            self._map_size = size
            self._map_was_full = False
        except (lmdb.Error, OSError, MemoryError) as error:
            raise StorageError(f"{self._path}: the map cannot grow: {error}") from error
        finally:
            self._gate.undrain()

    def _failure(self, error: lmdb.Error) -> StorageError:
        if isinstance(error, lmdb.MapFullError):
            self._map_was_full = True
            return StorageError(
                f"{self._path}: the map of {self._map_size} bytes is full "
                f"(it may grow to {self._max_map_size})"
            )
        return StorageError(f"{self._path}: {error}")


def _map_size(used: int, map_size: int, max_map_size: int) -> int:
    """The map to open with: as asked for, or as much as the growth rule would have made it."""
    size = min(map_size, max_map_size)
    while 2 * used > size and size < max_map_size:
        size = min(2 * size, max_map_size)
    return max(size, used) // _PAGE * _PAGE


def _open(path: Path, tables: Sequence[str], map_size: int) -> tuple[lmdb.Environment, _Tables]:
    try:
        _reserve_lock_file(Path(f"{path}-lock"))
        env = lmdb.open(
            str(path),
            subdir=False,
            map_size=map_size,
            max_dbs=len(tables) + _SPARE_TABLES,
            max_readers=_MAX_READERS,
            max_spare_txns=_SPARE_TRANSACTIONS,
            mode=0o600,
            lib_version=0,  # the file format that `lmdb_file` knows
        )
        try:
            with env.begin(write=True) as txn:
                return env, {name: env.open_db(name.encode(), txn=txn) for name in tables}
        except BaseException:
            env.close()
            raise
    except (lmdb.Error, OSError, MemoryError) as error:
        raise StorageError(f"{path}: {error}") from error


def _reserve_lock_file(path: Path) -> None:
    """Give LMDB's lock file its blocks on disk. LMDB maps it, sparse, and writes to it whenever
    a reader takes a new slot: on a full disk, each missing block would be a SIGBUS."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, _LOCK_FILE)
        elif os.fstat(fd).st_size < _LOCK_FILE:
            os.pwrite(fd, bytes(_LOCK_FILE), 0)
    finally:
        os.close(fd)


def _create(path: Path, tables: Sequence[str], map_size: int) -> None:
    env, _ = _open(path, tables, map_size)
    env.close()


class _LmdbRead(ReadTransaction):
    __slots__ = ("_admitted", "_store", "_tables", "_txn")

    def __init__(self, store: LmdbStore) -> None:
        self._store = store
        self._tables = store._tables
        self._txn: lmdb.Transaction[bytes] | None = None
        self._admitted = 0

    def __enter__(self) -> Self:
        store = self._store
        if self._txn is not None:
            raise StorageError(f"{store.path}: the transaction is open already")
        self._admitted = store._gate.enter_read()
        try:
            self._txn = store._env.begin()
        except BaseException as error:
            store._gate.leave_read(self._admitted)
            if isinstance(error, lmdb.Error):
                raise store._failure(error) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._txn is not None:
            self._txn.abort()
            self._txn = None
            self._store._gate.leave_read(self._admitted)

    def _table(self, name: str) -> lmdb._Database:
        try:
            return self._tables[name]
        except KeyError:
            raise StorageError(f"{self._store.path}: no table {name!r}") from None

    def _cursor(self, table: str) -> lmdb.Cursor[bytes]:
        if self._txn is None:
            raise StorageError(f"{self._store.path}: the transaction is not open")
        return self._txn.cursor(self._table(table))

    def get(self, table: str, key: bytes) -> bytes | None:
        if not 0 < len(key) <= MAX_KEY_SIZE:  # LMDB would look up a longer one, and find nothing
            raise StorageError(f"a key has 1 to {MAX_KEY_SIZE} bytes, not {len(key)}")
        try:
            return self._txn.get(key, None, self._tables[table])  # type: ignore[union-attr]
        except (AttributeError, KeyError):
            self._cursor(table)  # says which of the two it is
            raise
        except lmdb.Error as error:
            raise self._store._failure(error) from error

    def range(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Item]:
        if stop is not None and start >= stop:
            return []
        try:
            with self._cursor(table) as cursor:
                if reverse:
                    return _descending(cursor, start, stop, limit)
                return _ascending(cursor, start, stop, limit)
        except lmdb.Error as error:
            raise self._store._failure(error) from error

    def values(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        limit: int | None = None,
    ) -> list[bytes]:
        if stop is not None:
            return [value for _, value in self.range(table, start, stop, limit=limit)]
        try:
            with self._cursor(table) as cursor:
                if not (cursor.set_range(start) if start else cursor.first()):
                    return []
                # No key is made where none is looked at: that is half of the time.
                return list(islice(cursor.iternext(keys=False), limit))
        except lmdb.Error as error:
            raise self._store._failure(error) from error

    def count(self, table: str) -> int:
        if self._txn is None:
            raise StorageError(f"{self._store.path}: the transaction is not open")
        try:
            return self._txn.stat(self._table(table))["entries"]
        except lmdb.Error as error:
            raise self._store._failure(error) from error


def _ascending(
    cursor: lmdb.Cursor[bytes], start: bytes, stop: bytes | None, limit: int | None
) -> list[Item]:
    if not (cursor.set_range(start) if start else cursor.first()):
        return []
    items = islice(cursor.iternext(), limit)
    if stop is None:
        return list(items)
    found = []
    for item in items:
        if item[0] >= stop:
            break
        found.append(item)
    return found


def _descending(
    cursor: lmdb.Cursor[bytes], start: bytes, stop: bytes | None, limit: int | None
) -> list[Item]:
    # The last key below `stop`; where all keys are below it, the last of all.
    if not (cursor.prev() if stop is not None and cursor.set_range(stop) else cursor.last()):
        return []
    found = []
    for item in islice(cursor.iterprev(), limit):
        if item[0] < start:
            break
        found.append(item)
    return found


class _LmdbWrite(_LmdbRead, WriteTransaction):
    __slots__ = ()

    def __enter__(self) -> Self:
        store = self._store
        if self._txn is not None:
            raise StorageError(f"{store.path}: the transaction is open already")
        store._gate.enter_write()
        try:
            store._grow_if_needed()
            self._txn = store._env.begin(write=True)
        except BaseException as error:
            store._gate.leave_write()
            if isinstance(error, lmdb.Error):
                raise store._failure(error) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        txn, self._txn = self._txn, None
        if txn is None:
            return
        try:
            if kind is None:
                txn.commit()
            else:
                txn.abort()
        except lmdb.Error as failure:
            raise self._store._failure(failure) from failure
        finally:
            self._store._gate.leave_write()

    def put(self, table: str, key: bytes, value: bytes) -> None:
        try:
            self._txn.put(key, value, db=self._tables[table])  # type: ignore[union-attr]
        except (AttributeError, KeyError):
            self._cursor(table)  # says which of the two it is
            raise
        except lmdb.Error as error:
            raise self._store._failure(error) from error

    def put_many(self, table: str, items: Sequence[Item]) -> None:
        try:
            with self._cursor(table) as cursor:
                cursor.putmulti(items)
        except lmdb.Error as error:
            raise self._store._failure(error) from error

    def append(self, table: str, key: bytes, value: bytes) -> None:
        if self._txn is None:
            raise StorageError(f"{self._store.path}: the transaction is not open")
        try:
            appended = self._txn.put(key, value, append=True, db=self._table(table))
        except lmdb.Error as error:
            raise self._store._failure(error) from error
        if not appended:
            raise StorageError(f"{table}: an appended key is not above all others")

    def append_many(self, table: str, items: Sequence[Item]) -> None:
        try:
            with self._cursor(table) as cursor:
                _, appended = cursor.putmulti(items, append=True)
        except lmdb.Error as error:
            raise self._store._failure(error) from error
        if appended != len(items):
            raise StorageError(f"{table}: an appended key is not above all others")

    def delete(self, table: str, key: bytes) -> bool:
        if self._txn is None:
            raise StorageError(f"{self._store.path}: the transaction is not open")
        if not 0 < len(key) <= MAX_KEY_SIZE:
            raise StorageError(f"a key has 1 to {MAX_KEY_SIZE} bytes, not {len(key)}")
        try:
            return self._txn.delete(key, db=self._table(table))
        except lmdb.Error as error:
            raise self._store._failure(error) from error

    def delete_range(self, table: str, start: bytes = b"", stop: bytes | None = None) -> int:
        deleted = 0
        if stop is not None and start >= stop:
            return 0
        if not start and stop is None:
            return self._empty(table)
        try:
            with self._cursor(table) as cursor:
                here = cursor.set_range(start) if start else cursor.first()
                while here and (stop is None or cursor.key() < stop):
                    cursor.delete()
                    deleted += 1
                    here = bool(cursor.key())  # it stands on the next one, or past the end
        except lmdb.Error as error:
            raise self._store._failure(error) from error
        return deleted

    def _empty(self, table: str) -> int:
        """Remove all keys: by their pages, of which the lowest are not even looked at."""
        count = self.count(table)
        if count and self._txn is not None:
            try:
                self._txn.drop(self._table(table), delete=False)
            except lmdb.Error as error:
                raise self._store._failure(error) from error
        return count
