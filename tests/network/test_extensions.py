"""Messages of applications between nodes: who is sent them, what becomes of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from helpers.extended import CHAT, DICE, GET_LOG, SAY, GetLog, Log, Roll, Say, node_with
from helpers.rawpeer import QUIET, until

from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.errors import (
    CapabilityError,
    ConfigError,
    PeerBusyError,
    RequestTimeoutError,
)
from moderntensor.metrics import render
from moderntensor.network.budget import EXTENSION_BASE, PEER_BASE, Account, ByteBudget, Holder
from moderntensor.network.extensions import (
    Extension,
)
from moderntensor.network.messages import (
    GetPeersMessage,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.node import FullNode

TRANSPORTS = pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "secure"])


async def connect(one: P2PNode, other: P2PNode) -> Peer:
    return await one.connect_peer("127.0.0.1", other.listen_port)


@TRANSPORTS
async def test_notices_go_to_those_who_share_the_extension(secure: bool) -> None:
    """Four nodes of a process: two chat, one rolls dice by the same type byte, one does neither."""
    heard: list[tuple[str, Any]] = []

    async def hear(peer: Peer, message: Any) -> None:
        heard.append((peer.address, message))

    async with (
        node_with(CHAT, secure=secure) as alice,
        node_with(CHAT, secure=secure) as bob,
        node_with(DICE, secure=secure) as carol,
        node_with(secure=secure) as dave,
    ):
        bob.register_handler(Say.TYPE, hear)
        carol.register_handler(Roll.TYPE, hear)
        peers = [await connect(alice, other) for other in (bob, carol, dave)]
        assert [peer.extensions for peer in peers] == [{"chat/1"}, set(), set()]
        assert alice.peers_with("chat/1") == peers[:1]
        held = [alice.budget.report().by_peer[peer.address] for peer in peers]
        assert [size >= PEER_BASE + EXTENSION_BASE for size in held] == [True, False, False]
        assert "chat/1" in next(iter(dave.peers.values())).capabilities
        assert await alice.broadcast(Say(room="tea", text="hello")) == 1
        peers[0].send(Say(room="tea", text="again"))
        await until(lambda: len(heard) == 2)
        assert [message.text for _, message in heard] == ["hello", "again"]
        assert alice.traffic.sent.messages[SAY] == bob.traffic.received.messages[SAY] == 2
        rows = {row.name: row.messages_received for row in bob.traffic.by_type()}
        assert rows["chat/1 Say"] == 2

        for peer in peers[1:]:
            with pytest.raises(CapabilityError, match=r"does not have the extension 'chat/1'"):
                peer.send(Say(room="tea", text="hello"))
            with pytest.raises(CapabilityError, match=r"does not have the extension 'chat/1'"):
                await peer.request(GetLog(room="tea"))
        for node in (alice, dave):
            with pytest.raises(ConfigError, match="Roll belongs to no extension of this node"):
                await node.broadcast(Roll(dice=3))
        with pytest.raises(ConfigError, match="Roll belongs to no extension of this node"):
            peers[0].send(Roll(dice=3))
        with pytest.raises(ConfigError, match="0x80 belongs to no message and no extension here"):
            dave.register_handler(Say.TYPE, hear)
        with pytest.raises(ConfigError, match="None cannot be called"):
            alice.register_handler(Say.TYPE, None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="needs request"):
            peers[0].send(GetLog(room="tea"))

        # The same byte means something else to those who share something else.
        async with node_with(DICE, secure=secure) as erin:
            await connect(erin, carol)
            assert await erin.broadcast(Roll(dice=6)) == 1
            await until(lambda: len(heard) == 3)
            assert heard[-1][1] == Roll(dice=6)
        assert not any(n.reputation.counts.offences for n in (alice, bob, carol, dave))


async def test_the_budget_may_ask_a_peer_from_the_first_moment_what_it_owes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever is dropped to make room for a peer is chosen while that peer is being made."""
    opening = ByteBudget.open
    asked: list[bool] = []

    def open_and_ask(budget: ByteBudget, holder: Holder) -> Account:
        asked.append(holder.owes_us)
        return opening(budget, holder)

    monkeypatch.setattr(ByteBudget, "open", open_and_ask)
    async with node_with(CHAT) as alice, node_with(CHAT) as bob:
        await connect(alice, bob)
    assert asked == [False, False]


@TRANSPORTS
async def test_requests_get_what_the_handler_says(secure: bool) -> None:
    async with node_with(CHAT, secure=secure) as alice, node_with(CHAT, secure=secure) as bob:
        peer = await connect(alice, bob)
        silent = await peer.request(GetLog(room="tea"))
        assert (silent.status, silent.count) == (Status.NOT_FOUND, 0)  # nobody there to answer

        async def log(_: Peer, asked: GetLog) -> Log | Say | None:
            if asked.room == "error":
                raise LookupError("no such room")
            if asked.room == "other":
                return Say(room="x", text="y")
            if asked.room == "none":
                return None
            return Log(request_id=asked.request_id, lines=(asked.room, "hello"))

        bob.register_handler(GetLog.TYPE, log)
        seen: list[Any] = []

        async def see(_: Peer, reply: Any) -> None:
            seen.append(reply)

        alice.register_handler(Log.TYPE, see)
        answers = await asyncio.gather(*(peer.request(GetLog(room=f"r{n}")) for n in range(30)))
        assert [getattr(reply, "lines", None) for reply in answers] == [
            (f"r{n}", "hello") for n in range(30)
        ]
        await until(lambda: len(seen) == 30)  # a handler of the type of replies sees them, too
        for room, status in (
            ("error", Status.BUSY),
            ("other", Status.BUSY),
            ("none", Status.NOT_FOUND),
        ):
            assert (await peer.request(GetLog(room=room))).status == status
        assert alice.traffic.requests.by_type[GET_LOG].count == 34
        bob.unregister_handler(GetLog.TYPE, log)
        assert (await peer.request(GetLog(room="tea"))).status == Status.NOT_FOUND
        assert peer.info.requests_in_flight == 0


async def test_our_own_sending_keeps_to_the_rate_that_was_declared() -> None:
    """So that a busy application is not taken for a flood."""
    async with node_with(CHAT) as alice, node_with(CHAT) as bob:
        peer = await connect(alice, bob)
        sent = 0
        with pytest.raises(PeerBusyError, match=r"Say is over its rate for \d+\.\d\d s"):
            for sent in range(1000):  # noqa: B007
                peer.send(Say(room="tea", text="more"))
        assert 40 <= sent <= 64
        assert await alice.broadcast(Say(room="tea", text="more")) == 0
        await peer.request(GetPeersMessage())
        back = next(iter(bob.peers.values()))
        assert back.info.messages_refused == 0
        assert not bob.reputation.counts.offences


@TRANSPORTS
async def test_a_handler_that_hangs_holds_up_nothing_but_its_own(secure: bool) -> None:
    """Neither the node's own traffic with that peer, nor other peers, nor the end of the node."""
    hang = Extension("chat/1", [Say, GetLog, Log], handler_timeout=60.0)
    heard: list[str] = []
    patient = asyncio.Event()

    async def hear(peer: Peer, said: Say) -> None:
        heard.append(said.text)
        if said.text == "hang":
            await patient.wait()

    async def never(_: Peer, asked: GetLog) -> Log:
        if asked.room == "hang":
            await patient.wait()
        return Log(request_id=asked.request_id)

    async with (
        node_with(hang, secure=secure) as node,
        node_with(CHAT, secure=secure) as bad,
        node_with(CHAT, secure=secure) as good,
    ):
        node.register_handler(Say.TYPE, hear)
        node.register_handler(GetLog.TYPE, never)
        stuck, free = await connect(bad, node), await connect(good, node)
        stuck.send(Say(room="tea", text="hang"))
        stuck.send(Say(room="tea", text="behind"))
        with pytest.raises(RequestTimeoutError):
            await stuck.request(GetLog(room="hang"), timeout=0.1)
        assert (await stuck.request(GetPeersMessage())).status == Status.OK
        assert await stuck.reachable()
        free.send(Say(room="tea", text="free"))
        assert (await free.request(GetLog(room="tea"))).status == Status.OK
        await until(lambda: "free" in heard)
        assert heard == ["hang", "free"]
        info = next(p for p in node.peers.values() if p.node_id == bad.node_id).info
        assert info.messages_waiting == 1
        assert not node.reputation.counts.offences
        patient.set()
        await until(lambda: heard[-1] == "behind")
        await until(lambda: bad.traffic.late_replies == 1)  # and nobody is blamed for it
        assert not bad.reputation.counts.offences
        patient.clear()
        stuck.send(Say(room="tea", text="hang"))  # the node stops nevertheless
        await until(lambda: heard[-1] == "hang")


async def test_a_handler_that_takes_too_long_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    brief = Extension("chat/1", [Say, GetLog, Log], handler_timeout=0.05)
    heard: list[str] = []
    cancelled: list[str] = []

    async def slow(_: Peer, message: Any) -> Any:
        heard.append(message.room)
        if message.room == "slow":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(message.room)
                raise
        return Log(request_id=message.request_id) if isinstance(message, GetLog) else None

    async with node_with(brief) as node, node_with(CHAT) as other:
        node.register_handler(Say.TYPE, slow)
        node.register_handler(GetLog.TYPE, slow)
        peer = await connect(other, node)
        peer.send(Say(room="slow", text=""))
        peer.send(Say(room="next", text=""))
        assert (await peer.request(GetLog(room="slow"))).status == Status.BUSY
        assert (await peer.request(GetLog(room="more"))).status == Status.OK
        await until(lambda: len(heard) == 4)
        assert cancelled == ["slow", "slow"]
        assert not peer.closed
    assert "took longer than 0.05 s, and was cancelled" in caplog.text


async def test_more_than_a_peer_may_have_in_flight_waits_for_its_turn() -> None:
    """As for ours, and apart from ours."""
    running = most = 0
    go = asyncio.Event()

    async def log(_: Peer, asked: GetLog) -> Log:
        nonlocal running, most
        await go.wait()
        return Log(request_id=asked.request_id)

    async with node_with(CHAT, max_per_type=2) as node, node_with(CHAT) as other:
        node.register_handler(GetLog.TYPE, log)
        peer = await connect(other, node)
        asked = [asyncio.ensure_future(peer.request(GetLog(room="x"))) for _ in range(5)]
        await peer.request(GetPeersMessage())
        assert peer.info.requests_in_flight == 2
        go.set()
        assert [reply.status for reply in await asyncio.gather(*asked)] == [Status.OK] * 5
        assert next(iter(node.peers.values())).info.busy_replies == 0


async def test_whole_nodes_take_them_beside_their_chain() -> None:
    config = ChainConfig(chain_id=7, timestamp=1_700_000_000)
    async with (
        FullNode(None, config, settings=QUIET, extensions=[CHAT]) as one,
        FullNode(None, config, settings=QUIET, extensions=[CHAT]) as other,
    ):
        peer = await connect(one.p2p, other.p2p)
        assert peer.extensions == {"chat/1"}
        assert {"chat/1", "sync/1", "relay/1"} <= peer.capabilities
        assert (await peer.request(GetLog(room="tea"))).status == Status.NOT_FOUND
        text = render(one).decode()
        for sample in (
            'messages_total{direction="sent",type="chat/1 GetLog"} 1.0',
            'messages_total{direction="received",type="chat/1 Log"} 1.0',
            'request_seconds_count{type="chat/1 GetLog"} 1.0',
        ):
            assert f"\nmoderntensor_{sample}\n" in text
        assert 'type="0x' not in text
