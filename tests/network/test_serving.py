"""Every GET_* is answered from the chain, within its bounds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from helpers.rawpeer import QUIET, until
from helpers.sync_nodes import ACCOUNTS, CONFIG, extend, grown

from moderntensor.backend import headers
from moderntensor.blockchain.block import EMPTY_BODY, Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.mempool import Mempool
from moderntensor.blockchain.transaction import Transaction
from moderntensor.network import serving
from moderntensor.network.messages import (
    BlockBodiesMessage,
    BlocksMessage,
    GetBlockBodiesMessage,
    GetBlocksMessage,
    GetHeadersMessage,
    GetStateMessage,
    GetTransactionsMessage,
    HeadersMessage,
    MessageCodec,
    Request,
    Status,
    TransactionsMessage,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.runtime import Runtime

HEIGHT = 30
UNKNOWN = b"\xee" * 32


@pytest.fixture(scope="module")
def chain() -> Blockchain:
    return grown(HEIGHT, 3)


@asynccontextmanager
async def asking(chain: Blockchain, mempool: Mempool | None = None) -> AsyncIterator[Any]:
    """What asks a node that serves `chain`."""
    server, client = P2PNode(config=QUIET), P2PNode(config=QUIET)
    server.attach_chain(chain, mempool)
    async with server, client:
        peer = await client.connect_peer("127.0.0.1", server.listen_port)
        assert (peer.best_height, peer.best_hash) == (chain.head.height, chain.head.hash)
        assert peer.genesis_hash == chain.genesis_hash
        assert {"sync/1", "relay/1"} <= peer.capabilities
        yield peer.request


def heights(reply: HeadersMessage) -> list[int]:
    batch = headers.HeaderBatch(reply.headers)
    return [batch.height(i) for i in range(len(batch))]


HEADER_CASES = [
    ({"start_height": 0, "max_headers": 3}, [0, 1, 2]),
    ({"start_height": 5, "max_headers": 4}, [5, 6, 7, 8]),
    ({"start_height": 28, "max_headers": 192}, [28, 29, 30]),
    ({"start_height": 30, "max_headers": 1}, [30]),
    ({"start_height": 10, "max_headers": 3, "stride": 10}, [10, 20, 30]),
    ({"start_height": 1, "max_headers": 9, "stride": 65535}, [1]),
]


@pytest.mark.parametrize(("fields", "expected"), HEADER_CASES)
async def test_headers_by_height(
    chain: Blockchain, fields: dict[str, int], expected: list[int]
) -> None:
    async with asking(chain) as ask:
        reply = await ask(GetHeadersMessage(**fields))
        assert (reply.status, heights(reply)) == (Status.OK, expected)
        assert headers.HeaderBatch(reply.headers).raw(0) == chain.header_bytes(expected[0])


async def test_headers_by_locator(chain: Blockchain) -> None:
    def at(height: int) -> bytes:
        return chain.hash_at(height) or b""

    async with asking(chain) as ask:
        for locator, first in [
            ((at(10), at(0)), 11),
            ((UNKNOWN, at(4), at(0)), 5),
            ((at(0),), 1),
        ]:
            reply = await ask(GetHeadersMessage(locator=locator, start_height=25, max_headers=2))
            assert heights(reply) == [first, first + 1]
        nothing_new = await ask(GetHeadersMessage(locator=(at(HEIGHT),)))
        assert (nothing_new.status, nothing_new.count) == (Status.OK, 0)
        strangers = await ask(GetHeadersMessage(locator=(UNKNOWN,)))
        assert (strangers.status, strangers.count) == (Status.NOT_FOUND, 0)


async def test_headers_of_a_named_chain_only(chain: Blockchain) -> None:
    async with asking(chain) as ask:
        here = await ask(GetHeadersMessage(start_height=1, on_chain=chain.hash_at(20)))
        assert heights(here) == list(range(1, HEIGHT + 1))
        gone = await ask(GetHeadersMessage(start_height=1, on_chain=UNKNOWN))
        assert gone.status == Status.NOT_FOUND


@pytest.mark.parametrize("start", [HEIGHT + 1, 2**64 - 1])
async def test_what_is_above_the_head_is_not_found(chain: Blockchain, start: int) -> None:
    async with asking(chain) as ask:
        for request in (
            GetHeadersMessage(start_height=start),
            GetHeadersMessage(start_height=start, stride=7),
            GetBlocksMessage(start_height=start, end_height=2**64 - 1),
        ):
            reply = await ask(request)
            assert (reply.status, reply.count) == (Status.NOT_FOUND, 0)


BLOCK_CASES = [
    (3, 5, 128, Status.OK, [3, 4, 5]),
    (0, 0, 1, Status.OK, [0]),
    (3, 9, 2, Status.PARTIAL, [3, 4]),
    (29, 99, 128, Status.OK, [29, 30]),
    (29, 2**64 - 1, 2, Status.OK, [29, 30]),
    (5, 4, 128, Status.NOT_FOUND, []),
]


@pytest.mark.parametrize(("start", "end", "most", "status", "expected"), BLOCK_CASES)
async def test_blocks_by_height(
    chain: Blockchain, start: int, end: int, most: int, status: Status, expected: list[int]
) -> None:
    async with asking(chain) as ask:
        reply: BlocksMessage = await ask(
            GetBlocksMessage(start_height=start, end_height=end, max_blocks=most)
        )
        assert reply.status == status
        blocks = [Block.decode(raw) for raw in reply.blocks]
        assert [block.height for block in blocks] == expected
        assert all(block.hash == chain.hash_at(block.height) for block in blocks)


async def test_bodies_are_a_prefix_of_what_was_asked(chain: Blockchain) -> None:
    known = [chain.hash_at(height) or b"" for height in range(6)]
    async with asking(chain) as ask:

        async def bodies(*hashes: bytes) -> BlockBodiesMessage:
            reply: BlockBodiesMessage = await ask(GetBlockBodiesMessage(hashes=hashes))
            return reply

        whole = await bodies(*known)
        assert whole.status == Status.OK
        assert list(whole.bodies) == [chain.body_of(block_hash) for block_hash in known]
        assert whole.bodies[0] == EMPTY_BODY
        part = await bodies(known[3], known[1], UNKNOWN, known[2])
        assert (part.status, part.bodies) == (
            Status.PARTIAL,
            (chain.body_of(known[3]), chain.body_of(known[1])),
        )
        assert (await bodies(UNKNOWN, known[1])).status == Status.NOT_FOUND
        assert (await bodies()).status == Status.OK


async def test_replies_stop_growing_at_the_soft_limit(
    chain: Blockchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [chain.hash_at(height) or b"" for height in range(1, 11)]
    size = len(chain.body_of(known[0]) or b"")
    monkeypatch.setattr(serving, "SOFT_REPLY_LIMIT", 3 * size + size // 2)
    async with asking(chain) as ask:
        bodies = await ask(GetBlockBodiesMessage(hashes=tuple(known)))
        assert (bodies.status, bodies.count) == (Status.PARTIAL, 3)
        blocks = await ask(GetBlocksMessage(start_height=1, end_height=10))
        assert (blocks.status, blocks.count) == (Status.PARTIAL, 2)
        hashes = _hashes_of(chain, 1, 10)
        transactions = await ask(GetTransactionsMessage(hashes=hashes))
        assert transactions.status == Status.PARTIAL
        assert 3 <= transactions.count < len(hashes)
        # One item is always given, however large.
        monkeypatch.setattr(serving, "SOFT_REPLY_LIMIT", 1)
        for request in (
            GetBlockBodiesMessage(hashes=tuple(known)),
            GetBlocksMessage(start_height=1, end_height=10),
            GetTransactionsMessage(hashes=hashes),
        ):
            reply = await ask(request)
            assert (reply.status, reply.count) == (Status.PARTIAL, 1)


def _hashes_of(chain: Blockchain, first: int, last: int) -> tuple[bytes, ...]:
    blocks = [chain.get_block(height) for height in range(first, last + 1)]
    return tuple(tx.hash for block in blocks if block for tx in block.transactions)


async def test_transactions_come_from_the_chain_and_from_the_pool(chain: Blockchain) -> None:
    waiting = Transaction.create(
        ACCOUNTS[0],
        chain_id=CONFIG.chain_id,
        nonce=chain.get_account(ACCOUNTS[0].address).nonce,
        to=ACCOUNTS[1].address,
        value=5,
    )
    mempool = Mempool(chain)
    mempool.add(waiting)
    included = _hashes_of(chain, 7, 8)
    async with asking(chain, mempool) as ask:
        asked = (included[4], UNKNOWN, waiting.hash, included[0])
        reply: TransactionsMessage = await ask(GetTransactionsMessage(hashes=asked))
        assert reply.status == Status.OK
        found = [Transaction.decode(raw).hash for raw in reply.transactions]
        assert found == [included[4], waiting.hash, included[0]]
        none = await ask(GetTransactionsMessage(hashes=(UNKNOWN,)))
        assert none.status == Status.NOT_FOUND


async def test_what_was_just_relayed_waits_for_no_reader(
    chain: Blockchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    tx = Transaction.create(
        ACCOUNTS[0], chain_id=CONFIG.chain_id, nonce=7, to=ACCOUNTS[1].address, value=5
    )
    begun, release = threading.Event(), threading.Event()
    real = chain.headers_range

    def slow(*args: int, prefix: bytes) -> bytes:
        begun.set()
        release.wait(10)
        return real(*args, prefix=prefix)

    monkeypatch.setattr(chain, "headers_range", slow)
    node = P2PNode(config=QUIET.replace(serving_concurrency=1), runtime=Runtime(2))
    node.attach_chain(chain)
    async with node, P2PNode(config=QUIET) as reader, P2PNode(config=QUIET) as client:
        node.gossip.transactions.publish(tx)
        reading = await reader.connect_peer("127.0.0.1", node.listen_port)
        read = asyncio.ensure_future(reading.request(GetHeadersMessage()))
        await until(begun.is_set)
        try:
            peer = await client.connect_peer("127.0.0.1", node.listen_port)
            reply = await peer.request(GetTransactionsMessage(hashes=(tx.hash,)))
            assert isinstance(reply, TransactionsMessage)
            assert reply.transactions == (tx.encode(),)
            assert not read.done()
        finally:
            release.set()
        assert (await read).status == Status.OK


async def test_there_are_no_snapshots_of_states(chain: Blockchain) -> None:
    async with asking(chain) as ask:
        reply = await ask(GetStateMessage(block_hash=chain.head.hash))
        assert (reply.status, reply.count) == (Status.NOT_FOUND, 0)


async def test_an_answer_is_of_one_chain_or_of_none() -> None:
    """A reorganisation between two reads of one answer: it is read again, then given up."""
    chain = grown(3)
    switches = 0

    def reader(_: Blockchain, request: Request) -> HeadersMessage:
        nonlocal switches
        switches += 1
        extend(chain, 1)
        if switches <= limit:
            chain.hash_at = lambda height: UNKNOWN  # type: ignore[method-assign]
        else:
            vars(chain).pop("hash_at", None)
        return HeadersMessage(request_id=request.request_id, retry_ms=switches)

    request = GetHeadersMessage(request_id=1)
    limit = 2
    assert serving._reply(reader, chain, request).retry_ms == 3
    limit = 99
    assert serving._reply(reader, chain, request).status == Status.BUSY


async def test_headers_are_framed_as_the_codec_would(chain: Blockchain) -> None:
    requests = (
        GetHeadersMessage(request_id=7, start_height=1, max_headers=5),
        GetHeadersMessage(request_id=8, start_height=0, max_headers=2048, stride=3),
        GetHeadersMessage(request_id=9, start_height=chain.head.height + 1),
        GetHeadersMessage(request_id=10, locator=(UNKNOWN,)),
        GetHeadersMessage(request_id=11, on_chain=UNKNOWN),
    )
    for request in requests:
        reply = serving._reply(serving._headers, chain, request)
        assert serving.headers_frame(chain, request) == MessageCodec.encode(reply)


async def test_headers_of_a_chain_that_moves_on_and_on_are_not_served() -> None:
    moving = grown(3)
    real = moving.headers_range

    def read(*args: int, prefix: bytes) -> bytes:
        extend(moving, 1)
        return real(*args, prefix=prefix)

    moving.headers_range = read  # type: ignore[method-assign, assignment]
    moving.hash_at = lambda height: UNKNOWN  # type: ignore[method-assign]
    request = GetHeadersMessage(request_id=1, max_headers=2)
    reply = MessageCodec.decode(serving.headers_frame(moving, request))
    assert isinstance(reply, HeadersMessage)
    assert reply.status == Status.BUSY


@pytest.mark.parametrize(("places", "workers"), [(2, 4), (4, 2)])
async def test_reads_are_bounded_together(chain: Blockchain, places: int, workers: int) -> None:
    runtime = Runtime(workers)
    server = P2PNode(config=QUIET.replace(serving_concurrency=places), runtime=runtime)
    server.attach_chain(chain)
    running = most = 0
    lock, release = threading.Lock(), threading.Event()
    real = chain.headers_range

    def slow(*args: int, prefix: bytes) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        release.wait(10)
        with lock:
            running -= 1
        return real(*args, prefix=prefix)

    chain.headers_range = slow  # type: ignore[method-assign, assignment]
    try:
        async with server:
            clients = [P2PNode(config=QUIET) for _ in range(4)]
            asked = []
            for client in clients:
                await client.start()
                peer = await client.connect_peer("127.0.0.1", server.listen_port)
                asked.append(asyncio.ensure_future(peer.request(GetHeadersMessage())))
            await until(lambda: running == 2 and len(server.server.turns) == 2)
            release.set()
            assert [reply.status for reply in await asyncio.gather(*asked)] == [Status.OK] * 4
            for client in clients:
                await client.stop()
        assert most == 2
    finally:
        vars(chain).pop("headers_range")
        runtime.close()
