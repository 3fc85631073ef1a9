"""The same small programs over real sockets and over simulated ones: what each end is told, in
which order, must not differ."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from moderntensor.simulation.loop import VirtualLoop
from moderntensor.simulation.network import SimNetwork, current_process

LARGE = 16 * 1024 * 1024  # more than the kernels of both ends hold


class End:
    """Notes what it is told. `on[...]` are called with it, after the note."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.on: dict[str, Callable[[End], Any]] = {}
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.received = 0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.marks: dict[str, asyncio.Event] = {}

    def note(self, what: str, detail: Any = None) -> Any:
        if what == "data":
            self.received += detail
            if self.told and self.told[-1] == "data":
                return self.react(what)  # how it is cut is the kernel's business
            detail = None
        self.told.append(what if detail is None else (what, detail))
        return self.react(what)

    def react(self, what: str) -> Any:
        self.marks.setdefault(what, asyncio.Event()).set()
        return self.on[what](self) if what in self.on else None

    async def after(self, what: str) -> None:
        await self.marks.setdefault(what, asyncio.Event()).wait()

    async def has(self, size: int) -> None:
        while self.received < size:
            self.marks["data"] = asyncio.Event()
            await self.marks["data"].wait()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("made")

    def eof_received(self) -> Any:
        return self.note("eof")

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.note("lost", None if error is None else type(error).__name__)
        self.lost.set_result(None)


class Plain(End, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.note("data", len(data))


class Buffered(End, asyncio.BufferedProtocol):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = bytearray(7000)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.note("data", nbytes)


class Pair:
    """A client and a server end, and the listener."""

    def __init__(self, kind: type[End]) -> None:
        self.client, self.server = kind(), kind()
        self.port = 0

    async def listen(self) -> None:
        loop: Any = asyncio.get_running_loop()
        self.listener = await loop.create_server(lambda: self.server, "127.0.0.1", 0)
        self.port = self.listener.sockets[0].getsockname()[1]

    async def dial(self) -> None:
        loop: Any = asyncio.get_running_loop()
        await loop.create_connection(lambda: self.client, "127.0.0.1", self.port)
        self.client.told.append("connected")
        await self.server.after("made")

    async def connect(self) -> None:
        await self.listen()
        await self.dial()

    async def ended(self) -> None:
        await self.client.lost
        await self.server.lost


Program = Callable[[Pair], Awaitable[Any]]
PROGRAMS: list[Program] = []


def program(function: Program) -> Program:
    PROGRAMS.append(function)
    return function


@program
async def echo(pair: Pair) -> Any:
    pair.server.on["data"] = lambda end: end.transport.write(b"world")
    await pair.connect()
    pair.client.transport.write(b"hello")
    await pair.client.has(5)
    pair.client.transport.close()
    await pair.ended()


@program
async def the_server_speaks_first(pair: Pair) -> Any:
    pair.server.on["made"] = lambda end: end.transport.write(b"welcome")
    await pair.connect()
    await pair.client.has(7)
    pair.server.transport.close()
    await pair.ended()


@program
async def half_closed(pair: Pair) -> Any:
    pair.server.on["eof"] = lambda _: True
    await pair.connect()
    pair.client.transport.write(b"question")
    pair.client.transport.write_eof()
    await pair.server.after("eof")
    pair.server.transport.write(b"answer")
    await pair.client.has(6)
    pair.server.transport.close()
    await pair.ended()


@program
async def closed_by_the_end_of_the_stream(pair: Pair) -> Any:
    await pair.connect()
    pair.client.transport.write_eof()
    await pair.ended()
    return pair.client.transport.is_closing(), pair.server.transport.is_closing()


@program
async def an_eof_behind_much(pair: Pair) -> Any:
    await pair.connect()
    pair.client.transport.write(bytes(LARGE))
    pair.client.transport.write_eof()
    await pair.ended()
    return pair.server.received


@program
async def closed_while_writing(pair: Pair) -> Any:
    await pair.connect()
    pair.client.transport.write(bytes(LARGE))
    pair.client.transport.close()
    await pair.ended()
    return pair.server.received


@program
async def aborted_while_writing(pair: Pair) -> Any:
    await pair.connect()
    pair.client.transport.write(bytes(LARGE))
    pair.client.transport.abort()
    size = pair.client.transport.get_write_buffer_size()
    await pair.ended()
    return size, 0 < pair.server.received < LARGE


@program
async def back_pressure(pair: Pair) -> Any:
    await pair.connect()
    pair.server.transport.pause_reading()
    pair.client.transport.set_write_buffer_limits(high=0)
    pair.client.transport.write(bytes(LARGE))
    paused = pair.client.transport.get_write_buffer_size() > 0
    pair.server.transport.resume_reading()
    await pair.server.has(LARGE)
    await pair.client.after("resume")
    pair.client.transport.close()
    await pair.ended()
    return paused


@program
async def paused_from_the_beginning(pair: Pair) -> Any:
    pair.server.on["made"] = lambda end: end.transport.pause_reading()
    await pair.connect()
    pair.client.transport.write(b"hello")
    pair.client.transport.write_eof()
    await asyncio.sleep(0.05)
    before = list(pair.server.told), pair.server.transport.is_reading()
    pair.server.transport.resume_reading()
    await pair.ended()
    return before


@program
async def paused_while_it_reads(pair: Pair) -> Any:
    pair.server.on["data"] = lambda end: end.transport.pause_reading()
    await pair.connect()
    pair.client.transport.write(b"one")
    await pair.server.has(3)
    pair.client.transport.write(b"two")
    pair.client.transport.write_eof()
    await asyncio.sleep(0.05)
    before = list(pair.server.told)
    del pair.server.on["data"]
    pair.server.transport.resume_reading()
    await pair.ended()
    return before, pair.server.received


@program
async def closed_with_something_unread(pair: Pair) -> Any:
    pair.client.on["made"] = lambda end: end.transport.pause_reading()
    await pair.connect()
    pair.server.transport.write(b"nobody reads this")
    await asyncio.sleep(0.05)
    pair.client.transport.close()
    await pair.ended()


@program
async def written_to_after_a_reset(pair: Pair) -> Any:
    pair.client.on["made"] = pair.server.on["made"] = lambda end: end.transport.pause_reading()
    await pair.connect()
    pair.server.transport.write(b"nobody reads this")
    await asyncio.sleep(0.05)
    pair.client.transport.close()
    await pair.client.lost
    await asyncio.sleep(0.05)
    before = list(pair.server.told)  # it does not look
    pair.server.transport.write(b"and this")
    await pair.ended()
    return before


@program
async def written_to_after_it_closed(pair: Pair) -> Any:
    pair.server.on["eof"] = lambda _: True
    await pair.connect()
    pair.client.transport.close()
    await pair.server.after("eof")
    pair.server.transport.write(b"to a closed socket")
    await asyncio.sleep(0.05)
    before = list(pair.server.told)  # who has seen the end does not read any more
    pair.server.transport.write(b"again")
    await pair.ended()
    return before


@program
async def closed_when_made(pair: Pair) -> Any:
    pair.server.on["made"] = lambda end: end.transport.close()
    await pair.connect()
    await pair.ended()


@program
async def aborted_when_made(pair: Pair) -> Any:
    pair.server.on["made"] = lambda end: end.transport.abort()
    await pair.connect()
    await pair.ended()


@program
async def both_close(pair: Pair) -> Any:
    await pair.connect()
    pair.client.transport.close()
    pair.client.transport.close()
    pair.server.transport.close()
    await pair.ended()


@program
async def aborted_after_closing(pair: Pair) -> Any:
    pair.server.on["made"] = lambda end: end.transport.pause_reading()
    await pair.connect()
    pair.client.transport.write(bytes(LARGE))
    pair.client.transport.close()
    await asyncio.sleep(0.05)
    before = list(pair.client.told)
    pair.client.transport.abort()
    await pair.client.lost
    pair.server.transport.abort()
    await pair.ended()
    return before


@program
async def what_may_not_be_written(pair: Pair) -> Any:
    await pair.connect()
    transport = pair.client.transport
    transport.write(b"")
    transport.write_eof()
    transport.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        transport.write(b"late")
    await pair.ended()
    pair.server.transport.write(b"nowhere")
    pair.server.transport.abort()
    return transport.can_write_eof(), transport.get_write_buffer_size()


@program
async def a_reader_that_fails(pair: Pair) -> Any:
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: failures.append((context["message"], repr(context["exception"])))
    )

    def fail(end: End) -> None:
        raise ValueError("a fault of ours")

    pair.server.on["data"] = fail
    await pair.connect()
    pair.client.transport.write(b"hello")
    await pair.ended()
    return failures


@program
async def refused(pair: Pair) -> Any:
    await pair.listen()
    pair.listener.close()
    with pytest.raises(ConnectionRefusedError) as caught:
        await pair.dial()
    return caught.value.errno == errno.ECONNREFUSED


@program
async def names(pair: Pair) -> Any:
    await pair.connect()
    client, server = pair.client.transport, pair.server.transport
    same = (
        client.get_extra_info("sockname") == server.get_extra_info("peername"),
        client.get_extra_info("peername") == server.get_extra_info("sockname"),
        client.get_extra_info("peername") == ("127.0.0.1", pair.port),
        client.get_extra_info("nothing", 5),
        id(pair.client) == id(client.get_protocol()),
        client.get_write_buffer_limits(),
    )
    server.set_write_buffer_limits(high=100)
    limits = server.get_write_buffer_limits()
    server.close()
    await pair.ended()
    return same, limits


async def observed(run: Program, kind: type[End]) -> Any:
    async with asyncio.timeout(20):
        pair = Pair(kind)
        result = await run(pair)
        if pair.listener.is_serving():
            pair.listener.close()
    return pair.client.told, pair.server.told, result


def simulated(run: Program, kind: type[End]) -> Any:
    loop = VirtualLoop()
    network = SimNetwork(loop, Random(1))
    network.add_host("20.0.0.1")

    async def main() -> Any:
        current_process.set(network.start_process("20.0.0.1"))
        return await observed(run, kind)

    try:
        outcome = loop.run_until_complete(main())
        assert loop.wind_up() == []
        assert network.open_sockets == 0
        assert not loop.failures
    finally:
        loop.close()
    return outcome


@pytest.mark.parametrize("kind", [Plain, Buffered])
@pytest.mark.parametrize("run", PROGRAMS, ids=lambda run: run.__name__)
def test_both_ends_are_told_the_same(run: Program, kind: type[End]) -> None:
    assert simulated(run, kind) == asyncio.run(observed(run, kind))
