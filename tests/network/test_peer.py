"""One peer: requests and replies by id, limits both ways, pings, and what breaks the rules."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from helpers.rawpeer import WAIT, RawPeer, quiet_node, until

from moderntensor.backend import framing
from moderntensor.errors import (
    PeerBusyError,
    PeerDisconnectedError,
    ProtocolViolationError,
    RequestTimeoutError,
)
from moderntensor.network.limits import (
    FRAMES_PER_TURN,
    INBOX_MESSAGES,
    LATE_REPLY_TIME,
    PINGS_BURST,
    WAITING_REQUESTS,
)
from moderntensor.network.messages import (
    BlockBodiesMessage,
    BlocksMessage,
    DisconnectCode,
    DisconnectMessage,
    GetBlockBodiesMessage,
    GetBlocksMessage,
    GetHeadersMessage,
    GetPeersMessage,
    HeadersMessage,
    Message,
    MessageType,
    NewTransactionMessage,
    PeersMessage,
    PingMessage,
    PongMessage,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer

PEER_RECORD_BYTES = 32 + 16 + 2 + 8


@asynccontextmanager
async def met(
    changes: dict[str, Any] | None = None, **hello: Any
) -> AsyncIterator[tuple[P2PNode, Peer, RawPeer]]:
    """A node and the raw peer that it is connected with, its first PING answered."""
    async with quiet_node(**(changes or {})) as node, await RawPeer.meet(node, **hello) as raw:
        ping = await raw.read(PingMessage)
        raw.send(PongMessage(nonce=ping.nonce))
        peer = node.peers[raw.address]
        await until(lambda: peer.latency is not None)
        yield node, peer, raw


def announcement(number: int) -> NewTransactionMessage:
    return NewTransactionMessage(announced=(number.to_bytes(32, "big"),))


# --- asking ------------------------------------------------------------------------------------


async def test_a_reply_finds_its_request_whatever_the_order() -> None:
    async with met() as (_, peer, raw):
        asked = [asyncio.ensure_future(peer.request(GetPeersMessage())) for _ in range(3)]
        requests = [await raw.read(GetPeersMessage) for _ in range(3)]
        assert len({r.request_id for r in requests}) == 3
        assert 0 not in {r.request_id for r in requests}
        for number in (2, 0, 1):
            raw.send(PeersMessage(request_id=requests[number].request_id, retry_ms=number))
        assert [(await a).retry_ms for a in asked] == [0, 1, 2]


async def test_only_requests_are_requested_and_only_the_rest_is_sent() -> None:
    async with met() as (_, peer, _):
        with pytest.raises(TypeError, match="needs request"):
            peer.send(GetPeersMessage())
        with pytest.raises(TypeError, match="is no request"):
            await peer.request(PingMessage(nonce=1))  # type: ignore[arg-type]


async def test_no_answer_is_a_timeout_and_a_late_one_is_no_fault() -> None:
    async with met() as (_, peer, raw):
        with pytest.raises(RequestTimeoutError, match="GET_PEERS"):
            await peer.request(GetPeersMessage(), timeout=0.05)
        late = await raw.read(GetPeersMessage)
        raw.send(PeersMessage(request_id=late.request_id))
        assert peer.info.requests_timed_out == 1
        again = asyncio.ensure_future(peer.request(GetPeersMessage()))
        request = await raw.read(GetPeersMessage)
        assert request.request_id != late.request_id
        raw.send(PeersMessage(request_id=request.request_id))
        assert (await again).request_id == request.request_id
        # The late one is used up: once more is a breach.
        raw.send(PeersMessage(request_id=late.request_id))
        assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR


async def test_too_late_is_a_breach() -> None:
    async with met() as (node, peer, raw):
        with pytest.raises(RequestTimeoutError):
            await peer.request(GetPeersMessage(), timeout=0.01)
        late = await raw.read(GetPeersMessage)
        clock = node.runtime.loop_time
        node.runtime.loop_time = lambda: clock() + LATE_REPLY_TIME  # type: ignore[method-assign]
        peer.tick(node.runtime.loop_time())
        raw.send(PeersMessage(request_id=late.request_id))
        assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR


async def test_a_request_that_is_given_up_may_be_answered_too() -> None:
    async with met() as (_, peer, raw):
        asked = asyncio.ensure_future(peer.request(GetPeersMessage()))
        request = await raw.read(GetPeersMessage)
        asked.cancel()
        await asyncio.wait([asked])
        raw.send(PeersMessage(request_id=request.request_id), PingMessage(nonce=5))
        assert (await raw.read(PongMessage)).nonce == 5


async def test_each_request_has_its_own_deadline_though_they_share_a_timer() -> None:
    async with met(max_per_type=3) as (_, peer, raw):
        patient = asyncio.ensure_future(peer.request(GetPeersMessage(), timeout=WAIT))
        request = await raw.read(GetPeersMessage)

        async def in_vain(seconds: float) -> None:
            with pytest.raises(RequestTimeoutError, match=f"within {seconds:g} s"):
                await peer.request(GetPeersMessage(), timeout=seconds)

        # Sooner and later than the one before, and two for which there is no slot at first.
        await asyncio.gather(*map(in_vain, (0.02, 0.04, 0.01, 0.03)))
        assert peer.info.requests_timed_out == 4
        assert peer.info.requests_in_flight == 1
        raw.send(PeersMessage(request_id=request.request_id))
        assert (await patient).request_id == request.request_id


async def test_one_of_two_that_are_overdue_may_be_cancelled_just_then() -> None:
    async with met() as (_, peer, raw):
        first = asyncio.ensure_future(peer.request(GetPeersMessage(), timeout=0.02))
        second = asyncio.ensure_future(peer.request(GetPeersMessage(), timeout=0.02))
        await raw.read(GetPeersMessage)
        for future in [asked.future for asked in peer._requests._asked.values()]:
            future.add_done_callback(lambda _: second.cancel())
        with pytest.raises(RequestTimeoutError):
            await first
        with pytest.raises(asyncio.CancelledError):
            await second


async def test_requests_of_a_row_leave_some_at_a_time() -> None:
    async with met() as (_, peer, raw):
        writes = peer.connection.writes
        asked = [asyncio.ensure_future(peer.request(GetPeersMessage())) for _ in range(8)]
        requests = [await raw.read(GetPeersMessage) for _ in range(8)]
        assert peer.connection.writes == writes + 3  # 1, 4 and 3 of them
        raw.send(*(PeersMessage(request_id=request.request_id) for request in requests))
        await asyncio.gather(*asked)


async def test_the_others_limits_are_kept_by_waiting() -> None:
    async with met(max_inflight=3, max_per_type=2) as (_, peer, raw):
        asked = [asyncio.ensure_future(peer.request(GetPeersMessage())) for _ in range(5)]
        blocks = asyncio.ensure_future(peer.request(GetBlocksMessage(start_height=1, end_height=1)))
        # Two of one kind are as many as may be; what is of another kind does not wait for them.
        first = [await raw.read(GetPeersMessage), await raw.read(GetPeersMessage)]
        other = await raw.read(GetBlocksMessage)
        assert peer.info.requests_in_flight == 3
        raw.send(BlocksMessage(request_id=other.request_id, status=Status.NOT_FOUND))
        await blocks
        assert peer.info.requests_in_flight == 2
        while first:
            raw.send(PeersMessage(request_id=first.pop(0).request_id))
            if sum(not one.done() for one in asked) > 2:
                first.append(await raw.read(GetPeersMessage))
                assert peer.info.requests_in_flight == 2
        await asyncio.gather(*asked)


async def test_more_than_may_wait_is_refused_here_and_now() -> None:
    async with met(max_inflight=1) as (node, peer, raw):
        asked = [
            asyncio.ensure_future(peer.request(GetPeersMessage()))
            for _ in range(1 + WAITING_REQUESTS)
        ]
        await raw.read(GetPeersMessage)
        with pytest.raises(PeerBusyError):
            await peer.request(GetPeersMessage())
        await node.disconnect_peer(peer.address)
        for one in asked:
            with pytest.raises(PeerDisconnectedError):
                await one
        with pytest.raises(PeerDisconnectedError):
            await peer.request(GetPeersMessage())


async def test_a_cancelled_wait_passes_its_turn_on() -> None:
    async with met(max_inflight=1) as (_, peer, raw):
        first, second, third = (
            asyncio.ensure_future(peer.request(GetPeersMessage())) for _ in range(3)
        )
        request = await raw.read(GetPeersMessage)
        second.cancel()
        raw.send(PeersMessage(request_id=request.request_id))
        await first
        request = await raw.read(GetPeersMessage)
        raw.send(PeersMessage(request_id=request.request_id))
        await third
        assert second.cancelled()


# --- replies that break the rules --------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        PeersMessage(request_id=1),
        BlocksMessage(request_id=1),
        HeadersMessage(request_id=1),
    ],
    ids=lambda m: type(m).__name__,
)
async def test_what_nobody_asked_for_is_refused(message: Message) -> None:
    async with met() as (node, _, raw):
        raw.send(message)
        assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR
        assert not node.peers


async def test_a_reply_that_nobody_asked_for_is_refused_at_its_fifth_byte() -> None:
    async with met() as (_, _, raw):
        raw.write((1 + 1000).to_bytes(4, "big") + bytes([MessageType.BLOCKS]))
        goodbye = await raw.read(DisconnectMessage)
        assert "announces 1000 payload bytes, over its cap of 0" in goodbye.reason


async def test_headers_are_admitted_to_the_size_that_was_asked_for() -> None:
    async with met() as (_, peer, raw):
        decoder = peer.connection.decoder
        idle = decoder.cap(MessageType.HEADERS)
        assert idle == 7 + 2 + 8 * 293
        asked = asyncio.ensure_future(peer.request(GetHeadersMessage(max_headers=100)))
        request = await raw.read(GetHeadersMessage)
        assert decoder.cap(MessageType.HEADERS) == 7 + 2 + 100 * 293
        raw.send(HeadersMessage(request_id=request.request_id))
        await asked
        assert decoder.cap(MessageType.HEADERS) == idle


@pytest.mark.parametrize("wrong", ["id", "type", "items", "status", "bytes"])
async def test_a_reply_must_fit_its_request(wrong: str) -> None:
    async with met() as (_, peer, raw):
        asked = asyncio.ensure_future(
            peer.request(GetBlockBodiesMessage(hashes=(b"a" * 32, b"b" * 32)))
        )
        other = asyncio.ensure_future(peer.request(GetPeersMessage()))
        number = (await raw.read(GetBlockBodiesMessage)).request_id
        await raw.read(GetPeersMessage)
        empty = b"\0" * 4
        if wrong == "id":
            raw.send(BlockBodiesMessage(request_id=number ^ 0x8000))
        elif wrong == "type":
            raw.send(PeersMessage(request_id=number))
        elif wrong == "items":
            raw.send(BlockBodiesMessage(request_id=number, bodies=(empty,) * 3))
        elif wrong == "status":
            good = BlockBodiesMessage(request_id=number, bodies=(empty,)).encode()
            raw.write(
                framing.encode_frame(
                    MessageType.BLOCK_BODIES, good[:4] + bytes([Status.BUSY]) + good[5:]
                )
            )
        else:
            good = BlockBodiesMessage(request_id=number, bodies=(empty,)).encode()
            raw.write(framing.encode_frame(MessageType.BLOCK_BODIES, good + b"\0"))
        assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR
        for future in (asked, other):
            with pytest.raises(PeerDisconnectedError):
                await future


async def test_announced_headers_are_news_not_replies() -> None:
    async with met() as (node, _, raw):
        got: asyncio.Queue[Message] = asyncio.Queue()

        async def handler(peer: Peer, message: Message) -> None:
            got.put_nowait(message)

        node.register_handler(MessageType.HEADERS, handler)
        raw.send(HeadersMessage(request_id=0))
        assert await asyncio.wait_for(got.get(), WAIT) == HeadersMessage(request_id=0)


@pytest.mark.parametrize(
    "frame",
    [
        framing.encode_frame(MessageType.PING, b"\0" * 7),
        framing.encode_frame(MessageType.PING, b"\0" * 9),
        framing.encode_frame(MessageType.GET_PEERS, b"\0" * 6),
        framing.encode_frame(MessageType.NEW_TRANSACTION, b"\xff\xff\xff\xff"),
        framing.encode_frame(MessageType.DISCONNECT, b""),
        framing.encode_frame(0x7E, b""),
        b"\0\0\0\0",
    ],
    ids=["short", "long", "id 0", "count", "disconnect", "unknown", "empty"],
)
async def test_malformed_bytes_end_the_connection_and_nothing_else(frame: bytes) -> None:
    async with met() as (node, _, raw), await RawPeer.meet(node, node_id=b"o" * 32) as other:
        await other.read(PingMessage)
        raw.write(frame)
        assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR
        other.send(PingMessage(nonce=9))
        assert (await other.read(PongMessage)).nonce == 9


# --- being asked -------------------------------------------------------------------------------


async def test_a_flood_of_requests_is_answered_busy_and_forgiven() -> None:
    async with met() as (node, peer, raw):
        gate = asyncio.Event()

        async def slow(_: Peer, message: GetBlocksMessage) -> BlocksMessage:
            await gate.wait()
            return BlocksMessage(request_id=message.request_id)

        node.register_handler(MessageType.GET_BLOCKS, slow)
        flood = [GetBlocksMessage(request_id=i, start_height=1, end_height=2) for i in range(1, 41)]
        raw.send(*flood)
        busy = [await raw.read(BlocksMessage) for _ in range(40 - node.config.max_per_type)]
        assert {b.status for b in busy} == {Status.BUSY}
        assert {b.request_id for b in busy} == set(range(9, 41))
        assert all(b.retry_ms for b in busy)
        gate.set()
        served = [await raw.read(BlocksMessage) for _ in range(node.config.max_per_type)]
        assert [(s.request_id, s.status) for s in served] == [(i, Status.OK) for i in range(1, 9)]
        assert not peer.closed


async def test_what_is_asked_together_is_answered_some_at_a_time() -> None:
    async with met() as (node, peer, raw):

        async def none(_: Peer, message: GetPeersMessage) -> PeersMessage:
            return PeersMessage(request_id=0xFFFF)  # the id is not the handler's business

        node.register_handler(MessageType.GET_PEERS, none)
        writes = peer.connection.writes
        raw.send(*(GetPeersMessage(request_id=i) for i in range(1, 9)))
        assert [(await raw.read(PeersMessage)).request_id for _ in range(8)] == list(range(1, 9))
        assert peer.connection.writes == writes + 2


async def test_the_total_in_flight_is_bounded_too() -> None:
    async with met({"max_inflight": 3, "max_per_type": 2}) as (node, _, raw):
        gate = asyncio.Event()

        async def slow(_: Peer, __: Message) -> None:
            await gate.wait()

        for kind in (MessageType.GET_BLOCKS, MessageType.GET_HEADERS):
            node.register_handler(kind, slow)
        raw.send(
            GetBlocksMessage(request_id=1, start_height=1, end_height=2),
            GetBlocksMessage(request_id=2, start_height=1, end_height=2),
            GetHeadersMessage(request_id=3),
            GetHeadersMessage(request_id=4),
        )
        busy = await raw.read(HeadersMessage)
        assert (busy.request_id, busy.status) == (4, Status.BUSY)
        gate.set()
        assert [(await raw.read(BlocksMessage)).request_id for _ in range(2)] == [1, 2]
        assert (await raw.read(HeadersMessage)).request_id == 3


async def test_who_asks_and_never_reads_is_told_busy_and_then_dropped() -> None:
    async with met() as (node, peer, raw):
        block = b"\0" * 1_000_000

        async def large(_: Peer, message: GetBlocksMessage) -> BlocksMessage:
            return BlocksMessage(request_id=message.request_id, blocks=(block,) * 4)

        node.register_handler(MessageType.GET_BLOCKS, large)
        request = GetBlocksMessage(request_id=1, start_height=1, end_height=4)
        with pytest.raises(ConnectionError):
            while True:
                raw.send(*[request] * 10)
                await raw.writer.drain()
                await asyncio.sleep(0.001)
                if peer.closed:
                    raise ConnectionError
        assert peer.drop_code == DisconnectCode.LIMITS
        assert not node.peers


async def test_who_reads_nothing_is_given_up_after_the_time_that_the_settings_give() -> None:
    async with met({"send_stall_timeout": 0.2}) as (node, peer, raw):
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        news = NewTransactionMessage(transactions=(b"\0" * 100_000,) * 2)
        for _ in range(70):  # 14 MB: more than the sockets hold, less than may wait
            peer.send(news)
            await asyncio.sleep(0)
        await until(lambda: not node.peers)
        assert "read nothing for 0.2 s" in peer.drop_reason
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]


async def test_a_failing_answer_is_our_fault_and_said_as_busy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with met() as (node, peer, raw):

        async def broken(_: Peer, __: Message) -> None:
            raise OSError("the disk is gone")

        node.register_handler(MessageType.GET_BLOCKS, broken)
        raw.send(GetBlocksMessage(request_id=1, start_height=1, end_height=2))
        assert (await raw.read(BlocksMessage)).status == Status.BUSY
        assert "the disk is gone" in caplog.text
        assert not peer.closed


# --- handlers ----------------------------------------------------------------------------------


async def test_handlers_get_every_message_in_order() -> None:
    async with met() as (node, _, raw):
        got: list[int] = []

        async def handler(peer: Peer, message: NewTransactionMessage) -> None:
            number = int.from_bytes(message.announced[0], "big")
            if number % 7 == 0:
                await asyncio.sleep(0)
            got.append(number)

        node.register_handler(MessageType.NEW_TRANSACTION, handler)
        raw.send(*map(announcement, range(500)))
        await until(lambda: len(got) == 500)
        assert got == list(range(500))
        node.unregister_handler(MessageType.NEW_TRANSACTION, handler)
        raw.send(announcement(1), PingMessage(nonce=1))
        await raw.read(PongMessage)
        assert len(got) == 500


async def test_a_handler_that_raises_costs_the_peer_nothing_and_few_log_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with met() as (node, peer, raw):
        calls: list[Message] = []

        async def handler(_: Peer, message: Message) -> None:
            calls.append(message)
            raise RuntimeError("handler at fault")

        node.register_handler(MessageType.NEW_TRANSACTION, handler)
        with caplog.at_level(logging.ERROR):
            raw.send(*map(announcement, range(200)))
            await until(lambda: len(calls) == 200)
        assert not peer.closed
        lines = [r for r in caplog.records if "a handler of NEW_TRANSACTION failed" in r.message]
        assert 1 <= len(lines) < 10


async def test_a_handler_can_drop_the_peer() -> None:
    async with met() as (node, _, raw):

        async def handler(_: Peer, __: Message) -> None:
            raise ProtocolViolationError(DisconnectCode.BAD_TRANSACTION, "I do not like it")

        node.register_handler(MessageType.NEW_TRANSACTION, handler)
        raw.send(announcement(1))
        goodbye = await raw.read(DisconnectMessage)
        assert (goodbye.code, goodbye.reason) == (12, "I do not like it")


async def test_what_handlers_cannot_take_waits_with_the_sender() -> None:
    """Memory stays bounded, nothing is lost, and a request reads on."""
    async with met({"rate_limits": 1e6}) as (node, peer, raw):
        gate = asyncio.Event()
        got = 0

        async def handler(_: Peer, __: Message) -> None:
            nonlocal got
            await gate.wait()
            got += 1

        node.register_handler(MessageType.NEW_TRANSACTION, handler)
        total = 50_000
        frames = (framing.encode_frame(0x20, announcement(i).encode()) for i in range(total))
        raw.write(b"".join(frames))
        inbox = peer._inbox
        await until(lambda: peer._reading.paused)
        await asyncio.sleep(0.05)
        assert INBOX_MESSAGES <= len(inbox) <= INBOX_MESSAGES + FRAMES_PER_TURN
        gate.set()
        await until(lambda: got == total)
        assert not peer._reading.paused
        assert inbox.discarded == 0


async def test_reading_goes_on_while_the_peer_owes_a_reply() -> None:
    async with met({"rate_limits": 1e6}) as (node, peer, raw):
        gate = asyncio.Event()

        async def handler(_: Peer, __: Message) -> None:
            await gate.wait()

        node.register_handler(MessageType.NEW_TRANSACTION, handler)
        total = 4 * INBOX_MESSAGES
        frames = (framing.encode_frame(0x20, announcement(i).encode()) for i in range(total))
        raw.write(b"".join(frames))
        inbox = peer._inbox
        await until(lambda: peer._reading.paused)
        asked = asyncio.ensure_future(peer.request(GetPeersMessage()))
        request = await raw.read(GetPeersMessage)
        raw.send(PeersMessage(request_id=request.request_id))
        await asked
        assert inbox.discarded > 0
        assert not peer.closed
        gate.set()


# --- pings -------------------------------------------------------------------------------------


async def test_pings_measure_and_bring_the_head() -> None:
    async with quiet_node(ping_interval=0.05) as node, await RawPeer.meet(node) as raw:
        for height in (3, 5, 4):
            ping = await raw.read(PingMessage)
            raw.send(PongMessage(nonce=ping.nonce, best_height=height, best_hash=b"h" * 32))
            await until(lambda height=height: node.peers[raw.address].best_height == height)
        latency = node.peers[raw.address].latency
        assert latency is not None and 0 <= latency < WAIT  # the clock of some loops counts in ms


@pytest.mark.parametrize("answer", [False, True], ids=["silent", "other nonce"])
async def test_a_peer_without_a_pulse_is_removed(answer: bool) -> None:
    gone: list[Peer] = []
    async with quiet_node(ping_interval=0.02, ping_timeout=0.1) as node:
        node.on_peer_disconnected.append(gone.append)
        async with await RawPeer.meet(node) as raw:
            ping = await raw.read(PingMessage)
            if answer:
                raw.send(PongMessage(nonce=ping.nonce ^ 1, best_height=99))
            assert await raw.read_goodbye() == DisconnectCode.TIMEOUT
        assert [peer.best_height for peer in gone] == [0]
        assert not node.peers


async def test_a_flood_of_pings_is_answered_in_part() -> None:
    async with met() as (_, peer, raw):
        raw.send(*(PingMessage(nonce=i) for i in range(200)), GetPeersMessage(request_id=1))
        pongs = 0
        while isinstance(await raw.read_any(), PongMessage):
            pongs += 1
        assert 1 <= pongs <= PINGS_BURST + 5
        assert not peer.closed


async def test_a_goodbye_is_understood() -> None:
    async with met() as (node, peer, raw):
        asked = asyncio.ensure_future(peer.request(GetPeersMessage()))
        await raw.read(GetPeersMessage)
        raw.send(DisconnectMessage(code=DisconnectCode.EVICTED, reason="make room"))
        with pytest.raises(PeerDisconnectedError, match="make room"):
            await asked
        assert await raw.read_any() is None
        assert (peer.drop_code, peer.dropped_by_us) == (DisconnectCode.EVICTED, False)
        assert not node.peers


async def test_an_answer_that_cannot_be_sent_is_our_fault_and_said_as_busy() -> None:
    async with met() as (node, _, raw):

        async def broken(_: Peer, message: GetBlocksMessage) -> BlocksMessage:
            return BlocksMessage(request_id=message.request_id, retry_ms=-1)

        node.register_handler(MessageType.GET_BLOCKS, broken)
        for number in (1, 2):
            raw.send(GetBlocksMessage(request_id=number, start_height=1, end_height=2))
            reply = await raw.read(BlocksMessage)
            assert (reply.request_id, reply.status) == (number, Status.BUSY)
