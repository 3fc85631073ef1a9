"""Syncing a fresh node from honest peers over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from helpers.sync_nodes import (
    CONFIG,
    SETTINGS,
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
from moderntensor.blockchain.lookup import HeaderBatch
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.errors import SyncError
from moderntensor.network.messages import DisconnectCode, MessageType
from moderntensor.network.p2p import P2PNode
from moderntensor.network.sync import SyncManager, SyncPhase
from moderntensor.network.sync.source import Kind

BLOCKS = 700  # some ranges of 192 headers and a rest
TRANSFERS = 1


@pytest.fixture(scope="module")
def source() -> Iterator[Blockchain]:
    yield grown(BLOCKS, TRANSFERS)


@pytest.mark.parametrize("peers", [1, 3])
async def test_a_fresh_node_gets_to_the_head_of_its_peers(source: Blockchain, peers: int) -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(source)) for _ in range(peers)]
        sync = await stack.enter_async_context(syncing())
        await connect(sync, *servers)
        result = await sync.sync()
        assert sync.chain.head == source.head
        assert sync.chain.header_head == source.head
        assert (result.start_height, result.height) == (0, BLOCKS)
        assert result.head_hash == source.head.hash
        assert (result.headers, result.blocks) == (BLOCKS, BLOCKS)
        assert result.transactions == BLOCKS * TRANSFERS
        assert result.bytes_received > 261 * BLOCKS
        assert len(sync.node.peers) == peers  # nobody was dropped
        if peers > 1:  # nobody did it all
            moved = [peer.info.bytes_received for peer in sync.node.peers.values()]
            assert min(moved) > 10_000


async def test_every_peer_serves_headers_and_bodies(source: Blockchain) -> None:
    settings = SETTINGS.replace(headers_per_request=8, blocks_per_request=8)
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(source)) for _ in range(4)]
        sync = await stack.enter_async_context(syncing(settings=settings))
        await connect(sync, *servers)
        assert (await sync.sync()).height == source.head.height
        for used in sync.context.pool:
            assert used.delivered_at[Kind.HEADERS] > 0
            assert used.delivered_at[Kind.BODIES] > 0


async def test_empty_blocks_are_synced_without_asking_for_bodies() -> None:
    source = grown(400)
    async with serving(source) as server, syncing() as sync:
        asked: list[object] = []

        async def note(_: object, message: object) -> None:
            asked.append(message)

        server.register_handler(MessageType.GET_BLOCK_BODIES, note)
        await connect(sync, server)
        await sync.sync()
        assert sync.chain.head == source.head
        assert not asked


async def test_the_target_height_is_where_it_stops(source: Blockchain) -> None:
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        for target in (1, 100, 192, 193, 500):
            result = await sync.sync(target_height=target)
            assert result.height == sync.chain.head.height == target
            assert sync.chain.head.hash == source.hash_at(target)
        assert (await sync.sync(target_height=10)).blocks == 0  # there already
        assert (await sync.sync()).height == BLOCKS


async def test_a_target_that_nobody_has_is_an_error_in_the_end(source: Blockchain) -> None:
    settings = SETTINGS.replace(sync_give_up=0.5)
    async with serving(source) as server, syncing(settings=settings) as sync:
        await connect(sync, server)
        with pytest.raises(SyncError, match=f"at block {BLOCKS} of {BLOCKS + 5}"):
            await sync.sync(target_height=BLOCKS + 5)
        assert sync.chain.head == source.head


async def test_with_no_peers_it_says_so_at_once() -> None:
    async with syncing() as sync:
        with pytest.raises(SyncError, match="no peers are connected"):
            await sync.sync()
        with pytest.raises(SyncError, match=r"no peer connected within 0\.05 s"):
            await sync.sync(wait_for_peers=0.05)


async def test_it_waits_while_bootstrap_nodes_are_dialled(source: Blockchain) -> None:
    """A node that was started this moment has no peers yet, and need not be told to wait."""
    async with serving(source) as server:
        node = P2PNode(
            bootstrap_nodes=[f"127.0.0.1:{server.listen_port}"],
            config=SETTINGS,
        )
        sync = SyncManager(node, new_validator())
        async with node, sync:
            assert not node.peers
            await sync.sync()
            assert sync.chain.head == source.head


async def test_it_gives_up_on_bootstrap_nodes_that_are_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # and never answers
        node = P2PNode(
            bootstrap_nodes=[f"127.0.0.1:{taken.getsockname()[1]}"],
            config=SETTINGS.replace(connect_timeout=0.1, handshake_timeout=0.1),
        )
        async with node, SyncManager(node, new_validator()) as sync:
            with pytest.raises(SyncError, match="no peer connected within"):
                await sync.sync()


async def test_it_waits_for_a_peer_if_asked(source: Blockchain) -> None:
    async with serving(source) as server, syncing() as sync:
        run = asyncio.ensure_future(sync.sync(wait_for_peers=20))
        await until(lambda: sync.status.waiting is not None)
        assert sync.status.phase is SyncPhase.WAITING
        await connect(sync, server)
        assert (await run).height == BLOCKS


async def test_peers_that_have_no_more_end_it_at_once(source: Blockchain) -> None:
    async with serving(grown(3)) as server, syncing(new_validator()) as sync:
        extend(sync.chain, 5)
        await connect(sync, server)
        result = await sync.sync()
        assert (result.blocks, result.height) == (0, 5)


async def test_a_second_call_joins_the_first(source: Blockchain) -> None:
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        first, second = await asyncio.gather(sync.sync(), sync.sync())
        assert first is second


async def test_callbacks_get_every_block_in_order_and_may_fail(source: Blockchain) -> None:
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        blocks: list[Block] = []
        completed: list[int] = []

        async def on_block(block: Block) -> None:
            blocks.append(block)
            if block.height == 7:
                raise RuntimeError("a user's mistake")

        sync.on_block_synced = on_block
        sync.on_sync_complete = lambda: completed.append(sync.chain.head.height)
        await sync.sync()
        assert [block.height for block in blocks] == list(range(1, BLOCKS + 1))
        assert all(len(block.transactions) == TRANSFERS for block in blocks)
        assert blocks[-1].hash == source.head.hash
        assert completed == [BLOCKS]


async def test_status_goes_from_nothing_to_all(source: Blockchain) -> None:
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        seen = []
        sync.on_block_synced = lambda block: seen.append(sync.status)
        await sync.sync()
        assert {status.phase for status in seen} <= {SyncPhase.HEADERS, SyncPhase.BLOCKS}
        progress = [status.progress for status in seen]
        assert progress == sorted(progress)
        assert all(0 < p <= 1 for p in progress)
        assert all(s.current_height <= s.header_height <= s.target_height for s in seen)
        assert any(s.blocks_per_second > 0 and s.transactions_per_second > 0 for s in seen)
        status = sync.status
        assert (status.progress, status.eta_seconds, status.peers) == (1.0, 0.0, 1)
        assert status.phase is SyncPhase.FOLLOWING


async def test_it_resumes_where_it_was_stopped(source: Blockchain, tmp_path: Path) -> None:
    with StateDB(tmp_path, map_size=64 << 20) as state_db:
        async with serving(source) as server, syncing(BlockValidator(state_db, CONFIG)) as sync:
            await connect(sync, server)
            await sync.sync(target_height=300)
    with StateDB(tmp_path, map_size=64 << 20) as state_db:
        async with serving(source) as server, syncing(BlockValidator(state_db, CONFIG)) as sync:
            assert sync.chain.head.hash == source.hash_at(300)
            await connect(sync, server)
            result = await sync.sync()
            assert (result.start_height, result.blocks) == (300, BLOCKS - 300)
            assert sync.chain.head == source.head


async def test_cancelling_it_leaves_nothing_running(source: Blockchain) -> None:
    async with serving(source) as server:
        await asyncio.sleep(0.05)  # the server's own tasks have begun
        before = asyncio.all_tasks()
        settings = SETTINGS.replace(follow_interval=60)  # or following would take over
        async with syncing(settings=settings) as sync:
            await connect(sync, server)
            running = asyncio.all_tasks()
            for blocks in (1, 100, 300):
                reached = asyncio.Event()
                sync.on_block_synced = lambda block, at=blocks, event=reached: (
                    event.set() if block.height >= at else None
                )
                task = asyncio.ensure_future(sync.sync())
                await reached.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert asyncio.all_tasks() - running <= {task}
                head = sync.chain.head
                assert head.hash == source.hash_at(head.height)
            await sync.sync()  # and it can go on
            assert sync.chain.head == source.head
        await until(lambda: asyncio.all_tasks() <= before)


async def test_one_of_two_callers_may_leave(source: Blockchain) -> None:
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        impatient, patient = (asyncio.ensure_future(sync.sync()) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert (await patient).height == BLOCKS


async def test_stopping_ends_a_running_sync(source: Blockchain) -> None:
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        reached = asyncio.Event()
        sync.on_block_synced = lambda block: reached.set()
        run = asyncio.ensure_future(sync.sync())
        await reached.wait()
        await sync.stop()
        with pytest.raises(SyncError, match="stopped"):
            await run
        assert sync.status.phase is SyncPhase.IDLE


async def test_a_head_that_moves_meanwhile_is_reached() -> None:
    source = grown(400, 1)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)

        def on_block(block: Block) -> None:
            if block.height == 100:
                extend(source, 300, 1)

        sync.on_block_synced = on_block
        await sync.sync()
        assert sync.chain.head.height >= 400
        await until(lambda: sync.chain.head == source.head)


def add_headers(chain: Blockchain, source: Blockchain, start: int) -> None:
    """Make the headers of `source` from `start` on pending."""
    count = source.head.height - start + 1
    chain.add_headers(HeaderBatch(source.headers_range(start, count)))


@pytest.mark.parametrize("ahead", [5, 50], ids=["shorter", "longer"])
async def test_headers_left_from_a_chain_that_nobody_has_are_given_up(ahead: int) -> None:
    source, gone = grown(100, 1), grown(80, 1)
    extend(gone, 20 + ahead, 2)
    extend(source, 20)
    async with serving(source) as server, syncing() as sync:
        add_headers(sync.chain, gone, 1)
        assert sync.chain.header_head.height == 100 + ahead
        await connect(sync, server)
        await sync.sync()
        assert sync.chain.head == sync.chain.header_head == source.head


async def test_a_chain_that_forks_off_too_deep_is_not_followed() -> None:
    ours, theirs = grown(20, 1), grown(20, 1)
    extend(ours, 150)
    extend(theirs, 200, 1)
    validator = new_validator()
    async with serving(ours) as near, serving(theirs) as far, syncing(validator) as sync:
        await connect(sync, near)
        await sync.sync()
        codes: list[int | None] = []
        far.on_peer_disconnected.append(lambda peer: codes.append(peer.drop_code))
        await connect(sync, far)
        await sync.sync()
        assert sync.chain.head == ours.head
        await until(lambda: codes)
        assert codes == [DisconnectCode.USELESS]


async def test_when_all_peers_leave_it_waits_for_new_ones(source: Blockchain) -> None:
    async with serving(source) as second, syncing() as sync:
        async with serving(source) as first:
            await connect(sync, first)
            reached = asyncio.Event()
            sync.on_block_synced = lambda block: reached.set()
            run = asyncio.ensure_future(sync.sync())
            await reached.wait()
        await until(lambda: sync.status.waiting or run.done())
        await connect(sync, second)
        assert (await run).height == BLOCKS


async def test_when_all_peers_leave_for_good_it_is_an_error(source: Blockchain) -> None:
    settings = SETTINGS.replace(sync_give_up=0.5, apply_batch_blocks=1, sync_window_blocks=4)
    async with syncing(settings=settings) as sync:
        async with serving(source) as server:
            await connect(sync, server)
            reached = asyncio.Event()
            sync.on_block_synced = lambda block: reached.set()
            run = asyncio.ensure_future(sync.sync())
            await reached.wait()
        with pytest.raises(SyncError, match="peers are gone"):
            await run
        head = sync.chain.head
        assert 0 < head.height < BLOCKS
        assert head.hash == source.hash_at(head.height)
