"""Anything that may happen to a state on its way here, in any order: new pivots, nodes and chunks
of old and new ones, restarts. What is whole in the end is the pivot's state, row by row, and what
no two states differ in is not asked for twice."""

from __future__ import annotations

from hashlib import sha256
from itertools import count, islice

from adversity.own_tree import ZERO, OwnTree, halves
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moderntensor.backend import merkle
from moderntensor.blockchain import state_slots, tables
from moderntensor.blockchain.staging import Hole, Pivot, StateStaging
from moderntensor.blockchain.state_tree import NODE_LIMIT, FilledState
from moderntensor.storage import open_store

Place = tuple[int, bytes]
CROWD = 40  # addresses under one prefix, so that the tree has a long arm
ADDRESSES = [sha256(b"account %d" % n).digest()[:20] for n in range(300)]
_numbered = (n.to_bytes(20, "big") for n in count())
ADDRESSES += islice((a for a in _numbered if sha256(a).digest()[0] == 7), CROWD)
ADDRESSES += [a for a in ADDRESSES if sha256(a).digest()[0] == 7][:CROWD]


def _versions() -> list[OwnTree]:
    """States that follow each other: little changes, much changes, accounts come and go, all but
    a few are gone, none is left, and all is as it was."""
    first = {address: (0, n + 1) for n, address in enumerate(ADDRESSES)}
    little = {**first, ADDRESSES[0]: (1, 5), ADDRESSES[100]: (0, 7)}
    much = {a: (nonce, balance + n % 3) for n, (a, (nonce, balance)) in enumerate(little.items())}
    fewer = dict(list(much.items())[: len(much) // 2])
    more = {**fewer, **{sha256(b"new %d" % n).digest()[:20]: (3, 3) for n in range(150)}}
    few = dict(list(more.items())[: NODE_LIMIT + 1])
    one = dict(list(more.items())[:1])
    return [OwnTree(state) for state in (first, little, much, fewer, more, few, one, {}, first)]


VERSIONS = _versions()


def chunk(tree: OwnTree, place: Place) -> FilledState:
    return FilledState(*merkle.state_records(b"".join(tree.records(*place)), *place))


def nodes(tree: OwnTree, place: Place = (0, ZERO)) -> dict[bytes, bytes]:
    """What the store keeps of a tree, by key."""
    if tree.subtree(*place)[1] <= NODE_LIMIT:
        return {}
    below = (nodes(tree, half) for half in halves(*place))
    found = tree.node(*place)
    assert found is not None
    return {tables.node_key(*place): found, **next(below), **next(below)}


class StagingModel(RuleBasedStateMachine):
    """The state of one version is fetched, while another may take its place."""

    def __init__(self) -> None:
        super().__init__()
        self.store = open_store(None, tables.TABLES)
        self.staging = StateStaging(self.store)
        self.version: int | None = None
        self.late: list[tuple[int, Hole]] = []  # holes that were given out, and for which state

    def teardown(self) -> None:
        self.store.close()

    @property
    def tree(self) -> OwnTree:
        assert self.version is not None
        return VERSIONS[self.version]

    def some(self, skip: int, most: int) -> list[Hole]:
        """Some of the holes, as a stage takes them; remembered, for what comes too late."""
        holes = self.staging.holes(skip + most)
        taken = holes[skip:] or holes[:most]
        assert self.version is not None
        self.late = [*self.late[-20:], *((self.version, hole) for hole in taken)]
        return taken

    # --- what happens ------------------------------------------------------------------------

    @rule(version=st.integers(0, len(VERSIONS) - 1))
    def aim(self, version: int) -> None:
        tree = VERSIONS[version]
        name = sha256(b"%d" % version).digest()
        self.staging.aim(Pivot(version + 1, name, tree.root))
        self.version = version

    @precondition(lambda self: self.version is not None)
    @rule(skip=st.integers(0, 5), most=st.integers(1, 8))
    def descend(self, skip: int, most: int) -> None:
        found = []
        for hole in self.some(skip, most):
            node = self.tree.node(hole.depth, hole.prefix)
            if node is not None:
                found.append((hole, node))
        self.staging.descend(found)

    @precondition(lambda self: self.version is not None)
    @rule(skip=st.integers(0, 5), most=st.integers(1, 8))
    def fill(self, skip: int, most: int) -> None:
        holes = self.some(skip, most)
        self.staging.fill([(hole, chunk(self.tree, (hole.depth, hole.prefix))) for hole in holes])

    @precondition(lambda self: self.version is not None)
    @rule(skip=st.integers(0, 5))
    def fill_both_halves_as_one(self, skip: int) -> None:
        """Sibling holes are fetched with one request."""
        holes = self.staging.holes(64)
        for left, right in zip(holes[skip:], holes[skip + 1 :], strict=False):
            if left.depth == right.depth > 0:
                above = left.depth - 1, left.prefix
                if [(left.depth, left.prefix), (right.depth, right.prefix)] == [*halves(*above)]:
                    digest, number = self.tree.subtree(*above)
                    self.staging.fill(
                        [(Hole(*above, digest, number, False), chunk(self.tree, above))]
                    )
                    return

    @precondition(lambda self: self.late)
    @rule(number=st.integers(0, 20), whole=st.booleans())
    def come_too_late(self, number: int, whole: bool) -> None:
        """What was asked for a while ago, of a state that may be another."""
        version, hole = self.late[number % len(self.late)]
        tree, place = VERSIONS[version], (hole.depth, hole.prefix)
        node = tree.node(*place)
        if whole:
            self.staging.fill([(hole, chunk(tree, place))])
        elif node is not None:
            self.staging.descend([(hole, node)])

    @rule()
    def restart(self) -> None:
        self.staging = StateStaging(self.store)

    @rule()
    def discard(self) -> None:
        self.staging.discard()
        self.version = None
        assert not self.staging.holes(1)
        with self.store.read() as txn:
            slot = state_slots.staging(txn)
            assert not txn.range(slot.accounts) and not txn.range(slot.nodes)

    @precondition(lambda self: self.version is not None)
    @rule(following=st.integers(0, len(VERSIONS) - 1))
    def change_of_what_is_whole(self, following: int) -> None:
        """From a whole state on, only what differs is asked for: down to `NODE_LIMIT` accounts,
        and no account of an equal subtree."""
        self.finish()
        before = self.tree
        self.aim(following)
        for _ in range(64):  # levels
            found = [
                (hole, node)
                for hole in self.staging.holes(1024)
                if (not hole.count or (hole.known and hole.count > NODE_LIMIT))
                and (node := self.tree.node(hole.depth, hole.prefix)) is not None
            ]
            self.staging.descend(found)
        for hole in self.staging.holes(1024):
            place = hole.depth, hole.prefix
            assert before.subtree(*place) != self.tree.subtree(*place), "asked for what is here"

    @precondition(lambda self: self.version is not None)
    @rule()
    def finish(self) -> None:
        for _ in range(2000):
            holes = self.staging.holes(8)
            if not holes:
                break
            if holes[0].count == 0 and self.tree.subtree()[1] > NODE_LIMIT:
                self.descend(0, 1)
            else:
                self.fill(0, 8)
        assert self.staging.complete

    # --- what holds --------------------------------------------------------------------------

    @invariant()
    def holes_are_proved_and_apart(self) -> None:
        end: bytes | None = b""
        for hole in self.staging.holes(1024):
            assert end is not None and hole.prefix >= end, "one hole in another"
            end = tables.subtree_end(hole.depth, hole.prefix)
            count = hole.count or self.tree.subtree()[1]
            assert (hole.hash, count) == self.tree.subtree(hole.depth, hole.prefix)

    @invariant()
    def counts_are_true(self) -> None:
        if self.version is None:
            assert not self.staging.complete
            return
        total, done = self.staging.accounts_total, self.staging.accounts_done
        if total is not None:
            assert total == self.tree.subtree()[1]
            assert done == total - sum(hole.count for hole in self.staging.holes(1024))
        else:
            assert done == 0

    @invariant()
    def what_is_whole_is_the_state(self) -> None:
        if not self.staging.complete:
            return
        with self.store.read() as txn:
            slot = state_slots.staging(txn)
            rows, kept = dict(txn.range(slot.accounts)), dict(txn.range(slot.nodes))
        assert rows == {sha256(row[:20]).digest(): row for row in self.tree.rows}
        assert kept == nodes(self.tree)


StagingModel.TestCase.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
TestStagingModel = StagingModel.TestCase
