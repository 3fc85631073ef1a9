"""Peers over asyncio streams: a task that reads message by message, `drain()` after each write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from .codec import HEADER, MAX_PAYLOAD, CodecError, encode_frame

Handler = Callable[["PlainPeer", int, bytes], Awaitable[None]]


class PlainPeer:
    """One connection; `handler(peer, kind, payload)` is awaited for each message."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.handler = handler
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next_id = 0

    async def run(self) -> None:
        """Read messages until the other side goes away."""
        try:
            while True:
                length, kind = HEADER.unpack(await self.reader.readexactly(HEADER.size))
                if length > MAX_PAYLOAD:
                    raise CodecError(f"{length} bytes are too many")
                payload = await self.reader.readexactly(length)
                await self.handler(self, kind, payload)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for reply in self._replies.values():
                reply.cancel()
            self.writer.close()

    async def send(self, kind: int, payload: bytes) -> None:
        """Write one frame and wait until the buffer has room."""
        self.writer.write(encode_frame(kind, payload))
        await self.writer.drain()

    async def send_json(self, kind: int, message: dict[str, Any]) -> None:
        """Encode a message and send it."""
        await self.send(kind, json.dumps(message).encode())

    async def request(self, kind: int, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message with a fresh `request_id` and wait for the reply that carries it."""
        self._next_id += 1
        request_id = self._next_id
        future = asyncio.get_running_loop().create_future()
        self._replies[request_id] = future
        try:
            await self.send_json(kind, {**message, "request_id": request_id})
            return await asyncio.wait_for(future, 10)
        finally:
            del self._replies[request_id]

    def replied(self, message: dict[str, Any]) -> None:
        """Called by the handler when a reply has come."""
        future = self._replies.get(message["request_id"])
        if future is not None and not future.done():
            future.set_result(message)


class PlainNode:
    """Listens, dials, and broadcasts one peer after another."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.peers: set[PlainPeer] = set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def connect(self, host: str, port: int) -> PlainPeer:
        """Dial a peer and read from it until it or we go away."""
        peer = PlainPeer(*await asyncio.open_connection(host, port), self.handler)
        task = asyncio.create_task(self._serve(peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return peer

    async def broadcast(self, kind: int, message: dict[str, Any]) -> None:
        """Send a message to every peer."""
        for peer in list(self.peers):
            await peer.send_json(kind, message)

    async def stop(self) -> None:
        """Stop listening and close what is open."""
        if self._server is not None:
            self._server.close()
        for peer in list(self.peers):
            peer.writer.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._serve(PlainPeer(reader, writer, self.handler))

    async def _serve(self, peer: PlainPeer) -> None:
        self.peers.add(peer)
        try:
            await peer.run()
        finally:
            self.peers.discard(peer)
