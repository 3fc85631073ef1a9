"""Many keys put or appended at once: what one call for each of them does, on both stores."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.storage import open_test_store

from moderntensor.errors import StorageError


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_put_many_equals_many_puts(kind: str, tmp_path: Path) -> None:
    with open_test_store(tmp_path / "store" if kind == "lmdb" else None) as store:
        with store.write() as txn:
            txn.put("a", b"2", b"old")
            txn.put_many("a", [(b"3", b"c"), (b"1", b"a"), (b"2", b"b"), (b"1", b"")])
            txn.put_many("b", [])
            assert txn.range("a") == [(b"1", b""), (b"2", b"b"), (b"3", b"c")]
        with store.read() as txn:
            assert txn.count("a") == 3
            assert txn.count("b") == 0


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_put_many_fails_as_put_does_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    with open_test_store(tmp_path / "store" if kind == "lmdb" else None) as store:
        for table, key in (("a", b""), ("a", bytes(512)), ("none", b"k")):
            with pytest.raises(StorageError), store.write() as txn:
                txn.put_many(table, [(b"good", b"1"), (key, b"2")])
        closed = store.write()
        with pytest.raises(StorageError, match="not open"):
            closed.put_many("a", [(b"k", b"1")])
        with store.read() as txn:
            assert txn.count("a") == 0


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_append_many_equals_many_appends(kind: str, tmp_path: Path) -> None:
    with open_test_store(tmp_path / "store" if kind == "lmdb" else None) as store:
        with store.write() as txn:
            txn.append_many("a", [(b"1", b"a"), (b"2", b"b")])
            txn.append_many("a", [])
            txn.append_many("a", [(b"3", b"c")])
            assert txn.range("a") == [(b"1", b"a"), (b"2", b"b"), (b"3", b"c")]
        for wrong in (
            [(b"3", b"again")],
            [(b"2", b"below")],
            [(b"4", b"good"), (b"4", b"twice")],
            [(b"5", b"good"), (b"4", b"below")],
        ):
            with pytest.raises(StorageError, match="above all others"), store.write() as txn:
                txn.append_many("a", wrong)
        for table, key in (("a", bytes(512)), ("none", b"k")):
            with pytest.raises(StorageError), store.write() as txn:
                txn.append_many(table, [(b"8", b"1"), (b"9" + key, b"2")])
        closed = store.write()
        with pytest.raises(StorageError, match="not open"):
            closed.append_many("a", [(b"k", b"1")])
        with store.read() as txn:
            assert txn.count("a") == 3
