"""What a peer may send per second, and what happens to the rest."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from helpers.rawpeer import RawPeer, quiet_node, until

from moderntensor.backend import framing
from moderntensor.network.limits import FRAMES_PER_TURN, PINGS_BURST
from moderntensor.network.messages import (
    GetHeadersMessage,
    GetPeersMessage,
    HeadersMessage,
    Message,
    MessageCodec,
    MessageType,
    NewBlockHashesMessage,
    NewBlockMessage,
    NewTransactionMessage,
    PeersMessage,
    PingMessage,
    PongMessage,
    Request,
    Status,
)
from moderntensor.network.offences import Offence
from moderntensor.network.peer import Peer
from moderntensor.network.rates import (
    EXCESS_PER_OFFENCE,
    RATES,
    TOTAL,
    PeerRates,
    TokenBucket,
    retry_ms,
)
from moderntensor.wire import MESSAGES


def spend(rates: PeerRates, kind: MessageType, now: float, count: int, size: int) -> None:
    """One by one, so that every step is seen."""
    for _ in range(count):
        rates.spend(kind, now, 1, size)


# --- buckets -----------------------------------------------------------------------------------


def test_a_bucket_admits_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(10.0, 5.0, 100.0)
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert bucket.take(100.15)
    assert not bucket.take(100.15)
    assert [bucket.take(200.0) for _ in range(6)] == [True] * 5 + [False]


def test_what_is_used_already_can_be_taken_and_has_to_be_waited_for() -> None:
    bucket = TokenBucket(10.0, 5.0, 0.0)
    assert bucket.spend(0.0, 5)
    assert not bucket.spend(0.0, 20)
    assert bucket.wait(0.0) == pytest.approx(2.0)
    assert bucket.wait(1.0) == pytest.approx(1.0)
    assert bucket.wait(2.5) == 0


@pytest.mark.parametrize("kind", RATES)
def test_every_type_has_its_own_limits(kind: MessageType) -> None:
    rate = RATES[kind]
    rates = PeerRates(1.0, 0.0)
    spend(rates, kind, 0.0, int(rate.burst), 0)
    assert rates.wait(kind, 0.0) == 0
    spend(rates, kind, 0.0, int(rate.burst / 32), 0)
    seconds = rates.wait(kind, 0.0)
    assert 0 < seconds < 2 * rate.burst / rate.messages
    assert rates.wait(kind, seconds) == 0
    other = next(other for other in RATES if other is not kind)
    assert rates.wait(other, 0.0) == 0

    rates = PeerRates(1.0, 0.0)
    spend(rates, kind, 0.0, 40, int(rate.bytes_burst / 32))
    assert rates.wait(kind, 0.0) > 0


def test_all_types_together_have_one_too() -> None:
    rates = PeerRates(1.0, 0.0)
    for kind, rate in RATES.items():
        spend(rates, kind, 0.0, int(rate.burst), 0)
    assert sum(rate.burst for rate in RATES.values()) > TOTAL.burst
    assert all(rates.wait(kind, 0.0) > 0 for kind in RATES)
    assert rates.exceeded(MessageType.PING, EXCESS_PER_OFFENCE) is Offence.MESSAGE_FLOOD


def test_the_setting_multiplies_all() -> None:
    rates = PeerRates(100.0, 0.0)
    spend(rates, MessageType.PING, 0.0, 50 * int(RATES[MessageType.PING].burst), 0)
    assert rates.wait(MessageType.PING, 0.0) == 0
    rates = PeerRates(0.01, 0.0)
    spend(rates, MessageType.NEW_TRANSACTION, 0.0, 200, 0)
    assert rates.wait(MessageType.NEW_TRANSACTION, 0.0) > 0


@pytest.mark.parametrize(
    ("kind", "offence"),
    [
        (MessageType.PING, Offence.PING_FLOOD),
        (MessageType.GET_HEADERS, Offence.REQUEST_FLOOD),
        (MessageType.NEW_BLOCK, Offence.NEWS_FLOOD),
        (MessageType.HEADERS, Offence.NEWS_FLOOD),
    ],
)
def test_some_excess_is_an_accident_and_more_an_offence(
    kind: MessageType, offence: Offence
) -> None:
    rates = PeerRates(1.0, 0.0)
    spend(rates, kind, 0.0, 2 * int(RATES[kind].burst), 0)
    assert rates.wait(kind, 0.0) > 0
    assert rates.exceeded(kind, EXCESS_PER_OFFENCE - 1) is None
    assert rates.exceeded(kind, 1) is offence
    assert rates.exceeded(kind, 1) is None
    assert rates.refused == EXCESS_PER_OFFENCE + 1


def test_every_type_that_nobody_asked_for_has_a_limit() -> None:
    unasked = {
        kind
        for kind in MessageType
        if issubclass(MESSAGES[kind], Request) or kind.name.startswith("NEW_")
    }
    assert set(RATES) == unasked | {MessageType.PING, MessageType.HEADERS}


def test_a_refused_request_is_told_a_time_that_fits_its_field() -> None:
    assert retry_ms(0.0) == 250
    assert retry_ms(1.5) == 1500
    assert retry_ms(1e9) == 10_000


# --- on a connection ---------------------------------------------------------------------------


async def flood(raw: RawPeer, message: Message, times: int = 400) -> None:
    """Send bursts until the node has enough."""
    burst = MessageCodec.encode(message) * 1000
    with suppress(ConnectionError):
        for _ in range(times):
            raw.write(burst)
            await raw.writer.drain()


@pytest.mark.parametrize(
    ("message", "offence"),
    [
        (PingMessage(nonce=1), Offence.PING_FLOOD),
        (NewTransactionMessage(), Offence.NEWS_FLOOD),
        (NewBlockHashesMessage(hashes=()), Offence.NEWS_FLOOD),
        (HeadersMessage(request_id=0), Offence.NEWS_FLOOD),
        (GetPeersMessage(request_id=1), Offence.REQUEST_FLOOD),
        (GetHeadersMessage(request_id=1), Offence.REQUEST_FLOOD),
        (PongMessage(nonce=5), Offence.WRONG_PONG),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else "",
)
async def test_who_floods_is_scored_and_then_dropped(message: Message, offence: Offence) -> None:
    async with quiet_node() as node, await RawPeer.meet(node) as raw:
        node.peers[raw.address].connection.close_timeout = 0.1  # it would wait for the flood's end
        flooding = asyncio.ensure_future(flood(raw, message))
        code = await raw.read_goodbye()
        assert code in (offence.code, None)  # None: reset before it was read
        assert node.reputation.counts.offences[offence] >= 5
        assert not node.peers
        await flooding


async def test_news_over_the_rate_are_discarded_and_those_after_a_pause_are_not() -> None:
    async with quiet_node(rate_limits=0.01) as node, await RawPeer.meet(node) as raw:
        peer = node.peers[raw.address]
        heard: list[Message] = []

        async def hear(_: Peer, message: Message) -> None:
            heard.append(message)

        node.register_handler(MessageType.NEW_BLOCK_HASHES, hear)
        allowed = int(RATES[MessageType.NEW_BLOCK_HASHES].burst * 0.01)
        for _ in range(10 * allowed):
            raw.send(NewBlockHashesMessage(hashes=()), PingMessage(nonce=1))
        await until(lambda: peer.info.messages_refused > 5 * allowed)
        assert allowed <= len(heard) < 3 * allowed
        before = len(heard)
        clock = node.runtime.loop_time
        node.runtime.loop_time = lambda: clock() + 100.0  # type: ignore[method-assign]
        raw.send(NewBlockHashesMessage(hashes=()))
        await until(lambda: len(heard) > before)
        assert not peer.closed


async def test_requests_over_the_rate_are_answered_busy_with_a_time() -> None:
    async with quiet_node(rate_limits=0.05) as node, await RawPeer.meet(node) as raw:
        raw.send(*(GetPeersMessage(request_id=number) for number in range(1, 101)))
        statuses = []
        while len(statuses) < 100:
            reply = await raw.read_any()
            if isinstance(reply, PeersMessage):
                statuses.append((reply.status, reply.retry_ms))
        late = [retry for status, retry in statuses if status == Status.BUSY]
        assert len(late) >= 80
        assert max(late) >= 250
        assert node.peers[raw.address].info.busy_replies == len(late)
        assert not node.peers[raw.address].closed


async def test_pings_within_the_rate_are_answered_in_part_and_cost_nothing() -> None:
    async with quiet_node() as node, await RawPeer.meet(node) as raw:
        await raw.read(PingMessage)
        raw.send(*(PingMessage(nonce=number) for number in range(150)))
        raw.send(GetPeersMessage(request_id=1))
        pongs = 0
        while isinstance(await raw.read_any(), PongMessage):
            pongs += 1
        assert 1 <= pongs <= PINGS_BURST + 5
        assert not node.reputation.counts.offences


# --- turns -------------------------------------------------------------------------------------


async def test_one_read_of_many_frames_takes_many_turns() -> None:
    """And nothing of it is lost, nor what comes behind it."""
    async with quiet_node(rate_limits=1e6) as node, await RawPeer.meet(node) as raw:
        peer = node.peers[raw.address]
        got = 0
        most = 0

        async def hear(_: Peer, message: NewBlockMessage) -> None:
            nonlocal got
            got += 1

        node.register_handler(MessageType.NEW_BLOCK_HASHES, hear)
        original = peer.on_frames

        def watch(frames: list[framing.Frame]) -> None:
            nonlocal most
            most = max(most, len(frames))
            original(frames)

        peer.on_frames = watch  # type: ignore[method-assign]
        total = 20 * FRAMES_PER_TURN
        raw.write(MessageCodec.encode(NewBlockHashesMessage(hashes=())) * total)
        raw.send(GetPeersMessage(request_id=9))
        while not isinstance(await raw.read_any(), PeersMessage):
            pass
        await until(lambda: got == total)
        assert FRAMES_PER_TURN >= most > FRAMES_PER_TURN // 2


async def test_a_goodbye_behind_many_frames_is_heard_after_them() -> None:
    async with quiet_node(rate_limits=1e6) as node:
        async with await RawPeer.meet(node) as raw:
            peer = node.peers[raw.address]
            total = 5 * FRAMES_PER_TURN
            heard = 0

            async def hear(_: Peer, message: Message) -> None:
                nonlocal heard
                heard += 1

            node.register_handler(MessageType.NEW_BLOCK_HASHES, hear)
            raw.write(MessageCodec.encode(NewBlockHashesMessage(hashes=())) * total)
        await until(lambda: not node.peers)
        await until(lambda: heard == total)
        assert peer.drop_code is None
