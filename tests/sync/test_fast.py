"""Beginning with the state of a recent block, over real sockets: from honest peers, and in every
situation in which that cannot be."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import sha256

import pytest
from helpers.fast_nodes import Served, StateNode, same_state, state_node
from helpers.sync_nodes import CONFIG, SETTINGS, connect, extend, new_validator, syncing, until

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.snapshots import SnapshotKeeper
from moderntensor.blockchain.staging import StateStaging
from moderntensor.errors import StateMissingError, SyncError
from moderntensor.network.messages import Reply, Request
from moderntensor.network.peer import Peer
from moderntensor.network.sync import SyncManager, SyncPhase, fast
from moderntensor.runtime import Runtime

INTERVAL = 32
PIVOT = 2 * INTERVAL
ABOVE = 70
HEIGHT = PIVOT + ABOVE
STRANGERS = {sha256(b"%d" % n).digest()[:20]: n + 1 for n in range(400)}
FEW = replace(CONFIG, alloc={**CONFIG.alloc, **STRANGERS}, snapshot_interval=INTERVAL)
BARE = replace(FEW, alloc={}, state_root=FEW.genesis_header.state_root)
SHORT = SETTINGS.replace(sync_give_up=1.0)

Source = tuple[Blockchain, SnapshotKeeper]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "ANNOUNCE_SECONDS", 0.3)
    monkeypatch.setattr(fast, "NEWER_SECONDS", 0.3)
    monkeypatch.setattr(fast, "REFRESH_SECONDS", 0.1)


@pytest.fixture
def source() -> Source:
    """A chain with a snapshot that may be begun with."""
    return grown()


def grown(*snapshots: int, height: int = HEIGHT) -> Source:
    chain = new_validator(FEW).chain
    keeper = SnapshotKeeper(chain, None, Runtime(1))
    for at in snapshots or (PIVOT,):
        extend(chain, at - chain.head.height - 1, transfers=1)
        extend(chain, 1, transfers=2)
        assert keeper.make(lambda: False)
    extend(chain, 3, transfers=1)
    extend(chain, height - chain.head.height)
    return chain, keeper


class SlowNode(StateNode):
    """Answers no GET_STATE before `opened` is set."""

    def __init__(self, source: Source) -> None:
        super().__init__(*source, Served(), SETTINGS)
        self.opened = asyncio.Event()

    async def answer_state(self, peer: Peer, request: Request) -> Reply:
        await self.opened.wait()
        return await super().answer_state(peer, request)


def hide(chain: Blockchain, *nodes: StateNode) -> None:
    """The snapshot at the pivot is gone."""
    block_hash = chain.hash_at(PIVOT)
    assert block_hash is not None
    for node in nodes:
        node.hidden.add(block_hash)


def staged(sync: SyncManager) -> bool:
    return StateStaging(sync.chain.store).pivot is not None


# --- where all goes well ---------------------------------------------------------------------


@pytest.mark.parametrize("peers", [1, 3])
async def test_a_fresh_node_has_the_state_without_the_history(
    source: Source, peers: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "moderntensor.network.sync")
    chain = source[0]
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(state_node(*source)) for _ in range(peers)]
        sync = await stack.enter_async_context(syncing(new_validator(FEW)))
        await connect(sync, *nodes)
        executed: list[int] = []
        sync.on_block_synced = lambda block: executed.append(block.height)
        result = await sync.fast_sync()
        assert sync.chain.head == chain.head
        assert same_state(sync.chain, chain)
        assert sync.chain.earliest_height == PIVOT + 1
        assert executed == list(range(PIVOT + 1, HEIGHT + 1))
        assert (result.pivot_height, result.accounts) == (PIVOT, len(FEW.alloc) + 2)
        assert (result.start_height, result.height) == (0, HEIGHT)
        assert (result.headers, result.blocks) == (HEIGHT, ABOVE)
        assert result.state_seconds > 0
        assert result.accounts_per_second > 0
        assert sync.status.phase is SyncPhase.FOLLOWING
        assert sync.status.progress == 1.0
        assert not staged(sync)
        assert len(sync.node.peers) == peers
        assert "all validator signatures are checked" in caplog.text

        # It follows, and whoever comes may begin with what it has.
        extend(chain, 62, transfers=1)
        await until(lambda: sync.chain.head == chain.head)
        keeper = SnapshotKeeper(sync.chain, None, Runtime(1))
        assert keeper.make(lambda: False)
        assert [height for height, _ in keeper.announced] == [6 * INTERVAL]
        extend(chain, 66, transfers=1)
        await until(lambda: sync.chain.head == chain.head)
        second = await stack.enter_async_context(state_node(sync.chain, keeper))
        third = await stack.enter_async_context(syncing(new_validator(FEW)))
        await connect(third, second)
        assert (await third.fast_sync()).pivot_height == 6 * INTERVAL
        assert third.chain.head == chain.head
        assert same_state(third.chain, chain)


async def test_a_chain_of_which_only_the_first_root_is_given(source: Source) -> None:
    validator = new_validator(BARE)
    assert validator.chain.genesis_hash == source[0].genesis_hash
    assert not validator.chain.has_state
    async with state_node(*source) as node, syncing(validator, settings=SHORT) as sync:
        await connect(sync, node)
        await until(lambda: sync.node.peers)
        await asyncio.sleep(2 * SHORT.follow_interval)  # following makes nothing of it
        assert sync.chain.head.height == 0
        with pytest.raises(StateMissingError):
            await sync.sync()
        await sync.fast_sync()
        assert sync.chain.head == source[0].head
        assert same_state(sync.chain, source[0])
        extend(source[0], 1, transfers=1)
        await until(lambda: sync.chain.head == source[0].head)


async def test_a_certain_snapshot(source: Source) -> None:
    older, keeper = grown(INTERVAL, PIVOT)
    async with state_node(older, keeper) as node, syncing(new_validator(FEW)) as sync:
        await connect(sync, node)
        for height, why in {
            PIVOT + 1: "snapshots are of every 32th block",
            3 * INTERVAL: f"too few blocks follow it; block {ABOVE} is the last",
            100 * INTERVAL: "too few blocks follow it",
            0: "the chain is at block 0 already",
        }.items():
            with pytest.raises(SyncError, match=f"no fast sync to block {height}: {why}"):
                await sync.fast_sync(height)
        with pytest.raises(ValueError, match="snapshot_height: -1 is below 0"):
            await sync.fast_sync(-1)
        assert (await sync.fast_sync(INTERVAL)).pivot_height == INTERVAL
        assert sync.chain.head == older.head
        with pytest.raises(SyncError, match=f"the chain is at block {HEIGHT} already"):
            await sync.fast_sync(PIVOT)
    async with state_node(*source) as node, syncing(new_validator(FEW)) as sync:
        await connect(sync, node)
        with pytest.raises(SyncError, match=r"no peer has its snapshot \(announced: \[64\]\)"):
            await sync.fast_sync(INTERVAL)
        assert sync.chain.head.height == 0


# --- where blocks are executed instead -------------------------------------------------------


async def test_without_a_snapshot_blocks_are_executed(
    source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "moderntensor.network.sync")
    chain = source[0]
    none = SnapshotKeeper(chain, None, Runtime(1))
    async with state_node(chain, none) as node, syncing(new_validator(FEW)) as sync:
        await connect(sync, node)
        result = await sync.fast_sync()
        assert (result.pivot_height, result.accounts, result.blocks) == (None, 0, HEIGHT)
        assert sync.chain.head == chain.head
        assert sync.chain.earliest_height == 0
        assert "executing all blocks instead of fetching a state: no peer has" in caplog.text
    async with (
        state_node(chain, none) as node,
        syncing(new_validator(BARE), settings=SHORT) as sync,
    ):
        await connect(sync, node)
        with pytest.raises(SyncError, match="first state of this chain can only be fetched"):
            await sync.fast_sync()


@pytest.mark.parametrize(("have", "height"), [(PIVOT - 10, HEIGHT), (0, PIVOT + 20)])
async def test_where_nothing_is_gained_blocks_are_executed(have: int, height: int) -> None:
    """The pivot saves few blocks, or too few follow it."""
    source = grown(height=height)
    validator = new_validator(FEW)
    async with state_node(*source) as node, syncing(validator) as sync:
        if have:
            await connect(sync, node)
            await sync.sync(have)
        else:
            await connect(sync, node)
        result = await sync.fast_sync()
        assert (result.pivot_height, result.blocks) == (None, height - have)
        assert sync.chain.head == source[0].head


# --- where the snapshot vanishes -------------------------------------------------------------


async def test_when_it_vanishes_everywhere_a_newer_one_is_taken(source: Source) -> None:
    chain, keeper = source
    async with (
        SlowNode(source) as one,
        SlowNode(source) as two,
        syncing(new_validator(FEW)) as sync,
    ):
        await connect(sync, one, two)
        run = asyncio.ensure_future(sync.fast_sync())
        await until(lambda: sync.status.phase is SyncPhase.STATE)
        assert sync.status.pivot_height == PIVOT
        extend(chain, 5 * INTERVAL - chain.head.height, transfers=1)
        keeper.make(lambda: False)
        # The chain goes on, and the node hears of it while it waits for an answer.
        extend(chain, ABOVE, transfers=1)
        hide(chain, one, two)
        one.opened.set()
        two.opened.set()
        result = await run
        assert result.pivot_height == 5 * INTERVAL
        assert sync.chain.head == chain.head
        assert same_state(sync.chain, chain)
        assert len(sync.node.peers) == 2


@pytest.mark.parametrize("wanted", [None, PIVOT])
async def test_when_there_is_no_newer_one_blocks_are_executed(
    source: Source, wanted: int | None
) -> None:
    chain = source[0]
    async with SlowNode(source) as node, syncing(new_validator(FEW)) as sync:
        await connect(sync, node)
        run = asyncio.ensure_future(sync.fast_sync(wanted))
        await until(lambda: sync.status.phase is SyncPhase.STATE)
        hide(chain, node)
        node.opened.set()
        if wanted is None:
            assert (await run).pivot_height is None
            assert sync.chain.head == chain.head
            assert not staged(sync)  # blocks have overtaken it
        else:
            with pytest.raises(SyncError, match=f"no fast sync to block {PIVOT}"):
                await run
            assert sync.chain.head.height == 0
            assert staged(sync)


async def test_peers_that_announce_and_never_serve_do_not_hold_it_up(source: Source) -> None:
    quick = SETTINGS.replace(request_timeout=0.2, sync_give_up=1.5, stall_timeout=0.2)
    async with (
        SlowNode(source) as node,
        syncing(new_validator(FEW), settings=quick) as sync,
    ):
        await connect(sync, node)
        run = asyncio.ensure_future(sync.fast_sync())
        with pytest.raises(SyncError):  # it was the only peer, and parted with
            await run
        assert sync.chain.head.height == 0
        async with state_node(*source) as honest:
            await connect(sync, honest)
            assert (await sync.fast_sync()).pivot_height == PIVOT


# --- ends, at any moment ---------------------------------------------------------------------


async def test_a_sync_that_comes_meanwhile_joins(source: Source) -> None:
    async with SlowNode(source) as node, syncing(new_validator(FEW)) as sync:
        await connect(sync, node)
        first = asyncio.ensure_future(sync.fast_sync())
        await until(lambda: sync.status.phase is SyncPhase.STATE)
        others = [
            asyncio.ensure_future(begun)
            for begun in (sync.fast_sync(), sync.sync(), sync.sync_headers())
        ]
        await asyncio.sleep(0)
        node.opened.set()
        results = await asyncio.gather(first, *others)
        assert all(result is results[0] for result in results)
        assert results[0].pivot_height == PIVOT


@pytest.mark.parametrize("end", ["cancel", "stop"])
@pytest.mark.parametrize("phase", [SyncPhase.WAITING, SyncPhase.STATE, SyncPhase.BLOCKS])
async def test_it_ends_at_once_and_goes_on_later(
    source: Source, end: str, phase: SyncPhase, monkeypatch: pytest.MonkeyPatch
) -> None:
    validator = new_validator(FEW)
    async with SlowNode(source) as node:
        if phase is SyncPhase.WAITING:
            monkeypatch.setattr(fast, "ANNOUNCE_SECONDS", 60.0)
            hide(source[0], node)
        async with syncing(validator) as sync:
            before = asyncio.all_tasks()
            await connect(sync, node)
            reached = asyncio.Event()
            sync.on_block_synced = lambda block: reached.set()
            run = asyncio.ensure_future(sync.fast_sync())
            if phase is SyncPhase.BLOCKS:
                node.opened.set()
                await reached.wait()
            else:
                await until(lambda: sync.status.phase is phase and sync.chain.header_head.height)
            if end == "cancel":
                run.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await run
            else:
                await sync.stop()
                with pytest.raises(SyncError, match="stopped"):
                    await run
            names = {task.get_name() for task in asyncio.all_tasks() - before}
            assert not {name for name in names if name.startswith("sync")}
            node.hidden.clear()
            node.opened.set()
        async with syncing(validator) as sync:
            await connect(sync, node)
            result = await sync.fast_sync()
            if phase is not SyncPhase.BLOCKS:
                assert result.pivot_height == PIVOT
            assert result.headers == 0
            assert sync.chain.head == source[0].head
            assert same_state(sync.chain, source[0])


async def test_a_state_that_is_whole_needs_nobody_any_more(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended between the last account and the commit that adopts it, and the snapshot is gone."""
    validator = new_validator(FEW)
    chain = validator.chain

    def fail(_: object) -> None:
        raise MemoryError

    async with state_node(*source) as node:
        with monkeypatch.context() as patch:
            patch.setattr(chain, "adopt_state", fail)
            async with syncing(validator) as sync:
                await connect(sync, node)
                with pytest.raises(MemoryError):
                    await sync.fast_sync()
        assert chain.head.height == 0
        hide(source[0], node)
        async with syncing(validator) as sync:
            await connect(sync, node)
            result = await sync.fast_sync()
            assert (result.pivot_height, result.blocks) == (PIVOT, ABOVE)
            assert sync.chain.head == source[0].head


async def test_bodies_below_come_if_they_are_wanted(source: Source) -> None:
    async with state_node(*source) as node, syncing(new_validator(FEW)) as sync:
        await connect(sync, node)
        await sync.fast_sync(backfill=True)
        await until(lambda: sync.chain.earliest_height == 0)
        await until(lambda: not sync.backfilling)
        body = source[0].get_block(PIVOT)
        assert body is not None
        assert sync.chain.get_block(PIVOT) == body
