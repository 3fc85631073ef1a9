"""Answers to what peers ask, from the chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..backend import framing
from ..blockchain.chain import Blockchain
from ..blockchain.snapshots import SnapshotKeeper
from .addresses import is_exempt
from .channel import LARGE
from .host import Host
from .messages import (
    BlockBodiesMessage,
    BlocksMessage,
    GetBlockBodiesMessage,
    GetBlocksMessage,
    GetHeadersMessage,
    GetPeersMessage,
    GetTransactionsMessage,
    HeadersMessage,
    MessageCodec,
    MessageType,
    PeersMessage,
    Reply,
    Request,
    Status,
    TransactionsMessage,
)
from .peer import Peer
from .protocol import MAX_PEERS, SOFT_REPLY_LIMIT
from .serving_queue import refusal
from .serving_state import StateRequest, state_frame, state_reply
from .serving_turns import ServingTurns

__all__ = ["Server", "headers_frame"]

Q = TypeVar("Q", bound=Request)
R = TypeVar("R")
Reader = Callable[[Blockchain, Any], Reply]

_REREADS = 3  # the chain was reorganised while we read: read again, at most so often
_BUSY_MS = 100  # until a peer may ask again, if it goes on being reorganised


class Server:
    """Answers requests. The store is read on worker threads, `serving_concurrency` at a time,
    for whom that was done least of late first.

    What it has no data for (no chain; states, where there are no snapshots) is NOT_FOUND.
    """

    def __init__(self, host: Host, relayed: Callable[[bytes], bytes | None]) -> None:
        """`relayed` finds transactions, encoded, that were passed on lately."""
        self._host = host
        self._relayed = relayed
        # More than there are threads would wait for each other, and be charged for it.
        places = min(host.config.serving_concurrency, host.runtime.workers)
        self.turns = ServingTurns(places, host.runtime)
        self._readers: dict[int, Reader] = {
            MessageType.GET_BLOCKS: _blocks,
            MessageType.GET_HEADERS: _headers,
            MessageType.GET_BLOCK_BODIES: _bodies,
            MessageType.GET_TRANSACTIONS: self._transactions,
        }

    async def answer(self, peer: Peer, request: Request) -> Reply:
        """The reply to one request of `peer`."""
        found = self._at_once(peer, request)
        if isinstance(found, Reply):
            return found
        async with self.turns.of(self._name(peer)):
            if isinstance(found, SnapshotKeeper):
                return await self._host.runtime.run(state_reply, found, request)
            return await self._host.runtime.run(_reply, self._readers[request.TYPE], found, request)

    async def frame(self, peer: Peer, request: Request) -> bytes:
        """The reply to one request of `peer`, encoded; where the chain is read, on its thread."""
        found = self._at_once(peer, request)
        if isinstance(found, Reply):
            return MessageCodec.encode(found)
        run = self._host.runtime.run
        async with self.turns.of(self._name(peer)):
            if isinstance(found, SnapshotKeeper):
                return await run(state_frame, found, request)
            if isinstance(request, GetHeadersMessage):
                return await run(headers_frame, found, request)
            return await run(_frame, self._readers[request.TYPE], found, request)

    def _name(self, peer: Peer) -> str:
        """Who shares turns: a public host, whose connections and ids are free."""
        exempt = is_exempt(peer.host_address, self._host.config)
        return peer.address if exempt else peer.host_address

    def _at_once(self, peer: Peer, request: Request) -> Reply | Blockchain | SnapshotKeeper:
        """The reply if it takes no reading, else what is to be read."""
        if isinstance(request, GetPeersMessage):
            return self._peers(peer, request)
        chain = self._host.chain
        if isinstance(request, StateRequest):
            return self._host.snapshots or refusal(request, Status.NOT_FOUND)
        if request.TYPE not in self._readers:
            return refusal(request, Status.NOT_FOUND)
        if isinstance(request, GetTransactionsMessage):
            found = self._just_relayed(request)
            if found is None and chain is None:  # what we announced ourselves
                found = self._transactions(None, request)
            if found is not None:
                return found
        return refusal(request, Status.NOT_FOUND) if chain is None else chain

    def _peers(self, peer: Peer, request: GetPeersMessage) -> Reply:
        count = min(request.max_peers, MAX_PEERS)
        found = [
            record
            for record in self._host.book.sample(count + 1, peer.host_address)
            if record.node_id != peer.node_id
        ]
        return PeersMessage(request_id=request.request_id, peers=tuple(found[:count]))

    def _just_relayed(self, request: GetTransactionsMessage) -> Reply | None:
        """A little that was passed on lately, all of it, as mostly: no matter for a thread."""
        found: list[bytes] = []
        size = 0
        for tx_hash in request.hashes:
            raw = self._relayed(tx_hash)
            if raw is None:
                return None
            found.append(raw)
            size += len(raw)
            if size > LARGE:
                return None
        return TransactionsMessage(request_id=request.request_id, transactions=tuple(found))

    def _transactions(self, chain: Blockchain | None, request: GetTransactionsMessage) -> Reply:
        """From what was relayed lately, the mempool, the chain."""
        host = self._host
        found: list[bytes] = []
        size = 0
        for tx_hash in request.hashes:
            raw = self._relayed(tx_hash)
            if raw is None and host.mempool is not None:
                waiting = host.mempool.get(tx_hash)
                raw = None if waiting is None else waiting.encode()
            if raw is None and chain is not None:
                included = chain.get_transaction(tx_hash)
                raw = None if included is None else included[0].encode()
            if raw is None:
                continue
            size += len(raw)
            if found and size > SOFT_REPLY_LIMIT:
                return TransactionsMessage(
                    request_id=request.request_id,
                    status=Status.PARTIAL,
                    transactions=tuple(found),
                )
            found.append(raw)
        if request.hashes and not found:
            return refusal(request, Status.NOT_FOUND)
        return TransactionsMessage(request_id=request.request_id, transactions=tuple(found))


def _consistently(reader: Callable[[Blockchain, Q], R], chain: Blockchain, request: Q) -> R | None:
    """An answer from one chain, even if it was reorganised between two reads; None if that goes
    on and on."""
    for _ in range(_REREADS):
        before = chain.head
        answer = reader(chain, request)
        after = chain.head
        if after.hash == before.hash or chain.hash_at(before.height) == before.hash:
            return answer
    return None


def _reply(
    reader: Callable[[Blockchain, Any], Reply], chain: Blockchain, request: Request
) -> Reply:
    answer = _consistently(reader, chain, request)
    return refusal(request, Status.BUSY, _BUSY_MS) if answer is None else answer


def _frame(
    reader: Callable[[Blockchain, Any], Reply], chain: Blockchain, request: Request
) -> bytes:
    return MessageCodec.encode(_reply(reader, chain, request))


def headers_frame(chain: Blockchain, request: GetHeadersMessage) -> bytes:
    """The encoded reply to GET_HEADERS. Its headers were checked before they were stored, and go
    from there into the frame without being looked at again."""
    payload = _consistently(_headers_payload, chain, request)
    if payload is None:
        return MessageCodec.encode(refusal(request, Status.BUSY, _BUSY_MS))
    return framing.encode_frame(HeadersMessage.TYPE, payload)


def _headers_payload(chain: Blockchain, request: GetHeadersMessage) -> bytes:
    start = _first_header(chain, request)
    if start is None:
        return MessageCodec.encode_payload(refusal(request, Status.NOT_FOUND))
    empty = MessageCodec.encode_payload(HeadersMessage(request_id=request.request_id))
    return chain.headers_range(start, request.max_headers, request.stride, prefix=empty[:-2])


def _headers(chain: Blockchain, request: GetHeadersMessage) -> Reply:
    start = _first_header(chain, request)
    if start is None:
        return refusal(request, Status.NOT_FOUND)
    headers = chain.headers_range(start, request.max_headers, request.stride)
    return HeadersMessage(request_id=request.request_id, headers=headers)


def _first_header(chain: Blockchain, request: GetHeadersMessage) -> int | None:
    """Where the run begins that is asked for; None if it is not of our chain."""
    if request.on_chain is not None and chain.height_of(request.on_chain) is None:
        return None
    if request.locator:
        fork = chain.find_fork(request.locator)
        return None if fork is None else fork + 1
    return None if request.start_height > chain.head.height else request.start_height


def _blocks(chain: Blockchain, request: GetBlocksMessage) -> Reply:
    last = min(request.end_height, chain.head.height)
    start = request.start_height
    if start > last:
        return refusal(request, Status.NOT_FOUND)
    stop = min(last + 1, start + request.max_blocks)
    blocks = chain.blocks_range(start, stop, SOFT_REPLY_LIMIT)
    if not blocks:
        below = start < chain.earliest_height
        return refusal(request, Status.PRUNED if below else Status.NOT_FOUND)
    status = Status.OK if start + len(blocks) > last else Status.PARTIAL
    return BlocksMessage(request_id=request.request_id, status=status, blocks=tuple(blocks))


def _bodies(chain: Blockchain, request: GetBlockBodiesMessage) -> Reply:
    bodies: list[bytes] = []
    size = 0
    for block_hash in request.hashes:
        body = chain.body_of(block_hash)
        if body is None:
            break
        size += len(body)
        if bodies and size > SOFT_REPLY_LIMIT:
            break
        bodies.append(body)
    if len(bodies) == len(request.hashes):
        return BlockBodiesMessage(request_id=request.request_id, bodies=tuple(bodies))
    if not bodies:
        pruned = chain.is_pruned(request.hashes[0])
        return refusal(request, Status.PRUNED if pruned else Status.NOT_FOUND)
    return BlockBodiesMessage(
        request_id=request.request_id, status=Status.PARTIAL, bodies=tuple(bodies)
    )
