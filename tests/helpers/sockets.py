"""Connections under test over real loopback sockets, and a clock that tests turn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
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
    """Moves the running loop's time on, so that no test waits for a deadline."""

    def __init__(self) -> None:
        loop: Any = asyncio.get_running_loop()
        real, self._ahead = loop.time, 0.0
        loop.time = lambda: real() + self._ahead

    async def advance(self, seconds: float) -> None:
        """Everything that was due by then has happened when this returns."""
        self._ahead += seconds
        for _ in range(5):
            await asyncio.sleep(0)


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
