"""Following the live chain: new blocks, gaps, branches, partitions, lost announcements."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from helpers.forks import SetClock
from helpers.sync_nodes import (
    CONFIG,
    SETTINGS,
    VALIDATORS,
    connect,
    extend,
    grown,
    new_validator,
    serving,
    syncing,
    until,
)

from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.producer import BlockProducer
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.network.budget import Kind
from moderntensor.network.messages import DisconnectCode
from moderntensor.network.p2p import P2PNode
from moderntensor.network.purpose import Purpose
from moderntensor.network.sync import SyncManager, SyncPhase
from moderntensor.network.sync.follow import MAX_WAITING


def produce(chain: Blockchain, validator: int, blocks: int) -> None:
    """Blocks in the slots of one validator only."""
    producer = BlockProducer(chain, None, VALIDATORS[validator])
    for _ in range(blocks):
        slot = producer.next_slot(0)
        assert slot is not None
        producer.produce(CONFIG.timestamp + slot * CONFIG.block_time)


async def test_new_blocks_are_followed_one_by_one() -> None:
    source = grown(50, 1)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        await sync.sync()
        heights: list[int] = []
        sync.on_block_synced = lambda block: heights.append(block.height)
        for height in range(51, 59):
            extend(source, 1, 2)
            await until(lambda at=height: sync.status.current_height == at)
            assert sync.chain.head == source.head
        await until(lambda: len(heights) == 8)
        assert heights == list(range(51, 59))
        assert sync.status.phase is SyncPhase.FOLLOWING
        assert len(sync.node.peers) == 1


async def test_whom_an_old_head_made_us_dial_is_asked_at_once() -> None:
    """A full node parts from newcomers: that one may be here for a second."""
    source = grown(50)
    settings = SETTINGS.replace(follow_interval=3600.0)
    async with serving(source) as server, syncing(settings=settings) as sync:
        await asyncio.sleep(0.05)  # what follows has begun to wait
        dialer = sync.node.discovery._dialer
        await dialer.connect("127.0.0.1", server.listen_port, None, Purpose.EXTRA)
        await until(lambda: sync.chain.head == source.head)


async def test_whom_it_dials_while_it_catches_up_is_asked_next() -> None:
    """It may be surrounded by those who stall, and is then always catching up."""
    source, more = grown(50), grown(60)
    settings = SETTINGS.replace(follow_interval=3600.0)
    async with serving(source) as one, serving(more) as other, syncing(settings=settings) as sync:
        follower, go = sync._follower, asyncio.Event()
        catch_up = follower._catch_up_quietly

        async def slowly() -> None:
            await catch_up()
            await go.wait()

        follower._catch_up_quietly = slowly
        dialer = sync.node.discovery._dialer
        await dialer.connect("127.0.0.1", one.listen_port, None, Purpose.EXTRA)
        await until(lambda: sync.chain.head == source.head)
        (first,) = sync.node.peers
        await sync.node.disconnect_peer(first)
        await dialer.connect("127.0.0.1", other.listen_port, None, Purpose.EXTRA)
        go.set()
        await until(lambda: sync.chain.head == more.head)


async def test_a_gap_is_filled() -> None:
    source = grown(50)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        await sync.sync()
        heights: list[int] = []
        phases: set[SyncPhase] = set()
        completed: list[bool] = []
        began = sync.status.start_height

        def seen(block: Block) -> None:
            heights.append(block.height)
            phases.add(sync.status.phase)

        sync.on_block_synced = seen
        sync.on_sync_complete = lambda: completed.append(True)
        extend(source, 30, 1)
        await until(lambda: sync.chain.head == source.head)
        await until(lambda: heights == list(range(51, 81)))
        assert phases == {SyncPhase.FOLLOWING}  # that is no sync
        assert not completed
        assert sync.status.start_height == began


async def test_far_behind_it_syncs_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderntensor.network.sync.follow.FAR_BEHIND", 100)
    source = grown(50)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        await sync.sync()
        phases: set[SyncPhase] = set()
        sync.on_block_synced = lambda block: phases.add(sync.status.phase)
        extend(source, 150)
        await until(lambda: sync.chain.head == source.head)
        await until(lambda: sync.status.phase is SyncPhase.FOLLOWING)
        assert phases & {SyncPhase.HEADERS, SyncPhase.BLOCKS}
        assert sync.status.start_height == 50
        extend(source, 1)
        await until(lambda: sync.chain.head == source.head)


async def test_following_goes_on_when_all_peers_have_left_and_return() -> None:
    source = grown(20)
    async with syncing() as sync:
        async with serving(source) as server:
            await connect(sync, server)
            await sync.sync()
        await until(lambda: not sync.node.peers)
        extend(source, 40, 1)
        async with serving(source) as server:
            await connect(sync, server)
            await until(lambda: sync.chain.head == source.head)
            extend(source, 1)
            await until(lambda: sync.chain.head == source.head)


async def test_a_node_that_was_only_started_catches_up_by_itself() -> None:
    source = grown(300, 1)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        await until(lambda: sync.chain.head == source.head)
        extend(source, 1)
        await until(lambda: sync.chain.head == source.head)


async def test_blocks_reach_a_node_behind_a_node() -> None:
    source = grown(20, 1)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(source))
        near = await stack.enter_async_context(syncing())
        far = await stack.enter_async_context(syncing())
        await connect(near, server)
        await near.sync()
        await connect(far, near.node)
        await far.sync()
        for _ in range(3):
            extend(source, 1, 1)
            await until(lambda: far.chain.head == source.head)


async def test_the_longer_branch_wins_each_time() -> None:
    one, other = grown(40, 1), grown(40, 1)
    produce(one, 0, 3)
    produce(other, 1, 5)
    async with serving(one) as first, serving(other) as second, syncing() as sync:
        await connect(sync, first)
        await sync.sync()
        assert sync.chain.head == one.head
        heights: list[int] = []
        sync.on_block_synced = lambda block: heights.append(block.height)
        await connect(sync, second)
        await until(lambda: sync.chain.head == other.head)
        await until(lambda: heights == [41, 42, 43, 44, 45])
        produce(one, 0, 4)
        await until(lambda: sync.chain.head == one.head)
        produce(other, 1, 1)  # 46 against 47
        produce(other, 1, 2)
        await until(lambda: sync.chain.head == other.head)
        assert len(sync.node.peers) == 2
        state = sync.chain.head.state_root
        assert state == other.head.state_root


async def test_a_branch_of_equal_length_changes_nothing() -> None:
    one, other = grown(40, 1), grown(40, 1)
    produce(one, 0, 3)
    produce(other, 1, 3)
    async with serving(one) as first, serving(other) as second, syncing() as sync:
        await connect(sync, first)
        await sync.sync()
        await connect(sync, second)
        result = await sync.sync()
        assert (result.blocks, sync.chain.head) == (0, one.head)


async def test_two_producers_converge_when_a_partition_heals() -> None:
    async with AsyncExitStack() as stack:
        left = await stack.enter_async_context(syncing())
        right = await stack.enter_async_context(syncing())
        for chain in (left.chain, right.chain):
            extend(chain, 20, 1)
        produce(left.chain, 0, 6)
        produce(right.chain, 1, 9)
        winner = right.chain.head
        await connect(left, right.node)
        await until(lambda: left.chain.head == winner)
        assert right.chain.head == winner
        for turn in range(4):  # and both go on, on one chain
            produce((left, right)[turn % 2].chain, turn % 2, 1)
            await until(lambda: left.chain.head == right.chain.head)
        assert left.chain.head.height == winner.height + 4


async def test_a_lost_announcement_heals() -> None:
    source = grown(20)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        await sync.sync()

        async def silence(*_: object) -> None:
            return

        server.gossip.blocks._announce = silence  # type: ignore[method-assign]
        extend(source, 3, 1)
        await until(lambda: sync.chain.head == source.head)  # a PONG told


async def test_blocks_ahead_of_the_clock_wait_for_it() -> None:
    """A block 16 seconds ahead is nobody's fault and not admitted before its time."""
    source = grown(100)
    clock = SetClock(CONFIG.timestamp + 50)  # one block a second: 65 are admitted
    node = P2PNode(config=SETTINGS, runtime=clock)
    validator = BlockValidator(StateDB(None), CONFIG, runtime=clock)
    sync = SyncManager(node, validator)
    async with serving(source) as server, node, sync:
        await connect(sync, server)
        result = await sync.sync()
        assert result.height == 65
        clock.now += 10
        # The claim is looked at again after a while, without a new announcement.
        await until(lambda: sync.chain.head.height == 75)
        block = source.get_block(76)
        peer = next(iter(node.peers.values()))
        assert block is not None
        assert not await sync.handle_new_block(block, peer)
        assert len(node.peers) == 1
    clock.close()


async def test_a_bad_block_costs_its_sender_the_connection() -> None:
    source = grown(30)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        await sync.sync()
        codes: list[int | None] = []
        server.on_peer_disconnected.append(lambda peer: codes.append(peer.drop_code))
        extend(source, 1)
        await until(lambda: sync.chain.head == source.head)
        good = source.get_block(31)
        assert good is not None
        draft = sync.chain.draft_block(
            VALIDATORS[(CONFIG.slot_of(good.header.timestamp) + 1) % 2].public_key,
            good.header.timestamp + 1,
            (),
        )
        key = VALIDATORS[(CONFIG.slot_of(good.header.timestamp) + 1) % 2]
        bad = Block(header=draft.header.replace(state_root=b"\1" * 32).sign(key))
        peer = next(iter(sync.node.peers.values()))
        assert not await sync.handle_new_block(bad, peer)
        assert sync.chain.head == source.head
        assert sync.chain.is_invalid(bad.hash)
        await until(lambda: codes)
        assert codes == [DisconnectCode.BAD_BLOCK]


async def test_a_bounded_sync_stays_where_it_stopped() -> None:
    source = grown(60)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        await sync.sync(target_height=40)
        extend(source, 2)
        await asyncio.sleep(3 * SETTINGS.follow_interval)
        assert sync.chain.head.height == 40
        await sync.sync()
        extend(source, 1)
        await until(lambda: sync.chain.head == source.head)


async def test_handle_new_block_fetches_what_is_missing() -> None:
    source = grown(80)
    async with serving(source) as server, syncing(new_validator()) as sync:
        await connect(sync, server)
        await sync.sync(target_height=50)
        block = source.get_block(80)
        peer = next(iter(sync.node.peers.values()))
        assert block is not None
        assert await sync.handle_new_block(block, peer)
        assert sync.chain.head == source.head


async def test_what_waits_to_be_imported_is_counted_and_bounded() -> None:
    source = grown(20, 1)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        await sync.sync()
        budget = sync.node.budget
        async with sync._writing:
            extend(source, 1, 3)
            await until(lambda: budget.report().by_kind[Kind.BLOCKS] > 3 * 200)
            peer = next(iter(sync.node.peers.values()))
            block = source.get_block(21)
            assert block is not None
            told = [
                asyncio.ensure_future(sync._follower._announced(block, peer))
                for _ in range(2 * MAX_WAITING)
            ]
            await until(lambda: sum(task.done() for task in told) >= MAX_WAITING)
            # Those that peers announced may come a little later than ours.
            await until(lambda: len(sync._follower._waiting) >= MAX_WAITING)
            assert len(sync._follower._waiting) == MAX_WAITING
            assert budget.report().by_kind[Kind.BLOCKS] > 3 * 200
        await until(lambda: sync.chain.head == source.head)
        await asyncio.gather(*told)
        await until(lambda: not budget.report().by_kind[Kind.BLOCKS])
