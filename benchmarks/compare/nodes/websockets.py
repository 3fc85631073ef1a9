"""The end that speaks through aiohttp's WebSockets, with binary messages by `struct`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from struct import Struct
from typing import Any

import aiohttp
from aiohttp import web

from moderntensor.blockchain.transaction import Transaction

from .end import HASHES, RECORD, End

_NEWS, _REQUEST, _REPLY, _TRANSACTION = range(4)
_HASH = Struct("!B32sQ23x")  # 64 bytes
_ASK = Struct("!BIH")  # request_id, max_peers
_ANSWER = Struct("!BIBHH32s16sHQ")  # request_id, status, retry_ms, count, one record
_PATIENCE = 15.0  # seconds for a reply, as NodeConfig.request_timeout gives


class AiohttpEnd(End):
    """A server or a client; compression is off, the server's frames are not masked."""

    def __init__(self, heartbeat: float | None = None) -> None:
        super().__init__()
        self._heartbeat = heartbeat
        self._seen: set[bytes] = set()  # transactions
        self._sockets: list[Any] = []
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._handlers: dict[int, Callable[[Any, bytes], Awaitable[None]]] = {
            _NEWS: self._on_news,
            _REQUEST: self._on_request,
            _REPLY: self._on_reply,
            _TRANSACTION: self._on_transaction,
        }
        self._futures: dict[int, asyncio.Future[tuple[Any, ...]]] = {}
        self._next_id = 0

    # --- commands --------------------------------------------------------------------------

    async def listen(self) -> int:
        application = web.Application()
        application.router.add_get("/", self._accept)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def connect(self, port: int, count: int = 1) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector)
        for _ in range(count):
            socket = await self._session.ws_connect(
                f"http://127.0.0.1:{port}/", compress=0, heartbeat=self._heartbeat
            )
            self._tasks.append(asyncio.create_task(self._read(socket)))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    # --- what it knows how to do -------------------------------------------------------------

    @property
    def peer_count(self) -> int:
        return len(self._sockets)

    async def send_many(self, count: int) -> None:
        (socket,) = self._sockets
        for height in range(count):
            await socket.send_bytes(_HASH.pack(_NEWS, HASHES[height & 4095], height))

    async def ask(self) -> tuple[Any, ...]:
        (socket,) = self._sockets
        self._next_id += 1
        request_id = self._next_id
        future = self._futures[request_id] = asyncio.get_running_loop().create_future()
        try:
            await socket.send_bytes(_ASK.pack(_REQUEST, request_id, 8))
            async with asyncio.timeout(_PATIENCE):
                return await future
        finally:
            del self._futures[request_id]

    def said(self, reply: tuple[Any, ...]) -> list[Any]:
        _, _, status, _, _, node_id, ip, port, last_seen = reply
        return [status, node_id.hex(), ip.hex(), port, last_seen]

    def package(self, transaction: Transaction) -> bytes:
        return bytes([_TRANSACTION]) + transaction.encode()

    async def broadcast_all(self, packages: list[bytes]) -> None:
        for data in packages:
            for socket in self._sockets:
                await socket.send_bytes(data)

    # --- handlers --------------------------------------------------------------------------

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, heartbeat=self._heartbeat)
        await socket.prepare(request)
        await self._read(socket)
        return socket

    async def _read(self, socket: Any) -> None:
        self._sockets.append(socket)
        handlers = self._handlers
        try:
            async for message in socket:
                data = message.data
                await handlers[data[0]](socket, data)
        finally:
            self._sockets.remove(socket)

    async def _on_news(self, socket: Any, data: bytes) -> None:
        _, block_hash, height = _HASH.unpack(data)
        self.count()
        if self.collected is not None:
            self.collected.append([block_hash.hex(), height])

    async def _on_transaction(self, socket: Any, data: bytes) -> None:
        transaction = Transaction.decode(data[1:])
        self._seen.add(sha256(data).digest())
        self.count()
        if self.collected is not None:
            self.collected.append(transaction.encode().hex())

    async def _on_request(self, socket: Any, data: bytes) -> None:
        _, request_id, _ = _ASK.unpack(data)
        await socket.send_bytes(
            _ANSWER.pack(
                _REPLY, request_id, 0, 0, 1,
                RECORD.node_id, RECORD.ip, RECORD.port, RECORD.last_seen,
            )
        )  # fmt: skip

    async def _on_reply(self, socket: Any, data: bytes) -> None:
        reply = _ANSWER.unpack(data)
        self._futures[reply[1]].set_result(reply)
