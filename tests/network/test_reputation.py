"""Misconduct: what it costs, on whom it falls, and how long it is remembered."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pytest
from helpers.clocks import Clocks
from helpers.rawpeer import RawPeer, quiet_node, until

from moderntensor.backend import framing
from moderntensor.config import NodeConfig
from moderntensor.errors import FrameError
from moderntensor.network.bans import Bans
from moderntensor.network.limits import (
    BAN_GROWTH,
    BAN_TIME_MAX,
    DROP_LOGS_BURST,
    NETGROUP_BANS,
)
from moderntensor.network.log_limit import LogLimit
from moderntensor.network.messages import (
    CAPS,
    IDLE_CAPS,
    DisconnectCode,
    DisconnectMessage,
    MessageCodec,
    MessageType,
    PongMessage,
)
from moderntensor.network.offences import offence_of_code, offence_of_frame
from moderntensor.network.p2p import P2PNode
from moderntensor.network.reputation import (
    BAN_AT,
    DISCONNECT_AT,
    HALF_LIFE,
    Offence,
    Reputation,
)

PUBLIC, NEIGHBOUR, ELSEWHERE = "8.8.8.8", "8.8.4.4", "9.9.9.9"
SCORED = Offence.REQUEST_FLOOD


@dataclass
class Someone:
    """As much of a peer as is asked about it."""

    host_address: str = PUBLIC
    dial_port: int = 30303
    node_id: bytes = b"\7" * 32
    outbound: bool = False
    proved_id: bytes | None = None
    closed: bool = False
    drop_code: int | None = None
    dropped_by_us: bool = False
    offence: Offence | None = None
    told: list[DisconnectCode] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.host_address}:{self.dial_port}"

    def disconnect(self, code: DisconnectCode, reason: str = "", *, retry_after: int = 0) -> None:
        assert reason
        assert retry_after
        self.told.append(code)
        self.closed = True


class World:
    """A reputation on clocks that stand still."""

    def __init__(self, *peers: Someone, limit: int = 100, **changes: float) -> None:
        self.clock = Clocks()
        self.config = NodeConfig().replace(**changes)
        self.bans = Bans(self.clock)
        self.of = Reputation(self.config, self.clock, self.bans, peers=lambda: peers, limit=limit)


def test_every_offence_says_what_it_costs() -> None:
    names = {offence.value for offence in Offence}
    assert len(names) == len(Offence)
    for offence in Offence:
        assert offence.value.isidentifier()
        assert 0 <= offence.points <= BAN_AT
        assert offence.drops or offence.points, f"{offence} follows from nothing and to nothing"
    banned = {offence for offence in Offence if offence.points >= BAN_AT}
    assert banned == {
        Offence.OVERSIZED_FRAME,
        Offence.FALSE_IDENTITY,
        Offence.BAD_HEADER,
        Offence.BAD_SIGNATURE,
        Offence.BAD_BODY,
        Offence.BAD_STATE,
    }
    for innocent in (Offence.SLOW_FRAME, Offence.NO_PONG, Offence.FORKS_TOO_DEEP):
        assert innocent.points == 0


def test_what_an_error_says_is_found_by_its_name_or_else_by_its_code() -> None:
    assert offence_of_code(DisconnectCode.BAD_BLOCK, "bad_body") is Offence.BAD_BODY
    assert offence_of_code(DisconnectCode.BAD_BLOCK) is Offence.BAD_BLOCK
    assert offence_of_code(99) is Offence.MISCONDUCT
    assert offence_of_code(1, "no such thing") is Offence.MISCONDUCT


def test_what_a_frame_error_is_depends_on_what_was_asked() -> None:
    ping, bodies = MessageType.PING, MessageType.BLOCK_BODIES
    idle = IDLE_CAPS[bodies]
    assert offence_of_frame(FrameError("empty")) is Offence.EMPTY_FRAME
    assert offence_of_frame(FrameError("unknown", 0x7F, 1, 0)) is Offence.UNKNOWN_TYPE
    assert offence_of_frame(FrameError("too-large", ping, 9, 8)) is Offence.OVERSIZED_FRAME
    for length, cap, offence in (
        (100, idle, Offence.UNASKED_REPLY),
        (100, 50, Offence.WRONG_REPLY),
        (CAPS[bodies] + 1, idle, Offence.OVERSIZED_FRAME),
    ):
        assert offence_of_frame(FrameError("too-large", bodies, length, cap)) is offence


# --- points ------------------------------------------------------------------------------------


def test_points_add_up_to_a_disconnection_and_then_to_a_ban() -> None:
    world, peer = World(), Someone()
    verdicts = [world.of.punish(peer, SCORED) for _ in range(int(BAN_AT / SCORED.points))]
    first_drop = next(i for i, verdict in enumerate(verdicts) if verdict.drop)
    assert (first_drop + 1) * SCORED.points == DISCONNECT_AT
    assert [verdict.banned_for > 0 for verdict in verdicts] == [False] * 9 + [True]
    assert verdicts[-1].banned_for == world.config.ban_time
    assert world.bans.list()[0].reason == SCORED
    assert world.of.counts.offences[SCORED] == 10
    assert world.of.counts.bans[SCORED] == 1


def test_half_of_the_points_are_forgotten_in_each_half_life() -> None:
    world, peer = World(), Someone()
    world.of.punish(peer, Offence.MALFORMED)
    world.clock.advance(HALF_LIFE)
    assert world.of.score(PUBLIC) == pytest.approx(Offence.MALFORMED.points / 2)
    world.clock.advance(1e9)
    assert world.of.score(PUBLIC) < 1e-9
    world.of.punish(peer, Offence.MALFORMED)
    assert world.of.score(PUBLIC) == pytest.approx(Offence.MALFORMED.points)


def test_who_comes_back_after_each_refusal_and_goes_on_is_banned_the_third_time() -> None:
    world, peer = World(), Someone()
    for turn in range(3):
        assert not world.of.refused(PUBLIC, 1)
        verdict = world.of.punish(peer, Offence.MALFORMED)
        assert verdict.drop
        assert bool(verdict.banned_for) == (turn == 2)
        world.clock.advance(world.config.refusal_time + 1)


def test_what_may_be_nobodys_fault_never_adds_up() -> None:
    world, peer = World(), Someone()
    for offence in (o for o in Offence if not o.points):
        for _ in range(20):
            verdict = world.of.punish(peer, offence)
            assert verdict.drop
            assert not verdict.banned_for
    assert world.of.score(PUBLIC) == 0
    assert not len(world.of)


def test_the_least_points_are_forgotten_first() -> None:
    world = World(limit=8)
    for number in range(1, 9):
        world.of.punish(Someone(f"8.8.8.{number}"), SCORED)
    world.of.punish(Someone("8.8.8.1"), SCORED)
    world.of.punish(Someone("8.8.8.100"), SCORED)
    assert len(world.of) <= 8
    assert world.of.score("8.8.8.1") == pytest.approx(2 * SCORED.points)
    for number in range(200):
        world.of.punish(Someone(f"8.8.9.{number}"), SCORED)
        assert len(world.of) <= 8
    assert world.of.score("8.8.8.1") > 0


# --- keys --------------------------------------------------------------------------------------


def test_points_fall_on_a_public_host_as_a_whole() -> None:
    world = World()
    world.of.punish(Someone(dial_port=1, node_id=b"a" * 32), Offence.BAD_HEADER)
    assert world.of.refused(PUBLIC, 2, b"b" * 32)
    assert not world.of.refused(NEIGHBOUR, 1, b"a" * 32)  # ids are free


def test_of_an_ipv6_host_everyone_has_a_whole_64() -> None:
    world = World()
    world.of.punish(Someone("2606:4700:0:1::5"), Offence.BAD_HEADER)
    assert world.of.refused("2606:4700:0:1:ffff::", 9)
    assert not world.of.refused("2606:4700:0:2::5", 9)


def test_nodes_of_this_machine_are_told_apart_by_port_or_proved_id() -> None:
    world = World()
    world.of.punish(Someone("127.0.0.1", 1), Offence.BAD_HEADER)
    assert world.of.refused("127.0.0.1", 1)
    assert not world.of.refused("127.0.0.1", 2)
    proved = b"\1" * 32
    world.of.punish(Someone("127.0.0.1", 5, proved, proved_id=proved), Offence.BAD_HEADER)
    assert world.of.refused("127.0.0.1", 6, proved)
    # Where it says it listens an honest one may live.
    assert not world.of.refused("127.0.0.1", 5, b"\2" * 32)
    world.of.punish(Someone("127.0.0.1", 7, proved, True, proved), Offence.BAD_HEADER)
    assert world.of.refused("127.0.0.1", 7)


def test_a_configuration_may_treat_local_addresses_as_any_other() -> None:
    world = World(exempt_local=False)
    world.of.punish(Someone("127.0.0.1", 1), Offence.BAD_HEADER)
    assert world.of.refused("127.0.0.1", 2)
    assert not world.of.refused("127.0.0.2", 1)


def test_a_netgroup_is_banned_once_many_of_its_hosts_are() -> None:
    other, chosen = Someone("8.8.200.1"), Someone("8.8.201.1", outbound=True)
    world = World(other, chosen)
    for number in range(NETGROUP_BANS):
        assert not world.of.refused("8.8.200.1", 1), number
        world.of.punish(Someone(f"8.8.{number}.1"), Offence.BAD_HEADER)
    assert world.of.refused("8.8.200.1", 1)
    assert not world.of.refused("8.9.200.1", 1)
    assert "8.8.0.0/16" in world.bans
    assert not other.told
    world.of.part_from_banned()
    assert other.told == [DisconnectCode.BANNED]
    assert not chosen.told  # whom we dialled stays, unless its own host is banned
    world.of.ban("8.8.0.0/16", 60)
    assert chosen.told == [DisconnectCode.BANNED]


def test_of_ipv6_one_subscriber_does_not_cost_all_others_of_a_32() -> None:
    world = World()
    for number in range(4 * NETGROUP_BANS):
        world.of.punish(Someone(f"2606:4700:7:{number:x}::1"), Offence.BAD_HEADER)
    assert not world.of.refused("2606:4700:8::1", 1)
    for number in range(NETGROUP_BANS):
        world.of.punish(Someone(f"2606:4700:{number:x}::1"), Offence.BAD_HEADER)
    assert world.of.refused("2606:4700:ffff::1", 1)


def test_the_operators_bans_are_no_reason_for_a_netgroup_ban() -> None:
    world = World()
    for number in range(2 * NETGROUP_BANS):
        world.of.ban(f"8.8.{number}.1", 60)
    world.of.punish(Someone("8.8.100.1"), Offence.BAD_HEADER)
    assert not world.of.refused("8.8.200.1", 1)


def test_each_ban_in_a_row_is_longer_up_to_a_day() -> None:
    world, lengths = World(), []
    for _ in range(6):
        lengths.append(world.of.punish(Someone(), Offence.BAD_HEADER).banned_for)
        world.clock.advance(lengths[-1] + 1)
        assert not world.of.refused(PUBLIC, 1)
    first = world.config.ban_time
    assert lengths[:3] == [first, first * BAN_GROWTH, first * BAN_GROWTH**2]
    assert lengths[-1] == BAN_TIME_MAX
    world.clock.advance(30 * 86400)
    world.bans.tidy()
    assert world.of.punish(Someone(), Offence.BAD_HEADER).banned_for == first


# --- strangers, and peers that leave -------------------------------------------------------------


def test_another_networks_node_is_left_alone_but_its_host_is_not_refused() -> None:
    world = World()
    verdict = world.of.punish_stranger(PUBLIC, 1, Offence.WRONG_NETWORK, outbound=True)
    assert verdict.refused_for == world.of.refused(PUBLIC, 1) == world.config.refusal_time
    assert not world.of.refused(PUBLIC, 2)
    assert not world.of.score(PUBLIC)


def test_a_false_identity_bans_the_address() -> None:
    world = World()
    assert world.of.punish_stranger(PUBLIC, 999, Offence.FALSE_IDENTITY, outbound=False).banned_for
    assert world.of.refused(PUBLIC, 1)


@pytest.mark.parametrize(
    "code, by_us, outbound, refused",
    [
        (DisconnectCode.PROTOCOL_ERROR, False, True, True),
        (DisconnectCode.PROTOCOL_ERROR, False, False, False),  # it may come back when it likes
        (DisconnectCode.USELESS, True, False, True),
        (DisconnectCode.TOO_MANY_PEERS, False, True, False),
        (DisconnectCode.SHUTTING_DOWN, False, True, False),
        (DisconnectCode.BANNED, True, False, False),  # a ban can be lifted
        (None, False, True, False),
    ],
)
def test_who_parts_for_a_reason_that_stays_is_left_alone(
    code: int | None, by_us: bool, outbound: bool, refused: bool
) -> None:
    world = World()
    peer = Someone(outbound=outbound, drop_code=code, dropped_by_us=by_us)
    assert bool(world.of.parted(peer)) == refused
    assert bool(world.of.refused(PUBLIC, peer.dial_port)) == refused
    # What one node tells us says nothing about others of its host.
    assert bool(world.of.refused(PUBLIC, 1)) == (refused and by_us)


def test_lifting_a_ban_forgives_all() -> None:
    world, peer = World(), Someone()
    world.of.punish(peer, Offence.MALFORMED)
    world.of.ban(PUBLIC, 60)
    assert world.of.lift(PUBLIC)
    assert not world.of.refused(PUBLIC, 1)
    assert not world.of.score(PUBLIC)
    assert not world.of.lift(PUBLIC)


# --- the log -----------------------------------------------------------------------------------


def test_each_offence_is_one_line_and_many_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.of.punish(Someone(), Offence.MALFORMED, "PING: \x1b[2J\u202e7 bytes")
    line = caplog.messages[0]
    assert line.isascii() and line.isprintable()
    for part in ("malformed", "40", PUBLIC, "PING: ?[2J?7 bytes"):
        assert part in line
    for number in range(100):
        world.of.punish(Someone(f"9.9.9.{number}"), SCORED)
    assert len(caplog.messages) == DROP_LOGS_BURST
    world.clock.advance(1.0)
    world.of.punish(Someone(ELSEWHERE), SCORED)
    assert "51 lines kept back" in caplog.messages[-1]


# --- a live node -------------------------------------------------------------------------------

STRANGERS = {"exempt_local": False, "redial_interval": 0.0}


async def meet(node: P2PNode, host: str = "127.0.0.1", **hello: object) -> RawPeer:
    return await RawPeer.meet(node, source=host, **hello)


async def drop(node: P2PNode, data: bytes, host: str = "127.0.0.1") -> int | None:
    """Say HELLO and `data`; the code with which the node parts."""
    async with await meet(node, host) as raw:
        raw.write(data)
        return await raw.read_goodbye()


async def test_an_oversized_frame_bans_the_host_whatever_its_id() -> None:
    async with quiet_node(**STRANGERS) as node:
        frame = (1 << 30).to_bytes(4, "big") + bytes([MessageType.PING])
        assert await drop(node, frame) == DisconnectCode.PROTOCOL_ERROR
        async with await meet(node, node_id=b"other" + bytes(27)) as raw:
            refusal = await raw.read(DisconnectMessage)
            assert refusal.code == DisconnectCode.BANNED
            assert 0 < refusal.retry_after <= node.config.ban_time + 1
        async with await meet(node, "127.0.0.2"):
            await until(lambda: len(node.peers) == 1)
        assert node.reputation.counts.bans == {"oversized_frame": 1}
        assert [ban.key for ban in node.list_bans()] == ["127.0.0.1"]


@pytest.mark.parametrize(
    "data, offence",
    [
        (b"\0\0\0\0\0", Offence.EMPTY_FRAME),
        (framing.encode_frame(0x7F, b""), Offence.UNKNOWN_TYPE),
        (framing.encode_frame(MessageType.PING, b"1234567"), Offence.MALFORMED),
        (framing.encode_frame(MessageType.PEERS, b"\0\0\0\7" + bytes(5)), Offence.UNASKED_REPLY),
    ],
)
async def test_points_survive_reconnecting(data: bytes, offence: Offence) -> None:
    async with quiet_node(**STRANGERS, refusal_time=0.0) as node:
        for turn in range(3):
            assert not node.list_bans(), turn
            assert await drop(node, data) == DisconnectCode.PROTOCOL_ERROR
        assert [ban.reason for ban in node.list_bans()] == [offence]
        assert node.reputation.counts.drops == {offence: 3}


async def test_a_ban_hits_all_who_are_connected_from_that_host() -> None:
    async with quiet_node(**STRANGERS) as node:
        raws = [await meet(node, node_id=bytes([i]) * 32) for i in range(1, 4)]
        stays = await meet(node, "127.0.0.2", node_id=b"\x09" * 32)
        async with raws[0], raws[1], raws[2], stays:
            await until(lambda: len(node.peers) == 4)
            raws[0].write(b"\x7f\0\0\0\x01")
            assert await raws[0].read_goodbye() == DisconnectCode.PROTOCOL_ERROR
            for raw in raws[1:]:
                assert await raw.read_goodbye() == DisconnectCode.BANNED
            assert len(node.peers) == 1


async def test_many_pongs_to_no_ping_end_it_and_no_more_points_follow() -> None:
    async with quiet_node(**STRANGERS) as node:
        pongs = b"".join(MessageCodec.encode(PongMessage(nonce=n)) for n in range(1, 50))
        assert await drop(node, pongs) == DisconnectCode.PROTOCOL_ERROR
        assert not node.list_bans()
        assert node.reputation.score("127.0.0.1") == pytest.approx(DISCONNECT_AT, abs=0.1)


async def test_what_is_noticed_after_it_left_is_punished_all_the_same() -> None:
    async with quiet_node(**STRANGERS) as node:
        async with await meet(node) as raw:
            await until(lambda: raw.address in node.peers)
            peer = node.peers[raw.address]
        await until(lambda: not node.peers)
        peer.punish(Offence.BAD_HEADER, "found out late")
        peer.punish(Offence.BAD_HEADER, "found out twice")
        assert node.reputation.counts.offences == {"bad_header": 1}
        assert node.reputation.refused("127.0.0.1", 1)


async def test_who_comes_and_goes_in_a_loop_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "moderntensor.network.p2p")
    async with quiet_node() as node:
        node._logs = LogLimit(0.0001, 4.0, node.runtime.loop_time())
        for _ in range(6):
            async with await meet(node):
                await until(lambda: node.peers)
            await until(lambda: not node.peers)
    lines = [message for message in caplog.messages if "raw" in message or "lost" in message]
    assert len(lines) == 4
