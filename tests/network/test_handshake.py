"""HELLO: its checks on both sides, and what becomes of those who do not come to talk to us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.rawpeer import RawPeer, hello_message, quiet_node, raw_listener, until

from moderntensor.backend import framing
from moderntensor.config import NodeConfig
from moderntensor.errors import ConnectError, HandshakeError
from moderntensor.network.handshake import check_hello
from moderntensor.network.limits import PENDING_HANDSHAKES
from moderntensor.network.messages import (
    DisconnectCode,
    DisconnectMessage,
    GetPeersMessage,
    HelloMessage,
    MessageCodec,
    PingMessage,
    PongMessage,
)
from moderntensor.network.peers import PeerTable

G1, G2 = b"\x01" * 32, b"\x02" * 32

WRONG = [
    ({"protocol_version": 2}, DisconnectCode.UNSUPPORTED_VERSION),
    ({"network_id": 7}, DisconnectCode.WRONG_NETWORK),
]


async def test_both_sides_learn_who_the_other_is() -> None:
    async with (
        quiet_node() as node,
        await RawPeer.meet(node, user_agent="me/1", best_height=9, listen_port=77) as raw,
    ):
        assert raw.node_hello is not None
        assert raw.node_hello.node_id == node.node_id
        assert raw.node_hello.listen_port == node.listen_port
        assert raw.node_hello.observed_ip == b"\x00" * 10 + b"\xff\xff\x7f\x00\x00\x01"
        assert f"127.0.0.1:{raw.node_hello.observed_port}" == raw.address
        await until(lambda: node.peers)
        info = node.peers[raw.address].info
        assert (info.user_agent, info.best_height, info.outbound) == ("me/1", 9, False)
        assert info.listen_address == "127.0.0.1:77"


@pytest.mark.parametrize(("changes", "code"), WRONG)
async def test_a_listener_says_why_it_refuses(
    changes: dict[str, Any], code: DisconnectCode
) -> None:
    async with quiet_node() as node, await RawPeer.meet(node, **changes) as raw:
        assert await raw.read_goodbye() == code
        assert not node.peers


@pytest.mark.parametrize(("changes", "code"), WRONG)
async def test_a_dialler_refuses_says_why_and_stays_away(
    changes: dict[str, Any], code: DisconnectCode
) -> None:
    goodbyes: list[int | None] = []

    async def answer(raw: RawPeer) -> None:
        await raw.read(HelloMessage)
        raw.send(hello_message(**changes))
        goodbyes.append(await raw.read_goodbye())

    async with quiet_node(bootstrap_redial=0.01) as node, raw_listener(answer) as port:
        with pytest.raises(HandshakeError) as caught:
            await node.connect_peer("127.0.0.1", port)
        assert caught.value.code == code
        await until(lambda: goodbyes)
        assert goodbyes == [code]
        # As a bootstrap address it would be dialled at once, were it not refused.
        node.book.add_bootstrap("127.0.0.1", port)
        node.discovery.wake()
        await asyncio.sleep(0.1)
        assert goodbyes == [code]


def test_another_genesis_is_refused_unless_one_side_has_no_chain() -> None:
    def check(ours: bytes, theirs: bytes) -> None:
        check_hello(
            hello_message(node_id=b"a" * 32, genesis_hash=ours),
            hello_message(node_id=b"b" * 32, genesis_hash=theirs),
        )

    check(G1, G1)
    check(G1, bytes(32))
    check(bytes(32), G2)
    with pytest.raises(HandshakeError) as caught:
        check(G1, G2)
    assert caught.value.code == DisconnectCode.WRONG_GENESIS


def test_an_id_must_be_the_proved_one_and_the_expected_one() -> None:
    ours, theirs = hello_message(node_id=b"a" * 32), hello_message(node_id=b"b" * 32)
    check_hello(ours, theirs, proved_id=b"b" * 32, expected_id=b"b" * 32)
    for wrong in ({"proved_id": b"c" * 32}, {"expected_id": b"c" * 32}):
        with pytest.raises(HandshakeError) as caught:
            check_hello(ours, theirs, **wrong)
        assert caught.value.code == DisconnectCode.IDENTITY


async def test_a_dialler_that_expects_another_id_does_not_stay() -> None:
    async with quiet_node() as one, quiet_node() as two:
        with pytest.raises(HandshakeError, match="another node_id"):
            await two.connect_peer("127.0.0.1", one.listen_port, node_id=b"x" * 32)
        peer = await two.connect_peer("127.0.0.1", one.listen_port, node_id=one.node_id)
        assert peer.node_id == one.node_id


async def test_a_node_that_dials_itself_notices_and_never_does_it_again() -> None:
    async with quiet_node() as node:
        node.book.add_bootstrap("127.0.0.1", node.listen_port)
        with pytest.raises(HandshakeError) as caught:
            await node.connect_peer("127.0.0.1", node.listen_port)
        assert caught.value.code == DisconnectCode.SELF
        await until(lambda: ("127.0.0.1", node.listen_port) not in node.book)
        assert not node.peers


async def test_a_reflected_hello_is_recognised_by_its_nonce() -> None:
    async def reflect(raw: RawPeer) -> None:
        hello = await raw.read(HelloMessage)
        raw.send(hello.replace(node_id=b"\x77" * 32))
        await raw.read_goodbye()

    async with quiet_node() as node, raw_listener(reflect) as port:
        with pytest.raises(HandshakeError) as caught:
            await node.connect_peer("127.0.0.1", port)
        assert caught.value.code == DisconnectCode.SELF


# --- who did not come to talk ----------------------------------------------------------------

HELLO = MessageCodec.encode(hello_message())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes.fromhex("16030100f8010000f40303") + b"\xaa" * 200,  # a TLS client hello
        b"\x00\x00\x00\x00",
        MessageCodec.encode(PingMessage(nonce=1)),
        MessageCodec.encode(DisconnectMessage(code=0)),
        framing.encode_frame(0, b"\x00" * 2049),
        framing.encode_frame(0, HELLO[5:-1]),
        framing.encode_frame(0, HELLO[5:] + b"\x00"),
        framing.encode_frame(0x7F, b""),
    ],
    ids=["http", "tls", "empty", "ping", "disconnect", "big", "truncated", "trailing", "unknown"],
)
async def test_strangers_are_dropped_without_a_word(data: bytes) -> None:
    async with quiet_node() as node, await RawPeer.connect(node) as raw:
        raw.write(data)
        assert await raw.read_any() is None
        assert not node.peers
        assert not node.reputation.counts.offences
        assert not node.list_bans()


async def test_who_says_nothing_or_dribbles_has_to_be_done_in_time() -> None:
    async with quiet_node(handshake_timeout=0.2) as node:
        silent, slow = await RawPeer.connect(node), await RawPeer.connect(node)
        async with silent, slow:
            slow.write(HELLO[:20])
            assert await silent.read_any() is None
            assert await slow.read_any() is None


async def test_a_dialler_does_not_wait_for_a_silent_listener() -> None:
    async def say_nothing(raw: RawPeer) -> None:
        await raw.read_goodbye()

    async with quiet_node(handshake_timeout=0.1) as node, raw_listener(say_nothing) as port:
        with pytest.raises(ConnectError, match="no HELLO within"):
            await node.connect_peer("127.0.0.1", port)


async def test_half_open_connections_are_bounded_and_do_not_keep_others_out() -> None:
    async with quiet_node() as node:
        silent = [await RawPeer.connect(node) for _ in range(PENDING_HANDSHAKES + 5)]
        for oldest in silent[:5]:
            assert await oldest.read_any() is None
        async with await RawPeer.meet(node):  # an honest one makes the sixth oldest go
            await until(lambda: len(node.peers) == 1)
            assert await silent[5].read_any() is None
            assert len(node.gate) == PENDING_HANDSHAKES  # 49 silent ones and the peer
        for raw in silent:
            await raw.close()


# --- behind HELLO ------------------------------------------------------------------------------


async def test_what_is_glued_behind_hello_is_read_as_if_it_had_come_later() -> None:
    async with quiet_node() as node, await RawPeer.connect(node) as raw:
        raw.send(hello_message(), PingMessage(nonce=7), GetPeersMessage(request_id=3))
        await raw.read(HelloMessage)
        got = [await raw.read_any() for _ in range(3)]
        assert any(isinstance(m, PongMessage) and m.nonce == 7 for m in got), got


async def test_a_second_hello_is_a_breach_that_keeps_the_address_away() -> None:
    async with quiet_node() as node:
        async with await RawPeer.meet(node, listen_port=4000) as raw:
            raw.send(hello_message())
            assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR
        async with await RawPeer.meet(node, listen_port=4000) as raw:
            refusal = await raw.read(DisconnectMessage)
            assert refusal.code == DisconnectCode.BANNED
            assert 0 < refusal.retry_after <= node.config.refusal_time + 1
        async with await RawPeer.meet(node, listen_port=4001):  # a neighbour on this machine
            await until(lambda: len(node.peers) == 1)


async def test_more_peers_than_places_are_told_so_on_both_sides() -> None:
    async with quiet_node(max_peers=2, max_inbound=2) as node, quiet_node() as late:
        async with (
            await RawPeer.meet(node, node_id=b"a" * 32),
            await RawPeer.meet(node, node_id=b"b" * 32),
            await RawPeer.meet(node, node_id=b"c" * 32) as third,
        ):
            assert await third.read_goodbye() == DisconnectCode.TOO_MANY_PEERS
            with pytest.raises(ConnectError, match=r"too many peers \(code 5\)"):
                await late.connect_peer("127.0.0.1", node.listen_port)
            assert len(node.peers) == 2
        assert not late.peers


async def test_the_newest_connection_of_the_same_direction_stays() -> None:
    async with quiet_node() as node, await RawPeer.meet(node, nonce=1) as first:
        await until(lambda: first.address in node.peers)
        async with await RawPeer.meet(node, nonce=2) as second:
            assert await first.read_goodbye() == DisconnectCode.ALREADY_CONNECTED
            await until(lambda: second.address in node.peers)
            assert list(node.peers) == [second.address]


async def test_two_that_dial_each_other_keep_the_same_connection() -> None:
    for _ in range(10):
        async with quiet_node() as one, quiet_node() as two:
            low, high = sorted((one, two), key=lambda node: node.node_id)
            await asyncio.gather(
                low.connect_peer("127.0.0.1", high.listen_port),
                high.connect_peer("127.0.0.1", low.listen_port),
                return_exceptions=True,
            )
            await until(lambda low=low, high=high: len(low.gate) == len(high.gate) == 1)
            (kept,), (same,) = low.peers.values(), high.peers.values()
            assert kept.outbound
            assert not same.outbound
            assert same.address == "{}:{}".format(*kept.connection.local_address or ())


async def test_whoever_is_connected_already_is_not_dialled_again() -> None:
    async with quiet_node() as one, quiet_node() as two:
        peer = await two.connect_peer("127.0.0.1", one.listen_port)
        assert await two.connect_peer("127.0.0.1", one.listen_port) is peer
        await until(lambda: one.peers)
        (other_end,) = one.peers.values()
        assert await one.connect_peer("127.0.0.1", two.listen_port) is other_end
        assert (len(one.gate), len(two.gate)) == (1, 1)


# Each with the greater nonce of whoever dialled the newer one, or the lesser.
@pytest.mark.parametrize(
    ("we_are_lower", "older_is_ours", "newer_is_ours", "newer_stays"),
    [
        (True, True, True, (True, False)),
        (True, False, False, (True, False)),
        (True, False, True, (True, True)),
        (True, True, False, (False, False)),
        (False, True, True, (True, False)),
        (False, False, False, (True, False)),
        (False, False, True, (False, False)),
        (False, True, False, (True, True)),
    ],
)
def test_of_two_connections_at_a_time_one_stays(
    we_are_lower: bool, older_is_ours: bool, newer_is_ours: bool, newer_stays: tuple[bool, bool]
) -> None:
    for newer_nonce, stays in zip((8, 6), newer_stays, strict=True):
        older, decide = _older(we_are_lower, older_is_ours, newer_is_ours, 1.0, newer_nonce)
        if stays:
            assert decide() is older
            assert not older.probes
            continue
        with pytest.raises(HandshakeError) as caught:
            decide()
        assert caught.value.code == DisconnectCode.ALREADY_CONNECTED
        assert older.probes == 1  # it may be dead


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("nonce", [8, 6])
def test_of_two_connections_of_one_direction_the_newest_stays(ours: bool, nonce: int) -> None:
    older, decide = _older(True, ours, ours, 100.0, nonce)
    assert decide() is older


class _Older(SimpleNamespace):
    probes = 0

    def probe(self) -> None:
        self.probes += 1


def _older(
    we_are_lower: bool, older_is_ours: bool, newer_is_ours: bool, age: float, nonce: int
) -> tuple[Any, Callable[[], Any]]:
    """A peer, and the decision on another connection with its node after `age` seconds."""
    own, other = (G1, G2) if we_are_lower else (G2, G1)
    table = PeerTable(NodeConfig(), own)
    older: Any = _Older(
        node_id=other, outbound=older_is_ours, address="a:1", connected_at=50.0, dial_nonce=7
    )
    table.add(older)
    return older, lambda: table.duplicate(
        other, outbound=newer_is_ours, dial_nonce=nonce, now=50.0 + age
    )
