"""A wire between two nodes that is listened in on, and cut or bent where a test wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

Bend = Callable[[str, bytes, int], bytes]
"""Of the direction, the bytes, and how many came before them: the bytes to pass on."""


class Relay:
    """Records what passes: `sent` by who dialled, `answered` by who was dialled."""

    def __init__(self, port: int, bend: Bend) -> None:
        self.port = 0
        self.heard = {"sent": bytearray(), "answered": bytearray()}
        self._target = port
        self._bend = bend
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def sent(self) -> bytes:
        return bytes(self.heard["sent"])

    @property
    def answered(self) -> bytes:
        return bytes(self.heard["answered"])

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(self._join(reader, writer))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass("sent", reader, far_writer))
            group.create_task(self._pass("answered", far_reader, writer))

    async def _pass(
        self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        heard = self.heard[way]
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(self._bend(way, data, len(heard)))
                heard += data
                await writer.drain()
        with suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    def _start(self, work: object) -> None:
        task = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def relay_to(port: int, bend: Bend = lambda way, data, before: data) -> AsyncIterator[Relay]:
    """A relay to this port of loopback."""
    relay = Relay(port, bend)
    server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        await relay.close()
        await server.wait_closed()
