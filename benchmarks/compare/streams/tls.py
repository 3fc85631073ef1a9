"""asyncio streams over TLS 1.3, a length before each message; the certificate is made here."""

from __future__ import annotations

import asyncio
import ssl

from ..certificate import contexts, self_signed
from .work import HOST, Receipt, burst, listener, pull
from .work import Receiver as ReceiverBase
from .work import Sender as SenderBase

READ_LIMIT = 1024 * 1024


def _server_context() -> ssl.SSLContext:
    context, _ = contexts(self_signed("ecdsa"))
    context.verify_mode = ssl.CERT_NONE  # who dials shows none
    return context


class Sender(SenderBase):
    async def listen(self) -> int:
        self._connected: asyncio.Future[asyncio.StreamWriter] = (
            asyncio.get_running_loop().create_future()
        )

        def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._connected.set_result(writer)

        self._server = await asyncio.start_server(accepted, sock=listener(), ssl=_server_context())
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def send(self, messages: list[bytes], count: int) -> None:
        writer = await self._connected
        at_once = burst(len(messages[0]))
        bursts = [messages[i : i + at_once] for i in range(0, len(messages), at_once)]
        for _ in range(count // len(messages)):
            for some in bursts:
                for message in some:
                    writer.write(len(message).to_bytes(4, "big") + message)
                await writer.drain()


class Receiver(ReceiverBase):
    async def connect(self, port: int) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False  # it is our own; what is compared is the encryption
        context.verify_mode = ssl.CERT_NONE
        self._reader, self._writer = await asyncio.open_connection(
            HOST, port, ssl=context, limit=READ_LIMIT
        )
        protocol = self._writer.get_extra_info("ssl_object").version()
        assert protocol == "TLSv1.3", protocol

    async def receive(self, size: int, count: int, *, keep: bool) -> Receipt:
        read = self._reader.readexactly

        async def one() -> bytes:
            return await read(int.from_bytes(await read(4), "big"))

        return await pull(one, count, keep=keep)
