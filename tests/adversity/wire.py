"""The wire protocol once more, by hand from docs/protocol.md.

Nothing of moderntensor is imported here: a mistake that the node makes when it writes and again
when it reads does not pass. Small on purpose, and without any check of what is sent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

HELLO, PING, PONG, DISCONNECT = 0x00, 0x01, 0x02, 0x03
GET_BLOCKS, BLOCKS, GET_HEADERS, HEADERS = 0x10, 0x11, 0x12, 0x13
GET_BLOCK_BODIES, BLOCK_BODIES = 0x14, 0x15
NEW_TRANSACTION, NEW_BLOCK, NEW_BLOCK_HASHES = 0x20, 0x21, 0x22
GET_TRANSACTIONS, TRANSACTIONS = 0x23, 0x24
GET_STATE, STATE, GET_STATE_NODES, STATE_NODES = 0x30, 0x31, 0x32, 0x33
GET_PEERS, PEERS = 0x40, 0x41

REQUESTS = {
    GET_BLOCKS: BLOCKS,
    GET_HEADERS: HEADERS,
    GET_BLOCK_BODIES: BLOCK_BODIES,
    GET_TRANSACTIONS: TRANSACTIONS,
    GET_STATE: STATE,
    GET_STATE_NODES: STATE_NODES,
    GET_PEERS: PEERS,
}
REPLIES = tuple(REQUESTS.values())
# Caps of payloads, by type, as the protocol's table gives them.
KIB, MIB = 1024, 1024 * 1024
CAPS = {
    HELLO: 2 * KIB,
    PING: 8,
    PONG: 256,
    DISCONNECT: 512,
    GET_BLOCKS: 64,
    GET_HEADERS: 4 * KIB,
    GET_BLOCK_BODIES: 9 * KIB,
    NEW_TRANSACTION: 256 * KIB,
    NEW_BLOCK: 2 * MIB,
    NEW_BLOCK_HASHES: 4 * KIB,
    GET_TRANSACTIONS: 33 * KIB,
    GET_STATE: 128,
    GET_STATE_NODES: 40 * KIB,
    GET_PEERS: 16,
}

OK, PARTIAL, NOT_FOUND, PRUNED, BUSY, TOO_LARGE = range(6)

(
    SHUTTING_DOWN,
    PROTOCOL_ERROR,
    WRONG_NETWORK,
    WRONG_GENESIS,
    UNSUPPORTED_VERSION,
    TOO_MANY_PEERS,
    ALREADY_CONNECTED,
    SELF,
    TIMEOUT,
    LIMITS,
    BAD_HEADER,
    BAD_BLOCK,
    BAD_TRANSACTION,
    BAD_STATE,
    BANNED,
    USELESS,
    IDENTITY,
    EVICTED,
) = range(18)


def frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IB", 1 + len(payload), kind) + payload


def list8(items: Sequence[bytes]) -> bytes:
    return struct.pack(">B", len(items)) + b"".join(items)


def list16(items: Sequence[bytes]) -> bytes:
    return struct.pack(">H", len(items)) + b"".join(items)


def str8(text: bytes) -> bytes:
    return struct.pack(">B", len(text)) + text


def bytes32(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class Reader:
    """Takes values off a payload from the left."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        assert len(part) == size, f"{size} bytes wanted, {len(part)} left"
        self.at += size
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def end(self) -> None:
        assert self.at == len(self.data), f"{len(self.data) - self.at} bytes too many"


@dataclass
class Hello:
    """HELLO, its fields in order."""

    protocol_version: int = 1
    network_id: int = 1
    genesis_hash: bytes = bytes(32)
    best_height: int = 0
    best_hash: bytes = bytes(32)
    listen_port: int = 0
    node_id: bytes = bytes(32)
    capabilities: tuple[bytes, ...] = (b"sync/1", b"relay/1", b"archive")
    user_agent: bytes = b"hostile/1"
    earliest_height: int = 0
    max_inflight: int = 16
    max_per_type: int = 8
    observed_ip: bytes = bytes(16)
    observed_port: int = 0
    nonce: int = 0

    def encode(self) -> bytes:
        return b"".join(
            (
                struct.pack(">HQ", self.protocol_version, self.network_id),
                self.genesis_hash,
                struct.pack(">Q", self.best_height),
                self.best_hash,
                struct.pack(">H", self.listen_port),
                self.node_id,
                list8([str8(text) for text in self.capabilities]),
                str8(self.user_agent),
                struct.pack(">QBB", self.earliest_height, self.max_inflight, self.max_per_type),
                self.observed_ip,
                struct.pack(">HQ", self.observed_port, self.nonce),
            )
        )

    @classmethod
    def decode(cls, payload: bytes) -> Hello:
        r = Reader(payload)
        hello = cls(
            protocol_version=r.number(2),
            network_id=r.number(8),
            genesis_hash=r.take(32),
            best_height=r.number(8),
            best_hash=r.take(32),
            listen_port=r.number(2),
            node_id=r.take(32),
            capabilities=tuple(r.take(r.number(1)) for _ in range(r.number(1))),
            user_agent=r.take(r.number(1)),
            earliest_height=r.number(8),
            max_inflight=r.number(1),
            max_per_type=r.number(1),
            observed_ip=r.take(16),
            observed_port=r.number(2),
            nonce=r.number(8),
        )
        r.end()
        return hello


def ping(nonce: int = 7) -> bytes:
    return frame(PING, struct.pack(">Q", nonce))


def pong(
    nonce: int,
    height: int = 0,
    block_hash: bytes = bytes(32),
    snapshots: Sequence[tuple[int, bytes]] = (),
) -> bytes:
    kept = list8([struct.pack(">Q", at) + name for at, name in snapshots])
    head = struct.pack(">QQ", nonce, height) + block_hash
    return frame(PONG, head + struct.pack(">Q", 0) + kept)


@dataclass
class Goodbye:
    """DISCONNECT."""

    code: int
    reason: str
    retry_after: int

    @classmethod
    def decode(cls, payload: bytes) -> Goodbye:
        r = Reader(payload)
        found = cls(r.number(1), r.take(r.number(2)).decode("ascii"), r.number(4))
        r.end()
        return found


# --- requests ------------------------------------------------------------------------------


def get_blocks(request_id: int, start: int, end: int, most: int = 128) -> bytes:
    return frame(GET_BLOCKS, struct.pack(">IQQH", request_id, start, end, most))


def get_headers(
    request_id: int,
    start: int = 0,
    most: int = 192,
    stride: int = 1,
    locator: Sequence[bytes] = (),
) -> bytes:
    head = struct.pack(">IQHHB", request_id, start, most, stride, 0)
    return frame(GET_HEADERS, head + list8(locator))


def get_bodies(request_id: int, hashes: Sequence[bytes]) -> bytes:
    return frame(GET_BLOCK_BODIES, struct.pack(">I", request_id) + list16(hashes))


def get_transactions(request_id: int, hashes: Sequence[bytes]) -> bytes:
    return frame(GET_TRANSACTIONS, struct.pack(">I", request_id) + list16(hashes))


ROOT = (0, bytes(32))  # depth, prefix


def path(depth: int, prefix: bytes) -> bytes:
    return struct.pack(">B", depth) + prefix


def get_state(request_id: int, block_hash: bytes, place: tuple[int, bytes] = ROOT) -> bytes:
    return frame(GET_STATE, struct.pack(">I", request_id) + block_hash + path(*place))


def get_state_nodes(
    request_id: int, block_hash: bytes, places: Sequence[tuple[int, bytes]] = (ROOT,)
) -> bytes:
    paths = list16([path(*place) for place in places])
    return frame(GET_STATE_NODES, struct.pack(">I", request_id) + block_hash + paths)


def get_peers(request_id: int, most: int = 50) -> bytes:
    return frame(GET_PEERS, struct.pack(">IH", request_id, most))


def requests(request_id: int, block_hash: bytes = bytes(32)) -> dict[int, bytes]:
    """One of each kind, all with the same id."""
    return {
        GET_BLOCKS: get_blocks(request_id, 1, 4),
        GET_HEADERS: get_headers(request_id, 1, 4),
        GET_BLOCK_BODIES: get_bodies(request_id, [block_hash]),
        GET_TRANSACTIONS: get_transactions(request_id, [block_hash]),
        GET_STATE: get_state(request_id, block_hash),
        GET_STATE_NODES: get_state_nodes(request_id, block_hash),
        GET_PEERS: get_peers(request_id),
    }


# --- replies -------------------------------------------------------------------------------


def reply_head(request_id: int, status: int = OK, retry_ms: int = 0) -> bytes:
    return struct.pack(">IBH", request_id, status, retry_ms)


@dataclass
class Reply:
    """The head of a reply, and its items still encoded, the count in front."""

    request_id: int
    status: int
    retry_ms: int
    items: bytes = field(repr=False)

    @classmethod
    def decode(cls, payload: bytes) -> Reply:
        r = Reader(payload)
        return cls(r.number(4), r.number(1), r.number(2), payload[7:])

    @property
    def count(self) -> int:
        return int.from_bytes(self.items[:2], "big")


def headers(request_id: int, raw: Sequence[bytes], status: int = OK) -> bytes:
    return frame(HEADERS, reply_head(request_id, status) + list16(raw))


def bodies(request_id: int, raw: Iterable[bytes], status: int = OK) -> bytes:
    return frame(
        BLOCK_BODIES, reply_head(request_id, status) + list16([bytes32(body) for body in raw])
    )


def blocks(request_id: int, raw: Iterable[bytes], status: int = OK) -> bytes:
    return frame(BLOCKS, reply_head(request_id, status) + list16([bytes32(one) for one in raw]))


def state(request_id: int, records: Sequence[bytes], status: int = OK) -> bytes:
    items = struct.pack(">I", len(records)) + b"".join(records)
    return frame(STATE, reply_head(request_id, status) + items)


def state_nodes(request_id: int, nodes: Sequence[bytes], status: int = OK) -> bytes:
    return frame(STATE_NODES, reply_head(request_id, status) + list16(nodes))


def peers(request_id: int, records: Sequence[bytes], status: int = OK) -> bytes:
    return frame(PEERS, reply_head(request_id, status) + list16(records))


def peer_record(node_id: bytes, ip: bytes, port: int, last_seen: int) -> bytes:
    mapped = ip if len(ip) == 16 else bytes(10) + b"\xff\xff" + ip
    return node_id + mapped + struct.pack(">HQ", port, last_seen)


def empty_reply(kind: int, request_id: int, status: int = OK, retry_ms: int = 0) -> bytes:
    """A reply of a type without an item; a STATE counts with 32 bits."""
    head = reply_head(request_id, status, retry_ms)
    return frame(kind, head + bytes(4 if kind == STATE else 2))


@dataclass
class Asked:
    """A request of the node's, as a hostile server needs it."""

    kind: int
    request_id: int
    start: int = 0
    most: int = 0
    stride: int = 1
    on_chain: bytes | None = None
    hashes: tuple[bytes, ...] = ()
    block_hash: bytes = b""
    places: tuple[tuple[int, bytes], ...] = ()  # of states: depth, prefix

    @classmethod
    def decode(cls, kind: int, payload: bytes) -> Asked:
        r = Reader(payload)
        asked: dict[str, Any] = {"kind": kind, "request_id": r.number(4)}
        if kind == GET_HEADERS:
            asked.update(start=r.number(8), most=r.number(2), stride=r.number(2))
            asked["on_chain"] = r.take(32) if r.number(1) else None
            asked["hashes"] = tuple(r.take(32) for _ in range(r.number(1)))
            r.end()
        elif kind == GET_BLOCKS:
            asked.update(start=r.number(8), most=r.number(8))
        elif kind in (GET_BLOCK_BODIES, GET_TRANSACTIONS):
            asked["hashes"] = tuple(r.take(32) for _ in range(r.number(2)))
            r.end()
        elif kind in (GET_STATE, GET_STATE_NODES):
            asked["block_hash"] = r.take(32)
            count = 1 if kind == GET_STATE else r.number(2)
            asked["places"] = tuple((r.number(1), r.take(32)) for _ in range(count))
            r.end()
        return cls(**asked)


# --- news ----------------------------------------------------------------------------------


def new_transactions(full: Sequence[bytes] = (), announced: Sequence[bytes] = ()) -> bytes:
    return frame(NEW_TRANSACTION, list8([bytes32(tx) for tx in full]) + list16(announced))


def new_block(header: bytes, ids: Sequence[bytes] = ()) -> bytes:
    return frame(NEW_BLOCK, header + list16(ids))


def new_block_hashes(items: Sequence[tuple[bytes, int]]) -> bytes:
    return frame(NEW_BLOCK_HASHES, list8([h + struct.pack(">Q", height) for h, height in items]))
