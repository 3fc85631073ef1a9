"""A store of one's own: the tables of a chain in an SQLite file.

Whatever keeps the promises of `moderntensor.storage.Store` can hold a chain. This one passes the
tests of the package's own stores. Run it: ``python examples/sqlite_store.py``
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from moderntensor import Block, BlockValidator, ChainConfig, KeyPair, StateDB
from moderntensor.blockchain.tables import TABLES
from moderntensor.errors import StorageError
from moderntensor.storage import MAX_KEY_SIZE, Gate, ReadTransaction, Store, WriteTransaction

Item = tuple[bytes, bytes]
SPARE_CONNECTIONS = 8  # kept open for the next transactions


class SqliteStore(Store):
    """Tables in one SQLite file in WAL mode: readers see the last commit beside one writer."""

    def __init__(self, path: Path, tables: Sequence[str]) -> None:
        self._path = path
        self._gate = Gate(str(path))  # counts who is inside, lets one writer in, closes
        self._spare: list[sqlite3.Connection] = []
        self.queries: dict[str, str] = {name: f'"{name}"' for name in tables}
        with self.read() as probe:  # a file that cannot be opened is found out here
            assert isinstance(probe, SqliteRead)
            probe.run("PRAGMA user_version")
        with self.write() as txn:
            assert isinstance(txn, SqliteWrite)
            for table in self.queries.values():
                txn.run(f"CREATE TABLE IF NOT EXISTS {table} (k BLOB PRIMARY KEY, v) WITHOUT ROWID")

    @property
    def path(self) -> Path:
        return self._path.parent

    @property
    def gate(self) -> Gate:
        return self._gate

    def read(self) -> ReadTransaction:
        return SqliteRead(self)

    def write(self) -> WriteTransaction:
        return SqliteWrite(self)

    def size_on_disk(self) -> int:
        files = (self._path, self._path.with_name(f"{self._path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def sync(self) -> None:
        with self.read():  # commits are forced to disk already (synchronous=FULL)
            pass

    def close(self) -> None:
        if self._gate.close():
            while self._spare:
                self._spare.pop().close()

    def take(self) -> sqlite3.Connection:
        """A connection for one transaction."""
        try:
            return self._spare.pop()
        except IndexError:
            pass
        try:
            found = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            found.execute("PRAGMA journal_mode=WAL")
            found.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: {error}") from error
        return found

    def give_back(self, connection: sqlite3.Connection) -> None:
        """Keep it for the next one."""
        if len(self._spare) < SPARE_CONNECTIONS:
            self._spare.append(connection)
        else:
            connection.close()


class SqliteRead(ReadTransaction):
    """A snapshot: SQLite's begins with the first read, so one is made when it is entered."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._connection: sqlite3.Connection | None = None
        self._admitted = 0

    def __enter__(self) -> Self:
        if self._connection is not None:
            raise StorageError("sqlite: the transaction is open already")
        self._admitted = self._store.gate.enter_read()
        try:
            self._begin("BEGIN")
        except BaseException:
            self._store.gate.leave_read(self._admitted)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._end("ROLLBACK")
        finally:
            self._store.gate.leave_read(self._admitted)

    def _begin(self, how: str) -> None:
        self._connection = self._store.take()
        self.run(how)
        self.run("SELECT 1 FROM sqlite_master")

    def _end(self, how: str) -> None:
        connection = self._connection
        assert connection is not None
        try:
            self.run(how)
        except StorageError:
            connection.rollback()
            raise
        finally:
            self._connection = None
            self._store.give_back(connection)

    def run(self, query: str, *values: object) -> sqlite3.Cursor:
        """One statement; every failure is a StorageError."""
        if self._connection is None:
            raise StorageError("sqlite: the transaction is not open")
        try:
            return self._connection.execute(query, values)
        except sqlite3.Error as error:
            raise StorageError(f"sqlite: {error}") from error

    def table(self, name: str) -> str:
        """Its name, quoted."""
        try:
            return self._store.queries[name]
        except KeyError:
            raise StorageError(f"sqlite: no table {name!r}") from None

    def get(self, table: str, key: bytes) -> bytes | None:
        check_key(key)
        row = self.run(f"SELECT v FROM {self.table(table)} WHERE k = ?", key).fetchone()  # noqa: S608
        return None if row is None else bytes(row[0])

    def range(
        self,
        table: str,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Item]:
        where, values = interval(start, stop)
        order = "DESC" if reverse else "ASC"
        query = f"SELECT k, v FROM {self.table(table)} {where} ORDER BY k {order} LIMIT ?"  # noqa: S608
        return self.run(query, *values, -1 if limit is None else limit).fetchall()

    def values(
        self, table: str, start: bytes = b"", stop: bytes | None = None, limit: int | None = None
    ) -> list[bytes]:
        return [value for _, value in self.range(table, start, stop, limit=limit)]

    def count(self, table: str) -> int:
        return int(self.run(f"SELECT count(*) FROM {self.table(table)}").fetchone()[0])  # noqa: S608


class SqliteWrite(SqliteRead, WriteTransaction):
    """The one writer."""

    def __enter__(self) -> Self:
        if self._connection is not None:
            raise StorageError("sqlite: the transaction is open already")
        self._store.gate.enter_write()
        try:
            self._begin("BEGIN IMMEDIATE")
        except BaseException:
            self._store.gate.leave_write()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._end("COMMIT" if kind is None else "ROLLBACK")
        finally:
            self._store.gate.leave_write()

    def put(self, table: str, key: bytes, value: bytes) -> None:
        check_key(key)
        self.run(f"INSERT OR REPLACE INTO {self.table(table)} VALUES (?, ?)", key, value)  # noqa: S608

    def append(self, table: str, key: bytes, value: bytes) -> None:
        last = self.last(table)
        if last is not None and key <= last[0]:
            raise StorageError(f"{table}: an appended key is not above all others")
        self.put(table, key, value)

    def delete(self, table: str, key: bytes) -> bool:
        check_key(key)
        return self.run(f"DELETE FROM {self.table(table)} WHERE k = ?", key).rowcount > 0  # noqa: S608

    def delete_range(self, table: str, start: bytes = b"", stop: bytes | None = None) -> int:
        where, values = interval(start, stop)
        return self.run(f"DELETE FROM {self.table(table)} {where}", *values).rowcount  # noqa: S608


def check_key(key: bytes) -> None:
    """Keys have 1 to 511 bytes in every store."""
    if not 0 < len(key) <= MAX_KEY_SIZE:
        raise StorageError(f"a key has 1 to {MAX_KEY_SIZE} bytes, not {len(key)}")


def interval(start: bytes, stop: bytes | None) -> tuple[str, tuple[bytes, ...]]:
    """[start, stop) as a condition. SQLite compares BLOBs as unsigned bytes, as is asked for."""
    if stop is None:
        return "WHERE k >= ?", (start,)
    return "WHERE k >= ? AND k < ?", (start, stop)


def main() -> None:
    """A chain in such a store takes a block, and has it when it is opened again."""
    key = KeyPair.generate()
    config = ChainConfig(
        chain_id=7,
        timestamp=int(time.time()) - 60,
        block_time=1,
        validators=(key.public_key,),
        alloc={key.address: 1_000_000},
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "chain.sqlite"
        with SqliteStore(path, TABLES) as store:
            chain = BlockValidator(StateDB(store), config).chain
            draft = chain.draft_block(key.public_key, config.timestamp + 1, [])
            chain.import_block(Block(header=draft.header.sign(key), transactions=()))
            print(f"block {chain.head.height} is in {path.name}, {store.size_on_disk():,} bytes")
        with SqliteStore(path, TABLES) as store:
            chain = BlockValidator(StateDB(store), config).chain
            account = chain.get_account(key.address)
            print(f"opened again: block {chain.head.height}, balance {account.balance:,}")


if __name__ == "__main__":
    main()
