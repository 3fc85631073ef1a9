"""Rows 21 to 23 and 25 to 28: peers that waste places, lines of the log, and addresses."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address

import pytest

from . import scene, wire
from .conftest import Live, Row
from .hostile import Hostile, new_host, until
from .server import serving

pytestmark = pytest.mark.long

REQUEST_TIMEOUT = 15.0
REDIAL_INTERVAL = 30.0
MAX_PEERS, TARGET_OUTBOUND = 50, 8
LOGS_BURST = 5
ASKED_PEERS = 50  # a node asks for so many


def test_row_21_never_answers(row: Row) -> None:
    """What it was asked for is asked of others, and it goes."""

    def silence(asked: wire.Asked) -> None:
        return None

    height = scene.HEIGHT + 4
    with serving(row.target, silence, best_height=height, best_hash=b"\x21" * 32) as served:
        until(lambda: any(asked.kind == wire.GET_HEADERS for asked in served.asked))
        for _ in range(12):
            if served.ended.is_set():
                break
            row.live.advance(REQUEST_TIMEOUT)
        assert served.code() == wire.TIMEOUT
    assert row.live.state()["height"] == scene.HEIGHT


def test_row_21_busy_for_ever(row: Row) -> None:
    """Alive and useless is no better than silent, though nobody is banned for being busy."""

    def busy(asked: wire.Asked) -> bytes:
        return wire.empty_reply(wire.REQUESTS[asked.kind], asked.request_id, wire.BUSY)

    height = scene.HEIGHT + 4
    with serving(row.target, busy, best_height=height, best_hash=b"\x22" * 32) as served:
        until(lambda: any(asked.kind == wire.GET_HEADERS for asked in served.asked))
        for _ in range(12):
            if served.ended.is_set():
                break
            row.live.advance(REQUEST_TIMEOUT)
        assert served.code() == wire.TIMEOUT
    assert not row.live.banned(served.peer.host)


def test_row_22_reconnects_in_a_loop(row: Row) -> None:
    """One attempt per address and interval: the others are closed before a byte is read."""
    first = row.meet()
    first.close()
    for _ in range(5):
        with Hostile(row.target, first.host) as again, suppress(ConnectionError):
            assert again.sock.recv(100) == b""
    row.live.advance(REDIAL_INTERVAL + 1)
    assert row.meet(first.host).answers()


def test_row_23_all_places_taken_by_one_party(row: Row) -> None:
    """As many connections as it likes, of one netgroup: whoever comes from elsewhere gets in,
    who was useful stays, and places for those that we dial stay free."""
    octet = 200 + os.getpid() % 50
    flood = []
    for n in range(MAX_PEERS + 20):
        try:
            flood.append(row.meet(f"127.{octet}.{n}.7"))
        except (AssertionError, ConnectionError, EOFError):
            continue
    inbound = [p for p in row.live.peers().values() if not p["outbound"]]
    assert len(inbound) <= MAX_PEERS - TARGET_OUTBOUND
    newcomer = row.meet()
    assert newcomer.answers()
    ids = {p["node_id"] for p in row.live.peers().values()}
    before = {p["node_id"] for p in row.before["peers"].values()}
    assert before <= ids
    row.measure(tried=len(flood), inbound=len(inbound))


def test_row_25_a_flood_of_log_lines(row: Row) -> None:
    """What one peer does is told in a few lines, the rest is counted."""
    before = row.live.state()["log_lines"]
    peers = 6
    for _ in range(peers):
        peer = row.meet()
        for i in range(60):
            unsigned = scene.maker().transfer(scene.chain()[-1], chain_id=99, nonce=i)
            if not peer.try_send(wire.new_transactions([unsigned.encode()])):
                break
        peer.try_send(wire.frame(0x42))
        peer.ends()
    lines = row.live.state()["log_lines"] - before
    assert lines <= peers * (LOGS_BURST + 4)
    row.measure(peers=peers, lines=lines)


# --- addresses -----------------------------------------------------------------------------


def record(ip: str, port: int = 30303, *, age: int = 60, node_id: bytes | None = None) -> bytes:
    packed = ip_address(ip).packed
    return wire.peer_record(node_id or os.urandom(32), packed, port, int(time.time()) - age)


def gossip(live: Live, records: list[bytes]) -> tuple[Callable[[wire.Asked], bytes], list[int]]:
    """Answers GET_PEERS with these; and what was asked for each time."""
    asked_for: list[int] = []

    def answer(asked: wire.Asked) -> bytes:
        if asked.kind == wire.GET_PEERS:
            asked_for.append(len(asked_for))
            return wire.peers(asked.request_id, records)
        return wire.empty_reply(wire.REQUESTS[asked.kind], asked.request_id, wire.NOT_FOUND)

    return answer, asked_for


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A node that asks for addresses, and dials nobody."""
    node = Live(tmp_path_factory.mktemp("finder"), discovery=True, target_outbound=0)
    yield node
    node.stop()


UNROUTABLE = [
    *("0.0.0.1", "255.255.255.255", "224.0.0.1"),
    *("192.0.2.7", "198.51.100.4", "203.0.113.9", "240.0.0.1"),
    *("::", "ff02::1", "2001:db8::7", "64:ff9b::a00:1"),
]


def test_row_26_addresses_that_lead_nowhere(row: Row, finder: Live) -> None:
    """Unroutable ones, its own, port 0, twice the same, seen long ago: none is kept but the good
    ones. (A teller on this machine may tell of private ones; that others may not is shown in
    tests/network/test_addresses.py.)"""
    good, own = record("8.8.4.4"), {"host": "127.0.0.1", "port": finder.target.port}
    assert "itself" in finder.ask("connect", **own)
    records = [record(ip) for ip in UNROUTABLE]
    records += [record("9.9.9.9", 0), record("9.9.9.8", age=365 * 86_400)]
    records += [record("9.9.9.7", node_id=finder.target.node_id)]
    records += [record(own["host"], own["port"]), good, good]
    before = finder.ask("book")
    answer, asked = gossip(finder, records)
    with serving(finder.target, answer) as served:
        until(lambda: asked)
        until(lambda: finder.ask("knows", host="8.8.4.4", port=30303))
        assert finder.ask("book") == before + 1
        assert not served.ended.is_set()
    row.measure(told=len(records), kept=1)


def test_row_26_more_addresses_than_asked(row: Row, finder: Live) -> None:
    records = [record(f"11.{i // 250}.{i % 250}.1") for i in range(250)]
    answer, _ = gossip(finder, records)
    with serving(finder.target, answer) as served:
        assert served.code() == wire.PROTOCOL_ERROR
    row.measure(sent=len(records), asked=ASKED_PEERS)


def test_row_26_nothing_that_was_asked(row: Row, finder: Live) -> None:
    """A list longer than the message may be."""

    def answer(asked: wire.Asked) -> bytes:
        if asked.kind != wire.GET_PEERS:
            return wire.empty_reply(wire.REQUESTS[asked.kind], asked.request_id, wire.NOT_FOUND)
        return struct.pack(">IB", 1 + 9 + 58 * 5000, wire.PEERS)

    with serving(finder.target, answer) as served:
        assert served.code() == wire.PROTOCOL_ERROR


def test_row_27_one_source_cannot_fill_the_book(row: Row, finder: Live) -> None:
    """However many it tells of, of one netgroup they get into a few buckets only."""
    before = finder.ask("book")
    told = 0
    host = new_host().rsplit(".", 1)[0]
    for n in range(8):
        batch = [record(f"12.34.{n}.{i + 1}") for i in range(ASKED_PEERS)]
        answer, asked = gossip(finder, batch)
        with serving(finder.target, answer, f"{host}.{n + 1}"):
            until(lambda asked=asked: asked)
            told += len(batch)
    kept = finder.ask("book") - before
    assert kept <= 256
    row.measure(told=told, kept=kept)


def test_row_28_addresses_that_nobody_asked_for(row: Row) -> None:
    peer = row.meet()
    peer.send(wire.peers(9, [record("8.8.8.8")]))
    assert peer.code() == wire.PROTOCOL_ERROR
