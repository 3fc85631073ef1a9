"""Peers and listeners that would hold up a sync for ever, each in its own way."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from helpers.forks import SetClock
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
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.errors import SyncError
from moderntensor.network.messages import (
    BlockBodiesMessage,
    DisconnectCode,
    GetHeadersMessage,
    HeadersMessage,
    MessageType,
    Reply,
    Request,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.sync import SyncManager, SyncPhase
from moderntensor.node import FullNode

QUICK = SETTINGS.replace(request_timeout=0.2)  # so that patience with the busy ends in a second


def boast(node: P2PNode, height: int) -> None:
    """Have a node claim a head that is not its chain's."""
    hello, pong = node.make_hello, node.make_pong
    claim = {"best_height": height, "best_hash": b"\7" * 32}
    node.make_hello = lambda *args: hello(*args).replace(**claim)  # type: ignore[method-assign]
    node.make_pong = lambda nonce: pong(nonce).replace(**claim)  # type: ignore[method-assign]


def be_busy(node: P2PNode, kind: MessageType, retry_ms: int = 1) -> None:
    """Have a node answer all requests of one type with BUSY."""
    reply = HeadersMessage if kind == MessageType.GET_HEADERS else BlockBodiesMessage

    async def handler(peer: Peer, request: Request) -> Reply:
        return reply(request_id=request.request_id, status=Status.BUSY, retry_ms=retry_ms)

    node.register_handler(kind, handler)


def codes_of(node: P2PNode) -> list[int | None]:
    """With which codes others part from a node, from now on."""
    codes: list[int | None] = []
    node.on_peer_disconnected.append(lambda peer: codes.append(peer.drop_code))
    return codes


def condemn(chain: Blockchain, block_hash: bytes | None) -> None:
    """Have a chain remember a block as invalid, as if it had executed it once."""
    assert block_hash is not None
    with chain.store.write() as txn:
        chain._invalid.add(txn, block_hash, "state_root")


# --- what was found invalid before -----------------------------------------------------------


async def test_an_invalid_block_far_along_a_chain_convicts_and_ends_nothing_else() -> None:
    source, other = grown(400), grown(299)
    extend(other, 20, 1)
    settings = SETTINGS.replace(headers_per_request=16, sync_give_up=1.0)
    async with AsyncExitStack() as stack:
        wrong = await stack.enter_async_context(serving(source))
        sync = await stack.enter_async_context(syncing(settings=settings))
        condemn(sync.chain, source.hash_at(300))
        codes = codes_of(wrong)
        await connect(sync, wrong)
        with pytest.raises(SyncError):
            await sync.sync()
        await until(lambda: codes)
        assert codes == [DisconnectCode.BAD_BLOCK]
        right = await stack.enter_async_context(serving(other))
        await connect(sync, right)  # and following lives
        await until(lambda: sync.chain.head == other.head)


async def test_an_invalid_block_below_headers_of_the_future_convicts() -> None:
    source = grown(100)
    clock = SetClock(CONFIG.timestamp + 50)
    node = P2PNode(config=SETTINGS.replace(sync_give_up=0.5), runtime=clock)
    sync = SyncManager(node, BlockValidator(StateDB(None), CONFIG, runtime=clock))
    condemn(sync.chain, source.hash_at(40))
    async with serving(source) as server, node, sync:
        codes = codes_of(server)
        await connect(sync, server)
        with pytest.raises(SyncError):
            await sync.sync()
        await until(lambda: codes)
        assert codes == [DisconnectCode.BAD_BLOCK]
    clock.close()


# --- claims that are never kept --------------------------------------------------------------


async def test_one_that_is_always_busy_does_not_keep_a_sync_from_its_end() -> None:
    source = grown(60)
    async with AsyncExitStack() as stack:
        honest, busy = [await stack.enter_async_context(serving(source)) for _ in range(2)]
        boast(busy, 10**6)
        be_busy(busy, MessageType.GET_HEADERS)
        sync = await stack.enter_async_context(syncing(settings=QUICK))
        codes = codes_of(busy)
        await connect(sync, honest, busy)
        await sync.sync()
        assert sync.chain.head == source.head
        await until(lambda: codes)
        assert codes == [DisconnectCode.TIMEOUT]


async def test_bodies_that_are_promised_for_ever_do_not_block_a_chain_that_is_served() -> None:
    shorter, longer = grown(300, 1), grown(300, 1)
    extend(shorter, 20, 1)
    extend(longer, 40, 2)
    async with AsyncExitStack() as stack:
        miser = await stack.enter_async_context(serving(longer))
        honest = await stack.enter_async_context(serving(shorter))
        be_busy(miser, MessageType.GET_BLOCK_BODIES)
        sync = await stack.enter_async_context(syncing(settings=QUICK))
        codes = codes_of(miser)
        await connect(sync, miser, honest)
        await sync.sync()
        assert sync.chain.head == shorter.head
        await until(lambda: codes)


async def test_headers_that_we_have_are_no_reason_to_leave_others() -> None:
    """A liar answers locators with what lies far below, and is busy otherwise."""
    source = grown(400, 1)
    async with AsyncExitStack() as stack:
        honest, liar = [await stack.enter_async_context(serving(source)) for _ in range(2)]
        boast(liar, 10**6)

        async def headers(peer: Peer, request: Request) -> Reply:
            assert isinstance(request, GetHeadersMessage)
            if request.locator:
                data = source.headers_range(1, request.max_headers)
                return HeadersMessage(request_id=request.request_id, headers=data)
            return HeadersMessage(request_id=request.request_id, status=Status.BUSY, retry_ms=1)

        liar.register_handler(MessageType.GET_HEADERS, headers)
        be_busy(liar, MessageType.GET_BLOCK_BODIES)
        settings = QUICK.replace(headers_per_request=16)
        sync = await stack.enter_async_context(syncing(settings=settings))
        await connect(sync, honest)
        await sync.sync(target_height=20)
        dropped: list[int] = []
        drop = sync.chain.drop_pending
        sync.chain.drop_pending = lambda height: (  # type: ignore[method-assign]
            dropped.append(height),
            drop(height),
        )[1]
        await connect(sync, liar)
        async with asyncio.timeout(20):
            await sync.sync()
        assert sync.chain.head == source.head
        assert not dropped


async def test_a_leader_that_repeats_old_headers_is_useless_and_costs_no_memory() -> None:
    source = grown(600)
    async with AsyncExitStack() as stack:
        honest, liar = [await stack.enter_async_context(serving(source)) for _ in range(2)]
        boast(liar, 10**6)
        asked: list[int] = []

        async def headers(peer: Peer, request: Request) -> Reply:
            assert isinstance(request, GetHeadersMessage)
            start = 1 if request.locator else request.start_height
            asked.append(start)
            data = source.headers_range(start, request.max_headers, request.stride)
            return HeadersMessage(request_id=request.request_id, headers=data)

        liar.register_handler(MessageType.GET_HEADERS, headers)
        settings = SETTINGS.replace(headers_per_request=16)
        sync = await stack.enter_async_context(syncing(settings=settings))
        await connect(sync, honest)
        await sync.sync()
        codes = codes_of(liar)
        await connect(sync, liar)
        await until(lambda: codes)
        assert codes == [DisconnectCode.USELESS]
        assert max(asked) < 400  # nor is the whole chain read again


# --- listeners -------------------------------------------------------------------------------


async def sync_again(sync: SyncManager) -> None:
    with pytest.raises(SyncError, match="callback"):
        await sync.sync()


async def test_stop_in_a_block_callback_ends_all() -> None:
    source = grown(300)
    async with serving(source) as server, syncing() as sync:
        before = asyncio.all_tasks()
        await connect(sync, server)
        sync.on_block_synced = lambda block: sync.stop()
        with pytest.raises(SyncError, match="stopped"):
            await sync.sync()
        await sync.stop()
        assert sync.status.phase is SyncPhase.IDLE
        assert not sync.syncing
        assert not {t.get_name() for t in asyncio.all_tasks() - before} & {"sync", "sync-stop"}
        assert not [t for t in asyncio.all_tasks() if t.get_name() == "sync-follow"]
        assert sync.node.on_new_block is None
        await sync.start()  # and it can begin anew
        sync.on_block_synced = None
        assert (await sync.sync()).height == 300


async def test_stop_in_the_last_callback_leaves_the_result() -> None:
    source = grown(30)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        sync.on_sync_complete = sync.stop
        assert (await sync.sync()).height == 30
        assert sync.status.phase is SyncPhase.IDLE
        assert sync.node.on_new_block is None


async def test_stop_in_a_callback_of_following_ends_it() -> None:
    source = grown(30)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        await sync.sync()
        sync.on_block_synced = lambda block: sync.stop()
        extend(source, 1)
        await until(lambda: sync.status.phase is SyncPhase.IDLE)
        assert sync.node.on_new_block is None


async def test_a_callback_cannot_wait_for_a_sync() -> None:
    source = grown(30)
    async with serving(source) as server, syncing() as sync:
        await connect(sync, server)
        refused: list[int] = []

        async def again(*_: object) -> None:
            await sync_again(sync)
            refused.append(sync.chain.head.height)

        sync.on_block_synced = sync.on_sync_complete = again
        async with asyncio.timeout(10):
            await sync.sync()
        assert len(refused) == 31
        extend(source, 1)
        await until(lambda: len(refused) == 32)


async def test_a_slow_callback_is_no_lack_of_progress() -> None:
    source = grown(300, 1)
    settings = SETTINGS.replace(sync_give_up=0.8)
    async with serving(source) as server, syncing(settings=settings) as sync:
        await connect(sync, server)

        async def slow(block: Block) -> None:
            if block.height == 150:
                await asyncio.sleep(1.2)

        sync.on_block_synced = slow
        assert (await sync.sync()).height == 300


async def test_a_node_may_be_stopped_by_a_callback(tmp_path: Path) -> None:
    source = grown(100)
    async with serving(source) as server:
        node = FullNode(
            tmp_path,
            CONFIG,
            bootstrap_nodes=[f"127.0.0.1:{server.listen_port}"],
            settings=SETTINGS,
        )
        node.sync.on_block_synced = lambda block: node.stop()
        await node.start()
        await node.wait_stopping()
        async with asyncio.timeout(10):
            await node.stop()
        with StateDB(tmp_path / "chain") as state_db:  # its lock is free
            assert BlockValidator(state_db, CONFIG).chain.head.height > 0


async def test_a_sync_without_following_can_be_stopped() -> None:
    source = grown(300)
    node = P2PNode(config=SETTINGS)
    sync = SyncManager(node, new_validator())
    async with serving(source) as server, node:
        await connect(sync, server)
        reached = asyncio.Event()
        sync.on_block_synced = lambda block: reached.set()
        run = asyncio.ensure_future(sync.sync())
        await reached.wait()
        await sync.stop()
        with pytest.raises(SyncError, match="stopped"):
            await run
