"""A TCP proxy that is as bad a line as it is told to be."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from .schedule import Mood

CHUNK: Final = 32 * 1024  # bytes
DELAY: Final = 0.3  # seconds for each chunk of a slow link
CONNECTIONS: Final = 64  # at once; more are refused


class FlakyLink:
    """From a port of loopback to another. `counts` says what was done to whom."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.counts = {"connections": 0, "bytes": 0, "reset": 0, "slow": 0, "stalled": 0}
        self._target = target
        self._delay = 0.0
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen; OSError where the port is taken."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Break all connections off. Idempotent."""
        if self._server is not None:
            self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def become(self, mood: Mood) -> None:
        """Be like this from now on; a reset is of those that are connected now."""
        self._delay = DELAY if mood == "slow" else 0.0
        if mood == "stalled":
            self._open.clear()
        else:
            self._open.set()
        if mood == "reset":
            for writer in self._writers:
                _reset(writer)
        if mood != "clear":
            self.counts[mood] += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._running) >= CONNECTIONS:
            writer.close()
            return
        self._running.add(task)
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            back, onward = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(onward)
            self.counts["connections"] += 1
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pipe(reader, onward))
                both.create_task(self._pipe(back, writer))
        except* OSError:
            pass  # nobody is there, or either side is gone and so is the other now
        finally:
            for each in (writer, onward):
                if each is not None:
                    self._writers.discard(each)
                    each.close()
            self._running.discard(task)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._open.wait()
            await asyncio.sleep(self._delay)
            writer.write(data)
            await writer.drain()
            self.counts["bytes"] += len(data)
        raise ConnectionResetError("ended")


def _reset(writer: asyncio.StreamWriter) -> None:
    """Tell the other side by RST, not by FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
