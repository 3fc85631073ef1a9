"""The map grows only while no transaction is open, and has an end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from helpers.storage import fill, open_test_store

from moderntensor.errors import StorageError
from moderntensor.storage import LmdbStore, open_store
from moderntensor.storage import gate as gate_module

MIB = 1 << 20


def open_small(path: Path, **options: Any) -> LmdbStore:
    store = open_test_store(path, **({"map_size": MIB, "max_map_size": 64 * MIB} | options))
    assert isinstance(store, LmdbStore)
    return store


def put(store: LmdbStore, key: int, size: int) -> None:
    with store.write() as txn:
        txn.put("a", key.to_bytes(4, "big"), bytes([key % 256]) * size)


def test_it_grows_as_it_fills(tmp_path: Path) -> None:
    with open_small(tmp_path / "s") as store:
        for i in range(80):
            put(store, i, 100_000)
        assert store.map_size >= 8 * MIB
        assert store.size_on_disk() > 8_000_000
    with open_small(tmp_path / "s") as store:  # opened with a map smaller than what it holds
        put(store, 80, 100_000)
        with store.read() as txn:
            assert [value[0] for value in txn.values("a")] == list(range(81))


def test_a_transaction_too_large_for_it_fails_whole_and_fits_after_growth(tmp_path: Path) -> None:
    with open_small(tmp_path / "s") as store:
        rows = fill(store, 10)
        for _ in range(4):
            try:
                with store.write() as txn:
                    for i in range(20):
                        txn.put("b", bytes([i]), bytes(100_000))
                break
            except StorageError as error:
                assert "full" in str(error)
                with store.read() as reader:
                    assert (reader.range("a"), reader.count("b")) == (rows, 0)
        with store.read() as reader:
            assert (reader.range("a"), reader.count("b")) == (rows, 20)


def test_a_full_map_at_its_bound_is_an_error_and_the_rest_stays(tmp_path: Path) -> None:
    with open_small(tmp_path / "s", max_map_size=2 * MIB) as store:
        written = 0
        with pytest.raises(StorageError, match="full"):
            for written in range(100):
                put(store, written, 100_000)
        assert 10 < written < 25
        assert store.map_size == 2 * MIB
        with pytest.raises(StorageError, match="full"):
            put(store, written, 100_000)
        with store.read() as txn:
            assert txn.count("a") == written
    with open_small(tmp_path / "s", max_map_size=4 * MIB) as store:
        put(store, written, 100_000)


def test_it_waits_for_readers_and_keeps_new_ones_out(tmp_path: Path) -> None:
    with open_small(tmp_path / "s") as store:
        rows = fill(store, 6000)  # over half of the map
        begun, end = threading.Event(), threading.Event()
        seen: list[object] = []

        def read() -> None:
            with store.read() as txn:
                begun.set()
                end.wait(10)
                seen.append(("grown", store.map_size > MIB))
                with store.read() as nested:  # it is being waited for, so it may go on
                    seen.append(nested.range("a") == rows)
                seen.append(txn.range("a") == rows)

        def write() -> None:
            with store.write() as txn:
                seen.append(("writer", store.map_size > MIB))
                txn.put("b", b"k", b"v")

        def read_late() -> None:
            with store.read() as txn:
                seen.append(("late", store.map_size > MIB and txn.range("a") == rows))

        reader, writer = threading.Thread(target=read), threading.Thread(target=write)
        reader.start()
        assert begun.wait(10)
        writer.start()
        while not store._gate._draining:  # the writer waits at the gate
            assert writer.is_alive()
        late = threading.Thread(target=read_late)
        late.start()
        end.set()
        for thread in (reader, writer, late):
            thread.join(10)
        assert seen[:3] == [("grown", False), True, True]
        assert sorted(seen[3:], key=str) == [("late", True), ("writer", True)]


def test_a_reader_of_the_same_thread_puts_growth_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "DRAIN_SECONDS", 0.01)
    with open_small(tmp_path / "s") as store:
        rows = fill(store, 6000)
        with store.read() as reader:
            with store.write() as txn:  # there is room yet
                txn.put("b", b"k", b"v")
            assert store.map_size == MIB
            with pytest.raises(StorageError, match="full"), store.write() as txn:
                txn.put("b", b"large", bytes(2 * MIB))
            with pytest.raises(StorageError, match="readers"), store.write():
                pass
            assert reader.range("a") == rows
        with store.write() as txn:
            txn.put("b", b"l", b"v")
        assert store.map_size == 2 * MIB


def test_a_reader_that_stays_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "DRAIN_SECONDS", 0.01)
    with open_small(tmp_path / "s") as store:
        fill(store, 6000)
        begun, end = threading.Event(), threading.Event()

        def read() -> None:
            with store.read():
                begun.set()
                end.wait(10)

        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(10)
        put(store, 1, 10)
        with pytest.raises(StorageError, match="stay open"):
            store.close()
        put(store, 2, 10)  # it was not closed half-way
        assert store.map_size == MIB
        end.set()
        reader.join(10)
        put(store, 3, 10)
        assert store.map_size == 2 * MIB


def test_tables_can_be_added(tmp_path: Path) -> None:
    open_store(tmp_path / "s", ["a"], map_size=MIB).close()
    with open_store(tmp_path / "s", ["a", "new"], map_size=MIB) as store, store.write() as txn:
        txn.put("new", b"k", b"v")
    with open_store(tmp_path / "s", ["a"], map_size=MIB) as store, store.read() as txn:
        assert txn.count("a") == 0
