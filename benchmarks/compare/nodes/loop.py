"""The event loop of all ends: asyncio's own, whose sockets nothing paces."""

from __future__ import annotations

import asyncio
from typing import Any

from ..streams.work import unpaced


class UnpacedLoop(asyncio.SelectorEventLoop):
    """What asyncio uses on Unix by default; accepted sockets inherit the listener's setting."""

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        server = await super().create_server(*args, **kwargs)
        for sock in server.sockets:
            unpaced(sock)
        return server

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        transport, protocol = await super().create_connection(*args, **kwargs)
        unpaced(transport.get_extra_info("socket"))
        return transport, protocol
