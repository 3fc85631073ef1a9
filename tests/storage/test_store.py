"""What every store promises, held against both of them, and against that of an example."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.storage import fill, foreign_store, open_test_store

from moderntensor.errors import StorageError
from moderntensor.storage import MemoryStore, ReadTransaction, Store, WriteTransaction


@pytest.fixture(params=["memory", "lmdb", "somebody else's"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "somebody else's":
        with foreign_store(tmp_path / "store") as opened:
            yield opened
        return
    with open_test_store(tmp_path / "store" if request.param == "lmdb" else None) as opened:
        yield opened


def put(store: Store, table: str, **rows: bytes) -> None:
    with store.write() as txn:
        for key, value in rows.items():
            txn.put(table, key.encode(), value)


def test_put_get_delete(store: Store) -> None:
    with store.write() as txn:
        txn.put("a", b"k", b"1")
        txn.put("a", b"k", b"2")
        txn.put("b", b"k", b"")
        assert txn.get("a", b"k") == b"2"
        assert txn.delete("b", b"nothing") is False
    with store.read() as txn:
        assert (txn.get("a", b"k"), txn.get("b", b"k"), txn.get("a", b"x")) == (b"2", b"", None)
    with store.write() as txn:
        assert txn.delete("a", b"k") is True
        assert txn.delete("a", b"k") is False
        assert txn.get("a", b"k") is None


def test_ranges_are_half_open_and_ordered_as_bytes(store: Store) -> None:
    keys = [b"\x00", b"\x01", b"\x01\x00", b"\x7f", b"\x80", b"\xff", b"\xff\xff"]
    with store.write() as txn:
        for key in reversed(keys):
            txn.put("a", key, key * 2)
    with store.read() as txn:
        assert [key for key, _ in txn.range("a")] == keys
        assert [key for key, _ in txn.range("a", reverse=True)] == keys[::-1]
        assert [key for key, _ in txn.range("a", b"\x01", b"\x80")] == keys[1:4]
        assert [key for key, _ in txn.range("a", b"\x01", b"\x80", reverse=True)] == keys[3:0:-1]
        assert [key for key, _ in txn.range("a", b"\x02", b"\x90")] == keys[3:5]
        assert [key for key, _ in txn.range("a", b"\x02", b"\x90", reverse=True)] == keys[4:2:-1]
        assert txn.range("a", b"\x80", b"\x80") == txn.range("a", b"\x80", b"\x01") == []
        assert txn.range("a", b"\xff\xff\xff") == []
        assert txn.range("a", b"", b"\x00") == txn.range("a", b"", b"\x00", reverse=True) == []
        assert txn.range("a", limit=2) == [(keys[0], keys[0] * 2), (keys[1], keys[1] * 2)]
        assert [key for key, _ in txn.range("a", reverse=True, limit=2)] == keys[:-3:-1]
        assert txn.range("a", limit=0) == txn.range("b") == txn.range("b", reverse=True) == []
        assert txn.values("a", b"\x80", None, 2) == [b"\x80\x80", b"\xff\xff"]
        assert (txn.count("a"), txn.count("b")) == (7, 0)
        assert txn.first("a") == (keys[0], keys[0] * 2)
        assert txn.last("a") == (keys[-1], keys[-1] * 2)
        assert txn.first("b") is txn.last("b") is None


def test_append_takes_ascending_keys_only(store: Store) -> None:
    with store.write() as txn:
        txn.append("a", b"1", b"")
        txn.append("a", b"2", b"x")
        for key in (b"2", b"1", b"0"):
            with pytest.raises(StorageError, match="above"):
                txn.append("a", key, b"")
        txn.append("a", b"3", b"y")
    with store.read() as txn:
        assert txn.range("a") == [(b"1", b""), (b"2", b"x"), (b"3", b"y")]


def test_delete_range(store: Store) -> None:
    rows = fill(store, 50)
    with store.write() as txn:
        assert txn.delete_range("a", rows[10][0], rows[20][0]) == 10
        assert txn.delete_range("a", rows[10][0], rows[20][0]) == 0
        assert txn.delete_range("a", rows[30][0], rows[5][0]) == 0
        assert txn.range("a") == rows[:10] + rows[20:]
        assert txn.delete_range("a", rows[45][0]) == 5
        assert txn.range("a") == rows[:10] + rows[20:45]
        assert txn.delete_range("a") == 35
        assert txn.range("a") == []


def test_an_aborted_write_leaves_nothing(store: Store) -> None:
    put(store, "a", kept=b"1", gone=b"2")
    with pytest.raises(RuntimeError), store.write() as txn:
        txn.put("a", b"kept", b"changed")
        txn.put("a", b"new", b"3")
        txn.delete("a", b"gone")
        txn.put("a", b"gone", b"again")
        txn.delete_range("a", b"kept")
        raise RuntimeError
    with store.read() as txn:
        assert txn.range("a") == [(b"gone", b"2"), (b"kept", b"1")]


def test_a_reader_sees_the_moment_it_began(store: Store) -> None:
    put(store, "a", b=b"1", c=b"1", d=b"1")
    with store.read() as before:
        put(store, "a", a=b"2", c=b"2")
        with store.read() as between:
            with store.write() as txn:
                txn.delete("a", b"b")
                txn.put("a", b"c", b"3")
                txn.put("a", b"e", b"3")
                # Not even the uncommitted is to be seen.
                assert between.range("a") == [
                    (b"a", b"2"),
                    (b"b", b"1"),
                    (b"c", b"2"),
                    (b"d", b"1"),
                ]
                with store.read() as during:
                    assert during.count("a") == 4
            assert before.range("a") == [(b"b", b"1"), (b"c", b"1"), (b"d", b"1")]
            assert before.range("a", b"c", reverse=True) == [(b"d", b"1"), (b"c", b"1")]
            assert before.range("a", b"a", b"c", limit=1) == [(b"b", b"1")]
            assert (before.get("a", b"a"), before.get("a", b"c"), before.count("a")) == (
                None,
                b"1",
                3,
            )
            assert between.get("a", b"b") == b"1"
            assert (between.get("a", b"e"), between.count("a")) == (None, 4)
            assert between.last("a") == (b"d", b"1")
    with store.read() as after:
        assert after.range("a") == [(b"a", b"2"), (b"c", b"3"), (b"d", b"1"), (b"e", b"3")]


@pytest.mark.parametrize("key", [b"", bytes(512)])
def test_keys_have_1_to_511_bytes(store: Store, key: bytes) -> None:
    for act in (
        lambda txn: txn.get("a", key),
        lambda txn: txn.put("a", key, b""),
        lambda txn: txn.delete("a", key),
    ):
        with pytest.raises(StorageError), store.write() as txn:
            act(txn)
    with store.write() as txn:
        txn.put("a", bytes(511), b"longest")
        assert txn.last("a") == (bytes(511), b"longest")


def test_an_unknown_table_is_named(store: Store) -> None:
    with store.write() as txn:
        for act in (
            lambda: txn.get("nope", b"k"),
            lambda: txn.put("nope", b"k", b""),
            lambda: txn.range("nope"),
            lambda: txn.count("nope"),
            lambda: txn.delete_range("nope"),
        ):
            with pytest.raises(StorageError, match="nope"):
                act()


def use_after_end(txn: ReadTransaction) -> None:
    with pytest.raises(StorageError):
        txn.get("a", b"k")
    with pytest.raises(StorageError):
        txn.range("a")
    with pytest.raises(StorageError):
        txn.count("a")
    if isinstance(txn, WriteTransaction):
        with pytest.raises(StorageError):
            txn.put("a", b"k", b"")
        with pytest.raises(StorageError):
            txn.delete("a", b"k")
        with pytest.raises(StorageError):
            txn.append("a", b"k", b"")


def test_a_transaction_is_over_with_its_block(store: Store) -> None:
    reader, writer = store.read(), store.write()
    use_after_end(reader)
    use_after_end(writer)
    with reader, writer:
        with pytest.raises(StorageError, match="already"), reader:
            pass
        with pytest.raises(StorageError), writer:
            pass
    use_after_end(reader)
    use_after_end(writer)
    with store.write():  # the writer's place is free again
        pass


def test_one_thread_cannot_write_twice_at_once(store: Store) -> None:
    with store.write() as txn:
        txn.put("a", b"k", b"1")
        with pytest.raises(StorageError, match="this thread"), store.write():
            pass
        txn.put("a", b"l", b"2")
    with store.read() as txn:
        assert txn.count("a") == 2


def test_closing(store: Store) -> None:
    with store.read(), pytest.raises(StorageError, match="inside"):
        store.close()
    with store.write() as txn:
        with pytest.raises(StorageError, match="inside"):
            store.close()
        txn.put("a", b"k", b"still open")
    store.close()
    store.close()
    for transaction in (store.read, store.write):
        with pytest.raises(StorageError, match="closed"), transaction():
            pass
    with pytest.raises(StorageError):
        store.sync()


def test_close_waits_for_another_thread_and_turns_away_those_who_wait(store: Store) -> None:
    inside, leave = threading.Event(), threading.Event()
    seen: list[object] = []

    def read() -> None:
        with store.write() as txn:
            txn.put("a", b"k", b"v")
            inside.set()
            leave.wait(10)
            seen.append(txn.get("a", b"k"))

    def queue() -> None:
        try:
            with store.write():
                seen.append("entered")
        except StorageError:
            leave.set()

    threads = [threading.Thread(target=read)]
    threads[0].start()
    assert inside.wait(10)
    threads.append(threading.Thread(target=queue))
    threads[1].start()
    store.close()
    for thread in threads:
        thread.join(10)
    assert seen == [b"v"]


def test_threads_count_together(store: Store) -> None:
    """Writers take turns; a reader's two looks at one moment agree."""
    put(store, "a", x=b"\0", y=b"\0")
    faults: list[str] = []

    def add() -> None:
        for _ in range(25):
            with store.write() as txn:
                value = (txn.get("a", b"x") or b"")[0] + 1
                txn.put("a", b"x", bytes([value]))
                txn.put("a", b"y", bytes([value]))

    def look() -> None:
        last = -1
        for _ in range(50):
            with store.read() as txn:
                x, y = txn.get("a", b"x"), txn.values("a", b"y")[0]
                if x != y or (x or b"")[0] < last:
                    faults.append(f"{x!r} {y!r} after {last}")
                last = y[0]

    threads = [threading.Thread(target=target) for target in (add, add, add, add, look, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not faults
    with store.read() as txn:
        assert txn.get("a", b"x") == bytes([100])


def test_size(store: Store) -> None:
    before = store.size_on_disk()
    fill(store, 1000)
    store.sync()
    assert store.size_on_disk() >= before + 100_000


def test_the_size_in_memory_is_counted_and_not_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(["a"])
    with store.write() as txn:
        txn.put("a", b"x", bytes(10))
        txn.put("a", b"y", bytes(20))
        txn.put("a", b"x", bytes(5))
    with pytest.raises(KeyError), store.write() as txn:
        txn.put("a", b"x", bytes(99))
        txn.put("a", b"z", bytes(99))
        txn.delete("a", b"y")
        raise KeyError
    assert store.size_on_disk() == 1 + 5 + 1 + 20
    with store.write() as txn:
        assert txn.delete_range("a", b"y") == 1
    monkeypatch.setattr(store, "_tables", None)  # a chain's worth of rows would be walked
    assert store.size_on_disk() == 1 + 5
