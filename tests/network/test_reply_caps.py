"""Replies are admitted when asked for, by type and size, at the fifth byte of their frame."""

from __future__ import annotations

import asyncio

import pytest
from helpers.rawpeer import RawPeer, quiet_node, until

from moderntensor.errors import RequestTimeoutError
from moderntensor.network.limits import LATE_REPLY_TIME
from moderntensor.network.messages import (
    CAPS,
    IDLE_CAPS,
    DisconnectCode,
    GetBlockBodiesMessage,
    GetBlocksMessage,
    GetHeadersMessage,
    GetPeersMessage,
    GetStateMessage,
    GetStateNodesMessage,
    GetTransactionsMessage,
    Message,
    MessageType,
    PingMessage,
    Reply,
    Request,
    reply_cap,
)
from moderntensor.network.offences import Offence
from moderntensor.wire import MESSAGES

REPLIES = [kind for kind in MessageType if issubclass(MESSAGES[kind], Reply)]
REQUESTS: list[Request] = [
    GetBlocksMessage(start_height=1, end_height=2),
    GetHeadersMessage(max_headers=20),
    GetBlockBodiesMessage(hashes=(b"h" * 32,)),
    GetTransactionsMessage(hashes=(b"h" * 32,)),
    GetStateMessage(block_hash=b"h" * 32),
    GetStateNodesMessage(block_hash=b"h" * 32, paths=((0, bytes(32)),)),
    GetPeersMessage(),
]


def begun(kind: int, payload: int) -> bytes:
    """The header of a frame, and no more."""
    return (payload + 1).to_bytes(4, "big") + bytes([kind])


def test_every_reply_is_covered_here() -> None:
    assert {request.REPLY for request in REQUESTS} == set(REPLIES)


@pytest.mark.parametrize("kind", REPLIES, ids=lambda kind: kind.name)
async def test_one_that_nobody_asked_for_is_refused_by_its_header(kind: MessageType) -> None:
    async with quiet_node() as node, await RawPeer.meet(node) as raw:
        decoder = node.peers[raw.address].connection.decoder
        assert decoder.cap(kind) == IDLE_CAPS[kind]
        raw.write(begun(kind, IDLE_CAPS[kind] + 1))
        assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR
        assert decoder.pending == 0
        assert node.reputation.counts.offences[Offence.UNASKED_REPLY] == 1


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.TYPE.name)
async def test_one_that_was_asked_for_may_be_as_large_as_asked_and_no_larger(
    request_: Request,
) -> None:
    kind, cap = request_.REPLY, reply_cap(request_)
    assert kind is not None
    for size in (cap, cap + 1):
        async with quiet_node() as node, await RawPeer.meet(node) as raw:
            peer = node.peers[raw.address]
            asked = asyncio.ensure_future(peer.request(request_))
            await until(lambda peer=peer: peer.info.requests_in_flight)
            assert peer.connection.decoder.cap(kind) == cap
            raw.write(begun(kind, size) + b"x")
            if size == cap:
                await until(lambda peer=peer: peer.connection.decoder.pending == 6)
                assert not peer.closed
            else:
                assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR
            asked.cancel()
            await asyncio.wait([asked])


async def test_caps_close_again_when_even_a_late_reply_may_not_come() -> None:
    async with quiet_node() as node, await RawPeer.meet(node) as raw:
        peer = node.peers[raw.address]
        decoder = peer.connection.decoder
        for request in REQUESTS:
            with pytest.raises(RequestTimeoutError):
                await peer.request(request, timeout=0.001)
        assert all(decoder.cap(kind) == CAPS[kind] for kind in REPLIES if kind != 0x13)
        clock = node.runtime.loop_time
        node.runtime.loop_time = lambda: clock() + LATE_REPLY_TIME  # type: ignore[method-assign]
        peer.tick(node.runtime.loop_time())
        assert all(decoder.cap(kind) == IDLE_CAPS[kind] for kind in REPLIES)


async def test_a_request_is_no_licence_for_other_replies() -> None:
    async with quiet_node() as node, await RawPeer.meet(node) as raw:
        peer = node.peers[raw.address]
        asked = asyncio.ensure_future(peer.request(GetPeersMessage()))
        await raw.read(PingMessage)
        message: Message = await raw.read(GetPeersMessage)
        assert message.TYPE == MessageType.GET_PEERS
        raw.write(begun(MessageType.BLOCKS, 100))
        assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR
        await asyncio.wait([asked])
        asked.exception()
