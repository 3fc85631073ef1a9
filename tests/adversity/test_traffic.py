"""Rows 16 to 20 and 24: too much, too large, unasked, unread."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from . import scene, wire
from .conftest import BYTE_BUDGET, MIB, REFUSED, Live, Row
from .hostile import Hostile, refused, until
from .server import ChainServer, serving

pytestmark = pytest.mark.long

# docs/security.md and docs/protocol.md give these.
MAX_INFLIGHT, MAX_PER_TYPE = 16, 8
SOFT_REPLY_LIMIT = 2 * MIB
PINGS_BURST = 20
PING_TIMEOUT, PING_INTERVAL = 20.0, 15.0
LATE_REPLY_TIME = 120.0
SEND_STALL_TIMEOUT = 30.0
LARGE_BLOCKS = 8  # of 1.9 MiB
FLOOD_MOST = 5_000_000  # messages, most of which wait in the sockets between us


def drained(peer: Hostile) -> threading.Thread:
    """Read what comes until the end, so that nothing waits for us; `peer.goodbye` is the last."""

    def read() -> None:
        with suppress(OSError, AssertionError, ValueError):
            peer.goodbye = peer.ends()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def flood(peer: Hostile, frame: bytes) -> int:
    """The same frame again and again until the node has had enough; how many were sent."""
    reader = drained(peer)
    batch, sent = frame * 500, 0
    while sent < FLOOD_MOST and reader.is_alive() and peer.try_send(batch):
        sent += 500
    reader.join(20)
    assert not reader.is_alive(), "the node goes on"
    return sent


def floods() -> dict[str, bytes]:
    """One good message of each type that may come unasked."""
    tip = scene.chain()[-1]
    asked = {f"GET {kind:02x}": data for kind, data in wire.requests(9, tip.hash).items()}
    return {
        "PING": wire.ping(),
        **asked,
        "NEW_TRANSACTION": wire.new_transactions(),
        "NEW_BLOCK": wire.new_block(tip.header.encode()),
        "NEW_BLOCK_HASHES": wire.new_block_hashes([(tip.hash, tip.height)]),
        "HEADERS": wire.headers(0, []),
    }


def test_row_16_floods_of_every_type(row: Row) -> None:
    """All at the same time, each from a host of its own."""
    peers = {name: row.meet() for name in floods()}
    sent: dict[str, int] = {}
    threads = [
        threading.Thread(target=lambda n=name: sent.update({n: flood(peers[n], floods()[n])}))
        for name in peers
    ]
    for thread in threads:
        thread.start()
    peak = 0
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, row.live.memory())
        threads[0].join(0.05)
        for thread in threads:
            thread.join(0.01)
    for name, peer in peers.items():
        goodbye = peer.goodbye
        assert goodbye is not None, name
        assert goodbye.code == wire.LIMITS, (name, goodbye)
    row.measure(types=len(peers), sent_at_most=max(sent.values()), memory_peak=peak)


def test_row_16_floods_add_up_to_a_ban(row: Row) -> None:
    host, times = None, 0
    while host is None or not row.live.banned(host):
        peer = row.meet(host)
        flood(peer, floods()["GET 40"])
        host, times = peer.host, times + 1
        row.live.advance(REFUSED)
        assert times < 10
    assert refused(row.target, host)
    row.measure(times=times)


def test_row_17_ranges_end_at_the_limits_of_replies(row: Row) -> None:
    """Whatever is asked, a reply ends at its items, at 2 MiB, or at what there is."""
    peer = row.meet()
    peer.send(wire.get_blocks(1, 1, 2**64 - 1, 512))
    reply = peer.reply(wire.BLOCKS)
    assert (reply.status, reply.count) == (wire.OK, scene.HEIGHT)
    assert len(reply.items) <= SOFT_REPLY_LIMIT
    peer.send(wire.get_headers(2, 0, 2048))
    assert peer.reply(wire.HEADERS).count == scene.HEIGHT + 1
    peer.send(wire.get_blocks(3, 1, scene.HEIGHT, 7))
    reply = peer.reply(wire.BLOCKS)
    assert (reply.status, reply.count) == (wire.PARTIAL, 7)


def test_row_17_missing_items_cost_nothing(row: Row) -> None:
    """Asked for again and again within the limits, without blame."""
    peer = row.meet()
    missing = [bytes([i % 256, i // 256]) * 16 for i in range(256)]
    for i in range(1, 120):
        peer.send(wire.get_bodies(i, missing))
        reply = peer.reply(wire.BLOCK_BODIES)
        assert reply.status in (wire.NOT_FOUND, wire.OK)
        assert reply.count == 0
    assert peer.answers()


def test_row_17_more_at_a_time_than_hello_allows(row: Row) -> None:
    """Some are answered, the others BUSY with a time; nobody is punished for that."""
    peer = row.meet()
    assert peer.hello is not None
    assert (peer.hello.max_inflight, peer.hello.max_per_type) == (MAX_INFLIGHT, MAX_PER_TYPE)
    count = 200
    peer.send(*(wire.get_blocks(i, 1, scene.HEIGHT) for i in range(1, count + 1)))
    replies = [peer.reply(wire.BLOCKS) for _ in range(count)]
    busy = [reply for reply in replies if reply.status == wire.BUSY]
    assert {reply.status for reply in replies} == {wire.OK, wire.BUSY}
    assert all(reply.retry_ms > 0 for reply in busy)
    assert len(busy) >= count // 2
    assert peer.answers()
    row.measure(asked=count, busy=len(busy))


@pytest.mark.parametrize("kind", wire.REPLIES)
def test_row_18_a_reply_that_nobody_asked_for(row: Row, kind: int) -> None:
    """Refused at its header: of the payload nothing needs to come."""
    peer = row.meet()
    whole = wire.empty_reply(kind, 9)
    peer.send(struct.pack(">I", 4 * MIB if kind != wire.HEADERS else 2 * MIB) + whole[4:5])
    assert peer.code() == wire.PROTOCOL_ERROR


def test_row_18_a_reply_of_another_id(row: Row) -> None:
    def other_id(asked: wire.Asked) -> bytes:
        return wire.headers(asked.request_id ^ 1, [])

    height = scene.HEIGHT + 3
    with serving(row.target, other_id, best_height=height, best_hash=b"\5" * 32) as served:
        assert served.code() == wire.PROTOCOL_ERROR


def test_row_18_a_late_reply_is_no_fault(row: Row) -> None:
    late = []

    def keep(asked: wire.Asked) -> bytes | None:
        if asked.kind == wire.GET_HEADERS and not late:
            late.append(asked)
            return None
        return ChainServer(scene.chain())(asked)

    height = scene.HEIGHT + 3
    with serving(row.target, keep, best_height=height, best_hash=b"\6" * 32) as served:
        until(lambda: late)
        served.peer.claim = (scene.HEIGHT, scene.chain()[-1].hash)  # from now on it is honest
        row.live.advance(16)
        served.peer.send(wire.headers(late[0].request_id, []))
        row.undisturbed()
        assert not served.ended.is_set() or served.code() != wire.PROTOCOL_ERROR


def test_row_19_more_items_than_asked(row: Row) -> None:
    raw = [block.header.encode() for block in scene.chain()]

    def more(asked: wire.Asked) -> bytes:
        if asked.kind == wire.GET_HEADERS:
            return wire.headers(asked.request_id, (raw * 60)[: asked.most + 1])
        return wire.empty_reply(wire.REQUESTS[asked.kind], asked.request_id)

    height = scene.HEIGHT + 3
    with serving(row.target, more, best_height=height, best_hash=b"\7" * 32) as served:
        assert served.code() == wire.PROTOCOL_ERROR


@pytest.fixture(scope="module")
def laden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A node whose blocks are so large that a reply holds one of them."""
    blocks = list(scene.chain())
    for _ in range(LARGE_BLOCKS):
        data = {"data": bytes(130_000), "gas_limit": 600_000}
        many = [scene.maker().transfer(blocks[-1], ahead=n, **data) for n in range(15)]
        blocks.append(scene.maker().block(blocks[-1], many))
    node = Live(tmp_path_factory.mktemp("laden"))
    server = ChainServer(blocks)
    with serving(node.target, server):
        until(lambda: node.state()["hash"] == blocks[-1].hash.hex())
    yield node
    node.stop()


def large(request_id: int) -> bytes:
    """A request for one of its large blocks."""
    height = scene.HEIGHT + 1 + request_id % LARGE_BLOCKS
    return wire.get_blocks(request_id, height, height, 1)


def test_row_20_asks_and_never_reads(row: Row, laden: Live) -> None:
    """As much as it may ask at a time, and then no byte is read: what waits for it is bounded,
    and after the deadline it is gone."""
    memory = laden.memory()
    peers = [Hostile.meet(laden.target) for _ in range(8)]
    for peer in peers:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.send(*map(large, range(1, MAX_PER_TYPE + 1)))
    until(lambda: laden.budget() > 8 * MIB)  # their replies wait
    row.undisturbed()
    peak, held = laden.memory() - memory, laden.budget()
    assert held < BYTE_BUDGET
    assert peak < BYTE_BUDGET
    assert len(laden.peers()) == len(peers)
    laden.advance(SEND_STALL_TIMEOUT + PING_TIMEOUT + PING_INTERVAL)
    until(lambda: not laden.peers())
    until(lambda: laden.budget() < MIB)
    for peer in peers:
        peer.close()
    row.measure(memory_peak_over=peak, memory_accounted_for=held)


def test_row_20_asks_on_and_on_and_never_reads(row: Row, laden: Live) -> None:
    """Beyond what it may ask it hears BUSY; who leaves that unread too is gone without waiting
    for the deadline."""
    with Hostile.meet(laden.target) as reader, Hostile.meet(laden.target) as peer:
        count = 64
        reader.send(*map(large, range(1, count + 1)))
        peer.sock.settimeout(1)
        for at in range(1, 40_000, 100):
            if not peer.try_send(*map(large, range(at, at + 100))):
                break
        until(lambda: peer.address not in laden.peers())
        statuses = [reader.reply(wire.BLOCKS).status for _ in range(count)]  # late, but it reads
        assert set(statuses) == {wire.OK, wire.BUSY}
        assert reader.answers()
    row.measure(busy=statuses.count(wire.BUSY))


def test_row_24_a_flood_of_pings_is_not_answered(row: Row) -> None:
    peer = row.meet()
    for nonce in range(100):
        peer.send(wire.ping(1000 + nonce))
    peer.send(wire.get_headers(5, 0, 1))
    pongs = 0
    while True:
        kind, _ = peer.read()
        pongs += kind == wire.PONG
        if kind == wire.HEADERS:
            break
    assert PINGS_BURST <= pongs <= PINGS_BURST + 20
    row.measure(pings=100, pongs=pongs)


def test_row_24_pongs_to_no_ping(row: Row) -> None:
    """One is ignored, many are too many; what they claim is not believed."""
    peer = row.meet()
    peer.send(wire.pong(1, 2**40, b"\1" * 32))
    assert peer.answers()
    assert row.live.peers()[peer.address]["best_height"] == 0
    for nonce in range(2, 200):
        if not peer.try_send(wire.pong(nonce)):
            break
    assert peer.code() == wire.PROTOCOL_ERROR


def test_row_24_no_pong(row: Row) -> None:
    peer = row.meet()
    row.live.advance(PING_INTERVAL + PING_TIMEOUT + 2)
    assert peer.code() == wire.TIMEOUT
