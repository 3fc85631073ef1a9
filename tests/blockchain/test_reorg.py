"""Reorganisations: what is undone is as if it had never been, and the longest chain wins."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.forks import (
    ACCOUNTS,
    EXECUTED,
    VALIDATORS,
    ChainMaker,
    bodies_of,
    check_books,
    dump,
    headers_of,
    opened,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor.blockchain import side, tables
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain, HeadChanged
from moderntensor.blockchain.prepared import prepare_body
from moderntensor.errors import FinalityError, InvalidBlockError, UnknownParentError
from moderntensor.storage import Store

MAKER = ChainMaker(VALIDATORS, max_reorg_depth=8)
GENESIS = MAKER.genesis
TRUNK = MAKER.run(GENESIS, 20, transfers=2)


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with opened(request.param, tmp_path) as opened_store:
        yield opened_store


def fed(store: Store, *runs: list[Block], maker: ChainMaker = MAKER) -> Blockchain:
    chain = Blockchain(store, maker.config)
    for block in (block for run in runs for block in run):
        chain.import_block(block)
    return chain


def same_as_if_only(chain: Blockchain, blocks: list[Block], tmp_path: Path) -> None:
    """State, indices and chain equal those of a node that never saw anything else."""
    with opened("memory", tmp_path) as other:
        alone = fed(other, blocks)
        assert chain.head == alone.head
        assert dump(chain.store, *EXECUTED) == dump(other, *EXECUTED)
    check_books(chain)


@pytest.mark.parametrize("depth", [1, 2, 5, 7, 8])
@pytest.mark.parametrize("way", ["blocks", "headers and bodies"])
def test_a_longer_branch_replaces_the_head(
    depth: int, way: str, store: Store, tmp_path: Path
) -> None:
    base, old = TRUNK[: 20 - depth], TRUNK[20 - depth :]
    new = MAKER.run(base[-1], depth + 1, gap=2, transfers=3, value=77)
    chain = fed(store, TRUNK)
    events: list[HeadChanged] = []
    chain.subscribe(events.append)
    if way == "blocks":
        results = [chain.import_block(block) for block in new]
        assert results == ["side"] * depth + ["applied"]
    else:
        assert chain.add_headers(headers_of(new)) == depth + 1
        assert chain.header_head.hash == new[-1].hash
        assert chain.head.hash == TRUNK[-1].hash
        assert chain.pending_span() == (21 - depth, 21)
        done = chain.apply_bodies(21 - depth, bodies_of(new))
        assert (done.blocks, done.reverted, done.transactions) == (depth + 1, depth, 3 * depth + 3)
    assert events == [
        HeadChanged(
            chain.head,
            tuple((block.height, block.hash) for block in new),
            tuple((block.height, block.hash) for block in reversed(old)),
        )
    ]
    same_as_if_only(chain, base + new, tmp_path)
    # Nothing is lost: what was undone is a branch now.
    for block in old:
        assert chain.body_of(block.hash) == block.body
        assert chain.height_of(block.hash) is None
        assert chain.get_transaction(block.transactions[0].hash) is None
    more = MAKER.run(TRUNK[-1], 2)
    if depth == 8:  # the new branch has nine blocks: none may be undone again
        with pytest.raises(FinalityError):
            chain.import_block(more[0])
        return
    assert [chain.import_block(block) for block in more] == ["side", "applied"]
    same_as_if_only(chain, TRUNK + more, tmp_path)


def test_at_equal_length_the_first_seen_stays(store: Store) -> None:
    chain = fed(store, TRUNK[:10])
    rival = MAKER.run(TRUNK[7], 2, gap=2)
    assert [chain.import_block(block) for block in rival] == ["side", "side"]
    assert chain.add_headers(headers_of(rival)) == 0
    assert chain.head.hash == TRUNK[9].hash
    assert chain.import_block(rival[1]) == "known"
    assert chain.import_block(TRUNK[4]) == "known"
    assert chain.import_block(MAKER.block(rival[1])) == "applied"
    check_books(chain)


def test_nothing_deeper_than_the_limit_is_undone(store: Store) -> None:
    chain = fed(store, TRUNK)
    deep = MAKER.run(TRUNK[10], 12, gap=2)  # from height 11: nine blocks to undo
    with pytest.raises(FinalityError):
        chain.import_block(deep[0])
    with pytest.raises(FinalityError):
        chain.add_headers(headers_of(deep))
    with pytest.raises(FinalityError):
        chain.check_headers(headers_of(deep[:1]))
    assert not chain.is_known(deep[0].hash)
    assert chain.add_headers(headers_of(MAKER.run(TRUNK[11], 9, gap=2))) == 9
    check_books(chain)


def test_what_was_final_stays_so_when_more_may_be_undone(store: Store) -> None:
    chain = fed(store, TRUNK)
    patient = ChainMaker(VALIDATORS, max_reorg_depth=100)
    assert patient.config.genesis_hash == chain.genesis_hash
    again = Blockchain(store, patient.config)
    # The records to undo more than eight blocks were dropped under the old setting.
    for way in (again.import_block, lambda block: again.add_headers(headers_of([block]))):
        with pytest.raises(FinalityError):
            way(MAKER.run(TRUNK[10], 1, gap=2)[0])
    rest = MAKER.run(TRUNK[-1], 10, transfers=1)
    for block in [*rest, *MAKER.run(TRUNK[11], 19, gap=2, transfers=1)]:
        again.import_block(block)
    assert again.head.height == 31  # nineteen blocks were undone: the new setting is obeyed
    check_books(again)


def test_side_blocks_below_finality_are_forgotten(store: Store) -> None:
    chain = fed(store, TRUNK[:6])
    rival = MAKER.run(TRUNK[3], 2, gap=2, transfers=1)
    for block in rival:
        chain.import_block(block)
    for block in TRUNK[6:12]:
        chain.import_block(block)
    assert chain.is_known(rival[1].hash)
    assert chain.body_of(rival[1].hash) == rival[1].body
    for block in TRUNK[12:]:
        chain.import_block(block)
    assert not chain.is_known(rival[1].hash)
    assert chain.body_of(rival[1].hash) is None
    check_books(chain)


def test_the_shortest_side_branches_make_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side, "MAX_SIDE_BLOCKS", 5)
    chain = fed(store, TRUNK[:8])
    long = MAKER.run(TRUNK[2], 4, gap=2)
    short = [MAKER.block(TRUNK[1], gap=gap) for gap in range(2, 8)]
    for block in [*short, *long]:
        assert chain.import_block(block) == "side"
        check_books(chain)
    assert all(chain.is_known(block.hash) for block in long)
    assert sum(chain.is_known(block.hash) for block in short) == 1
    assert chain.import_block(short[0]) in ("side", "known")
    assert all(chain.is_known(block.hash) for block in long)


# --- invalid blocks in a branch ------------------------------------------------------------


@pytest.mark.parametrize("bad_at", [0, 2, 4])
@pytest.mark.parametrize("way", ["blocks", "headers and bodies"])
def test_an_invalid_block_in_the_new_branch(
    bad_at: int, way: str, store: Store, tmp_path: Path
) -> None:
    """Four blocks to undo, a branch of six. Only what is valid and longer may replace them."""
    base = TRUNK[:10]
    new = MAKER.run(base[-1], bad_at, gap=2, transfers=1)
    new.append(MAKER.block((base + new)[-1], gap=2, state_root=b"\7" * 32))
    new += MAKER.run(new[-1], 5 - bad_at)
    chain = fed(store, TRUNK[:14])
    before = dump(store, *EXECUTED)
    with pytest.raises(InvalidBlockError) as caught:
        if way == "blocks":
            for block in new:
                chain.import_block(block)
        else:
            chain.add_headers(headers_of(new))
            chain.apply_bodies(11, bodies_of(new))
    assert (caught.value.rule, caught.value.hash) == ("state_root", new[bad_at].hash)
    check_books(chain)
    assert chain.pending_span() is None
    assert chain.is_invalid(new[bad_at].hash)
    if bad_at == 4:
        # The fifth block of the branch is bad: its first four are not longer than what is there.
        assert dump(store, *EXECUTED) == before
    if way == "headers and bodies":
        assert all(chain.is_invalid(block.hash) for block in new[bad_at:])
    # The branch is remembered: its headers are refused, whoever sends them.
    for refused in (new, new[bad_at:]):
        with pytest.raises(InvalidBlockError):
            chain.check_headers(headers_of(refused))
    with pytest.raises(InvalidBlockError):
        chain.import_block(new[bad_at])
    assert dump(store, *EXECUTED) == before
    # And its good part may go on otherwise.
    rest = MAKER.run((base + new[:bad_at])[-1], 6 - bad_at, gap=3)
    for block in rest:
        chain.import_block(block)
    same_as_if_only(chain, base + new[:bad_at] + rest, tmp_path)


def test_a_good_part_that_is_longer_is_kept(store: Store, tmp_path: Path) -> None:
    base = TRUNK[:10]
    new = MAKER.run(base[-1], 4, gap=2, transfers=1)
    bad = MAKER.block(new[-1], gas_used=21_000)
    chain = fed(store, TRUNK[:12])
    events: list[HeadChanged] = []
    chain.subscribe(events.append)
    chain.add_headers(headers_of([*new, bad]))
    with pytest.raises(InvalidBlockError):
        chain.apply_bodies(11, bodies_of([*new, bad]))
    assert chain.head.hash == new[-1].hash
    assert [event.head for event in events] == [chain.head]
    same_as_if_only(chain, base + new, tmp_path)


def test_side_blocks_on_an_invalid_one_go_with_it(store: Store) -> None:
    chain = fed(store, TRUNK[:6])
    bad = MAKER.block(TRUNK[2], gap=2, state_root=b"\1" * 32)
    children = [MAKER.block(bad, gap=gap) for gap in (1, 2)]
    tall = MAKER.run(children[0], 2)
    for block in [bad, *children, tall[0]]:
        assert chain.import_block(block) == "side"
    with pytest.raises(InvalidBlockError):
        chain.import_block(tall[1])
    assert all(chain.is_invalid(block.hash) for block in [bad, *children, *tall])
    assert not dump(store, tables.SIDE)[tables.SIDE]
    check_books(chain)


def test_a_wrong_body_in_a_reorganisation_blames_no_header(store: Store) -> None:
    new = MAKER.run(TRUNK[4], 4, gap=2, transfers=1)
    chain = fed(store, TRUNK[:8])
    chain.add_headers(headers_of(new))
    bodies = bodies_of(new)
    with pytest.raises(InvalidBlockError) as caught:
        chain.apply_bodies(6, [*bodies[:2], bodies[1], bodies[3]])
    assert caught.value.body_only
    assert chain.head.hash == TRUNK[7].hash
    assert chain.pending_span() == (6, 9)
    check_books(chain)
    chain.apply_bodies(6, bodies)
    assert chain.head.hash == new[-1].hash


# --- the candidate while the head moves ------------------------------------------------------


def test_the_candidate_survives_a_head_that_goes_elsewhere(store: Store, tmp_path: Path) -> None:
    chain = fed(store, TRUNK[:10])
    far = MAKER.run(TRUNK[9], 8, transfers=1)  # not executed yet, on the head of now
    chain.add_headers(headers_of(far))
    rival = MAKER.run(TRUNK[7], 3, gap=2)
    for block in rival:
        chain.import_block(block)
    assert chain.head.hash == rival[-1].hash
    check_books(chain)
    # It stands on two blocks that were undone: they are part of it now.
    assert chain.pending_span() == (9, 18)
    bodies = [chain.body_of(block_hash) for _, block_hash, _ in chain.pending_hashes(9, 2)]
    assert bodies == bodies_of(TRUNK[8:10])
    chain.apply_bodies(9, bodies_of(TRUNK[8:10] + far))
    same_as_if_only(chain, TRUNK[:10] + far, tmp_path)


def test_the_candidate_shares_its_beginning_with_what_was_executed(store: Store) -> None:
    chain = fed(store, TRUNK[:10])
    far = MAKER.run(TRUNK[7], 8, gap=2)
    chain.add_headers(headers_of(far))
    assert chain.pending_span() == (9, 16)
    fork = MAKER.run(far[0], 3, gap=2)
    for block in [far[0], *fork]:
        chain.import_block(block)
        check_books(chain)
    assert chain.head.hash == fork[-1].hash
    assert chain.pending_span() == (10, 16)


def test_the_candidate_goes_when_it_is_no_longer_longer(store: Store) -> None:
    chain = fed(store, TRUNK[:10])
    chain.add_headers(headers_of(MAKER.run(TRUNK[7], 4, gap=2)))
    assert chain.pending_span() == (9, 12)
    for block in TRUNK[10:13]:
        chain.import_block(block)
    assert chain.pending_span() is None
    assert chain.header_head == chain.head
    check_books(chain)


def test_the_candidate_goes_when_it_would_undo_too_much(store: Store) -> None:
    chain = fed(store, TRUNK[:10])
    chain.add_headers(headers_of(MAKER.run(TRUNK[5], 14, gap=2)))
    for block in TRUNK[10:14]:
        chain.import_block(block)
        check_books(chain)
    assert chain.pending_span() == (7, 20)
    chain.import_block(TRUNK[14])  # nine blocks above the fork
    assert chain.pending_span() is None
    check_books(chain)


def test_headers_on_a_side_branch_bring_it_along(store: Store, tmp_path: Path) -> None:
    chain = fed(store, TRUNK[:8])
    rival = MAKER.run(TRUNK[4], 3, gap=2, transfers=1)
    for block in rival:
        chain.import_block(block)
    more = MAKER.run(rival[-1], 2)
    assert chain.add_headers(headers_of(more)) == 2
    assert chain.pending_span() == (6, 10)
    check_books(chain)
    # Blocks beyond what is executed or kept wait for the bodies below them.
    with pytest.raises(UnknownParentError):
        chain.import_block(more[1])
    assert chain.import_block(more[0]) == "applied"
    assert chain.pending_span() == (10, 10)
    chain.apply_bodies(10, [prepare_body(more[1].body)])
    same_as_if_only(chain, TRUNK[:5] + rival + more, tmp_path)


def test_a_longer_candidate_replaces_the_candidate(store: Store) -> None:
    chain = fed(store, TRUNK[:5])
    first = MAKER.run(TRUNK[4], 6)
    second = MAKER.run(first[2], 5, gap=2)
    assert chain.add_headers(headers_of(first)) == 6
    assert chain.add_headers(headers_of(second[:3])) == 0  # not longer
    assert chain.add_headers(headers_of(first[:3] + second)) == 5
    assert chain.header_head.hash == second[-1].hash
    assert [found for _, found, _ in chain.pending_hashes(6, 99)] == [
        block.hash for block in first[:3] + second
    ]
    assert not chain.is_known(first[3].hash)
    check_books(chain)
    third = MAKER.run(TRUNK[2], 12, gap=2)
    assert chain.add_headers(headers_of(third)) == 12
    assert chain.pending_span() == (4, 15)
    check_books(chain)


# --- random trees ----------------------------------------------------------------------------

TREE = ChainMaker((), max_reorg_depth=100)


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[tuple[int, int, int]], int]:
    """(parent among those before, transfers, kind of fault: mostly none) per block, and a seed."""
    count = draw(st.integers(2, 14))
    nodes = [
        (
            draw(st.integers(max(0, n - 5), n)),
            draw(st.integers(0, 2)),
            draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1])),
        )
        for n in range(count)
    ]
    return nodes, draw(st.integers(0, 2**32))


class Model:
    """Fork choice from its definition, with a memory of what was seen first."""

    def __init__(self, bad: set[bytes]) -> None:
        self.seen = {TREE.genesis.hash}
        self.bad = bad
        self.head = TREE.genesis

    def valid(self, block: Block) -> bool:
        while block.height:
            if block.hash in self.bad:
                return False
            block = TREE.blocks[block.header.previous_hash]
        return True

    def take(self, block: Block) -> None:
        if block.header.previous_hash not in self.seen:
            return
        if block.height > self.head.height:
            best = block
            while not self.valid(best):
                best = TREE.blocks[best.header.previous_hash]
            if best.height > self.head.height:
                self.head = best
            # What turned out to be invalid is gone, with all that stands on it.
            if best is not block:
                self.seen = {h for h in self.seen if self.valid(TREE.blocks[h])}
                return
        self.seen.add(block.hash)


def grow(nodes: list[tuple[int, int, int]]) -> tuple[list[Block], Model]:
    """The blocks of a tree, parents first, and the model that knows which are bad."""
    blocks = [TREE.genesis]
    bad: set[bytes] = set()
    for n, (parent, transfers, fault) in enumerate(nodes):
        below = blocks[parent]
        block = TREE.block(
            below,
            [TREE.transfer(below, i, (i + 1) % 4, value=n + 1) for i in range(transfers)],
            gap=1 + n % 3,
            key=VALIDATORS[n % 3],
            **({"state_root": b"\1" * 32} if fault else {}),
        )
        if fault:
            bad.add(block.hash)
        blocks.append(block)
    return blocks[1:], Model(bad)


def check_state(chain: Blockchain) -> None:
    state = TREE.states[chain.head.hash]
    for key in (*ACCOUNTS, *VALIDATORS):
        account = chain.get_account(key.address)
        assert (account.nonce, account.balance) == state.get(key.address, (0, 0))


@settings(max_examples=40, deadline=None)
@given(trees(), st.booleans())
def test_random_trees_in_any_order(
    tree: tuple[list[tuple[int, int, int]], int], in_order: bool
) -> None:
    nodes, seed = tree
    blocks, model = grow(nodes)
    best = max([block.height for block in blocks if model.valid(block)], default=0)
    order = sorted(blocks, key=lambda block: block.height)
    if not in_order:
        random.Random(seed).shuffle(order)
    with opened("memory", Path()) as store:
        chain = Blockchain(store, TREE.config)
        for block in order * 3:  # orphans come again, as they do on a network
            with suppress(InvalidBlockError, UnknownParentError):
                chain.import_block(block)
            model.take(block)
            assert chain.head.hash == model.head.hash
            check_books(chain)
        check_state(chain)
        if in_order:
            assert chain.head.height == best


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["block", "headers", "headers", "bodies", "bodies", "drop"]),
        st.integers(0, 13),
        st.integers(0, 8),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(trees(), STEPS)
def test_headers_bodies_and_blocks_in_any_order(
    tree: tuple[list[tuple[int, int, int]], int], steps: list[tuple[str, int, int]]
) -> None:
    """Whatever comes in between, the books agree, the head is valid and never gets lower."""
    blocks, model = grow(tree[0])
    with opened("memory", Path()) as store:
        chain = Blockchain(store, TREE.config)
        for step, which, count in steps:
            before = chain.head.height
            with suppress(InvalidBlockError, UnknownParentError):
                _take(chain, step, blocks[which % len(blocks)], count)
            check_books(chain)
            check_state(chain)
            assert chain.head.height >= before
            assert model.valid(TREE.blocks[chain.head.hash])
            assert not any(chain.is_invalid(b.hash) for b in blocks if model.valid(b))
        # And a node that then hears of everything still ends on a longest valid chain.
        for block in sorted(blocks, key=lambda block: block.height):
            with suppress(InvalidBlockError, UnknownParentError):
                chain.drop_pending(0)
                chain.import_block(block)
        check_books(chain)
        assert chain.head.height == max([b.height for b in blocks if model.valid(b)], default=0)


def _take(chain: Blockchain, step: str, block: Block, count: int) -> None:
    span = chain.pending_span()
    if step == "block":
        chain.import_block(block)
    elif step == "headers":
        run = [block]
        while run[0].height > 1 and len(run) <= count:
            run.insert(0, TREE.blocks[run[0].header.previous_hash])
        chain.add_headers(headers_of(run))
    elif step == "drop" and span is not None:
        chain.drop_pending(span[0] + count)
    elif step == "bodies" and span is not None:
        first, last = span
        wanted = max(count, chain.head.height + 2 - first)  # a reorganisation passes the head
        rows = chain.pending_hashes(first, min(wanted, last - first + 1) or 1)
        chain.apply_bodies(first, [TREE.blocks[block_hash].body for _, block_hash, _ in rows])
