"""ApiServer: a node's HTTP API, from the socket to the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiohttp import web

from ..errors import NetworkError, StorageError
from ..network.addresses import format_address, is_loopback
from ..network.tasks import TaskSet
from ..node import FullNode
from . import chain_routes, node_routes, peer_routes, pool_routes, service_routes
from .access import Access
from .connections import Connection, HttpServer
from .context import Context, measure, scrape
from .events import EventStream
from .limits import (
    BACKLOG,
    BODY_TIME,
    BURST,
    LARGE_ANSWER,
    LARGE_ANSWERS,
    MAX_BODY,
    MEASURED_FOR,
    RATE,
    REQUEST_TIME,
    SEND_TIME,
    STOP_TIME,
)
from .openapi import describe
from .page_files import load_page
from .problems import Refusal, answer, shown
from .rates import Rates
from .reads import Kept, Reads
from .routing import Call, Route, Router, authority

__all__ = ["DEFAULT_PORT", "ROUTES", "ApiServer"]

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 8645
ROUTES: Final = (
    *node_routes.ROUTES,
    *peer_routes.ROUTES,
    *chain_routes.ROUTES,
    *pool_routes.ROUTES,
    *service_routes.ROUTES,
)
_FREE: Final = {
    (method, route.path) for route in ROUTES if route.free for method in ("GET", "HEAD")
}
_STREAMS: Final = (node_routes.events,)  # these take as long as they like


class ApiServer:
    """Serves what a node knows and takes what its operator wants, between `start` and `stop`.

        async with FullNode("data", "genesis.json") as node, ApiServer(node) as api:
            print(f"http://127.0.0.1:{api.port}")

    A node that stops stops it first.
    """

    def __init__(
        self,
        node: FullNode,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        token: str | None = None,
        allowed_hosts: Iterable[str] = (),
        rate: float = RATE,
        burst: int = BURST,
    ) -> None:
        """`port` 0 takes any. Without a `token` (16 to 256 printable characters) nothing can be
        changed. `allowed_hosts` are names, besides localhost, by which clients may call it. `rate`
        requests a second, `burst` at once, are admitted from one address. Raises ConfigError."""
        self.node: Final = node
        self.host: Final = host
        self.port = port
        self._access = Access(token, host, allowed_hosts)
        self._router = Router(ROUTES)
        self._rate, self._burst = rate, burst
        self._runner: web.ServerRunner | None = None
        self._server: HttpServer | None = None
        self._lock = asyncio.Lock()
        self._large = 0  # bytes of large answers that clients are still to take

    # --- life -----------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it is: ``http://host:port``."""
        return f"http://{format_address(self.host, self.port)}"

    async def start(self) -> None:
        """Listen and serve. Idempotent. Raises NetworkError if the port cannot be had."""
        async with self._lock:
            if self._runner is None:
                await self._start()

    async def _start(self) -> None:
        node, runtime = self.node, self.node.runtime
        tasks = TaskSet(self._failed)
        reads = Reads(runtime, tasks)
        self._context = Context(
            node=node,
            reads=reads,
            measured=Kept(runtime, tasks, lambda: runtime.run(measure, node), MEASURED_FOR),
            scraped=Kept(runtime, tasks, lambda: scrape(node), 0.0),
            events=EventStream(node, tasks),
            tasks=tasks,
            page=await runtime.run(load_page),
            started=runtime.loop_time(),
            started_at=runtime.wall_time(),
            description=describe(ROUTES),
        )
        self._rates = Rates(self._rate, self._burst)
        self._server = HttpServer(self._handle)
        # Which waits as long twice: for those that answer, and for those that are told to end.
        runner = web.ServerRunner(self._server, shutdown_timeout=STOP_TIME / 2)
        await runner.setup()
        site = web.TCPSite(runner, self.host, self.port, backlog=BACKLOG)
        try:
            await site.start()
        except (OSError, UnicodeError) as error:
            await runner.cleanup()
            where = format_address(self.host, self.port)
            reason = "not a host name"  # a label of it is empty or too long
            if isinstance(error, OSError):
                reason = error.strerror or str(error)
            raise NetworkError(f"cannot serve HTTP on {where}: {reason}") from error
        self._runner = runner
        self.port = runner.addresses[0][1]
        self._context.events.start()
        node.on_stopping.append(self.stop)
        if not is_loopback(self.host):
            log.warning(
                "HTTP is served on %s without encryption: others can read it, and the token with "
                "it; put a proxy with TLS before it",
                format_address(self.host, self.port),
            )

    def begin_stop(self) -> None:
        """From now on the node says that it is not ready; everything else goes on."""
        if self._runner is not None:
            self._context.stopping = True

    async def stop(self) -> None:
        """Part from all listeners, finish what is under way within two seconds, close. Nothing is
        left running. Idempotent."""
        async with self._lock:
            runner, self._runner = self._runner, None
            if runner is None:
                return
            if self.stop in self.node.on_stopping:
                self.node.on_stopping.remove(self.stop)
            self._context.stopping = True
            self._context.events.close()
            try:
                await runner.cleanup()
            finally:
                if self._server is not None:
                    await self._server.end()
                await self._context.tasks.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _failed(self, name: str, error: BaseException) -> None:
        log.error("%s failed", name, exc_info=error)

    # --- requests -------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request, from its headers to the end of its answer."""
        connection = request.protocol
        assert isinstance(connection, Connection)  # noqa: S101 - for the type checker
        connection.begin(request)
        try:
            response = await self._respond(request, connection)
            if not response.prepared:
                await self._send(request, response, connection)
            return response
        finally:
            connection.end()

    async def _send(
        self, request: web.BaseRequest, response: web.StreamResponse, connection: Connection
    ) -> None:
        """To the client, which may be slow, but not for ever."""
        body = response.body if isinstance(response, web.Response) else None
        size = len(body) if isinstance(body, bytes) else 0
        size = size if size > LARGE_ANSWER else 0
        self._large += size
        if size:
            connection.sending()
        try:
            async with asyncio.timeout(SEND_TIME):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            connection.abort()
        except ConnectionError:
            pass  # the client has gone
        finally:
            self._large -= size

    async def _respond(
        self, request: web.BaseRequest, connection: Connection
    ) -> web.StreamResponse:
        try:
            return await self._answer(request, connection)
        except Refusal as refusal:
            return refusal.response()
        except StorageError as error:
            log.warning("%s %s: %s", request.method, shown(request.path), error)
            return Refusal(503, "the chain cannot be read now").response()
        except Exception:
            log.exception("%s %s failed", request.method, shown(request.path))
            return Refusal(500, "the request failed here; the node's log says why").response()

    async def _answer(self, request: web.BaseRequest, connection: Connection) -> web.StreamResponse:
        if (request.method, request.raw_path) not in _FREE:
            self._admit(connection.client)
        named = authority(request.raw_path)
        self._access.check_host(request.headers.get("Host") if named is None else named)
        found, path, query = self._router.find(request.method, request.raw_path)
        if found.changes:
            self._access.check_token(request.headers.get("Authorization"))
        call = Call(request, connection.client, self._router.parse(found, path, query))
        if found in _STREAMS:
            return self._made(found, await found.handler(self._context, call))
        try:
            async with asyncio.timeout(REQUEST_TIME):
                call.body = await _body(request, found)
                if found.changes:
                    connection.carry_out()
                result = await found.handler(self._context, call)
        except TimeoutError:
            return Refusal(503, f"this took longer than {REQUEST_TIME:.0f} s").response()
        return self._made(found, result)

    def _admit(self, client: str) -> None:
        wait = self._rates.admit(client, self.node.runtime.loop_time())
        if wait:
            raise Refusal(
                429,
                f"over {self._rate:g} requests a second from your address; try again in {wait} s",
                headers={"Retry-After": str(wait)},
            )

    def _made(self, found: Route, result: Any) -> web.StreamResponse:
        if isinstance(result, web.StreamResponse):
            return result
        body = b"" if result is None else result
        if isinstance(result, msgspec.Struct):
            body = msgspec.json.encode(result)
        if len(body) > LARGE_ANSWER and self._large + len(body) > LARGE_ANSWERS:
            raise Refusal(503, "too many large answers are under way", headers={"Retry-After": "1"})
        return answer(body, "application/json", status=found.status)


async def _body(request: web.BaseRequest, found: Route) -> Any:
    """The body that the route takes, as its type; refuses another."""
    if found.body is None:
        if request.body_exists and request.can_read_body:
            raise Refusal(400, "this request takes no body")
        return None
    kind = request.content_type
    if kind != "application/json":
        raise Refusal(415, f"Content-Type: {shown(kind)}, must be application/json")
    if "Content-Encoding" in request.headers:
        raise Refusal(415, "Content-Encoding: the body must be sent as it is")
    if (request.content_length or 0) > MAX_BODY:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIME):
            async for part in request.content.iter_any():
                size += len(part)
                if size > MAX_BODY:
                    raise _too_large()
                parts.append(part)
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {BODY_TIME:.0f} s") from None
    except web.RequestPayloadError as error:
        raise Refusal(400, "the body is not what its headers say") from error
    try:
        return msgspec.json.decode(b"".join(parts), type=found.body)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"the body: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"the body is no JSON: {shown(str(error))}") from error


def _too_large() -> Refusal:
    return Refusal(413, f"the body is over {MAX_BODY} bytes", headers={"Connection": "close"})
