"""Connections under test over real loopback sockets, and a clock that tests turn."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from moderntensor.backend import framing
from moderntensor.errors import FrameError
from moderntensor.network.channel import Channel
from moderntensor.network.connection import Connection

CAPS = {0: 100, 1: 64, 2: 1 << 20}


class Owner:
    """Records what its connection tells it."""

    def __init__(
        self,
        *,
        caps: dict[int, int] | None = None,
        pause_after: int = -1,
        buffer_size: int = framing.DEFAULT_BUFFER_SIZE,
        channel: Callable[[framing.FrameDecoder], Channel] | None = None,
        on_frames: Callable[[Owner, list[framing.Frame]], None] | None = None,
        on_error: Callable[[Owner, FrameError], None] | None = None,
        **options: Any,
    ) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.errors: list[FrameError] = []
        self.closed: list[BaseException | None] = []
        self.connected = asyncio.Event()
        self.arrived = asyncio.Event()
        self._on_frames = on_frames
        self._on_error = on_error
        decoder = framing.FrameDecoder(
            CAPS if caps is None else caps, pause_after=pause_after, buffer_size=buffer_size
        )
        self.connection = Connection(
            decoder,
            on_connected=lambda _: self.connected.set(),
            on_frames=self.got_frames,
            on_error=self.got_error,
            on_closed=self.closed.append,
            channel=None if channel is None else channel(decoder),
            **options,
        )

    def got_frames(self, frames: list[framing.Frame]) -> None:
        assert frames
        self.frames += [(frame.type, frame.payload) for frame in frames]
        self.arrived.set()
        if self._on_frames is not None:
            self._on_frames(self, frames)

    def got_error(self, error: FrameError) -> None:
        self.errors.append(error)
        if self._on_error is not None:
            self._on_error(self, error)

    async def until(self, count: int) -> list[tuple[int, bytes]]:
        """The frames, once there are `count`."""
        while len(self.frames) < count:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 10)
        return self.frames

    async def until_closed(self) -> BaseException | None:
        await asyncio.wait_for(self.connection.wait_closed(), 10)
        (reason,) = self.closed
        return reason


class Client:
    """The other end of an owner's connection: a bare socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await asyncio.wait_for(self._loop.sock_sendall(self.sock, data), 10)

    async def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end of the stream."""
        data = b""
        while len(data) < size:
            chunk = await asyncio.wait_for(
                self._loop.sock_recv(self.sock, min(size - len(data), 1 << 20)), 10
            )
            if not chunk:
                break
            data += chunk
        return data

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Clock:
    """Moves the running loop's time on, so that no test waits for a deadline.

    asyncio's loop asks itself for the time; of others, whose timers are out of reach, it notes what
    is to come, and calls it itself.
    """

    def __init__(self) -> None:
        self._loop: Any = asyncio.get_running_loop()
        self._asks_itself = isinstance(self._loop, asyncio.BaseEventLoop)
        self._ahead = 0.0
        self._noted: dict[int, tuple[float, asyncio.TimerHandle, Callable[[], object]]] = {}
        self._numbers = itertools.count()
        real = self._loop.time
        self._loop.time = lambda: real() + self._ahead
        if not self._asks_itself:
            self._later = self._loop.call_later
            self._loop.call_later, self._loop.call_at = self._call_later, self._call_at

    def _call_at(self, when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        return self._call_later(when - self._loop.time(), *args, **options)

    def _call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, **options: Any
    ) -> asyncio.TimerHandle:
        number = next(self._numbers)

        def due() -> None:
            self._noted.pop(number, None)
            callback(*args)

        handle: asyncio.TimerHandle = self._later(max(0.0, delay), due, **options)
        self._noted[number] = self._loop.time() + delay, handle, due
        return handle

    @property
    def pending(self) -> list[asyncio.TimerHandle]:
        """Of the loop's timers, those that are still to come."""
        if self._asks_itself:
            return [handle for handle in self._loop._scheduled if not handle.cancelled()]
        self._noted = {n: note for n, note in self._noted.items() if not note[1].cancelled()}
        return [handle for _, handle, _ in self._noted.values()]

    async def advance(self, seconds: float) -> None:
        """Everything that was due by then has happened when this returns."""
        self._ahead += seconds
        for _ in range(5):
            for when, handle, due in sorted(self._noted.values(), key=lambda note: note[0]):
                if when <= self._loop.time() and not handle.cancelled():
                    handle.cancel()
                    due()
            await asyncio.sleep(0)


async def open_descriptors() -> int:
    """How many this process has open, when the loop has opened all that it keeps for itself: uvloop
    one more with the first server, either one with the first thread."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, str)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    server.close()
    await server.wait_closed()
    for _ in range(3):  # its socket is closed in a turn of its own
        await asyncio.sleep(0)
    return _descriptors()


def _descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def eventually(condition: Callable[[], bool]) -> None:
    """Lets the loop and the kernel work until `condition` holds."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to that")


@contextlib.asynccontextmanager
async def dialled(owner: Owner) -> AsyncIterator[Client]:
    """A bare client connected to `owner`'s connection, as an accepted one."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: owner.connection, "127.0.0.1", 0)
    client = socket.socket()
    client.setblocking(False)
    try:
        await loop.sock_connect(client, server.sockets[0].getsockname())
        await asyncio.wait_for(owner.connected.wait(), 10)
        yield Client(client)
    finally:
        client.close()
        owner.connection.abort()
        await owner.connection.wait_closed()
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def pair(left: Owner, right: Owner) -> AsyncIterator[None]:
    """Two owners whose connections are the two ends of one socket."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: left.connection, "127.0.0.1", 0)
    try:
        await loop.create_connection(lambda: right.connection, *server.sockets[0].getsockname())
        for owner in (left, right):
            await asyncio.wait_for(owner.connected.wait(), 10)
        yield
    finally:
        for owner in (left, right):
            owner.connection.abort()
            await owner.connection.wait_closed()
        server.close()
        await server.wait_closed()
