"""A state staged from holes, against the same state built whole."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest
from helpers.forks import dump, opened
from helpers.staged import ZERO, Tree, account, check_slot, fetch, stage
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor.backend import merkle
from moderntensor.blockchain import state_slots, tables
from moderntensor.blockchain.staging import Hole, StateStaging
from moderntensor.blockchain.state_tree import FilledState, split_node
from moderntensor.errors import StaleStateError, StorageError
from moderntensor.storage import ReadTransaction, Store, open_store

State = dict[bytes, bytes]


@cache
def pool() -> list[bytes]:
    """300 addresses, of which 40 have keys under one prefix of eight bits."""
    near, spread, number = [], [], 0
    while len(near) < 40:
        address = number.to_bytes(20, "big")
        number += 1
        if sha256(address).digest()[0] == 0b01101001:
            near.append(address)
        elif len(spread) < 260:
            spread.append(address)
    return near + spread


def changed(state: State, rng: random.Random, version: int, share: float, gone: float) -> State:
    """A later state, whose accounts differ from all versions before where they changed at all."""
    found = dict(state)
    for address in pool():
        if rng.random() >= share:
            continue
        if rng.random() < gone:
            found.pop(address, None)
        else:
            found[address] = account(version * 1000 + rng.randrange(1, 999))
    return found


def check_invariant(txn: ReadTransaction, tree: Tree) -> None:
    """Below every node the content is what it says, except below holes; the rest is of `tree`."""
    slot = state_slots.staging(txn)
    places = [(0, ZERO, tree.root, tree.count)]
    while places:
        depth, prefix, digest, count = places.pop()
        hole = txn.get(tables.HOLES, tables.hole_key(depth, prefix))
        if hole is not None:
            assert hole[:32] == digest
            assert hole[32:] == count.to_bytes(8, "big") or (depth == 0 and hole[32:] == bytes(8))
            continue
        node = txn.get(slot.nodes, tables.node_key(depth, prefix))
        if node is None:
            rows = txn.range(slot.accounts, prefix, tables.subtree_end(depth, prefix))
            records = b"".join(record for _, record in rows)
            assert merkle.state_records(records, depth, prefix)[:2] == (digest, count)
            assert count <= 16
            continue
        assert merkle.state_node(*split_node(node)) == digest
        left, left_count, right, right_count = split_node(node)
        assert left_count + right_count == count > 16
        middle = (int.from_bytes(prefix, "big") | 1 << 255 - depth).to_bytes(32, "big")
        places += (depth + 1, prefix, left, left_count), (depth + 1, middle, right, right_count)


class Journey:
    """Staging one state after another in one store, restarted at any time."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self.store = store
        self.rng = rng
        self.staging = StateStaging(store)
        self.late: list[tuple[Hole, FilledState]] = []

    def restart(self) -> None:
        done, total = self.staging.accounts_done, self.staging.accounts_total
        pivot, holes = self.staging.pivot, self.staging.holes(1000)
        self.staging = StateStaging(self.store)
        assert (self.staging.accounts_done, self.staging.accounts_total) == (done, total)
        assert (self.staging.pivot, self.staging.holes(1000)) == (pivot, holes)

    def holes(self) -> list[Hole]:
        """All of them, however they are asked for."""
        found: list[Hole] = []
        while page := self.staging.holes(7, found[-1] if found else None):
            found += page
        assert found == self.staging.holes(1000)
        ends = [tables.subtree_end(hole.depth, hole.prefix) or b"\xff" * 33 for hole in found]
        assert all(end <= hole.prefix for end, hole in zip(ends, found[1:], strict=False))
        return found

    def offered(self, tree: Tree, exact: bool) -> list[Hole]:
        holes = self.holes()
        with self.store.read() as txn:
            slot = state_slots.staging(txn)
            for hole in holes:
                part = tree.part(*hole[:2])
                assert (part.hash, part.count) == (hole.hash, hole.count or tree.count)
                name = tables.node_key(*hole[:2])
                assert hole.known == (txn.get(slot.nodes, name) is not None)
                if exact and hole.count > 16:  # smaller ones have no node to compare with
                    here = txn.range(slot.accounts, hole.prefix, tables.subtree_end(*hole[:2]))
                    assert here != part.rows, "it is here already"
        return holes

    def some_steps(self, tree: Tree, steps: int, largest: int, exact: bool) -> None:
        for _ in range(steps):
            holes = self.offered(tree, exact)
            if not holes:
                return
            chosen = self.rng.sample(holes, self.rng.randrange(1, min(len(holes), 6) + 1))
            chosen.sort(key=lambda hole: hole.prefix)
            if self.rng.random() < 0.3:  # fetched now, and brought in when it may be too late
                small = [hole for hole in chosen if 0 < hole.count <= largest]
                self.late += [(hole, tree.part(*hole[:2])) for hole in small]
                continue
            parent = self._merged(tree, chosen[0])
            if parent is not None and parent.count <= largest:
                self.staging.fill([(parent, tree.part(*parent[:2]))])
            else:
                fetch(self.staging, tree, chosen, largest)
            if self.rng.random() < 0.3:
                self.staging.fill(self.late)
                self.late.clear()
            if self.rng.random() < 0.3:
                self.restart()

    def _merged(self, tree: Tree, hole: Hole) -> Hole | None:
        """What the hole's parent is, sometimes."""
        if hole.depth == 0 or self.rng.random() < 0.5:
            return None
        free = 257 - hole.depth
        prefix = (int.from_bytes(hole.prefix, "big") >> free << free).to_bytes(32, "big")
        part = tree.part(hole.depth - 1, prefix)
        return Hole(hole.depth - 1, prefix, part.hash, part.count, True)


@given(st.integers(0, 1 << 32), st.sampled_from([0.0, 0.4]), st.sampled_from([16, 30, 100]))
@settings(max_examples=50, deadline=None)
def test_any_course_ends_with_the_tables_of_the_last_state(
    seed: int, gone: float, largest: int
) -> None:
    rng = random.Random(seed)
    state: State = {}
    with open_store(None, tables.TABLES) as store:
        journey = Journey(store, rng)
        for version in range(1, 4):
            share = 0.8 if version == 1 else rng.choice([0.0, 0.01, 0.1, 0.5])
            state = changed(state, rng, version, share, gone)
            tree = Tree(state)
            journey.staging.aim(tree.pivot(version))
            journey.some_steps(tree, rng.choice([3, 10, 30]), largest, exact=not gone)
            with store.read() as txn:
                check_invariant(txn, tree)
        journey.staging.fill(journey.late)
        stage(journey.staging, tree, tree.pivot(3), largest)
        assert journey.staging.complete
        assert journey.staging.accounts_done == journey.staging.accounts_total == tree.count
        with store.write() as txn:
            assert journey.staging.release(txn) == tree.pivot(3)
            check_slot(txn, state_slots.staging(txn), tree)
            state_slots.switch(txn)
            check_slot(txn, state_slots.active(txn), tree)


# --- step by step ------------------------------------------------------------------------------


def numbered(count: int, version: int = 1) -> State:
    return {number.to_bytes(20, "big"): account(version) for number in range(count)}


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with opened(request.param, tmp_path) as opened_store:
        yield opened_store


def test_a_newer_state_costs_what_changed(store: Store) -> None:
    staging = StateStaging(store)
    old = numbered(3000)
    assert stage(staging, Tree(old), Tree(old).pivot(1)) == 3000
    new = Tree(old | numbered(3, version=2))
    fetched = stage(StateStaging(store), new, new.pivot(2))
    assert 0 < fetched <= 3 * 64
    with store.read() as txn:
        check_slot(txn, state_slots.staging(txn), new)


def test_progress(store: Store) -> None:
    staging, tree = StateStaging(store), Tree(numbered(1000))
    assert (staging.pivot, staging.accounts_total, staging.accounts_done) == (None, None, 0)
    assert (staging.holes(5), staging.complete) == ([], False)
    staging.aim(tree.pivot())
    root = Hole(0, ZERO, tree.root, 0, False)
    assert (staging.pivot, staging.holes(5)) == (tree.pivot(), [root])
    assert (staging.accounts_total, staging.accounts_done, staging.complete) == (None, 0, False)
    staging.descend([(root, tree.node(0, ZERO))])
    halves = staging.holes(5)
    assert [(hole.depth, hole.count) for hole in halves] == [
        (1, tree.part(1, hole.prefix).count) for hole in halves
    ]
    assert (staging.accounts_total, staging.accounts_done) == (1000, 0)
    for done, hole in enumerate(halves, 1):
        staging.fill([(hole, tree.part(*hole[:2]))])
        assert staging.accounts_done == sum(half.count for half in halves[:done])
    assert staging.complete
    staging.aim(tree.pivot())
    assert staging.complete, "that is where it aims already"
    staging.aim(tree.pivot(2048))
    assert staging.complete, "another block of the same state"


@pytest.mark.parametrize("count", [0, 1, 16, 17])
def test_small_states(count: int, store: Store) -> None:
    tree = Tree(numbered(count))
    staging = StateStaging(store)
    for old in (Tree(numbered(40)), Tree(numbered(5, version=2))):  # whatever was there before
        stage(staging, old, old.pivot(1))
        staging.aim(tree.pivot(2))
        assert staging.complete == (count == 0)
        if count > 1:
            staging.descend([(hole, tree.node(*hole[:2])) for hole in staging.holes(1)])
            assert staging.accounts_total == count
        for hole in staging.holes(5):
            staging.fill([(hole, tree.part(*hole[:2]))])
        assert (staging.accounts_total, staging.accounts_done) == (count, count)
        with store.read() as txn:
            check_slot(txn, state_slots.staging(txn), tree)


def test_what_comes_too_late_is_passed_over(store: Store) -> None:
    staging, old, new = StateStaging(store), Tree(numbered(100)), Tree(numbered(100, version=2))
    staging.aim(old.pivot(1))
    root = staging.holes(1)[0]
    staging.descend([(root, old.node(0, ZERO))])
    halves = staging.holes(2)
    staging.aim(new.pivot(2))
    before = dump(store)
    staging.descend([(root, old.node(0, ZERO))])
    staging.fill([(root, old.part(0, ZERO))])
    assert dump(store) == before
    staging.fill([(halves[0], old.part(*halves[0][:2]))])  # below the new root: it may be the same
    assert dump(store) != before
    stage(staging, new, new.pivot(2))
    before = dump(store)
    staging.fill([(halves[1], old.part(*halves[1][:2]))])
    assert dump(store) == before
    with pytest.raises(ValueError, match="not the state of hole"):
        staging.fill([(halves[0], old.part(0, ZERO))])
    staging.discard()
    staging.fill([(root, old.part(0, ZERO))])
    staging.descend([(root, old.node(0, ZERO))])
    assert staging.holes(1) == []


def test_pieces_that_overlap(store: Store) -> None:
    tree = Tree(numbered(200))
    staging = StateStaging(store)
    staging.aim(tree.pivot())
    staging.descend([(hole, tree.node(*hole[:2])) for hole in staging.holes(1)])
    halves = staging.holes(2)
    root = Hole(0, ZERO, tree.root, tree.count, True)
    staging.fill([(hole, tree.part(*hole[:2])) for hole in (*halves, root, *halves)])
    assert staging.complete
    with store.read() as txn:
        check_slot(txn, state_slots.staging(txn), tree)


def test_nothing_is_released_before_it_is_whole(store: Store) -> None:
    staging, tree = StateStaging(store), Tree(numbered(100))
    with store.write() as txn, pytest.raises(StaleStateError):
        staging.release(txn)
    staging.aim(tree.pivot())
    with store.write() as txn, pytest.raises(StaleStateError):
        staging.release(txn)
    stage(staging, tree, tree.pivot())
    with store.write() as txn:
        txn.delete(state_slots.staging(txn).accounts, tree.keys[50])
    with pytest.raises(StorageError, match="99 accounts"), store.write() as txn:
        staging.release(txn)
    assert StateStaging(store).pivot == tree.pivot()


def test_discarding_survives_a_kill(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    staging, tree = StateStaging(store), Tree(numbered(500))
    stage(staging, tree, tree.pivot())
    clear = state_slots._clear_one
    calls = 0

    def killed(cleared: Store) -> bool:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return clear(cleared)

    monkeypatch.setattr(state_slots, "_clear_one", killed)
    with pytest.raises(KeyboardInterrupt):
        staging.discard()
    left = dump(store)
    assert bool(left[tables.ACCOUNTS_B]) != bool(left[tables.NODES_B])
    again = StateStaging(store)
    assert again.pivot is None
    assert (again.complete, again.holes(5), again.accounts_done) == (False, [], 0)
    stage(again, tree, tree.pivot())
    assert calls > 3
    with store.read() as txn:
        check_slot(txn, state_slots.staging(txn), tree)
    again.discard()
    assert not any(dump(store).values())


def test_pages_of_holes(store: Store) -> None:
    tree = Tree(numbered(2000))
    staging = StateStaging(store)
    staging.aim(tree.pivot())
    for _ in range(7):
        holes = staging.holes(1000)
        staging.descend(
            [(hole, tree.node(*hole[:2])) for hole in holes if not 0 < hole.count <= 16]
        )
    whole = staging.holes(1000)
    assert len(whole) > 100
    for limit in (1, 7, 99):
        found: list[Hole] = []
        while page := staging.holes(limit, found[-1] if found else None):
            assert len(page) <= limit
            found += page
        assert found == whole
    assert staging.holes(0) == []
