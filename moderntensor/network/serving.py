"""Answers to what peers ask, from the chain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..blockchain.chain import Blockchain
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

__all__ = ["Server"]

_REREADS = 3  # the chain was reorganised while we read: read again, at most so often


class Server:
    """Answers requests. The store is read on worker threads, `serving_concurrency` at a time.

    What it has no data for (no chain; states, of which there are no snapshots) is NOT_FOUND.
    """

    def __init__(self, host: Host, relayed: Callable[[bytes], bytes | None]) -> None:
        """`relayed` finds transactions, encoded, that were passed on lately."""
        self._host = host
        self._relayed = relayed
        self._turns = asyncio.Semaphore(host.config.serving_concurrency)
        self._readers: dict[int, Callable[[Blockchain, Any], Reply]] = {
            MessageType.GET_BLOCKS: _blocks,
            MessageType.GET_HEADERS: _headers,
            MessageType.GET_BLOCK_BODIES: _bodies,
            MessageType.GET_TRANSACTIONS: self._transactions,
        }

    async def answer(self, peer: Peer, request: Request) -> Reply:
        """The reply to one request of `peer`."""
        if isinstance(request, GetPeersMessage):
            return self._peers(peer, request)
        chain = self._host.chain
        reader = self._readers.get(request.TYPE)
        if reader is None:
            return refusal(request, Status.NOT_FOUND)
        if chain is None:
            if isinstance(request, GetTransactionsMessage):  # what we announced ourselves
                return self._transactions(None, request)
            return refusal(request, Status.NOT_FOUND)
        async with self._turns:
            return await self._host.runtime.run(_consistently, reader, chain, request)

    def _peers(self, peer: Peer, request: GetPeersMessage) -> Reply:
        count = min(request.max_peers, MAX_PEERS)
        found = [
            record
            for record in self._host.book.sample(count + 1, peer.host_address)
            if record.node_id != peer.node_id
        ]
        return PeersMessage(request_id=request.request_id, peers=tuple(found[:count]))

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


def _consistently(
    reader: Callable[[Blockchain, Any], Reply], chain: Blockchain, request: Request
) -> Reply:
    """An answer from one chain, even if it was reorganised between two reads."""
    for _ in range(_REREADS):
        before = chain.head
        reply = reader(chain, request)
        after = chain.head
        if after.hash == before.hash or chain.hash_at(before.height) == before.hash:
            return reply
    return refusal(request, Status.BUSY, 100)


def _headers(chain: Blockchain, request: GetHeadersMessage) -> Reply:
    start = request.start_height
    if request.on_chain is not None and chain.height_of(request.on_chain) is None:
        return refusal(request, Status.NOT_FOUND)
    if request.locator:
        fork = chain.find_fork(request.locator)
        if fork is None:
            return refusal(request, Status.NOT_FOUND)
        start = fork + 1
    elif start > chain.head.height:
        return refusal(request, Status.NOT_FOUND)
    headers = chain.headers_range(start, request.max_headers, request.stride)
    return HeadersMessage(request_id=request.request_id, headers=headers)


def _blocks(chain: Blockchain, request: GetBlocksMessage) -> Reply:
    last = min(request.end_height, chain.head.height)
    start = request.start_height
    if start > last:
        return refusal(request, Status.NOT_FOUND)
    stop = min(last + 1, start + request.max_blocks)
    blocks = chain.blocks_range(start, stop, SOFT_REPLY_LIMIT)
    if not blocks:
        return refusal(request, Status.NOT_FOUND)
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
        return refusal(request, Status.NOT_FOUND)
    return BlockBodiesMessage(
        request_id=request.request_id, status=Status.PARTIAL, bodies=tuple(bodies)
    )
