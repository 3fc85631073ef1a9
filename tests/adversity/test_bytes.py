"""Rows 1 to 8: what is wrong with the bytes themselves."""

from __future__ import annotations

import os
import random
import ssl
import struct
import time

import pytest

from . import wire
from .conftest import MIB, REFUSED, Row
from .hostile import refused, until

pytestmark = pytest.mark.long

PROMISED = 0xFFFF_FFFF
FRAME_BASE_TIME, FRAME_MIN_RATE = 30.0, 16 * 1024  # docs/protocol.md, section 2


def test_row_01_a_length_over_the_cap_of_its_type(row: Row) -> None:
    """One byte too many, of each type: refused at the fifth byte, and the host stays away."""
    peers = []
    for kind, cap in wire.CAPS.items():
        peer = row.meet()
        peer.send(struct.pack(">IB", 2 + cap, kind))
        peers.append(peer)
    for peer in peers:
        assert peer.code() == wire.PROTOCOL_ERROR
    for peer in peers:
        assert row.live.banned(peer.host)
    row.live.advance(31)
    assert refused(row.target, peers[-1].host)
    row.measure(types=len(peers))


def test_row_01_a_length_over_the_cap_before_hello(row: Row) -> None:
    """Whoever has not said HELLO may have come by mistake: dropped without a word or a ban."""
    peer = row.connect().secure()
    peer.send(struct.pack(">IB", 2 + wire.CAPS[wire.HELLO], wire.HELLO))
    assert peer.ends() is None
    row.live.advance(31)
    assert not refused(row.target, peer.host)


def test_row_02_length_zero(row: Row) -> None:
    peer = row.meet()
    peer.send(bytes(4))
    assert peer.code() == wire.PROTOCOL_ERROR
    assert not row.live.banned(peer.host)


@pytest.mark.parametrize("kind", [0x04, 0x16, 0x42, 0xFF])
def test_row_03_unknown_type(row: Row, kind: int) -> None:
    peer = row.meet()
    peer.send(wire.frame(kind))
    assert peer.code() == wire.PROTOCOL_ERROR


def test_row_03_unknown_types_add_up_to_a_ban(row: Row) -> None:
    host, times = None, 0
    while host is None or not row.live.banned(host):
        peer = row.meet(host)
        peer.send(wire.frame(0x42))
        assert peer.code() == wire.PROTOCOL_ERROR
        host, times = peer.host, times + 1
        row.live.advance(REFUSED)
    assert times > 1
    assert refused(row.target, host)
    row.measure(times=times)


def malformed() -> dict[str, bytes]:
    """Frames whose payload is no encoding of its message."""
    found = {}
    for kind, whole in wire.requests(9).items():
        payload = whole[5:]
        found[f"{kind:02x}-truncated"] = wire.frame(kind, payload[:-1])
        if len(payload) < wire.CAPS[kind]:
            found[f"{kind:02x}-trailing"] = wire.frame(kind, payload + b"\0")
        found[f"{kind:02x}-no-id"] = wire.frame(kind, bytes(4) + payload[4:])
    headers = wire.get_headers(9)[5:]
    found["optional-2"] = wire.frame(wire.GET_HEADERS, headers[:-2] + b"\2" + headers[-1:])
    found["ping-short"] = wire.frame(wire.PING, bytes(7))
    found["pong-long"] = wire.pong(1)[:3] + b"\x3b" + wire.pong(1)[4:] + bytes(1)
    found["too-many-asked"] = wire.get_blocks(9, 0, 9, 513)
    found["none-asked"] = wire.get_blocks(9, 0, 9, 0)
    found["stride-0"] = wire.get_headers(9, 0, 1, 0)
    found["news-truncated"] = wire.frame(wire.NEW_TRANSACTION, b"\1\0\0\0\5abc")
    found["hashes-trailing"] = wire.frame(wire.NEW_BLOCK_HASHES, b"\0\0")
    found["block-header"] = wire.frame(wire.NEW_BLOCK, bytes(300))
    return found


def test_row_04_malformed_payloads(row: Row) -> None:
    """Truncated, trailing, not canonical: each is dropped, nothing of it is used."""
    frames = malformed()
    peers = {name: row.meet() for name in frames}
    for name, peer in peers.items():
        peer.send(frames[name])
    for name, peer in peers.items():
        assert peer.code() == wire.PROTOCOL_ERROR, name
        peer.close()
    row.measure(variants=len(frames))


def test_row_05_counts_that_the_bytes_cannot_hold(row: Row) -> None:
    """Refused before anything is allocated for them."""
    id_ = struct.pack(">I", 9)
    frames = [
        wire.frame(wire.GET_BLOCK_BODIES, id_ + b"\xff\xff"),
        wire.frame(wire.GET_TRANSACTIONS, id_ + b"\x04\x00" + bytes(32)),
        wire.frame(wire.GET_STATE_NODES, id_ + bytes(32) + b"\x04\x00" + bytes(33)),
        wire.frame(wire.NEW_TRANSACTION, b"\xff" + struct.pack(">I", PROMISED) + bytes(100)),
        wire.frame(wire.NEW_TRANSACTION, b"\0\xff\xff" + bytes(32)),
        wire.frame(wire.NEW_BLOCK_HASHES, b"\x40" + bytes(40)),
        wire.frame(wire.GET_HEADERS, wire.get_headers(9)[5:-1] + b"\x40" + bytes(32)),
    ]
    memory = row.live.memory()
    for data in frames:
        peer = row.meet()
        peer.send(data)
        assert peer.code() == wire.PROTOCOL_ERROR
    grown = row.live.memory() - memory
    assert grown < 4 * MIB
    row.measure(variants=len(frames), grown_meanwhile=grown)


def test_row_06_split_and_merged_anywhere(row: Row) -> None:
    """However the bytes of good requests arrive, the answers are those to the whole ones."""
    stream = b"".join(
        wire.get_blocks(i, i, i + 3) + wire.ping(i) + wire.get_headers(1000 + i, i, 5)
        for i in range(1, 7)
    )

    def answers(
        pieces: list[bytes], *, sealed: bool, pause: float = 0.0
    ) -> list[tuple[int, bytes]]:
        """To the stream in pieces: of the records, or of what TCP carries."""
        peer = row.meet()
        assert peer.line is not None
        if not sealed:
            for piece in pieces:
                peer.send(piece)
                time.sleep(pause)
        else:
            whole = peer.line.seal(stream)
            for at in range(0, len(whole), len(pieces[0])):
                peer.sock.sendall(whole[at : at + len(pieces[0])])
                time.sleep(pause)
        found = []
        while len(found) < 18:
            kind, payload = peer.read()
            if kind == wire.PONG:
                payload = payload[:8]
            if kind not in (wire.PING, wire.GET_PEERS, wire.NEW_TRANSACTION):
                found.append((kind, payload))
        peer.close()
        return sorted(found)

    whole = answers([stream], sealed=False)
    chance = random.Random(6)
    cuts = sorted(chance.sample(range(1, len(stream)), 12))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    small = [stream[i : i + 3] for i in range(0, len(stream), 3)]  # records; fewer would be crumbs
    assert answers(small, sealed=False) == whole
    assert answers(parts, sealed=False) == whole
    assert answers(parts, sealed=False, pause=0.01) == whole  # each piece is read by itself
    assert answers([b"."], sealed=True) == whole
    assert answers([b"."], sealed=True, pause=0.0005) == whole
    assert answers([b"." * 37], sealed=True) == whole


@pytest.mark.parametrize("kind, length", [(wire.PING, 8), (wire.NEW_BLOCK_HASHES, 4 * 1024)])
def test_row_07_a_frame_that_is_never_finished(row: Row, kind: int, length: int) -> None:
    """A byte now and then keeps it open no longer than 30 s and 1 s for each 16 KiB."""
    peer = row.meet()
    nonce = int.from_bytes(peer.read_until(wire.PING), "big")
    # Its PONG: the next one is due 35 s later, so that it is the frame that ends all.
    peer.send(wire.pong(nonce), struct.pack(">IB", 1 + length, kind))
    allowed = FRAME_BASE_TIME + length / FRAME_MIN_RATE
    for _ in range(7):
        row.live.advance(allowed / 8)
        peer.send(b"x")  # raises if it was dropped too soon
    row.live.advance(allowed / 8 + 2)
    assert peer.code() == wire.TIMEOUT
    assert not row.live.banned(peer.host)  # a line that broke looks the same
    row.measure(allowed_seconds=allowed)


def test_row_07_a_record_that_is_never_finished(row: Row) -> None:
    peer = row.meet()
    if not row.target.secure:
        pytest.skip("there are no records in plaintext")
    peer.sock.sendall(struct.pack(">I", 256 * 1024 + 16) + bytes(1000))
    row.live.advance(FRAME_BASE_TIME + 17 + 2)
    assert peer.code() == wire.TIMEOUT
    assert not row.live.banned(peer.host)


STRANGERS = {
    "http": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "random": os.urandom(4096),
    "bitcoin": bytes.fromhex("f9beb4d976657273696f6e0000000000") + bytes(200),
}


def client_hello() -> bytes:
    """What a TLS client begins with."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="example.org")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_row_08_garbage_instead_of_a_handshake(row: Row) -> None:
    """Dropped quietly within the deadline, and not held against the host."""
    peers = [row.connect() for _ in range(len(STRANGERS) + 2)]
    for peer, data in zip(peers, [*STRANGERS.values(), client_hello(), b""], strict=True):
        peer.sock.sendall(data)
    row.live.advance(6)
    for peer in peers:
        assert nothing_but_noise(peer.sock.makefile("rb").read)
    row.live.advance(31)
    for peer in peers:
        assert not refused(row.target, peer.host)
    row.measure(strangers=len(peers))


def nothing_but_noise(read: object) -> bool:
    """At most a handshake message (2 + 96 bytes) came back, which anybody gets."""
    try:
        data = read()  # type: ignore[operator]
    except ConnectionError:
        return True
    return len(data) in (0, 98)


def test_row_08_random_bytes_in_place_of_hello(row: Row) -> None:
    peer = row.connect().secure()
    peer.send(os.urandom(3000))
    assert peer.ends() is None
    until(lambda: peer.address not in row.live.peers())
