"""The store in memory and the one on disk, through the same random lives, side by side."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from helpers.storage import open_test_store
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from moderntensor.errors import StorageError
from moderntensor.storage import ReadTransaction, Store, WriteTransaction

pytestmark = pytest.mark.long

TABLE = st.sampled_from(["a", "b"])
# Few different bytes, so that keys meet; the extremes, so that ends are met.
KEY = st.binary(min_size=1, max_size=3).map(lambda b: bytes(b"\x00\x01\x7f\xff"[x & 3] for x in b))
BOUND = st.one_of(st.just(b""), KEY)
VALUE = st.one_of(st.binary(max_size=4), st.integers(0, 9000).map(bytes))

MAX_READERS = 4


class Pair(RuleBasedStateMachine):
    """Every act is done to both; they must answer alike."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.stores: list[Store] = []
        self.writers: list[WriteTransaction] = []
        self.readers: list[list[ReadTransaction]] = []

    @initialize()
    def open(self) -> None:
        self.stores = [open_test_store(None), open_test_store(self.directory / "store")]

    def teardown(self) -> None:
        self.end_all()
        for store in self.stores:
            store.close()
        shutil.rmtree(self.directory)

    def end_all(self) -> None:
        self.finish(commit=False)
        while self.readers:
            for reader in self.readers.pop():
                reader.__exit__(None, None, None)

    def finish(self, commit: bool) -> None:
        error = None if commit else RuntimeError()
        for writer in self.writers:
            writer.__exit__(type(error) if error else None, error, None)
        self.writers = []

    def write(self, name: str, *arguments: Any) -> None:
        answers = []
        for writer in self.writers:
            try:
                answers.append(getattr(writer, name)(*arguments))
            except StorageError:
                answers.append(StorageError)
        assert answers[0] == answers[1]

    @precondition(lambda self: not self.writers)
    @rule()
    def begin(self) -> None:
        self.writers = [store.write().__enter__() for store in self.stores]

    @precondition(lambda self: self.writers)
    @rule(commit=st.booleans())
    def end(self, commit: bool) -> None:
        self.finish(commit)

    @precondition(lambda self: len(self.readers) < MAX_READERS)
    @rule()
    def begin_reading(self) -> None:
        self.readers.append([store.read().__enter__() for store in self.stores])

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def end_reading(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.readers) - 1))
        for reader in self.readers.pop(at):
            reader.__exit__(None, None, None)

    @precondition(lambda self: self.writers)
    @rule(table=TABLE, key=KEY, value=VALUE)
    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.write("put", table, key, value)

    @precondition(lambda self: self.writers)
    @rule(table=TABLE, key=KEY, value=VALUE)
    def append(self, table: str, key: bytes, value: bytes) -> None:
        self.write("append", table, key, value)

    @precondition(lambda self: self.writers)
    @rule(table=TABLE, key=KEY)
    def delete(self, table: str, key: bytes) -> None:
        self.write("delete", table, key)

    @precondition(lambda self: self.writers)
    @rule(table=TABLE, start=BOUND, stop=st.none() | BOUND)
    def delete_range(self, table: str, start: bytes, stop: bytes | None) -> None:
        self.write("delete_range", table, start, stop)

    @precondition(lambda self: self.stores)
    @rule()
    def reopen(self) -> None:
        """What is committed outlives the store on disk; what is not does not."""
        self.end_all()
        self.stores[1].close()
        self.stores[1] = open_test_store(self.directory / "store")

    @rule(
        table=TABLE,
        start=BOUND,
        stop=st.none() | BOUND,
        limit=st.none() | st.integers(0, 5),
        reverse=st.booleans(),
        key=KEY,
    )
    def look(
        self,
        *,
        table: str,
        start: bytes,
        stop: bytes | None,
        limit: int | None,
        reverse: bool,
        key: bytes,
    ) -> None:
        for memory, disk in [*self.readers, *([self.writers] if self.writers else [])]:
            assert memory.get(table, key) == disk.get(table, key)
            assert memory.range(table, start, stop, limit=limit, reverse=reverse) == disk.range(
                table, start, stop, limit=limit, reverse=reverse
            )
            assert memory.values(table, start, stop, limit) == disk.values(
                table, start, stop, limit
            )

    @invariant()
    def views_are_alike(self) -> None:
        for memory, disk in [*self.readers, *([self.writers] if self.writers else [])]:
            for table in ("a", "b"):
                rows = disk.range(table)
                assert memory.range(table) == rows
                assert memory.count(table) == disk.count(table) == len(rows)
                assert memory.last(table) == disk.last(table)


TestPair = pytest.mark.filterwarnings("error")(Pair.TestCase)
TestPair.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
