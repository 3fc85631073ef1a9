"""Whose headers are followed where those who claim them are silent or slow."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from helpers.sync_nodes import SETTINGS, connect, grown, serving, syncing

from moderntensor.network.messages import (
    GetHeadersMessage,
    HeadersMessage,
    MessageType,
    Reply,
    Request,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.sync.pace import SILENT_MOST, Patience
from moderntensor.network.sync.source import Kind


def withhold_headers(node: P2PNode) -> list[int]:
    """Have a node claim its chain and answer no request for headers; returns those requests."""
    asked: list[int] = []

    async def silent(peer: Peer, request: Request) -> Reply:
        assert isinstance(request, GetHeadersMessage)
        asked.append(request.request_id)
        await asyncio.Event().wait()
        return HeadersMessage(request_id=request.request_id, status=Status.BUSY)

    node.register_handler(MessageType.GET_HEADERS, silent)
    return asked


async def test_silent_claimants_do_not_hold_up_the_one_that_answers() -> None:
    source = grown(40)
    patient = SETTINGS.replace(stall_timeout=3.0, stall_timeout_max=600.0, request_timeout=600.0)
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(serving(source)) for _ in range(3)]
        for node in silent:
            withhold_headers(node)
        honest = await stack.enter_async_context(serving(source))
        sync = await stack.enter_async_context(syncing(settings=patient))
        await connect(sync, *silent, honest)
        await sync.sync()
        assert sync.chain.head == source.head
        assert len(sync.node.peers) == 4  # nobody was late, so nobody is to blame
        assert sync.context.pool.patience.seconds == 3.0


async def test_one_that_was_passed_over_is_followed_after_others() -> None:
    source = grown(40)
    patient = SETTINGS.replace(stall_timeout=1.0, request_timeout=600.0)
    async with AsyncExitStack() as stack:
        silent, honest = [await stack.enter_async_context(serving(source)) for _ in range(2)]
        asked = withhold_headers(silent)
        sync = await stack.enter_async_context(syncing(settings=patient))
        pool = sync.context.pool
        await connect(sync, silent)
        (slow,) = pool
        slow.capacity[Kind.HEADERS].delivered(1000, 0.01)  # it was fast once: it is asked first
        await connect(sync, honest)
        await sync.sync()
        assert asked
        fast = next(one for one in pool if one is not slow)
        for _ in range(8):
            claim = pool.best_claim(0)
            assert claim is not None
            assert claim.source is fast
        claim = pool.other_claim(0, {fast})
        assert claim is not None  # it is the last, and may show what it has
        assert claim.source is slow


async def test_of_equal_claims_that_of_the_faster_one_is_followed() -> None:
    source = grown(10)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(serving(source)) for _ in range(2)]
        sync = await stack.enter_async_context(syncing())
        await connect(sync, *nodes)
        pool = sync.context.pool
        fast, slow = pool
        fast.capacity[Kind.HEADERS].delivered(100, 0.1)
        pool.useful(fast, Kind.HEADERS)
        slow.capacity[Kind.HEADERS].delivered(100, 9.0)
        pool.useful(slow, Kind.HEADERS)  # it delivered last
        for _ in range(8):
            claim = pool.best_claim(0)
            assert claim is not None
            assert claim.source is fast


def test_patience_grows_only_when_all_or_many_were_silent() -> None:
    patience = Patience(2.0, 64.0)
    some = list(range(3))
    patience.ran_out_for(0, some)
    patience.ran_out_for(1, some)
    patience.ran_out_for(1, some)  # again
    assert patience.seconds == 2.0
    patience.ran_out_for(2, some)
    assert patience.seconds == 4.0
    patience.ran_out_for(0, some)  # a new round
    assert patience.seconds == 4.0
    patience.served()
    patience = Patience(2.0, 64.0)
    crowd = range(100)
    for one in range(SILENT_MOST):
        assert patience.seconds == 2.0
        patience.ran_out_for(one, crowd)
    assert patience.seconds == 4.0
    patience.ran_out_for(50, crowd)
    patience.served()  # somebody answers: it is not the line
    for one in range(SILENT_MOST - 1):
        patience.ran_out_for(one, crowd)
    assert patience.seconds < 4.0
