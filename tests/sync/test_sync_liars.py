"""Peers that lie, on real sockets: the sync ends from the others and the liar is told why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from helpers.sync_nodes import (
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

from moderntensor.blockchain.block import Block, BlockHeader
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.lookup import HeaderBatch
from moderntensor.errors import SyncError
from moderntensor.network.messages import (
    BlockBodiesMessage,
    DisconnectCode,
    GetBlockBodiesMessage,
    GetHeadersMessage,
    HeadersMessage,
    MessageType,
    Reply,
    Request,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer

BLOCKS = 500
HEIGHT_OFFSET, SIGNATURE_SIZE = 4, 64

Change = Callable[[Request, Reply], Reply]


@pytest.fixture(scope="module")
def source() -> Blockchain:
    return grown(BLOCKS, 1)


def lie(node: P2PNode, kind: MessageType, change: Change) -> None:
    """Have a real node answer requests of one type with a changed reply."""

    async def handler(peer: Peer, request: Request) -> Reply:
        return change(request, await node.server.answer(peer, request))

    node.register_handler(kind, handler)


def bad_header(_: Request, reply: Reply) -> Reply:
    assert isinstance(reply, HeadersMessage)
    data = bytearray(reply.headers)
    if reply.count:
        data[2 + HEIGHT_OFFSET + 7] ^= 1
    return reply.replace(headers=bytes(data))


def bad_signature(_: Request, reply: Reply) -> Reply:
    assert isinstance(reply, HeadersMessage)
    data = bytearray(reply.headers)
    if reply.count:
        data[-1] ^= 1
    return reply.replace(headers=bytes(data))


def bad_body(_: Request, reply: Reply) -> Reply:
    assert isinstance(reply, BlockBodiesMessage)
    return reply.replace(bodies=reply.bodies[::-1])


def broken_body(_: Request, reply: Reply) -> Reply:
    assert isinstance(reply, BlockBodiesMessage)
    return reply.replace(bodies=tuple(body[:-1] for body in reply.bodies))


def empty_pinned(request: Request, reply: Reply) -> Reply:
    assert isinstance(request, GetHeadersMessage)
    if request.on_chain is None:
        return reply
    return HeadersMessage(request_id=request.request_id)


def false_skeleton(request: Request, reply: Reply) -> Reply:
    """Every other header of the skeleton is that of another, longer-forked chain."""
    assert isinstance(request, GetHeadersMessage)
    if request.stride == 1:
        return reply
    assert isinstance(reply, HeadersMessage)
    data = bytearray(reply.headers)
    data[-1] ^= 1
    return reply.replace(headers=bytes(data))


def of_nobody(header: BlockHeader) -> BlockHeader:
    """Signed by nobody."""
    return header.replace(signature=header.signature[:-1] + bytes([header.signature[-1] ^ 1]))


def of_a_stranger(header: BlockHeader) -> BlockHeader:
    """Well signed, by no validator."""
    key = KeyPair.generate()
    return header.replace(validator=key.public_key).sign(key)


LIES: list[tuple[MessageType, Change, DisconnectCode]] = [
    (MessageType.GET_HEADERS, bad_header, DisconnectCode.BAD_HEADER),
    (MessageType.GET_HEADERS, bad_signature, DisconnectCode.BAD_HEADER),
    (MessageType.GET_HEADERS, empty_pinned, DisconnectCode.BAD_HEADER),
    (MessageType.GET_BLOCK_BODIES, bad_body, DisconnectCode.BAD_BLOCK),
    (MessageType.GET_BLOCK_BODIES, broken_body, DisconnectCode.BAD_BLOCK),
]


def boast(node: P2PNode, height: int, block_hash: bytes) -> None:
    """Have a node claim a head that is not its chain's."""
    hello, pong = node.make_hello, node.make_pong
    claim = {"best_height": height, "best_hash": block_hash}
    node.make_hello = lambda *args: hello(*args).replace(**claim)  # type: ignore[method-assign]
    node.make_pong = lambda nonce: pong(nonce).replace(**claim)  # type: ignore[method-assign]


def drop_code(node: P2PNode, sync_node: P2PNode) -> Callable[[], int | None]:
    """The code with which `sync_node` parted from `node`, as `node` heard it."""
    codes: list[int | None] = []
    node.on_peer_disconnected.append(lambda peer: codes.append(peer.drop_code))
    return lambda: codes[0] if codes else None


@pytest.mark.parametrize("kind, change, code", LIES, ids=lambda v: getattr(v, "__name__", ""))
async def test_a_liar_is_dropped_and_the_others_finish(
    source: Blockchain, kind: MessageType, change: Change, code: DisconnectCode
) -> None:
    async with AsyncExitStack() as stack:
        liar, *honest = [await stack.enter_async_context(serving(source)) for _ in range(3)]
        lie(liar, kind, change)
        # Small requests, so that everybody is asked for something.
        settings = SETTINGS.replace(headers_per_request=16, blocks_per_request=16)
        sync = await stack.enter_async_context(syncing(settings=settings))
        await connect(sync, liar, *honest)
        told = drop_code(liar, sync.node)
        await sync.sync()
        assert sync.chain.head == source.head
        assert len(sync.node.peers) == 2
        await until(lambda: told() is not None)
        assert told() == code


@pytest.mark.parametrize("kind, change, code", LIES, ids=lambda v: getattr(v, "__name__", ""))
async def test_a_liar_alone_gets_nowhere(
    source: Blockchain, kind: MessageType, change: Change, code: DisconnectCode
) -> None:
    settings = SETTINGS.replace(sync_give_up=0.5)
    async with serving(source) as liar, syncing(settings=settings) as sync:
        lie(liar, kind, change)
        await connect(sync, liar)
        told = drop_code(liar, sync.node)
        with pytest.raises(SyncError) as caught:
            await sync.sync()
        # It says where it is, who was at fault, at which block and how.
        where, fault = str(caught.value).split(f"; peer 127.0.0.1:{liar.listen_port} was left: ")
        assert f"block {sync.chain.head.height} of {BLOCKS}" in where
        assert any(character.isdigit() for character in fault)
        await until(lambda: told() is not None)
        assert told() == code
        head = sync.chain.head
        assert head.hash == source.hash_at(head.height)


async def test_a_false_skeleton_convicts_its_supplier(source: Blockchain) -> None:
    async with AsyncExitStack() as stack:
        liar, *honest = [await stack.enter_async_context(serving(source)) for _ in range(3)]
        lie(liar, MessageType.GET_HEADERS, false_skeleton)
        sync = await stack.enter_async_context(syncing())
        await connect(sync, liar)
        run = asyncio.ensure_future(sync.sync())
        await connect(sync, *honest)
        await run
        assert sync.chain.head == source.head
        honest_ids = {node.node_id for node in honest}
        assert {peer.node_id for peer in sync.node.peers.values()} >= honest_ids


@pytest.mark.parametrize("pin", [of_nobody, of_a_stranger], ids=lambda v: v.__name__)
async def test_a_pin_that_no_validator_signed_convicts_at_once(
    source: Blockchain, pin: Callable[[BlockHeader], BlockHeader]
) -> None:
    # Otherwise every other peer would refuse the range below it, the slow ones in their time.
    def false_pin(request: Request, reply: Reply) -> Reply:
        assert isinstance(request, GetHeadersMessage) and isinstance(reply, HeadersMessage)
        if request.stride == 1:
            return reply
        headers = HeaderBatch(reply.headers)
        raw = [headers.raw(i) for i in range(len(headers))]
        raw[-1] = pin(BlockHeader.decode(raw[-1])).encode()
        return reply.replace(headers=len(raw).to_bytes(2, "big") + b"".join(raw))

    async with AsyncExitStack() as stack:
        liar, honest = [await stack.enter_async_context(serving(source)) for _ in range(2)]
        lie(liar, MessageType.GET_HEADERS, false_pin)
        settings = SETTINGS.replace(headers_per_request=64)
        sync = await stack.enter_async_context(syncing(settings=settings))
        await connect(sync, liar)
        told = drop_code(liar, sync.node)
        run = asyncio.ensure_future(sync.sync())
        await until(lambda: told() is not None)
        assert told() == DisconnectCode.BAD_HEADER
        await connect(sync, honest)
        await run
        assert sync.chain.head == source.head


@pytest.mark.parametrize(
    "kinds",
    [
        (MessageType.GET_HEADERS, MessageType.GET_BLOCK_BODIES),
        (MessageType.GET_BLOCK_BODIES,),
    ],
    ids=["all", "bodies"],
)
async def test_a_silent_peer_is_replaced(
    source: Blockchain, kinds: tuple[MessageType, ...]
) -> None:
    async with AsyncExitStack() as stack:
        silent, *honest = [await stack.enter_async_context(serving(source)) for _ in range(3)]

        asked: list[Request] = []

        async def never(peer: Peer, request: Request) -> Reply:
            asked.append(request)
            await asyncio.Event().wait()
            raise AssertionError

        for kind in kinds:
            silent.register_handler(kind, never)
        sync = await stack.enter_async_context(syncing())
        await connect(sync, silent)
        told = drop_code(silent, sync.node)
        async with asyncio.TaskGroup() as group:
            group.create_task(sync.sync())
            # It is asked before there are others, whom who has given nothing would come after.
            await until(lambda: any(asked) and (len(kinds) > 1 or sync.chain.header_head.height))
            await connect(sync, *honest)
        assert sync.chain.head == source.head
        await until(lambda: told() is not None)
        assert told() == DisconnectCode.TIMEOUT
        assert len(sync.node.peers) == 2


async def test_a_peer_that_claims_more_than_it_has_is_useless(source: Blockchain) -> None:
    async with AsyncExitStack() as stack:
        honest = [await stack.enter_async_context(serving(source)) for _ in range(2)]
        boaster = P2PNode(config=SETTINGS)
        boaster.attach_chain(source)
        boast(boaster, 10**9, b"\7" * 32)
        await stack.enter_async_context(boaster)
        sync = await stack.enter_async_context(syncing())
        await connect(sync, boaster, *honest)
        told = drop_code(boaster, sync.node)
        await sync.sync()
        assert sync.chain.head == source.head
        await until(lambda: told() is not None)
        assert told() == DisconnectCode.USELESS


async def test_busy_and_pruned_peers_are_respected(source: Blockchain) -> None:
    async with AsyncExitStack() as stack:
        busy, pruned, honest = [await stack.enter_async_context(serving(source)) for _ in range(3)]
        turn = 0

        def sometimes_busy(request: Request, reply: Reply) -> Reply:
            nonlocal turn
            turn += 1
            if turn % 2:
                return reply
            kind = HeadersMessage if isinstance(request, GetHeadersMessage) else BlockBodiesMessage
            return kind(request_id=request.request_id, status=Status.BUSY, retry_ms=20)

        def gone(request: Request, reply: Reply) -> Reply:
            assert isinstance(request, GetBlockBodiesMessage)
            return BlockBodiesMessage(request_id=request.request_id, status=Status.PRUNED)

        lie(busy, MessageType.GET_HEADERS, sometimes_busy)
        lie(busy, MessageType.GET_BLOCK_BODIES, sometimes_busy)
        lie(pruned, MessageType.GET_BLOCK_BODIES, gone)
        sync = await stack.enter_async_context(syncing())
        await connect(sync, busy, pruned, honest)
        await sync.sync()
        assert sync.chain.head == source.head
        assert len(sync.node.peers) == 3


async def test_a_busy_peer_alone_is_enough(source: Blockchain) -> None:
    async with serving(source) as busy, syncing() as sync:
        turn = 0

        def mostly_busy(request: Request, reply: Reply) -> Reply:
            nonlocal turn
            turn += 1
            if turn % 3 == 0:
                return reply
            kind = HeadersMessage if isinstance(request, GetHeadersMessage) else BlockBodiesMessage
            return kind(request_id=request.request_id, status=Status.BUSY, retry_ms=5)

        lie(busy, MessageType.GET_HEADERS, mostly_busy)
        lie(busy, MessageType.GET_BLOCK_BODIES, mostly_busy)
        await connect(sync, busy)
        await sync.sync()
        assert sync.chain.head == source.head


async def test_bodies_that_nobody_has_do_not_block_a_chain_that_is_served() -> None:
    """A peer with a longer chain gives its headers only; the shorter one is synced."""
    common = 300
    shorter, longer = grown(common, 1), grown(common, 1)
    extend(shorter, 20, 1)
    extend(longer, 40, 2)
    async with serving(longer) as miser, serving(shorter) as honest, syncing() as sync:

        def nothing(request: Request, reply: Reply) -> Reply:
            return BlockBodiesMessage(request_id=request.request_id, status=Status.NOT_FOUND)

        lie(miser, MessageType.GET_BLOCK_BODIES, nothing)
        await connect(sync, miser, honest)
        await sync.sync()
        assert sync.chain.head == shorter.head


async def test_blocks_that_do_not_execute_convict_those_who_vouched_for_them() -> None:
    """A validator signs a block whose state root is false; peers that serve it are dropped."""
    honest_chain = grown(210, 1)
    base = grown(205, 1)
    height = base.head.height
    good = honest_chain.get_block(height + 1)
    assert good is not None
    slot = base.config.slot_of(good.header.timestamp)
    key = VALIDATORS[slot % len(VALIDATORS)]
    bad_block = Block(
        header=good.header.replace(state_root=b"\1" * 32).sign(key), transactions=good.transactions
    )
    more = good.header.replace(
        height=height + 2,
        timestamp=good.header.timestamp + base.config.block_time,
        previous_hash=bad_block.hash,
        txs_root=bytes(32),
        receipts_root=bytes(32),
        gas_used=0,
    ).sign(VALIDATORS[(slot + 1) % len(VALIDATORS)])
    forged = (bad_block.header.encode(), more.encode())
    async with AsyncExitStack() as stack:
        forger = P2PNode(config=SETTINGS)
        forger.attach_chain(base)
        boast(forger, height + 2, more.hash)

        def headers(request: Request, reply: Reply) -> Reply:
            assert isinstance(request, GetHeadersMessage)
            assert isinstance(reply, HeadersMessage)
            asked_all = not request.on_chain and request.stride == 1
            if not asked_all or reply.count + 2 > request.max_headers:
                return reply
            count = reply.count + 2
            data = count.to_bytes(2, "big") + reply.headers[2:] + b"".join(forged)
            return HeadersMessage(request_id=request.request_id, headers=data)

        def bodies(request: Request, reply: Reply) -> Reply:
            assert isinstance(request, GetBlockBodiesMessage)
            found = [
                bad_block.body if block_hash == bad_block.hash else base.body_of(block_hash)
                for block_hash in request.hashes
            ]
            known = tuple(body for body in found if body is not None)
            return BlockBodiesMessage(
                request_id=request.request_id,
                bodies=known,
                status=Status.OK if known else Status.NOT_FOUND,
            )

        lie(forger, MessageType.GET_HEADERS, headers)
        lie(forger, MessageType.GET_BLOCK_BODIES, bodies)
        await stack.enter_async_context(forger)
        sync = await stack.enter_async_context(syncing(new_validator()))
        await connect(sync, forger)
        told = drop_code(forger, sync.node)
        run = asyncio.ensure_future(sync.sync())
        await until(lambda: told() is not None)
        assert told() == DisconnectCode.BAD_BLOCK
        assert sync.chain.is_invalid(bad_block.hash)
        assert sync.chain.is_invalid(more.hash)
        assert sync.chain.head == base.head
        server = await stack.enter_async_context(serving(honest_chain))
        await connect(sync, server)
        await run
        assert sync.chain.head == honest_chain.head
