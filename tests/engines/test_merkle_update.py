"""The engine's state tree over a store: against the tree built whole, and twin against twin."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable
from hashlib import sha256
from types import ModuleType
from typing import Any

import pytest
from helpers.parity import outcome
from helpers.state_reference import account, pack
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor._ext import merkle as compiled
from moderntensor._pure import merkle as pure
from moderntensor.errors import StorageError

Accounts = dict[bytes, bytes | None]


class Tables:
    """What a store holds of a state tree; notes what it was asked for."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, bytes] = {}
        self.accounts: dict[bytes, bytes] = {}
        self.asked: list[Any] = []

    def node(self, key: bytes) -> bytes | None:
        self.asked.append(key)
        return self.nodes.get(key)

    def range(self, start: bytes, stop: bytes | None) -> list[tuple[bytes, bytes]]:
        self.asked.append((start, stop))
        rows = sorted(self.accounts.items())
        last = len(rows) if stop is None else bisect_left(rows, (stop, b""))
        return rows[bisect_left(rows, (start, b"")) : last]

    def tree(self, engine: ModuleType) -> Any:
        return engine.StateTree(len(self.accounts), self.node, self.range)

    def take(self, tree: Any) -> None:
        for table, changes in zip((self.nodes, self.accounts), tree.take_changes(), strict=True):
            assert [key for key, _ in changes] == sorted({key for key, _ in changes})
            for key, value in changes:
                if value is None:
                    table.pop(key, None)
                else:
                    table[key] = value

    def check(self, state: Accounts, root: bytes) -> None:
        """They hold what the engine makes of the whole state."""
        held = {sha256(address).digest(): (address, a) for address, a in state.items() if a}
        assert self.accounts == {key: address + a for key, (address, a) in held.items()}
        packed = pack([(key, a) for key, (_, a) in held.items()])
        expected, _, nodes = pure.state_nodes(packed, threshold=pure.NODE_LIMIT)
        assert root == expected
        assert self.nodes == {bytes((depth,)) + prefix: node for depth, prefix, node in nodes}


def near_pool() -> list[bytes]:
    """Addresses whose keys crowd together, so that branches with an empty half come up."""
    found: list[bytes] = []
    for number in range(20_000):
        address = number.to_bytes(20, "big")
        if sha256(address).digest()[0] >> 1 == 0b0110100 or number < 60:
            found.append(address)
        if len(found) == 200:
            break
    return found


POOL = near_pool()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 32), st.booleans(), st.booleans()), max_size=7))
def test_twins_change_alike(steps: list[tuple[int, bool, bool]]) -> None:
    twins = (compiled, pure)
    tables = [Tables(), Tables()]
    trees = [held.tree(engine) for held, engine in zip(tables, twins, strict=True)]
    state: Accounts = {}
    for seed, take, reopen in steps:
        rng = random.Random(seed)
        gone = rng.choice([0.0, 0.3, 0.9])
        changes = {
            address: None if rng.random() < gone else account(rng.randrange(1, 4), 5)
            for address in rng.sample(POOL, rng.choice([0, 1, 2, 15, 60, 150]))
        }
        state |= changes
        roots = [tree.apply(changes) for tree in trees]
        assert roots[0] == roots[1] == trees[0].root == trees[1].root
        assert trees[0].count == trees[1].count == len([a for a in state.values() if a])
        assert tables[0].asked == tables[1].asked
        if take or reopen:
            for held, tree in zip(tables, trees, strict=True):
                held.take(tree)
                held.check(state, roots[0])
                assert tree.take_changes() == ([], [])
        if reopen:
            trees = [held.tree(engine) for held, engine in zip(tables, twins, strict=True)]


def filled(count: int = 120) -> tuple[Tables, Accounts]:
    tables, state = Tables(), dict.fromkeys(POOL[:count], account(1, 1))
    tree = tables.tree(pure)
    tree.apply(state)
    tables.take(tree)
    return tables, state


def spoil_node(change: Callable[[bytes], bytes | None]) -> Callable[[Tables], None]:
    def spoil(tables: Tables) -> None:
        for key in sorted(tables.nodes)[2:]:
            changed = change(tables.nodes.pop(key))
            if changed is not None:
                tables.nodes[key] = changed

    return spoil


def spoil_accounts(change: Callable[[list[tuple[bytes, bytes]]], Any]) -> Callable[[Tables], None]:
    def spoil(tables: Tables) -> None:
        whole = tables.range
        tables.range = lambda start, stop: change(whole(start, stop))  # type: ignore[method-assign]

    return spoil


FAULTS: dict[str, Callable[[Tables], None]] = {
    "lacks its node": spoil_node(lambda node: None),
    "is not over": spoil_node(lambda node: node[:32] + bytes(8) + node[40:]),
    "is not over (sum)": spoil_node(lambda node: node[:39] + bytes([node[39] ^ 1]) + node[40:]),
    "is not over (empty half)": spoil_node(lambda node: bytes(32) + node[32:]),
    "is not over (length)": spoil_node(lambda node: node[:-1]),
    "are stored": spoil_accounts(lambda rows: rows[:-1]),
    "out of order": spoil_accounts(lambda rows: rows[::-1]),
    "out of order (twice)": spoil_accounts(lambda rows: [*rows, rows[-1]]),
    "out of order (elsewhere)": spoil_accounts(lambda rows: [(bytes(32), rows[0][1]), *rows[1:]]),
    "and 107 bytes": spoil_accounts(lambda rows: [(key, value[1:]) for key, value in rows]),
    "of 31 and": spoil_accounts(lambda rows: [(key[1:], value) for key, value in rows]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_contradicts_itself_is_an_error(fault: str) -> None:
    outcomes = []
    for engine in (compiled, pure):
        tables, state = filled()
        FAULTS[fault](tables)
        tree = tables.tree(engine)
        outcomes.append(outcome(tree.apply, dict.fromkeys(state, account(2, 2))))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == StorageError.__name__
    assert fault.split(" (", maxsplit=1)[0] in outcomes[0][1]


def test_nodes_lead_no_further_than_a_key_is_long() -> None:
    address = bytes(20)
    key = sha256(address).digest()

    def node(name: bytes) -> bytes:
        at = name[0]
        halves = [bytes(40), b"\1" * 32 + (20).to_bytes(8, "big")]
        return b"".join(halves if key[at // 8] >> 7 - at % 8 & 1 else halves[::-1])

    outcomes = [
        outcome(engine.StateTree(20, node, fail).apply, {address: None})
        for engine in (pure, compiled)
    ]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] == ("StorageError", "the state tree counts 20 accounts of one key")


def fail(*_: Any) -> Any:
    raise OSError("the disk is gone")


BAD_USE: dict[str, Callable[[ModuleType], Any]] = {
    "count": lambda engine: engine.StateTree(-1, None, None),
    "count over 64 bits": lambda engine: engine.StateTree(1 << 64, None, None),
    "count of another type": lambda engine: engine.StateTree("1", None, None),
    "address": lambda engine: Tables().tree(engine).apply({b"short": None}),
    "address of another type": lambda engine: Tables().tree(engine).apply({"address": None}),
    "account": lambda engine: Tables().tree(engine).apply({bytes(20): bytes(87)}),
    "account of another type": lambda engine: Tables().tree(engine).apply({bytes(20): 5}),
    "changes": lambda engine: Tables().tree(engine).apply(5),
    "nodes of another type": lambda engine: engine.StateTree(17, lambda key: 5, fail),
    "rows of another type": lambda engine: engine.StateTree(1, fail, lambda a, b: [(b"", 5)]),
    "a failing store": lambda engine: engine.StateTree(1, fail, fail),
    "a failing node": lambda engine: engine.StateTree(17, fail, fail),
}


@pytest.mark.parametrize("use", BAD_USE)
def test_bad_use_fails_alike(use: str) -> None:
    found = [outcome(BAD_USE[use], engine) for engine in (compiled, pure)]
    assert found[0] == found[1]
    assert found[0][0] != "value"


def test_a_tree_is_not_changed_from_within_a_change(engine: Any) -> None:
    tables, state = filled()
    within: list[Any] = []

    def node(key: bytes) -> bytes | None:
        if trees:
            within.append(outcome(trees[0].apply, state))
        return tables.node(key)

    trees: list[Any] = []
    tree = engine.merkle.StateTree(len(tables.accounts), node, tables.range)
    trees.append(tree)
    tree.apply(dict.fromkeys(state, account(2, 2)))
    assert set(within) == {("RuntimeError", "the state tree is changed from within a change")}
    tables.take(tree)
    tables.check(dict.fromkeys(state, account(2, 2)), tree.root)
