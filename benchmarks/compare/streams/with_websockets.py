"""websockets, its asyncio implementation: no compression, no limit, no keepalive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from .work import HOST, Receipt, listener, pull
from .work import Receiver as ReceiverBase
from .work import Sender as SenderBase


class Sender(SenderBase):
    async def listen(self) -> int:
        self._connected: asyncio.Future[ServerConnection] = (
            asyncio.get_running_loop().create_future()
        )

        async def handle(connection: ServerConnection) -> None:
            self._connected.set_result(connection)
            await connection.wait_closed()

        self._server = await serve(
            handle, sock=listener(), compression=None, max_size=None, ping_interval=None
        )
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def send(self, messages: list[bytes], count: int) -> None:
        send = (await self._connected).send
        for _ in range(count // len(messages)):
            for message in messages:
                await send(message)


class Receiver(ReceiverBase):
    async def connect(self, port: int) -> None:
        self._connection: ClientConnection = await connect(
            f"ws://{HOST}:{port}/", compression=None, max_size=None, ping_interval=None, proxy=None
        )

    async def receive(self, size: int, count: int, *, keep: bool) -> Receipt:
        receive = cast(Callable[[], Awaitable[bytes]], self._connection.recv)
        return await pull(receive, count, keep=keep)
