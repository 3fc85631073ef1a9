"""Events as they happen, for those who keep up and those who do not."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from helpers.forks import ChainMaker
from helpers.http_scene import Scene, scene
from helpers.sync_nodes import extend, until

from moderntensor.api import limits
from moderntensor.blockchain.chain_queries import headers_below
from moderntensor.client import model
from moderntensor.errors import StorageError


class Stream:
    """One listener, over a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.last = ""

    @classmethod
    async def open(
        cls, made: Scene, last: str = "", source: str = "127.0.0.1", query: str = ""
    ) -> Stream:
        reader, writer = await made.connect(source)
        after = f"Last-Event-ID: {last}\r\n" if last else ""
        writer.write(f"GET /v1/events{query} HTTP/1.1\r\nHost: localhost\r\n{after}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head and b"text/event-stream" in head
        return cls(reader, writer)

    async def next(self, *kinds: str) -> dict[str, Any]:
        """The next event of these kinds."""
        while True:
            lines: dict[str, str] = {}
            while True:
                line = (await asyncio.wait_for(self._reader.readline(), 20)).decode()
                assert line
                if line == "\n":
                    break
                name, _, value = line.rstrip("\n").partition(": ")
                if name in ("id", "event", "data"):
                    lines[name] = value
            if lines.get("event") in kinds:
                self.last = lines["id"]
                data = json.loads(lines["data"])
                assert data["type"] == lines["event"]
                return dict(data)

    async def beginning(self) -> str:
        """The id that stands before the first event."""
        block = await asyncio.wait_for(self._reader.readuntil(b"\n\n"), 20)
        assert b": events" in block and b"data" not in block
        return block.partition(b"id: ")[2].decode().strip()

    async def ended(self) -> bool:
        await asyncio.wait_for(self._reader.read(), 20)
        return True

    def close(self) -> None:
        self.writer.close()


async def test_heads_peers_and_sync(pair: Scene) -> None:
    stream = await Stream.open(pair)
    extend(pair.peer.chain, 3, 2)  # which the node fetches
    head = await stream.next("head")
    while head["header"]["height"] < 13:
        head = await stream.next("head")
    assert (head["header"]["hash"], head["transactions"]) == (pair.peer.chain.head.hash.hex(), 2)
    sync = await stream.next("sync")
    while sync["sync"]["current_height"] < 13:
        sync = await stream.next("sync")
    await pair.node.p2p.disconnect_peer(next(iter(pair.node.p2p.peers)))
    gone = await stream.next("peer")
    assert not gone["connected"]
    assert gone["reason"] == "disconnected by its user"
    assert gone["node_id"] == pair.peer.p2p.node_id.hex()
    stream.close()
    await until(lambda: not pair.api._context.events.listeners)  # noticed at once


async def test_who_cannot_set_headers_goes_on_by_its_address(served: Scene) -> None:
    stream = await Stream.open(served)
    extend(served.node.chain, 1)
    await stream.next("head")
    stream.close()
    extend(served.node.chain, 1)
    await asyncio.sleep(2 * limits.HEAD_INTERVAL)
    again = await Stream.open(served, query=f"?after={stream.last}")
    assert (await again.next("head"))["header"]["height"] == 12
    again.close()
    first = await Stream.open(served, last=stream.last, query="?after=00000000-0")
    assert (await first.next("head"))["header"]["height"] == 12  # the header comes first
    first.close()
    assert "not the id of an event" in await served.refused(400, "/v1/events?after=me")


async def test_a_reorganisation() -> None:
    maker = ChainMaker()
    async with scene(config=maker.config, blocks=0) as made:
        stream = await Stream.open(made)
        old = maker.run(maker.genesis, 2)
        new = maker.run(maker.genesis, 3, gap=2)
        for block in (*old, *new):
            made.node.chain.import_block(block)
        event = await stream.next("reorganisation")
        assert (event["from_height"], event["to_height"], event["fork_height"]) == (2, 3, 0)
        assert event["from_hash"] == old[-1].hash.hex()
        assert event["to_hash"] == new[-1].hash.hex()
        stream.close()


async def test_heads_are_told_while_clients_fill_the_reads(served: Scene) -> None:
    stream = await Stream.open(served)
    async with served.reads_filled():
        extend(served.node.chain, 1)
        assert (await stream.next("head"))["header"]["height"] == 11
    stream.close()


async def test_a_head_that_is_taken_off_while_it_is_read_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a reorganisation was told no head comes that it took off, however slow the store is;
    and each of many reorganisations is told."""
    maker = ChainMaker()
    entered, may_go_on = threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        found = headers_below(*args)
        entered.set()
        assert may_go_on.wait(20)
        return found

    async with scene(config=maker.config, blocks=0) as made:
        stream = await Stream.open(made)
        monkeypatch.setattr("moderntensor.api.events.headers_below", slow)
        branches = [maker.run(maker.genesis, n + 2, gap=n + 1) for n in range(4)]
        for block in branches[0]:
            made.node.chain.import_block(block)
        await asyncio.to_thread(entered.wait, 20)
        for branch in branches[1:]:
            for block in branch:
                made.node.chain.import_block(block)
        told = [await stream.next("reorganisation", "head") for _ in range(3)]
        may_go_on.set()
        head = await stream.next("reorganisation", "head")
        assert [event["to_hash"] for event in told] == [b[-1].hash.hex() for b in branches[1:]]
        assert head["header"]["hash"] == branches[-1][-1].hash.hex()
        stream.close()


async def test_a_head_that_cannot_be_read_is_told_later(
    served: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = []

    def fails_once(*args: Any) -> Any:
        if not failed:
            failed.append(args)
            raise StorageError("the disk is away")
        return headers_below(*args)

    monkeypatch.setattr("moderntensor.api.events.headers_below", fails_once)
    stream = await Stream.open(served)
    extend(served.node.chain, 1)
    assert (await stream.next("head"))["header"]["height"] == 11
    assert failed
    stream.close()


async def test_who_comes_back_gets_what_it_missed(served: Scene) -> None:
    events = served.api._context.events
    first = await Stream.open(served)
    extend(served.node.chain, 1)
    await first.next("head")
    first.close()
    for number in range(3):
        events.publish(model.MissedEvent(events=number))  # any will do
    again = await Stream.open(served, first.last)
    assert [(await again.next("missed"))["events"] for _ in range(3)] == [0, 1, 2]
    again.close()
    # After a restart its ids mean nothing: all that there is comes, and that there was more.
    for strange in ("00000000-7", "7", "-", f"{again.last}0000000000000000000"):
        stranger = await Stream.open(served, strange)
        assert (await stranger.next("head", "missed")) == {"type": "missed", "events": 0}
        assert (await stranger.next("head"))["header"]["height"] == 11
        stranger.close()


async def test_who_has_to_come_back_before_the_first_event_misses_none(served: Scene) -> None:
    first = await Stream.open(served)
    begun = await first.beginning()
    first.close()
    extend(served.node.chain, 1)
    events = served.api._context.events
    await until(lambda: b"event: head" in b"".join(events._frames))
    again = await Stream.open(served, begun)
    assert (await again.next("head"))["header"]["height"] == 11
    again.close()


async def test_who_is_too_slow_is_told_and_costs_nothing(served: Scene) -> None:
    events = served.api._context.events
    listener = events.listen(None)
    behind = events.number
    for _ in range(limits.EVENTS_KEPT + 100):
        events.publish(model.MissedEvent(events=0))
    missed = json.loads(listener.take().split(b"\n\n")[0].partition(b"data: ")[2])
    assert missed == {"type": "missed", "events": 100}
    assert listener.position > behind + 100
    taken = 0
    while listener.take():
        taken += 1
    assert listener.position == events.number
    assert 0 < taken < 100
    assert len(events._frames) == limits.EVENTS_KEPT
    listener.leave()


async def test_listeners_are_bounded_and_those_who_never_read_hold_nobody_up(
    served: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moderntensor.api.events.LISTENERS", 8)
    streams = [await Stream.open(served) for _ in range(8)]
    assert "is the most" in await served.refused(503, "/v1/events")
    for _ in range(3 * limits.EVENTS_KEPT):
        served.api._context.events.publish(
            model.PeerEvent(
                address="a" * 900, node_id="b", outbound=True, connected=False, reason=None
            )
        )
    assert (await served.get("/v1/status"))["head"]["height"] == 10
    await asyncio.wait_for(served.node.stop(), 8)  # which stops the server first
    assert served.api._runner is None
    for stream in streams:
        stream.close()


async def test_no_address_keeps_the_others_from_listening(
    served: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moderntensor.api.events.LISTENERS", 4)
    greedy = [await Stream.open(served) for _ in range(4)]
    others = [await Stream.open(served, source="127.0.0.2") for _ in range(2)]
    assert await greedy[0].ended() and await greedy[1].ended()
    assert len(served.api._context.events.listeners) == 4
    assert "is the most" in await served.refused(503, "/v1/events")  # they have two each
    served.api._context.events.publish(model.MissedEvent(events=1))
    for stream in (*greedy[2:], *others):
        assert await stream.next("missed")
    for stream in (*greedy, *others):
        stream.close()


async def test_the_server_ends_with_listeners_that_wait(served: Scene) -> None:
    streams = [await Stream.open(served) for _ in range(5)]
    await asyncio.wait_for(served.api.stop(), 5)
    assert all([await stream.ended() for stream in streams])
    for stream in streams:
        stream.close()
