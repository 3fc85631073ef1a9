"""Peers that misuse the messages of applications, over both transports."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
from helpers.extended import (
    BLOBS,
    CHAT,
    GET_LOG,
    KIB,
    LOG,
    LOG_RATE,
    SAY,
    SAY_RATE,
    Ask,
    Blob,
    Client,
    GetLog,
    Log,
    Say,
    Told,
    node_with,
)
from helpers.rawpeer import until

from moderntensor import backend
from moderntensor.errors import CapabilityError, PeerBusyError, RequestTimeoutError
from moderntensor.network.budget import Kind
from moderntensor.network.limits import INBOX_MESSAGES, LATE_REPLIES
from moderntensor.network.messages import (
    DisconnectCode,
    GetPeersMessage,
    MessageType,
    PeersMessage,
    PingMessage,
    Status,
)
from moderntensor.network.offences import Offence
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.rates import EXCESS_PER_OFFENCE

MIB = KIB * KIB

pytestmark = pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "secure"])


def begun(kind: int, size: int) -> bytes:
    """The five bytes of a frame, and no more."""
    return (1 + size).to_bytes(4, "big") + bytes([kind])


async def alive(client: Client) -> None:
    """The node answers it."""
    client.send(PingMessage(nonce=1))
    await client.read_kind(MessageType.PONG)


def peer_of(node: P2PNode, client: Client) -> Peer:
    return node.peers[client.address]


UNKNOWN, OVERSIZED = Offence.UNKNOWN_TYPE, Offence.OVERSIZED_FRAME
UNASKED, MALFORMED = Offence.UNASKED_REPLY, Offence.MALFORMED


@pytest.mark.parametrize(
    ("speaks", "data", "offence"),
    [
        pytest.param(("chat/1",), begun(SAY, KIB + 1), OVERSIZED, id="over its cap"),
        pytest.param(("chat/1",), begun(LOG, 4 * KIB + 1), OVERSIZED, id="reply over its cap"),
        pytest.param(("chat/1",), begun(LOG, 9), UNASKED, id="reply that nobody asked for"),
        pytest.param(("chat/1",), begun(0x90, 1), UNKNOWN, id="type that we have not"),
        pytest.param(("chat/2",), begun(SAY, 8), UNKNOWN, id="without the capability"),
        pytest.param((), begun(GET_LOG, 8), UNKNOWN, id="without any capability"),
        pytest.param((), begun(SAY, 8 << 20), UNKNOWN, id="huge, without the capability"),
        pytest.param(("chat/1",), begun(SAY, 4) + b"\x09tea", MALFORMED, id="cut short"),
        pytest.param(("chat/1",), begun(SAY, 0), MALFORMED, id="empty"),
        pytest.param(
            ("chat/1",), begun(SAY, 8) + b"\x03tea\x00\x01x!", MALFORMED, id="trailing byte"
        ),
        pytest.param(
            ("chat/1",), begun(GET_LOG, 8) + bytes(4) + b"\x03tea", MALFORMED, id="request_id 0"
        ),
        # The same capability and type, another idea of what is in it: a u64 and a u32.
        pytest.param(
            ("chat/1",),
            begun(SAY, 12) + (7).to_bytes(8, "big") + (9).to_bytes(4, "big"),
            MALFORMED,
            id="another layout",
        ),
    ],
)
async def test_what_breaks_the_rules_ends_the_connection(
    secure: bool, speaks: tuple[str, ...], data: bytes, offence: Offence
) -> None:
    """By its header where that says it, and at no cost to others or to memory."""
    heard: list[Any] = []

    async def hear(_: Peer, message: Any) -> None:
        heard.append(message)

    async with (
        node_with(CHAT, secure=secure) as node,
        node_with(CHAT, secure=secure) as other,
        await Client.meet(node, secure=secure, speaks=speaks) as client,
    ):
        node.register_handler(Say.TYPE, hear)
        peer = await other.connect_peer("127.0.0.1", node.listen_port)
        client.write(data)
        assert await client.goodbye() == DisconnectCode.PROTOCOL_ERROR
        assert +node.reputation.counts.offences == {offence: 1}
        assert not heard
        assert node.budget.report().by_kind.get(Kind.FRAMES, 0) == 0
        assert (await peer.request(GetPeersMessage())).status == Status.OK
        assert [left.node_id for left in node.peers.values()] == [other.node_id]


@pytest.mark.parametrize("status", [Status.NOT_FOUND, Status.OK])
async def test_a_reply_to_another_request_is_not_one(secure: bool, status: Status) -> None:
    """One is outstanding, so its type is admitted; not its own id, nor a refusal with items."""
    async with (
        node_with(CHAT, secure=secure) as node,
        await Client.meet(node, secure=secure) as client,
    ):
        asking = asyncio.ensure_future(peer_of(node, client).request(GetLog(room="tea")))
        asked = int.from_bytes((await client.read_kind(GET_LOG))[:4], "big")
        if status is Status.OK:
            client.send(Log(request_id=asked % 0xFFFF_FFFF + 1))
            offence = Offence.UNASKED_REPLY
        else:
            client.send_frame(LOG, Log(request_id=asked, status=status, lines=("x",)).encode())
            offence = Offence.MALFORMED
        assert await client.goodbye() == DisconnectCode.PROTOCOL_ERROR
        assert node.reputation.counts.offences[offence] == 1
        with pytest.raises(Exception, match=r"not asked for|with lines"):
            await asking


async def test_a_flood_of_notices_is_discarded_and_then_ended(secure: bool) -> None:
    heard = 0

    async def hear(_: Peer, message: Say) -> None:
        nonlocal heard
        heard += 1

    async with (
        node_with(CHAT, secure=secure) as node,
        node_with(CHAT, secure=secure) as other,
        await Client.meet(node, secure=secure) as client,
    ):
        node.register_handler(Say.TYPE, hear)
        peer = await other.connect_peer("127.0.0.1", node.listen_port)
        line = Say(room="tea", text="me me me")
        client.send(*[line] * (int(SAY_RATE.burst) + 100))
        await alive(client)  # so far it has lost what was too much, and no more
        refused = peer_of(node, client).info.messages_refused
        assert 90 <= refused <= 102
        assert node.traffic.refused[SAY] == refused
        assert not node.reputation.counts.offences
        assert heard <= SAY_RATE.burst + 10
        client.send(*[line] * (6 * EXCESS_PER_OFFENCE))
        assert await client.goodbye() == DisconnectCode.LIMITS
        assert node.reputation.counts.offences[Offence.MESSAGE_FLOOD] == 5
        peer.send(line)
        await until(lambda: heard and peer.extensions)
        assert (await peer.request(GetLog(room="tea"))).status == Status.NOT_FOUND


async def test_a_flood_of_requests_is_told_busy_and_takes_nothing_of_ours(secure: bool) -> None:
    async def log(_: Peer, asked: GetLog) -> Log:
        return Log(request_id=asked.request_id)

    async with (
        node_with(CHAT, secure=secure) as node,
        await Client.meet(node, secure=secure) as client,
    ):
        node.register_handler(GetLog.TYPE, log)
        answers = []
        for n in range(int(LOG_RATE.burst) + 40):
            client.send(GetLog(request_id=n + 1, room="tea"))
            answers.append(Log.decode(await client.read_kind(LOG)))
        assert {reply.status for reply in answers[:50]} == {Status.OK}
        assert {reply.status for reply in answers[70:]} == {Status.BUSY}
        assert all(reply.retry_ms >= 250 for reply in answers[70:])
        client.send(GetPeersMessage(request_id=1))
        reply = PeersMessage.decode(await client.read_kind(MessageType.PEERS))
        assert reply.status == Status.OK
        assert not node.reputation.counts.offences


async def test_who_never_answers_costs_what_he_was_asked(secure: bool) -> None:
    """Requests of the node itself, which he answers, have places of their own."""
    async with (
        node_with(CHAT, secure=secure) as node,
        await Client.meet(node, secure=secure) as client,
    ):
        peer = peer_of(node, client)
        asked = [peer.request(GetLog(room="tea"), timeout=0.05) for _ in range(LATE_REPLIES)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(error) for error in results} == {RequestTimeoutError}
        while peer.info.requests_timed_out < 2 * LATE_REPLIES:  # until it is asked no more
            try:
                await peer.request(GetLog(room="tea"), timeout=0.01)
            except RequestTimeoutError:
                continue
            except PeerBusyError as error:
                assert "have timed out lately" in str(error)
                break
        asking = asyncio.ensure_future(peer.request(GetPeersMessage()))
        request_id = int.from_bytes((await client.read_kind(MessageType.GET_PEERS))[:4], "big")
        client.send(PeersMessage(request_id=request_id))
        assert (await asking).status == Status.OK
        assert not peer.closed
        assert not node.reputation.counts.offences


async def test_a_handler_that_fails_is_no_fault_of_the_peer(
    secure: bool, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    async def hear(_: Peer, said: Say) -> None:
        heard.append(said.text)
        if said.text == "bad":
            raise RuntimeError("a fault of ours")

    async with (
        node_with(CHAT, secure=secure) as node,
        await Client.meet(node, secure=secure) as client,
    ):
        node.register_handler(Say.TYPE, hear)
        client.send(Say(room="tea", text="bad"), Say(room="tea", text="good"))
        await until(lambda: heard == ["bad", "good"])
        await alive(client)
        assert not node.reputation.counts.offences
    assert "a handler of Say failed" in caplog.text


async def test_what_a_slow_handler_has_no_room_for_is_discarded_and_nothing_else(
    secure: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its peer is read from all the same: PINGs, requests of the chain, other extensions."""
    monkeypatch.setattr("moderntensor.network.inbox.INBOX_MESSAGES", 16)
    assert INBOX_MESSAGES > 16
    go = asyncio.Event()
    heard: list[str] = []

    async def hear(_: Peer, message: Say) -> None:
        await go.wait()
        heard.append(message.text)

    async with (
        node_with(CHAT, secure=secure, rate_limits=1000.0) as node,
        await Client.meet(node, secure=secure) as client,
    ):
        node.register_handler(Say.TYPE, hear)
        peer = peer_of(node, client)
        for n in range(200):
            client.send(*[Say(room="tea", text=f"{20 * n + i} " + "x" * 900) for i in range(20)])
            await asyncio.sleep(0)
        await alive(client)  # behind all of these
        assert (peer.info.messages_waiting, peer.info.messages_refused) == (16, 4000 - 17)
        assert node.traffic.refused[SAY] == 4000 - 17
        report = node.budget.report()
        assert report.by_kind[Kind.INBOX] == 0
        assert 0 < report.by_kind[Kind.EXTENSIONS] < 16 * 8 * KIB
        client.send(GetPeersMessage(request_id=1))
        answer = PeersMessage.decode(await client.read_kind(MessageType.PEERS))
        assert answer.status == Status.OK
        client.send(GetLog(request_id=2, room="tea"))
        assert Log.decode(await client.read_kind(LOG)).status == Status.NOT_FOUND
        go.set()
        await until(lambda: len(heard) == 17)
        numbers = [int(text.partition(" ")[0]) for text in heard]  # one of them was being handled
        assert numbers[:16] == list(range(16)) and numbers[16] > 15
        client.send(Say(room="tea", text="after"))
        await until(lambda: heard[-1] == "after")
        assert not node.reputation.counts.offences
    assert caplog.text.count("handlers of chat/1 are slow") == 1


async def test_what_waits_for_applications_is_bounded_and_takes_nothing_of_the_chain(
    secure: bool,
) -> None:
    """A peer fills the places of requests and the inbox with the largest that there are."""
    go = asyncio.Event()

    async def log(_: Peer, asked: Ask) -> Told:
        await go.wait()
        return Told(request_id=asked.request_id)

    async def hear(_: Peer, message: Blob) -> None:
        await go.wait()

    async with (
        node_with(BLOBS, secure=secure, rate_limits=1000.0, byte_budget=64 << 20) as node,
        await Client.meet(node, secure=secure, speaks=("blobs/1",)) as client,
    ):
        node.register_handler(Ask.TYPE, log)
        node.register_handler(Blob.TYPE, hear)
        peer = peer_of(node, client)
        share = node.budget.share
        asks = [Ask(request_id=n + 1, data=bytes(MIB)) for n in range(6)]
        for message in (*asks, *[Blob(data=bytes(MIB))] * 6):
            client.send(message)
            await alive(client)
        held = node.budget.report().by_kind
        assert 0 < held[Kind.EXTENSIONS] <= share + 5 * MIB
        assert held[Kind.INBOX] == held[Kind.REQUESTS] == 0
        assert peer.info.busy_replies > 0
        assert peer.info.messages_refused > 0
        assert not peer._reading.paused
        client.send(GetPeersMessage(request_id=1))
        answer = PeersMessage.decode(await client.read_kind(MessageType.PEERS))
        assert answer.status == Status.OK
        go.set()
        await until(lambda: not node.budget.report().by_kind[Kind.EXTENSIONS])
        assert not node.reputation.counts.offences


async def test_what_is_being_handled_is_counted_and_keeps_no_other_extension_out(
    secure: bool,
) -> None:
    go, heard = asyncio.Event(), list[str]()

    async def hear(_: Peer, message: Say) -> None:
        heard.append(message.text)

    async def see(_: Peer, message: Blob) -> None:
        await go.wait()

    async with (
        node_with(CHAT, BLOBS, secure=secure, rate_limits=1000.0, byte_budget=64 << 20) as node,
        await Client.meet(node, secure=secure, speaks=("chat/1", "blobs/1")) as client,
    ):
        node.register_handler(Say.TYPE, hear)
        node.register_handler(Blob.TYPE, see)
        large = Blob(data=bytes(1900 * KIB))
        client.send(large, Say(room="tea", text="one"), Say(room="tea", text="two"))
        await until(lambda: heard == ["one", "two"])
        held = node.budget.report().by_kind[Kind.EXTENSIONS]
        assert held > 4 * 1900 * KIB > node.budget.share
        go.set()
        await until(lambda: not node.budget.report().by_kind[Kind.EXTENSIONS])


async def test_what_is_over_its_rate_is_not_decoded(secure: bool) -> None:
    """Of a request its id is read, which BUSY has to name."""
    async with (
        node_with(CHAT, secure=secure) as node,
        await Client.meet(node, secure=secure) as client,
    ):
        rooms = int(LOG_RATE.burst) + 40
        client.send(*[GetLog(request_id=n + 1, room="tea") for n in range(rooms)])
        await alive(client)
        broken = (4711).to_bytes(4, "big") + b"\xff" * 60  # no room has such a name
        client.send_frame(GET_LOG, broken)
        while (reply := Log.decode(await client.read_kind(LOG))).request_id != 4711:
            pass
        assert reply.status == Status.BUSY
        assert 250 <= reply.retry_ms <= 10_000
        assert not node.reputation.counts.offences
        client.send_frame(GET_LOG, bytes(4))
        assert await client.goodbye() == DisconnectCode.PROTOCOL_ERROR
        assert node.reputation.counts.offences == {Offence.MALFORMED: 1}


async def test_a_capability_holds_for_one_connection(secure: bool) -> None:
    """Who comes again without it is sent nothing of it, and may send nothing."""
    async with node_with(CHAT, secure=secure) as node:
        async with await Client.meet(node, secure=secure) as client:
            assert peer_of(node, client).extensions == {"chat/1"}
            await alive(client)
        await until(lambda: not node.peers)
        async with await Client.meet(node, secure=secure, speaks=()) as client:
            assert "chat/1" in (client.hello.capabilities if client.hello else ())
            peer = peer_of(node, client)
            assert peer.extensions == set()
            assert not node.peers_with("chat/1")
            assert await node.broadcast(Say(room="tea", text="hello")) == 0
            with pytest.raises(CapabilityError):
                await peer.request(GetLog(room="tea"))
            client.send(Say(room="tea", text="hello"))
            assert await client.goodbye() == DisconnectCode.PROTOCOL_ERROR
            assert node.reputation.counts.offences == {Offence.UNKNOWN_TYPE: 1}


@pytest.mark.slow
def test_the_other_twin_does_the_same(secure: bool) -> None:
    """All of this with the engines that this process has not loaded."""
    other = "0" if backend.NAME == "pure" else "1"
    transport = "secure" if secure else "plaintext"
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-n", "0", "-k", transport),
            *(__file__, __file__.replace("_hostile", "")),
        ],
        env={**os.environ, "MODERNTENSOR_PURE": other},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout
