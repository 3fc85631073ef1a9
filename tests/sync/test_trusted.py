"""Syncing under a checkpoint: signatures are left unchecked, and nobody gains by that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
from helpers.forged import forge
from helpers.sync_nodes import (
    CONFIG,
    SETTINGS,
    connect,
    grown,
    new_validator,
    serving,
    syncing,
    until,
)

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.errors import ConfigError, SyncError
from moderntensor.network.messages import (
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
from moderntensor.network.sync import header_checks
from moderntensor.network.sync import headers as header_stage
from moderntensor.network.sync.headers import HeaderStage
from moderntensor.node import FullNode

BLOCKS = 420
POINT = 400  # the height that is known from elsewhere
# Small requests, so that the checkpoint is many of them away.
FEW = SETTINGS.replace(
    headers_per_request=16, trusted_headers_per_request=64, blocks_per_request=16, sync_give_up=0.5
)


@pytest.fixture(scope="module")
def source() -> Blockchain:
    return grown(BLOCKS, 1)


@pytest.fixture(scope="module")
def trusting(source: Blockchain) -> ChainConfig:
    known = source.hash_at(POINT)
    assert known is not None
    return CONFIG.trusting(POINT, known)


@pytest.fixture(scope="module")
def false() -> Blockchain:
    """Longer than the source, true up to block 60, signed by nobody above."""
    return forge(grown(60, 1), BLOCKS)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The heights whose signatures were checked."""
    heights: list[int] = []
    real = header_checks.verify_header_signatures

    def verify(batch: header_checks.HeaderBatch, start: int, stop: int, memo: None) -> int | None:
        heights.extend(batch.height(i) for i in range(start, stop))
        return real(batch, start, stop)

    monkeypatch.setattr(header_checks, "verify_header_signatures", verify)
    return heights


def boast(node: P2PNode, chain: Blockchain, height: int) -> None:
    """Have a node claim all of a chain and show its skeleton, and no ranges above `height`."""
    hello, pong = node.make_hello, node.make_pong
    claim = {"best_height": chain.head.height, "best_hash": chain.head.hash}
    node.make_hello = lambda *args: hello(*args).replace(**claim)  # type: ignore[method-assign]
    node.make_pong = lambda nonce: pong(nonce).replace(**claim)  # type: ignore[method-assign]

    async def handler(peer: Peer, request: Request) -> Reply:
        reply = await node.server.answer(peer, request)
        assert isinstance(request, GetHeadersMessage)
        if isinstance(reply, HeadersMessage) and reply.count and request.stride == 1:
            first = header_checks.HeaderBatch(reply.headers).height(0)
            last = first + request.max_headers - 1
            if last > height:
                return HeadersMessage(request_id=request.request_id, status=Status.NOT_FOUND)
        return reply

    node.register_handler(MessageType.GET_HEADERS, handler)


def drop_codes(node: P2PNode) -> list[int | None]:
    """The codes with which others parted from a node."""
    codes: list[int | None] = []
    node.on_peer_disconnected.append(lambda peer: codes.append(peer.drop_code))
    return codes


@contextmanager
def nothing_false_applied(chain: Blockchain, source: Blockchain) -> Iterator[None]:
    """Whatever was tried, only blocks of the true chain were ever executed."""
    strange: list[int] = []
    end = chain.subscribe(
        lambda event: strange.extend(
            height for height, found in event.applied if source.hash_at(height) != found
        )
    )
    yield
    end()
    assert strange == []


@pytest.mark.parametrize("peers", [1, 3])
async def test_below_the_checkpoint_no_signature_is_checked(
    source: Blockchain, trusting: ChainConfig, checked: list[int], peers: int
) -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(source)) for _ in range(peers)]
        sync = await stack.enter_async_context(syncing(new_validator(trusting), settings=FEW))
        await connect(sync, *servers)
        result = await sync.sync()
        assert sync.chain.head == source.head
        assert (result.headers, result.blocks) == (BLOCKS, BLOCKS)
        assert sorted(set(checked)) == list(range(POINT + 1, BLOCKS + 1))
        assert len(sync.node.peers) == peers


async def test_a_target_below_the_checkpoint_is_no_reason_to_trust(
    source: Blockchain, trusting: ChainConfig, checked: list[int]
) -> None:
    async with serving(source) as server, syncing(new_validator(trusting), settings=FEW) as sync:
        await connect(sync, server)
        await sync.sync(target_height=300)
        assert sync.chain.head.hash == source.hash_at(300)
        assert set(range(1, 301)) <= set(checked)
        await sync.sync()
        assert sync.chain.head == source.head


async def test_a_peer_that_is_not_that_far_is_checked(
    trusting: ChainConfig, checked: list[int]
) -> None:
    async with serving(grown(200, 1)) as server, syncing(new_validator(trusting)) as sync:
        await connect(sync, server)
        await sync.sync()
        assert sync.chain.head.height == 200
        assert set(checked) == set(range(1, 201))


async def test_a_false_chain_is_refused_with_and_without_trust(
    source: Blockchain, false: Blockchain, trusting: ChainConfig
) -> None:
    for config in (CONFIG, trusting):
        async with AsyncExitStack() as stack:
            liar = await stack.enter_async_context(serving(false))
            honest = await stack.enter_async_context(serving(source))
            sync = await stack.enter_async_context(syncing(new_validator(config), settings=FEW))
            codes = drop_codes(liar)
            await connect(sync, liar, honest)
            with nothing_false_applied(sync.chain, source):
                await sync.sync()
            assert sync.chain.head == source.head
            await until(lambda codes=codes: codes)
            expected = DisconnectCode.BAD_HEADER if config is CONFIG else DisconnectCode.USELESS
            assert codes == [expected]
            assert len(sync.node.peers) == 1


async def test_a_false_chain_alone_gets_nowhere(
    source: Blockchain, false: Blockchain, trusting: ChainConfig
) -> None:
    async with (
        serving(false) as liar,
        syncing(new_validator(trusting), settings=FEW) as sync,
    ):
        await connect(sync, liar)
        with nothing_false_applied(sync.chain, source), pytest.raises(SyncError):
            await sync.sync()
        # What it showed is kept at most as provisional, and neither served nor executed.
        assert sync.chain.head.height <= 60
        assert not sync.node.peers


@pytest.mark.parametrize("alone", [True, False])
async def test_one_that_never_shows_the_checkpoint_is_checked_in_the_end(
    source: Blockchain, false: Blockchain, trusting: ChainConfig, alone: bool
) -> None:
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(serving(false))
        boast(liar, false, POINT - 30)
        sync = await stack.enter_async_context(syncing(new_validator(trusting), settings=FEW))
        await connect(sync, liar)
        with nothing_false_applied(sync.chain, source):
            run = asyncio.ensure_future(sync.sync())
            if not alone:
                await until(lambda: sync.chain.header_head.height > 100)
                assert sync.chain.pending_span() is None
                assert sync.chain.head.height == 0
                honest = await stack.enter_async_context(serving(source))
                await connect(sync, honest)
                await run
                assert sync.chain.head == source.head
            else:
                with pytest.raises(SyncError):
                    await run
                assert sync.chain.provisional_height() is None
                assert sync.chain.header_head.height <= 60
                assert not sync.node.peers


async def test_what_an_honest_peer_shows_below_it_is_checked_and_kept(checked: list[int]) -> None:
    """It claimed the checkpoint and lost the blocks above 300, say: its headers are good."""
    source = grown(BLOCKS)
    known = source.hash_at(POINT)
    assert known is not None
    trusting = CONFIG.trusting(POINT, known)
    async with serving(source) as server, syncing(new_validator(trusting), settings=FEW) as sync:
        boast(server, source, 300)
        await connect(sync, server)
        with nothing_false_applied(sync.chain, source), pytest.raises(SyncError):
            await sync.sync()
        assert sync.chain.provisional_height() is None
        assert sync.chain.head.hash == source.hash_at(sync.chain.head.height)
        assert sync.chain.head.height > 200
        assert set(checked) == set(range(1, sync.chain.header_head.height + 1))


async def test_what_was_provisional_when_it_stopped_still_is(
    source: Blockchain, trusting: ChainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended half-way, before anything else could be done, like by a kill."""
    real = HeaderStage._store
    stored = 0

    async def store(self: HeaderStage, *args: object) -> int:
        nonlocal stored
        stored += 1
        if stored > 2:
            raise MemoryError
        return await real(self, *args)  # type: ignore[arg-type]

    validator = new_validator(trusting)
    async with serving(source) as server:
        with monkeypatch.context() as patch:
            patch.setattr(HeaderStage, "_store", store)
            patch.setattr(header_stage, "HEADERS_PER_COMMIT", 64)
            async with syncing(validator, settings=FEW) as sync:
                await connect(sync, server)
                with pytest.raises(MemoryError):
                    await sync.sync()
        again = Blockchain(validator.chain.store, trusting)
        assert again.provisional_height() == 1
        assert again.header_head.height > 16
        assert again.pending_span() is None
        assert again.head.height == 0
        async with syncing(validator, settings=FEW) as sync:
            await connect(sync, server)
            result = await sync.sync()
            assert sync.chain.head == source.head
            assert result.headers < BLOCKS  # what was there was not fetched again


# --- headers alone ---------------------------------------------------------------------------


@pytest.mark.parametrize("trust", [False, True])
async def test_headers_alone(source: Blockchain, trusting: ChainConfig, trust: bool) -> None:
    validator = new_validator(trusting if trust else CONFIG)
    async with serving(source) as server, syncing(validator, settings=FEW) as sync:
        await connect(sync, server)
        first = await sync.sync_headers(target_height=100)
        assert (first.headers, first.blocks, first.height) == (100, 0, 0)
        assert sync.chain.header_head.hash == source.hash_at(100)
        rest = await sync.sync_headers()
        assert rest.headers == BLOCKS - 100
        assert (sync.chain.header_head, sync.chain.head.height) == (source.head, 0)
        assert (await sync.sync_headers()).headers == 0
        result = await sync.sync()
        assert (result.headers, result.blocks) == (0, BLOCKS)
        assert sync.chain.head == source.head


async def test_a_sync_that_comes_while_headers_are_synced_waits_for_its_turn(
    source: Blockchain,
) -> None:
    async with serving(source) as server, syncing(settings=FEW) as sync:
        await connect(sync, server)
        headers = asyncio.ensure_future(sync.sync_headers())
        await asyncio.sleep(0)
        result = await sync.sync()
        assert (await headers).headers == BLOCKS
        assert result.blocks == BLOCKS


async def test_headers_alone_are_not_had_from_nobody(source: Blockchain) -> None:
    async with syncing(settings=FEW) as sync:
        with pytest.raises(SyncError, match="no peers"):
            await sync.sync_headers()
        with pytest.raises(ValueError, match="below 0"):
            await sync.sync_headers(target_height=-1)
        async with serving(source) as server:
            await connect(sync, server)
            with pytest.raises(SyncError, match=f"at block {BLOCKS} of 999"):
                await sync.sync_headers(target_height=999)


async def test_a_node_may_be_told_a_head_to_trust(
    source: Blockchain, false: Blockchain, tmp_path: Path
) -> None:
    known = source.hash_at(POINT)
    assert known is not None
    with pytest.raises(ConfigError):
        FullNode(None, CONFIG.trusting(POINT, known), trusted_head=(POINT, bytes(32)))
    async with serving(false) as liar, serving(source) as honest:
        node = FullNode(
            tmp_path,
            CONFIG,
            settings=FEW.replace(sync_give_up=20.0),
            bootstrap_nodes=[f"127.0.0.1:{server.listen_port}" for server in (liar, honest)],
            trusted_head=(POINT, known),
        )
        async with node:
            await until(lambda: node.chain.head == source.head)
