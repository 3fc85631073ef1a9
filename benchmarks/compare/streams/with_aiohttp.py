"""aiohttp's WebSockets: no compression, no limit."""

from __future__ import annotations

import asyncio

from aiohttp import ClientSession, web

from .work import HOST, Receipt, listener, pull
from .work import Receiver as ReceiverBase
from .work import Sender as SenderBase


class Sender(SenderBase):
    async def listen(self) -> int:
        self._connected: asyncio.Future[web.WebSocketResponse] = (
            asyncio.get_running_loop().create_future()
        )

        async def handle(request: web.Request) -> web.WebSocketResponse:
            response = web.WebSocketResponse(compress=False, max_msg_size=0)
            await response.prepare(request)
            self._connected.set_result(response)
            await response.receive()  # until the other side closes
            return response

        application = web.Application()
        application.router.add_get("/", handle)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.SockSite(self._runner, listener()).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def send(self, messages: list[bytes], count: int) -> None:
        send = (await self._connected).send_bytes
        for _ in range(count // len(messages)):
            for message in messages:
                await send(message)


class Receiver(ReceiverBase):
    async def connect(self, port: int) -> None:
        self._session = ClientSession()
        self._connection = await self._session.ws_connect(
            f"http://{HOST}:{port}/", compress=0, max_msg_size=0
        )

    async def receive(self, size: int, count: int, *, keep: bool) -> Receipt:
        return await pull(self._connection.receive_bytes, count, keep=keep)
