"""Bans: what they fall on, how they outlast the node, and who else may change them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from helpers.clocks import Clocks
from helpers.rawpeer import QUIET, RawPeer, until
from hypothesis import given
from hypothesis import strategies as st

from moderntensor.errors import ConfigError, DecodeError
from moderntensor.network import ban_file
from moderntensor.network.ban_file import BanFile, BanKeeper, decode_bans, encode_bans
from moderntensor.network.bans import (
    FOREVER,
    Ban,
    Bans,
    host_key,
    netgroup_key,
    new_ban,
    parse_key,
    room_for,
    seconds_left,
)
from moderntensor.network.limits import BAN_MEMORY, BANS, BANS_FILE_BYTES
from moderntensor.network.messages import DisconnectCode, DisconnectMessage
from moderntensor.network.p2p import P2PNode

ID = "ab" * 32
HOST = "8.8.8.8"


@pytest.mark.parametrize(
    "text, key",
    [
        (HOST, HOST),
        ("::ffff:8.8.8.8", HOST),
        ("2606:4700::1", "2606:4700::/64"),
        ("8.8.8.8/16", "8.8.0.0/16"),
        ("2606:4700::5/32", "2606:4700::/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::ffff:8.8.0.0/112", "8.8.0.0/16"),
        ("127.0.0.1:30303", "127.0.0.1:30303"),
        ("[::1]:30303", "[::1]:30303"),
        (ID.upper(), ID),
    ],
)
def test_a_key_has_one_spelling(text: str, key: str) -> None:
    assert parse_key(text) == key
    assert parse_key(key) == key


@pytest.mark.parametrize(
    "text",
    [
        *("", "example.org", "example.org:1", "1.2.3", "1.2.3.4/33", "fe80::1%e", "fe80::%e/64"),
        *("\x1b[2J", "1.2.3.4/16/16", "8.8.8.8 ", "[::1]", "1.2.3.4:0", ID[1:]),
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="needs an IP address"):
        parse_key(text)


def test_hosts_and_netgroups() -> None:
    assert (host_key(HOST), netgroup_key(HOST)) == (HOST, "8.8.0.0/16")
    ipv6 = "2606:4700:1:2:3::9"
    assert (host_key(ipv6), netgroup_key(ipv6)) == ("2606:4700:1:2::/64", "2606:4700::/32")


# --- in memory ---------------------------------------------------------------------------------


def test_a_ban_ends_by_itself() -> None:
    clock = Clocks()
    bans = Bans(clock)
    bans.add(HOST, 60)
    assert HOST in bans
    assert (bans.left([HOST]), bans.left(["8.8.4.4"])) == (60, 0)
    clock.advance(59)
    assert bans.left([HOST]) == 1
    clock.advance(1)
    assert HOST not in bans
    assert not bans.list()


@pytest.mark.parametrize(
    "key, hit, spared",
    [
        ("8.8.0.0/16", "8.8.255.255", "8.9.0.0"),
        ("8.8.8.0/25", "8.8.8.127", "8.8.8.128"),
        ("2606:4700::/32", "2606:4700:ffff::1", "2606:4701::"),
        ("0.0.0.0/0", "1.1.1.1", "2606:4700::1"),
    ],
)
def test_a_network_covers_its_hosts(key: str, hit: str, spared: str) -> None:
    bans = Bans(Clocks())
    bans.add(key, 60)
    assert bans.left((), hit)
    assert not bans.left((), spared)
    assert bans.lift(key)
    assert not bans.left((), hit)


def test_a_longer_ban_is_not_cut_short_by_the_node() -> None:
    bans = Bans(Clocks())
    bans.add(HOST, 10**6)
    bans.punish(HOST, 60, "malformed")
    assert bans.list()[0].reason == "operator"
    bans.add(HOST, 5, "operator")  # by the operator it is
    assert bans.left([HOST]) == 5


def test_bans_are_bounded_and_the_operators_stay() -> None:
    bans = Bans(Clocks(), limit=3)
    bans.add("1.1.1.1", 1, "operator")
    for number in range(10):
        bans.add(f"9.9.9.{number}", 100 + number, "malformed")
    assert [ban.key for ban in bans.list()] == ["1.1.1.1", "9.9.9.8", "9.9.9.9"]


def test_what_cannot_be_written_is_bounded_as_well() -> None:
    bans = Bans(Clocks(), limit=3)
    bans.on_change = lambda: None
    for number in range(100):
        bans.add(f"9.9.9.{number}", 100 + number, "malformed")
    assert len(bans.changes) <= 6
    assert {ban.key for ban in bans.list()} <= {key for key, ban in bans.changes.items() if ban}


@pytest.mark.parametrize("jump", [-(10**6), 10**6])
def test_a_wall_clock_that_jumps_changes_no_end_while_the_node_runs(jump: int) -> None:
    clock = Clocks()
    bans = Bans(clock)
    bans.add(HOST, 60)
    clock.wall += jump
    assert bans.left([HOST]) == 60
    assert bans.list()[0].until == clock.wall + 60
    clock.loop += 60
    assert not bans.list()


def test_a_clock_set_back_between_two_runs_prolongs_nothing() -> None:
    clock = Clocks()
    ban = new_ban(HOST, 60, "malformed", clock.wall)
    clock.wall -= 10**6
    assert seconds_left(ban, clock.wall) == 60
    bans = Bans(clock)
    bans.take_over([ban])
    assert bans.left([HOST]) == 60


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "8.8.8.8/16"},
        {"key": "nobody"},
        {"seconds": 0},
        {"seconds": FOREVER + 1},
        {"until": -1},
        {"until": 2**41},
        {"times": 0},
        {"reason": ""},
        {"reason": "\x1b[2J"},
        {"reason": "x" * 65},
    ],
)
def test_what_no_ban_can_be_is_refused(changes: dict[str, int | str]) -> None:
    good = {"key": HOST, "until": 1_700_000_000, "seconds": 60, "reason": "malformed", "times": 1}
    Ban(**good)  # type: ignore[arg-type]
    row = {**good, **changes}
    with pytest.raises(ConfigError):
        Ban(**row)  # type: ignore[arg-type]
    data = json.dumps({"format": "moderntensor/bans/1", "bans": [row]}).encode()
    with pytest.raises(DecodeError):
        decode_bans(data)


# --- on disk -----------------------------------------------------------------------------------


def a_ban(number: int, **changes: int | str) -> Ban:
    ban = new_ban(f"9.{number >> 16}.{number >> 8 & 255}.{number & 255}", 60, "malformed", 1.7e9)
    return Ban(**{**{name: getattr(ban, name) for name in Ban.__slots__}, **changes})  # type: ignore[arg-type]


def test_as_many_of_the_longest_as_are_kept_fit_into_the_file() -> None:
    longest = [
        Ban(f"{number:064x}", 2**40 - 1, FOREVER, '"' * 64, 2**31 - 1) for number in range(BANS)
    ]
    data = encode_bans(longest)
    assert len(data) <= BANS_FILE_BYTES
    assert decode_bans(data) == longest
    with pytest.raises(DecodeError):
        decode_bans(encode_bans([*longest, a_ban(1)]))


def test_what_is_kept_when_there_is_no_room() -> None:
    now = 1.7e9
    old = a_ban(1, until=int(now - BAN_MEMORY))
    operators = a_ban(2, reason="operator", until=int(now))
    many = [a_ban(n, until=int(now) + n) for n in range(10, 20)]
    kept = room_for([old, operators, *many], now, limit=3)
    assert {ban.key for ban in kept} == {operators.key, many[-1].key, many[-2].key}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b"1" * 10_000,
        b'{"format": "moderntensor/bans/2", "bans": []}',
        b'{"format": "moderntensor/bans/1", "bans": {}}',
        b'{"format": "moderntensor/bans/1", "bans": [1]}',
        b'{"format": "moderntensor/bans/1", "bans": [{}]}',
        b'{"format": "moderntensor/bans/1", "bans": [], "more": 1}',
        b" " * (BANS_FILE_BYTES + 1),
        encode_bans([a_ban(1), a_ban(1)]),
        encode_bans([a_ban(1)]).replace(b"60", b"60.0"),
        encode_bans([a_ban(1)]).replace(b"60", b"true"),
        encode_bans([a_ban(1)]).replace(b"60", b"NaN"),
    ],
)
def test_what_is_no_file_of_bans_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_bans(data)


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 255))
def test_a_damaged_file_is_refused_or_holds_bans(junk: bytes, at: int, byte: int) -> None:
    good = bytearray(encode_bans([a_ban(1), a_ban(2)]))
    if at < len(good):
        good[at] = byte
    for data in (junk, bytes(good)):
        try:
            bans = decode_bans(data)
        except DecodeError:
            continue
        assert all(isinstance(ban, Ban) for ban in bans)


def test_commands_and_node_change_the_file_one_at_a_time(tmp_path: Path) -> None:
    one, other = BanFile(tmp_path), BanFile(tmp_path)
    now = 1.7e9
    assert one.exchange({}, (), now) is None
    assert not list(tmp_path.iterdir())  # nothing to keep, nothing written
    one.exchange({a_ban(1).key: a_ban(1)}, (), now)
    assert other.change({a_ban(2).key: a_ban(2)}, now) == [a_ban(1)]
    assert one.exchange({}, (), now) == [a_ban(1), a_ban(2)]
    assert one.exchange({}, (), now) is None
    assert one.exchange({a_ban(1).key: None}, (), now) == [a_ban(2)]
    assert (tmp_path / "bans.json").stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_used_is_set_aside_and_costs_no_ban(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bans.json").write_bytes(b"{")
    file = BanFile(tmp_path)
    with pytest.raises(DecodeError):
        file.read()
    assert file.exchange({}, [a_ban(3)], 1.7e9) == [a_ban(3)]
    assert (tmp_path / "bans.json.bad").read_bytes() == b"{"
    assert file.read() == [a_ban(3)]
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


async def test_a_disk_that_is_full_costs_nobody_anything(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clocks()
    bans = Bans(clock)
    keeper = BanKeeper(bans, clock, tmp_path / "gone", on_changed=lambda banned, lifted: None)
    bans.add(HOST, 60)
    await keeper.close()
    await keeper.close()
    assert len(caplog.records) == 1
    (tmp_path / "gone").mkdir()
    await keeper.close()
    assert [ban.key for ban in BanFile(tmp_path / "gone").read()] == [HOST]
    clock.close()


# --- a live node -------------------------------------------------------------------------------


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ban_file, "BANS_WATCH", 0.02)


async def refused(node: P2PNode) -> bool:
    """Whether the node turns somebody from 127.0.0.1 away as banned."""
    async with await RawPeer.meet(node) as raw:
        message = await raw.read_any()
        return isinstance(message, DisconnectMessage) and message.code == DisconnectCode.BANNED


STRANGERS = QUIET.replace(exempt_local=False, redial_interval=0.0)


async def test_bans_outlast_the_node(tmp_path: Path) -> None:
    async with P2PNode(config=STRANGERS, data_dir=tmp_path) as node:
        async with await RawPeer.meet(node) as raw:
            await until(lambda: len(node.peers) == 1)
            ban = node.ban("127.0.0.0/24", 3600)
            assert await raw.read_goodbye() == DisconnectCode.BANNED
        assert ban.reason == "operator"
        assert await refused(node)
    async with P2PNode(config=STRANGERS, data_dir=tmp_path) as node:
        assert node.list_bans() == [ban]
        assert await refused(node)
        assert node.lift_ban("127.0.0.0/24")
        assert not node.lift_ban("127.0.0.0/24")
        assert not await refused(node)
    async with P2PNode(config=STRANGERS, data_dir=tmp_path) as node:
        assert not node.list_bans()


@pytest.mark.usefixtures("watch")
async def test_what_a_command_writes_takes_effect_both_ways(tmp_path: Path) -> None:
    async with P2PNode(config=STRANGERS, data_dir=tmp_path) as node:
        command = BanFile(tmp_path)
        now = node.runtime.wall_time()
        ban = new_ban("127.0.0.1", 3600, "operator", now)
        async with await RawPeer.meet(node) as raw:
            await until(lambda: len(node.peers) == 1)
            command.change({ban.key: ban}, now)
            assert await raw.read_goodbye() == DisconnectCode.BANNED
        assert await refused(node)
        node.ban("9.9.9.9", 60)  # beside it
        await until(lambda: len(command.read()) == 2)
        command.change({ban.key: None}, now)
        await until(lambda: len(node.list_bans()) == 1)
        assert not await refused(node)
        (tmp_path / "bans.json").unlink()
        await until(lambda: not node.list_bans())


async def test_a_node_id_is_banned_wherever_it_is() -> None:
    async with (
        P2PNode(config=QUIET.replace(transport="secure")) as node,
        P2PNode(config=QUIET.replace(transport="secure")) as other,
    ):
        peer = await node.connect_peer("127.0.0.1", other.listen_port)
        node.ban(other.node_id.hex(), 60)
        await until(lambda: not node.peers)
        assert (peer.drop_code, peer.dropped_by_us) == (DisconnectCode.BANNED, True)
        assert node.reputation.refused("127.0.0.9", 5, other.node_id)
        with pytest.raises(ConfigError, match="needs an IP address"):
            node.ban("somebody", 60)
