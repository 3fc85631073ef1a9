"""Many who wait for transactions with one client, whatever a node does meanwhile: a server of
our own, since a real node does it too seldom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from helpers.sync_nodes import until
from msgspec import json

from moderntensor.client import Client, events, transport, waiting
from moderntensor.client.model import Header, HeadEvent, MissedEvent, SyncEvent, Transaction
from moderntensor.errors import ClientError, NodeRefusedError, NodeUnreachableError

HEADER = Header(
    height=7, hash="00", timestamp=0, previous_hash="", state_root="", txs_root="",
    receipts_root="", validator="", gas_used=0, gas_limit=0, extra_data="", signature="",
)  # fmt: skip


HEAD = HeadEvent(header=HEADER, transactions=0)


class Node:
    """Events are sent by hand; its transactions are in a block once `height` says so."""

    def __init__(self) -> None:
        self.height: int | None = None
        self.refusals: list[tuple[int, str]] = []
        """Status and Retry-After of the next questions."""
        self.asked = 0
        self.busiest = 0
        self.streams: list[web.StreamResponse] = []
        self.told_of: list[str | None] = []
        self.under_way = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == events.PATH:
            self.told_of.append(request.headers.get("Last-Event-ID"))
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(b"id: life-%d\n\n" % len(self.told_of))
            self.streams.append(response)
            try:
                await asyncio.Event().wait()
            finally:
                self.streams.remove(response)
        self.asked += 1
        self.under_way += 1
        self.busiest = max(self.busiest, self.under_way)
        try:
            await asyncio.sleep(0)
            if self.refusals:
                status, after = self.refusals.pop(0)
                return web.Response(status=status, headers={"Retry-After": after})
            return web.Response(body=json.encode(self._transaction(request)))
        finally:
            self.under_way -= 1

    def _transaction(self, request: web.Request) -> Transaction:
        return Transaction(
            hash=request.path.rpartition("/")[2], sender="0x", to=None, value="0", nonce=0,
            gas_price="1", gas_limit=0, data="", size=1, height=self.height, position=0,
            succeeded=None, gas_used=None,
        )  # fmt: skip

    async def tell(self, name: str, event: HeadEvent | MissedEvent | SyncEvent) -> None:
        for stream in self.streams:
            await stream.write(b"event: %s\ndata: %s\n\n" % (name.encode(), json.encode(event)))

    def hang_up(self) -> None:
        for stream in self.streams:
            assert stream._req is not None
            if stream._req.transport is not None:
                stream._req.transport.abort()


@asynccontextmanager
async def served(node: Node) -> AsyncIterator[str]:
    server = web.Server(node.handle, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        node.hang_up()
        await runner.cleanup()


@pytest.fixture
async def node() -> Node:
    return Node()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test provokes makes anybody ask again."""
    monkeypatch.setattr(waiting, "ASK_AGAIN", 3600.0)
    for module in (events, waiting):
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
        monkeypatch.setattr(module, "LONGEST_PAUSE", 0.004)


async def test_any_number_waits_at_the_same_time(node: Node) -> None:
    """On one stream, with eight questions at a time."""
    hashes = [bytes([number]) * 32 for number in range(40)]
    async with served(node) as url, Client(url) as client:
        tasks = [asyncio.ensure_future(client.wait_for_transaction(each)) for each in hashes]
        await until(lambda: node.asked == len(hashes) and not node.under_way)
        assert len(node.streams) == len(node.told_of) == 1
        node.height = 7
        await node.tell("head", HEAD)
        found = await asyncio.gather(*tasks)
        assert [each.hash for each in found] == [each.hex() for each in hashes]
        assert node.asked == 2 * len(hashes) and node.busiest <= transport.MAX_CALLS
        await until(lambda: not node.streams)
        assert (await client.wait_for_transaction(hashes[0])).height == 7
        assert len(node.told_of) == 2


async def test_open_streams_keep_no_call_waiting(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_STREAMS", 12)
    monkeypatch.setattr(events, "MAX_STREAMS", 12)
    async with served(node) as url, Client(url) as client:
        streams = [client.events() for _ in range(13)]
        for stream in streams[:12]:
            await stream.connect()
        await client.transaction(bytes(32))
        with pytest.raises(ClientError, match="GET /v1/events: 12 streams are open already"):
            await streams[12].connect()
        streams[0].close()
        await streams[12].connect()


async def test_who_gets_no_turn_is_not_told_that_the_node_is_silent(node: Node) -> None:
    async with served(node) as url, Client(url, timeout=0.05) as client:
        for _ in range(transport.MAX_CALLS):
            await client._transport._calls.acquire()
        with pytest.raises(NodeUnreachableError, match="not asked: 8 other calls took"):
            await client.transaction(bytes(32))
    assert node.asked == 0


@pytest.mark.parametrize("how", ["reconnected", "missed", "time"])
async def test_it_asks_again_where_no_head_tells(
    node: Node, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "time":
        monkeypatch.setattr(waiting, "ASK_AGAIN", 0.05)
    async with served(node) as url, Client(url) as client:
        task = asyncio.ensure_future(client.wait_for_transaction(bytes(32)))
        await until(lambda: node.asked > 0 and bool(node.streams))
        node.height = 3
        if how == "reconnected":
            node.hang_up()
        elif how == "missed":
            await node.tell("missed", MissedEvent(events=0))
        assert (await task).height == 3
    if how == "reconnected":
        assert node.told_of == [None, "life-1"]  # known before the first event


async def test_a_passing_refusal_is_asked_again_without_news(node: Node) -> None:
    node.refusals = [(503, "0"), (429, "0"), (503, "x")]
    node.height = 4
    async with served(node) as url, Client(url) as client:
        assert (await client.wait_for_transaction(bytes(32))).height == 4
        assert node.asked == 4
        node.refusals = [(404, "")]
        with pytest.raises(NodeRefusedError, match="404"):
            await client.wait_for_transaction(bytes(32))


async def test_nothing_is_left_of_who_is_cancelled_and_others_wait_on(node: Node) -> None:
    async with served(node) as url, Client(url) as client:
        first, second = (
            asyncio.ensure_future(client.wait_for_transaction(bytes([number]) * 32))
            for number in range(2)
        )
        await until(lambda: node.asked == 2)
        first.cancel()
        await asyncio.wait((first,))
        node.height = 9
        await node.tell("head", HEAD)
        assert (await second).height == 9
        await until(lambda: not node.streams)
        assert client._transport.streams == 0


async def test_closing_the_client_ends_who_waits(node: Node) -> None:
    async with served(node) as url:
        client = Client(url)
        task = asyncio.ensure_future(client.wait_for_transaction(bytes(32)))
        await until(lambda: node.asked == 1 and bool(node.streams))
        await client.close()
        with pytest.raises(ClientError, match="this client is closed"):
            await task
