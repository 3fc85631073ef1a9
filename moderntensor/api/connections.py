"""Connections of clients: how many there may be, and how long each may take; and the requests that
come over them, which end with them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from aiohttp import web

from ..network.bans import host_key
from .limits import FIRST_REQUEST, KEEP_ALIVE, LINGER, MAX_CONNECTIONS, MAX_HEADERS, MAX_LINE
from .problems import Refusal, shown
from .shares import who_yields

__all__ = ["Connection", "HttpServer"]

log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """One socket of a client. Between requests it is idle, and the first to go."""

    def __init__(self, server: HttpServer, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._socket: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handling: asyncio.Task[Any] | None = None
        self.client = ""
        """Its address; of IPv6 the /64."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's has all of its methods and not its name, so that no isinstance() helps here.
        transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.client = host_key(peer[0]) if isinstance(peer, tuple) else ""
        if not self._server.make_room(self.client):
            transport.abort()
            return
        self._socket = transport
        self._server.open[self] = None
        self._wait(FIRST_REQUEST)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.open.pop(self, None)
        self._busy()
        self._socket = None
        super().connection_lost(exc)
        if self._handling is not None:
            self._handling.cancel()  # nobody waits for the answer

    def begin(self, request: web.BaseRequest) -> None:
        """The calling task handles a request, whose headers are all here. It ends with its client,
        or at the latest with the server."""
        self._busy()
        self._handling = asyncio.current_task()
        for task in (self._handling, request.task):
            self._server.own(task)

    def carry_out(self) -> None:
        """What the request changes is done from here on, whether or not its client stays."""
        self._handling = None

    def sending(self) -> None:
        """The client is to take a large answer: it may be slow, but not at others' cost."""
        self._server.idle[self] = None

    def end(self) -> None:
        """Its answer is with the client."""
        self._handling = None
        self._server.idle.pop(self, None)
        if self._socket is not None and not self._socket.is_closing():
            self._wait(KEEP_ALIVE)

    def abort(self) -> None:
        """Close at once, whatever is not sent yet."""
        if self._socket is not None:
            self._socket.abort()

    def _wait(self, seconds: float) -> None:
        self._server.idle[self] = None
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self.abort)

    def _busy(self) -> None:
        self._server.idle.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP, or to a failure of ours."""
        self._busy()
        if status >= 500:
            log.error("a request failed", exc_info=exc)
            refusal = Refusal(500, "the request failed here; the node's log says why")
        else:
            said = (message or str(exc or "")).strip().split("\n")[0]
            refusal = Refusal(400, f"this is no HTTP request that is served here: {shown(said)}")
        response = refusal.response()
        response.force_close()
        return response


class HttpServer(web.Server):
    """Makes a `Connection` of each socket, of a bounded number."""

    def __init__(self, handler: Any) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(handler, loop=loop)
        self.open: dict[Connection, None] = {}
        self.idle: dict[Connection, None] = {}
        """Those without a request, or slow to take its answer; the longest first."""
        self._tasks: set[asyncio.Task[Any]] = set()  # that handle requests
        self._options = {
            "loop": loop,
            "access_log": None,
            "keepalive_timeout": 2 * KEEP_ALIVE,  # ours is sooner
            "max_line_size": MAX_LINE,
            "max_field_size": MAX_LINE,
            "max_headers": MAX_HEADERS,
            "lingering_time": LINGER,
            "auto_decompress": False,  # a small body may not become a large one
        }

    def make_room(self, client: str) -> bool:
        """Room for one more of `client`, be it at the cost of the address that has most of them;
        else of who has asked nothing for longest: sockets that are idle cost their owner nothing,
        and so keep nobody out."""
        if len(self.open) < MAX_CONNECTIONS:
            return True
        most = who_yields((connection.client for connection in self.open), client)
        if most is None:
            parting = next(iter(self.idle), None)
        else:
            parting = next(c for c in (*self.idle, *self.open) if c.client == most)
        if parting is None:
            return False
        self.idle.pop(parting, None)
        self.open.pop(parting, None)
        parting.abort()
        return True

    def own(self, task: asyncio.Task[Any] | None) -> None:
        """`end` ends it, if it has not ended before."""
        if task is not None and task not in self._tasks:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Close all connections, and wait until no request is handled any more."""
        for connection in tuple(self.open):
            connection.abort()
        while self._tasks:
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def __call__(self) -> Connection:
        return Connection(self, **self._options)
