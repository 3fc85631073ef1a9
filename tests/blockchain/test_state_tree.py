"""The state tree in the store against the engine's, which builds it whole."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor._pure import merkle as pure
from moderntensor.backend import merkle
from moderntensor.blockchain.state_tree import NODE_LIMIT, StateTree, prove, state_root
from moderntensor.blockchain.tables import ACCOUNTS, NODES, TABLES, node_key
from moderntensor.errors import StorageError
from moderntensor.storage import ReadTransaction, Store, open_store

Changes = Mapping[bytes, bytes | None]


def account(number: int) -> bytes:
    return number.to_bytes(8, "big") + bytes(80)


def packed(state: Changes) -> bytes:
    rows = sorted((sha256(address).digest(), value) for address, value in state.items() if value)
    return b"".join(key + value for key, value in rows)


def nodes(txn: ReadTransaction) -> list[tuple[bytes, bytes]]:
    return txn.range(NODES)


def check(txn: ReadTransaction, state: Changes) -> bytes:
    """Everything stored is exactly what both engines make of the whole state, packed or as it
    travels; its root."""
    root, count, expected = merkle.state_nodes(packed(state), 0, bytes(32), NODE_LIMIT)
    assert nodes(txn) == sorted((node_key(depth, prefix), node) for depth, prefix, node in expected)
    assert txn.count(ACCOUNTS) == count == len([value for value in state.values() if value])
    assert state_root(txn) == root
    accounts = txn.range(ACCOUNTS)
    for twin in (merkle, pure):
        built = twin.state_records(b"".join(record for _, record in accounts), threshold=NODE_LIMIT)
        assert built == (root, count, nodes(txn), accounts)
    return root


def apply(store: Store, changes: Changes) -> bytes:
    with store.write() as txn:
        tree = StateTree(txn)
        root = tree.apply(changes)
        tree.flush()
    return root


@cache
def pool() -> list[bytes]:
    """300 addresses, of which 60 lie close together: under one prefix of 10 bits, and of those
    20 under one of 14, so that nodes with an empty half come up."""
    spread, near, nearer = [], [], []
    number = 0
    while len(near) < 40 or len(nearer) < 20:
        address = number.to_bytes(20, "big")
        number += 1
        top = int.from_bytes(sha256(address).digest()[:2], "big")
        if top >> 2 == 0b01101001101100 and len(nearer) < 20:
            nearer.append(address)
        elif top >> 6 == 0b0110100110 and len(near) < 40:
            near.append(address)
        elif len(spread) < 240:
            spread.append(address)
    return spread + near + nearer


def some(data: st.DataObject, addresses: list[bytes]) -> list[bytes]:
    """A run of the pool, or a random part of it: runs meet the close ones."""
    rng = random.Random(data.draw(st.integers(0, 1 << 32)))
    size = data.draw(st.sampled_from([1, 2, 5, 15, 30, 60, 200]))
    if data.draw(st.booleans()):
        start = rng.randrange(len(addresses))
        return addresses[start : start + size]
    return rng.sample(addresses, min(size, len(addresses)))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_changes_give_the_root_and_the_nodes_of_the_whole(data: st.DataObject) -> None:
    addresses = pool()
    state: dict[bytes, bytes | None] = {}
    with open_store(None, TABLES) as store:
        for step in range(data.draw(st.integers(1, 8))):
            gone = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
            rng = random.Random(step)
            changes = {
                address: None if rng.random() < gone else account(rng.randrange(1, 4))
                for address in some(data, addresses)
            }
            state |= changes
            root = apply(store, changes)
            with store.read() as txn:
                assert check(txn, state) == root


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_blocks_under_one_tree_equal_a_tree_for_each(data: st.DataObject) -> None:
    addresses = pool()
    blocks = [
        {
            address: data.draw(st.sampled_from([None, account(number)]))
            for address in some(data, addresses)
        }
        for number in range(1, data.draw(st.integers(2, 6)))
    ]
    with open_store(None, TABLES) as one, open_store(None, TABLES) as each:
        with one.write() as txn:
            tree = StateTree(txn)
            roots = []
            for number, changes in enumerate(blocks):
                roots.append(tree.apply(changes))
                if number == 1:
                    tree.flush()  # in the middle: it goes on from there
            tree.flush()
        assert roots == [apply(each, changes) for changes in blocks]
        with one.read() as left, each.read() as right:
            assert nodes(left) == nodes(right)
            assert left.range(ACCOUNTS) == right.range(ACCOUNTS)


def test_the_root_survives_reopening(tmp_path: Path) -> None:
    rng = random.Random(2)
    state: dict[bytes, bytes | None] = {}
    for step in range(6):
        changes = {
            address: account(step + 1) if rng.random() < 0.8 else None
            for address in rng.sample(pool(), 80)
        }
        state |= changes
        with open_store(tmp_path / "s", TABLES, map_size=1 << 30) as store:
            root = apply(store, changes)
        with open_store(tmp_path / "s", TABLES, map_size=1 << 30) as store, store.read() as txn:
            assert check(txn, state) == root


def test_undoing_restores_every_node() -> None:
    rng = random.Random(3)
    with open_store(None, TABLES) as store:
        state: dict[bytes, bytes | None] = {}
        history = []
        for step in range(12):
            changes = {
                address: account(step + 1) if rng.random() < 0.6 else None
                for address in rng.sample(pool(), rng.choice([1, 10, 100]))
            }
            with store.read() as txn:
                history.append((state_root(txn), nodes(txn), {a: state.get(a) for a in changes}))
            apply(store, changes)
            state |= changes
        for root, stored, before in reversed(history):
            assert apply(store, before) == root
            with store.read() as txn:
                assert nodes(txn) == stored


class Counting:
    """A write transaction that counts what it is asked for, a run of puts as so many."""

    def __init__(self, txn: Any) -> None:
        self._txn = txn
        self.calls: dict[tuple[str, str], int] = {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._txn, name)

        def call(table: str, *arguments: Any, **options: Any) -> Any:
            count = len(arguments[0]) if name == "put_many" else 1
            self.calls[name, table] = self.calls.get((name, table), 0) + count
            return method(table, *arguments, **options)

        return call


def test_only_the_paths_to_what_changed_are_touched() -> None:
    rng = random.Random(4)
    addresses = [rng.randbytes(20) for _ in range(5000)]
    with open_store(None, TABLES) as store:
        apply(store, dict.fromkeys(addresses, account(1)))
        with store.write() as txn:
            depth = max(key[0] for key, _ in txn.range(NODES)) + 1
            assert txn.count(NODES) > 400
            for count in (1, 5):
                counting: Any = Counting(txn)
                tree = StateTree(counting)
                tree.apply(dict.fromkeys(rng.sample(addresses, count), account(count + 1)))
                tree.flush()
                assert 0 < counting.calls["put_many", NODES] <= count * depth
                assert counting.calls["get", NODES] <= count * depth + 1
                assert counting.calls["put_many", ACCOUNTS] == count
                assert counting.calls["range", ACCOUNTS] <= count
            counting = Counting(txn)
            tree = StateTree(counting)
            tree.apply(dict.fromkeys(rng.sample(addresses, 5), None) | {bytes(20): None})
            tree.apply({})
            tree.flush()
            assert counting.calls["delete", ACCOUNTS] == 5


def test_what_many_blocks_touch_is_read_and_written_once() -> None:
    rng = random.Random(5)
    addresses = [rng.randbytes(20) for _ in range(2000)]
    with open_store(None, TABLES) as store:
        apply(store, dict.fromkeys(addresses, account(1)))
        with store.write() as txn:
            counting: Any = Counting(txn)
            tree = StateTree(counting)
            tree.apply(dict.fromkeys(addresses[:50], account(2)))
            read = dict(counting.calls)
            for number in range(3, 9):
                tree.apply(dict.fromkeys(addresses[:50], account(number)))
            assert counting.calls == read
            tree.flush()
            assert counting.calls["put_many", ACCOUNTS] == 50
            assert counting.calls["put_many", NODES] == counting.calls["get", NODES]
            written = dict(counting.calls)
            tree.flush()
            assert counting.calls == written


def test_what_does_not_change_anything_writes_nothing() -> None:
    state = dict.fromkeys(pool()[:100], account(1))
    with open_store(None, TABLES) as store:
        root = apply(store, state)
        with store.write() as txn:
            counting: Any = Counting(txn)
            tree = StateTree(counting)
            assert tree.apply(state) == tree.apply({bytes(20)[:-1] + b"\xff": None}) == root
            tree.flush()
            assert not {name for name, _ in counting.calls} - {"get", "range", "count"}


@pytest.mark.parametrize("size", [0, 1, 2, 16, 17, 40, 300])
def test_proofs_equal_the_engine_s_and_hold(size: int) -> None:
    addresses = pool()
    state = {address: account(number + 1) for number, address in enumerate(addresses[-size:])}
    if size == 0:
        state = {}
    with open_store(None, TABLES) as store:
        root = apply(store, state)
        with store.read() as txn:
            absent = [bytes([number]) * 20 for number in range(1, 20)]
            for address in [*list(state)[:20], *absent]:
                key, value = sha256(address).digest(), state.get(address)
                proof = prove(txn, key)
                assert proof == merkle.state_proof(packed(state), key)
                assert merkle.verify_state_proof(root, key, value, proof)
                assert not merkle.verify_state_proof(root, key, account(999), proof)
                assert not merkle.verify_state_proof(bytes(31) + b"\1", key, value, proof)


def test_a_lost_node_or_account_is_an_error() -> None:
    with open_store(None, TABLES) as store:
        apply(store, dict.fromkeys(pool(), account(1)))
        with store.write() as txn:
            key, _ = txn.range(NODES)[3]
            txn.delete(NODES, key)
        with pytest.raises(StorageError, match="lacks its node"):
            apply(store, dict.fromkeys(pool(), account(2)))
        with store.write() as txn:
            txn.delete(ACCOUNTS, sha256(pool()[0]).digest())
        with pytest.raises(StorageError):
            apply(store, dict.fromkeys(pool()[1:], account(2)))
