"""Events over connections that break, and answers that no honest node gives: a server of our own
speaks whatever the case needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
from aiohttp import web
from helpers.http_scene import ACCOUNTS, scene
from helpers.sync_nodes import until
from msgspec import json, structs

from moderntensor.client import Client, events, transport
from moderntensor.client.model import HeadEvent, MissedEvent
from moderntensor.errors import BadAnswerError, NodeRefusedError, NodeUnreachableError, ProofError
from moderntensor.runtime import Runtime

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(handler: Handler, port: int = 0) -> AsyncIterator[str]:
    """The URL of a server that answers everything so."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


DEEP = b"[" * 20_000 + b"]" * 20_000


def one_event(number: int, life: str = "a") -> bytes:
    return b'id: %s-%d\nevent: missed\ndata: {"type":"missed","events":%d}\n\n' % (
        life.encode(),
        number,
        number,
    )


class Stream:
    """One answer for each connection; then nothing more comes."""

    def __init__(self, *answers: bytes | int) -> None:
        self.answers = list(answers)
        self.last_ids: list[str | None] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.last_ids.append(request.headers.get("Last-Event-ID"))
        answer = self.answers.pop(0) if self.answers else b""
        if isinstance(answer, int):
            return web.json_response(
                {"status": answer, "title": "No", "detail": "not\x1bnow"},
                status=answer,
                content_type="application/problem+json",
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(answer)
        return response


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(events, "LONGEST_PAUSE", 0.004)


async def test_it_goes_on_where_the_connection_broke() -> None:
    unknown = b"id: a-3\nevent: novelty\ndata: ?\n\n"
    stream = Stream(one_event(1) + one_event(2), 503, unknown, one_event(4, "b")[:-1], one_event(5))
    async with answering(stream) as url, Client(url) as client:
        seen = []
        async with client.events() as found:
            async for event in found:
                assert isinstance(event, MissedEvent)
                seen.append(event.events)
                if event.events == 5:
                    break
    assert seen == [1, 2, 5]
    assert stream.last_ids == [None, "a-2", "a-2", "a-3", "a-3"]


async def test_it_outlives_a_server() -> None:
    stream = Stream(one_event(1), one_event(2))
    async with answering(stream) as url:
        client = Client(url)
        found = client.events()
        assert (await anext(found)) == MissedEvent(events=1)
    waiting = asyncio.ensure_future(anext(found))
    await until(lambda: isinstance(found.trouble, NodeUnreachableError))
    assert not found.connected and not waiting.done()
    async with answering(stream, int(url.rpartition(":")[2])):
        assert (await waiting) == MissedEvent(events=2)
        await client.close()
        with pytest.raises(StopAsyncIteration):
            await anext(found)


async def test_who_is_cancelled_leaves_no_connection_and_can_go_on() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if arrived.is_set():
            await response.write(one_event(7))
            return response
        arrived.set()
        try:
            while True:
                await response.write(b": still here\n")
                await asyncio.sleep(0.005)
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
            raise

    async with answering(handler) as url, Client(url) as client:
        found = client.events()
        task = asyncio.ensure_future(anext(found))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not found.connected
        await asyncio.wait_for(gone.wait(), 20)
        assert (await anext(found)) == MissedEvent(events=7)


async def test_the_first_connection_and_lasting_refusals_are_raised() -> None:
    stream = Stream(one_event(1), 404, 503)
    async with answering(stream) as url, Client(url) as client:
        found = client.events()
        await anext(found)
        with pytest.raises(NodeRefusedError, match=r"GET /v1/events: 404 Not Found: not\?now"):
            await anext(found)
        with pytest.raises(NodeRefusedError, match="503"):
            await anext(client.events())
    async with Client(url) as client:
        with pytest.raises(NodeUnreachableError, match="cannot be reached: connection refused"):
            await anext(client.events())


async def test_an_event_that_is_none_ends_the_connection_alone() -> None:
    wrong = b"event: head\ndata: {}\n\n"
    deep = b'event: missed\ndata: {"type":"missed","more":%b}\n\n' % DEEP
    endless = b"data: " + b"x" * (300 * 1024)
    stream = Stream(one_event(1), wrong, deep, endless, one_event(2))
    async with answering(stream) as url, Client(url) as client, client.events() as found:
        seen = [await anext(found), await anext(found)]
    assert seen == [MissedEvent(events=1), MissedEvent(events=2)]


def test_pauses_are_drawn_from_the_randomness_that_is_given() -> None:
    class Seeded(Runtime):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.random = Random(seed)

    def pauses(seed: int) -> list[float]:
        found = Client(runtime=Seeded(seed)).events()
        error = NodeUnreachableError("n", "p", "gone")
        return [found._next_pause(error) for _ in range(6)]

    assert pauses(1) == pauses(1) != pauses(2)
    for number, pause in enumerate(pauses(3)):
        longest = min(0.001 * 2**number, 0.004)
        assert longest / 2 <= pause <= longest
    found = Client().events()
    assert found._next_pause(NodeRefusedError("n", "p", "busy", 503, 30.0)) == 30.0
    assert HeadEvent.__struct_config__.tag in events._NAMES


# --- answers --------------------------------------------------------------------------------


async def refused(
    handler: Handler, kind: type[Exception], match: str, patience: float = 10
) -> None:
    async with answering(handler) as url, Client(url, timeout=patience) as client:
        with pytest.raises(kind, match=match) as caught:
            await client.status()
        assert str(caught.value).startswith(f"node {url}: GET /v1/status: ")


async def test_answers_that_no_node_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    async def text(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def other_shape(request: web.Request) -> web.Response:
        return web.json_response({"version": 1})

    async def long(request: web.Request) -> web.Response:
        return web.Response(body=b" " * 5000)

    async def elsewhere(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    async def page(request: web.Request) -> web.Response:
        return web.Response(status=502, text="<h1>Bad</h1>", content_type="text/html")

    async def silent(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async def hangs_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def no_text(request: web.Request) -> web.Response:
        return web.Response(body=b'{"version": "\xff"}')

    async def deep(request: web.Request) -> web.Response:
        return web.Response(body=b'{"more": %b}' % DEEP)

    def refusing(detail: bytes) -> Handler:
        async def refuse(request: web.Request) -> web.Response:
            kind = {"Content-Type": "application/problem+json"}
            return web.Response(status=400, body=detail, headers=kind)

        return refuse

    await refused(no_text, BadAnswerError, "no NodeStatus: .*utf-8")
    await refused(deep, BadAnswerError, "no NodeStatus: .*recursion")
    for detail in (b'{"detail": "\xff"}', b'{"more": %b}' % DEEP):
        await refused(refusing(detail), NodeRefusedError, "400 Bad Request: an answer that is no")
    monkeypatch.setattr(transport, "MAX_ANSWER", 4096)
    await refused(text, BadAnswerError, "no NodeStatus: JSON is malformed")
    await refused(other_shape, BadAnswerError, r"Expected `str`, got `int` - at `\$.version`")
    await refused(long, BadAnswerError, "more than 4096 bytes")
    await refused(elsewhere, NodeRefusedError, "302 Found")
    await refused(page, NodeRefusedError, "502 Bad Gateway")
    await refused(silent, NodeUnreachableError, "no answer within 0.05 s", patience=0.05)
    await refused(hangs_up, NodeUnreachableError, "closed the connection without an answer")


async def test_a_proof_that_is_none_is_not_believed() -> None:
    async with scene() as served, Client(served.api.url) as honest:
        address = ACCOUNTS[0].address
        answer = await honest.account(address, proof=True)
        assert answer.proof is not None
        other = await honest.account(ACCOUNTS[1].address, proof=True)
        balance = answer.balance
        lies = {
            "the node sent no proof": None,
            "not JSON": "{",
            "is about address": other.proof,
            "does not hold": answer.proof.replace(f'"{balance}"', f'"{int(balance) + 1}"'),
        }
        root = served.node.chain.head.state_root
    for told, document in lies.items():

        async def lie(request: web.Request, document: str | None = document) -> web.Response:
            return web.Response(body=json.encode(structs.replace(answer, proof=document)))

        async with answering(lie) as url, Client(url) as client:
            with pytest.raises(ProofError, match=told):
                await client.prove_account(address, trusted_root=root)
