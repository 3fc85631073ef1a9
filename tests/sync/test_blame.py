"""What a sync holds against whom: liars by name, and nothing against the honest."""

from __future__ import annotations

from contextlib import AsyncExitStack, closing

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

from moderntensor.backend import headers as engine
from moderntensor.blockchain.chain import Blockchain
from moderntensor.errors import (
    FinalityError,
    HeaderChainError,
    InvalidBlockError,
    UnknownParentError,
    ValidationError,
)
from moderntensor.network.blame import is_late, offence_of_rule
from moderntensor.network.messages import (
    BlockBodiesMessage,
    GetHeadersMessage,
    HeadersMessage,
    MessageType,
    Reply,
    Request,
    Status,
)
from moderntensor.network.offences import Offence
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.sync.header_checks import HeaderChecker, SkeletonFalse

BLOCKS = 500
HASH = bytes(32)


@pytest.fixture(scope="module")
def source() -> Blockchain:
    return grown(BLOCKS, 1)


@pytest.mark.parametrize(
    "error, offence",
    [
        (UnknownParentError("?"), None),
        (HeaderChainError(0, 1, "future"), None),
        (HeaderChainError(0, 1, "checkpoint"), Offence.FORKS_TOO_DEEP),
        (FinalityError("?"), Offence.FORKS_TOO_DEEP),
        (HeaderChainError(0, 1, "signature"), Offence.BAD_SIGNATURE),
        (HeaderChainError(0, 1, "slot"), Offence.BAD_HEADER),
        (HeaderChainError(0, 1, "validator"), Offence.BAD_HEADER),
        (InvalidBlockError(1, HASH, "txs_root", body_only=True), Offence.BAD_BODY),
        (InvalidBlockError(1, HASH, "state_root"), Offence.BAD_BLOCK),
    ],
)
def test_each_rule_has_its_offence(error: ValidationError, offence: Offence | None) -> None:
    assert offence_of_rule(error) is offence


def test_a_low_branch_below_finality_is_only_late() -> None:
    assert is_late(FinalityError("?"), 9, 9)
    assert not is_late(FinalityError("?"), 10, 9)
    assert not is_late(InvalidBlockError(1, HASH, "state_root"), 9, 9)
    against = FinalityError("?")
    against.__cause__ = HeaderChainError(0, 1, "checkpoint")
    assert not is_late(against, 9, 9)


def bad_header(reply: Reply) -> Reply:
    assert isinstance(reply, HeadersMessage)
    data = bytearray(reply.headers)
    if reply.count:
        data[2 + 4 + 7] ^= 1
    return reply.replace(headers=bytes(data))


def bad_body(reply: Reply) -> Reply:
    assert isinstance(reply, BlockBodiesMessage)
    return reply.replace(bodies=reply.bodies[::-1])


LIES = [
    (MessageType.GET_HEADERS, bad_header, Offence.BAD_HEADER),
    (MessageType.GET_BLOCK_BODIES, bad_body, Offence.BAD_BODY),
]


@pytest.mark.parametrize("kind, change, offence", LIES, ids=lambda v: getattr(v, "__name__", ""))
async def test_a_liar_is_banned_by_name_and_nobody_else_is_blamed(
    source: Blockchain, kind: MessageType, change: object, offence: Offence
) -> None:
    async with AsyncExitStack() as stack:
        liar, *honest = [await stack.enter_async_context(serving(source)) for _ in range(3)]

        async def lie(peer: Peer, request: Request) -> Reply:
            return change(await liar.server.answer(peer, request))  # type: ignore[operator, no-any-return]

        liar.register_handler(kind, lie)
        settings = SETTINGS.replace(headers_per_request=16, blocks_per_request=16)
        sync = await stack.enter_async_context(syncing(settings=settings))
        await connect(sync, liar, *honest)
        await sync.sync()
        assert sync.chain.head == source.head
        node = sync.node
        await until(node.list_bans)
        assert node.reputation.counts.bans == {offence: 1}
        assert set(node.reputation.counts.offences) == {offence}
        assert node.reputation.refused("127.0.0.1", liar.listen_port, liar.node_id)
        assert {peer.node_id for peer in node.peers.values()} == {n.node_id for n in honest}


async def test_nothing_is_held_against_honest_peers(source: Blockchain) -> None:
    """Busy, pruned, without what is asked, far behind, and one whose blocks are yet to come."""
    async with AsyncExitStack() as stack:
        ahead = extend(grown(BLOCKS, 1), 3)
        chains = [source, source, source, grown(40, 1), ahead]
        peers = [await stack.enter_async_context(serving(chain)) for chain in chains]
        turns = 0

        async def sometimes_not(peer: Peer, request: Request) -> Reply | None:
            nonlocal turns
            turns += 1
            if turns % 3 == 2:
                return None
            status = (Status.BUSY, Status.PRUNED, Status.NOT_FOUND)[turns % 3]
            return BlockBodiesMessage(
                request_id=request.request_id, status=status, retry_ms=1 if turns % 3 == 0 else 0
            )

        peers[1].register_handler(MessageType.GET_BLOCK_BODIES, sometimes_not)
        settings = SETTINGS.replace(headers_per_request=16, blocks_per_request=8)
        sync = await stack.enter_async_context(syncing(settings=settings))
        await connect(sync, *peers)
        await sync.sync()
        assert sync.chain.head == ahead.head
        assert turns > 3
        for node in (sync.node, *peers):
            assert not node.reputation.counts.offences


async def test_a_leader_that_reorganises_between_two_answers_is_not_to_blame(
    source: Blockchain,
) -> None:
    other = grown(BLOCKS + 1)
    async with AsyncExitStack() as stack:
        leader = await stack.enter_async_context(serving(other))
        old = P2PNode(config=SETTINGS)
        old.attach_chain(source)
        first = True

        async def answer(peer: Peer, request: Request) -> Reply | None:
            nonlocal first
            assert isinstance(request, GetHeadersMessage)
            if first and request.locator:
                first = False
                return await old.server.answer(peer, request)
            return None

        leader.register_handler(MessageType.GET_HEADERS, answer)
        sync = await stack.enter_async_context(syncing())
        await connect(sync, leader)
        await sync.sync()
        assert not first
        assert sync.chain.head == other.head
        assert not sync.node.reputation.counts.offences
        await old.stop()


async def test_headers_on_none_that_was_asked_about_are_a_lie(source: Blockchain) -> None:
    async with AsyncExitStack() as stack:
        lost = await stack.enter_async_context(serving(source))

        async def from_the_middle(peer: Peer, request: Request) -> Reply:
            assert isinstance(request, GetHeadersMessage)
            changed = request.replace(locator=(), start_height=100, max_headers=192)
            return await lost.server.answer(peer, changed)

        lost.register_handler(MessageType.GET_HEADERS, from_the_middle)
        sync = await stack.enter_async_context(syncing())
        await connect(sync, lost)
        counts = sync.node.reputation.counts
        await until(lambda: not sync.node.peers)
        assert counts.offences == counts.bans == {Offence.BAD_HEADER: 1}
        assert sync.chain.header_head.height == 0


async def test_a_broken_header_is_not_hidden_by_showing_less_than_claimed(
    source: Blockchain,
) -> None:
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(serving(source))

        async def a_few(peer: Peer, request: Request) -> Reply:
            assert isinstance(request, GetHeadersMessage)
            reply = await liar.server.answer(peer, request.replace(max_headers=5))
            assert isinstance(reply, HeadersMessage)
            data = bytearray(reply.headers)
            data[-1] ^= 1
            return reply.replace(headers=bytes(data), status=Status.OK)

        liar.register_handler(MessageType.GET_HEADERS, a_few)
        sync = await stack.enter_async_context(syncing())
        await connect(sync, liar)
        await until(lambda: not sync.node.peers)
        assert sync.node.reputation.counts.offences == {Offence.BAD_SIGNATURE: 1}
        assert sync.node.list_bans()


async def test_a_good_range_is_no_lie_where_the_skeleton_is_even_if_our_clock_is_slow(
    source: Blockchain,
) -> None:
    clock = SetClock(source.head.timestamp - 100)
    with closing(clock):
        checker = HeaderChecker(source, clock)
        data = source.headers_range(BLOCKS - 19, 20)[2:]
        last = engine.HeaderBatch.from_concatenated(data)
        elsewhere = engine.Anchor(b"\7" * 32, BLOCKS - 20, source.config.timestamp)
        with pytest.raises(SkeletonFalse):
            await checker.segment(data, elsewhere, last.hash(-1), 0)


async def test_who_keeps_no_old_bodies_is_left_without_blame(source: Blockchain) -> None:
    async with AsyncExitStack() as stack:
        pruned = await stack.enter_async_context(serving(source))

        async def no_more(peer: Peer, request: Request) -> Reply:
            return BlockBodiesMessage(request_id=request.request_id, status=Status.PRUNED)

        pruned.register_handler(MessageType.GET_BLOCK_BODIES, no_more)
        settings = SETTINGS.replace(follow_interval=0.05)
        sync = await stack.enter_async_context(syncing(settings=settings))
        await connect(sync, pruned)
        await until(lambda: not sync.node.peers)
        reputation = sync.node.reputation
        assert reputation.counts.offences == {Offence.USELESS: 1}
        assert not len(reputation)


async def test_no_claim_is_followed_beyond_what_time_admits(source: Blockchain) -> None:
    async with AsyncExitStack() as stack:
        boaster = P2PNode(config=SETTINGS)
        boaster.attach_chain(source)
        hello = boaster.make_hello
        claim = {"best_height": 2**64 - 1, "best_hash": b"\7" * 32}
        boaster.make_hello = lambda *a: hello(*a).replace(**claim)  # type: ignore[method-assign]
        await stack.enter_async_context(boaster)
        honest = await stack.enter_async_context(serving(source))
        sync = await stack.enter_async_context(syncing(new_validator()))
        targets: list[int] = []
        sync.on_block_synced = lambda block: targets.append(sync.status.target_height)
        await connect(sync, boaster, honest)
        await sync.sync()
        assert sync.chain.head == source.head
        assert max(targets) <= CONFIG.slot_of(int(sync.node.runtime.wall_time()) + 60)
        assert set(sync.node.reputation.counts.offences) <= {Offence.SHOWS_LESS}
