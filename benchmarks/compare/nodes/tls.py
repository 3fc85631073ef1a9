"""The end that is asyncio's TLS 1.3: both sides show a certificate, then a line each."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from ..certificate import contexts
from ..streams.work import HOST, listener
from .end import End

_HELLO = bytes(160).hex().encode() + b"\n"  # what a HELLO of ours may take


class TlsEnd(End):
    """Listens, or dials again and again."""

    def __init__(self, pem: str) -> None:
        super().__init__()
        self._server_side, self._client_side = contexts(pem)
        self._server: asyncio.Server | None = None

    async def listen(self) -> int:
        self._server = await asyncio.start_server(
            self._accepted, sock=listener(), ssl=self._server_side
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def connect(self, port: int, count: int = 1) -> None:
        await self.dial(port, count)

    async def dial(self, port: int, count: int) -> float:
        """Connect so many times, one after the other; the seconds that it took."""
        began = time.monotonic()
        for _ in range(count):
            reader, writer = await asyncio.open_connection(HOST, port, ssl=self._client_side)
            writer.write(_HELLO)
            assert await reader.readline() == _HELLO
            writer.transport.abort()
        return time.monotonic() - began

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def peer_count(self) -> int:
        return 0

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        with suppress(ConnectionError):
            writer.write(await reader.readline())
            await reader.read()
        writer.transport.abort()
