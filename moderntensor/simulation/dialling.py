"""How connections come about in the simulated network: listeners, and who dials them."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

from .stream import Stream
from .transport import SimTransport, os_error

if TYPE_CHECKING:
    from .network import NetHost, Process, SimNetwork

__all__ = ["SYN_GIVE_UP", "Dial", "SimServer"]

# Linux: tcp_syn_retries; the first retry after a second, each pause twice the one before.
SYN_GIVE_UP: Final = 127.0
_SYN_RETRY: Final = 1.0


def loopback(ip: str) -> bool:
    """Whether this address is of the host itself, for itself alone."""
    return ip.startswith("127.") or ip == "::1"


def _name(ip: str, port: int) -> tuple[Any, ...]:
    return (ip, port, 0, 0) if ":" in ip else (ip, port)


class _ListeningSocket:
    def __init__(self, name: tuple[Any, ...]) -> None:
        self._name = name

    def getsockname(self) -> tuple[Any, ...]:
        return self._name

    def fileno(self) -> int:
        """As a closed one: there is nothing that a selector could watch."""
        return -1


class SimServer(asyncio.AbstractServer):
    """What `create_server` gives. `wait_closed` does not wait for connections (as before 3.12)."""

    def __init__(
        self, process: Process, factory: Callable[[], asyncio.BaseProtocol], ip: str, port: int
    ) -> None:
        self._process = process
        self._factory = factory
        self._ip, self._port = ip, port
        self._serving = self._closed = False
        self._context = copy_context()
        self.sockets: tuple[_ListeningSocket, ...] = (_ListeningSocket(_name(ip, port)),)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """As in asyncio."""
        return self._process.loop

    def is_serving(self) -> bool:
        """Whether dials are answered."""
        return self._serving and self._process.alive

    def answers(self, ip: str) -> bool:
        """Whether those are answered who dial this address."""
        return self.is_serving() and (loopback(ip) or not loopback(self._ip))

    async def start_serving(self) -> None:
        """As in asyncio."""
        self._serving = not self._closed
        await asyncio.sleep(0)

    async def serve_forever(self) -> None:
        """As in asyncio."""
        await self.start_serving()
        await self._process.loop.create_future()

    def close(self) -> None:
        """As in asyncio: connections live on."""
        self._serving, self._closed = False, True
        listeners = self._process.host.listeners
        if listeners.get(self._port) is self:
            del listeners[self._port]
        self.sockets = ()

    async def wait_closed(self) -> None:
        """As in asyncio, but for connections, which nobody waits for."""
        await asyncio.sleep(0)

    def accept(self, stream: Stream, client: SimTransport) -> None:
        """A dial has come to its end. Called by the network."""
        process = self._process
        sockname = client.get_extra_info("peername")
        transport = SimTransport(
            process, self._context, sockname, client.get_extra_info("sockname")
        )
        transport.incoming, transport.outgoing = stream, client.incoming
        stream.receiver = client.incoming.sender = transport
        transport.peer, client.peer = client, transport
        process.transports[transport] = None
        try:
            protocol = self._context.run(self._factory)
        except Exception as error:
            process.loop.call_exception_handler(
                {"message": "Error on transport creation for incoming connection"}
                | {"exception": error}
            )
            transport.abort()
            return
        transport.open(protocol)


class Dial:
    """One attempt of `create_connection`."""

    def __init__(
        self,
        network: SimNetwork,
        process: Process,
        factory: Callable[[], asyncio.BaseProtocol],
        ip: str,
        port: int,
    ) -> None:
        self._network = network
        self._process = process
        self._factory = factory
        self._ip, self._port = ip, port
        self._context: Context = copy_context()
        self._began = network.loop.time()
        self._pause = _SYN_RETRY
        self._outcome: asyncio.Future[SimTransport] = network.loop.create_future()
        self._transport: SimTransport | None = None
        own = loopback(ip)
        self._local = (ip if own else process.host.ip, process.host.free_port())
        # Nobody has an address that is not of a host: packets to it vanish.
        self._target: NetHost | None = process.host if own else network.hosts.get(ip)
        self._latency = (
            0.0
            if self._target is None
            else network.link_between(process.host, self._target).latency
        )

    async def run(self) -> tuple[SimTransport, asyncio.BaseProtocol]:
        """Until there is a connection. Raises OSError."""
        if self._process.alive:
            self._network.loop.post(self._began + self._latency, _syn_arrives, self)
        try:
            transport = await self._outcome
            return transport, transport.get_protocol()
        except BaseException:
            self._outcome.cancel()
            if self._transport is not None:
                self._transport.close()
            raise

    def _over(self) -> bool:
        return self._outcome.done() or not self._process.alive

    def _told(self, kind: str) -> None:
        trace = self._network.trace
        if trace is not None:
            trace.connection(kind, self._process.host.ip, self._ip)

    def syn_arrives(self) -> None:
        """At the other host, if there is one."""
        network, target = self._network, self._target
        if self._over():
            return
        if target is None or network.apart(self._process.host, target):
            self._later()
            return
        listener = target.listeners.get(self._port)
        serving = listener is not None and listener.answers(self._ip)
        answer = _syn_answered if serving else _refused
        network.loop.post(network.loop.time() + self._latency, answer, self)

    def _later(self) -> None:
        """Nothing came back: once more, or the end."""
        loop = self._network.loop
        again = loop.time() + self._pause
        self._pause *= 2
        if again - self._began < SYN_GIVE_UP:
            loop.post(again, _syn_arrives, self)
        else:
            loop.post(self._began + SYN_GIVE_UP, _timed_out, self)

    def answered(self) -> None:
        """The other host would talk to us."""
        target = self._target
        if self._over() or target is None:
            return
        if self._network.apart(target, self._process.host):
            self._later()
            return
        self._told("opened")
        network, host = self._network, self._process.host
        link = network.link_between(host, target)
        transport = SimTransport(
            self._process, self._context, _name(*self._local), _name(self._ip, self._port)
        )
        transport.outgoing = Stream(network, host, target, link)
        transport.incoming = Stream(network, target, host, link)
        transport.outgoing.sender = transport.incoming.receiver = transport
        self._process.transports[transport] = None
        self._transport = transport
        transport.outgoing.open()
        try:
            protocol = self._context.run(self._factory)
        except Exception as error:
            transport.abort()
            self._outcome.set_exception(error)
            return
        transport.open(protocol)
        if not self._outcome.done():
            self._outcome.set_result(transport)

    def refused(self) -> None:
        """The other host has nobody there."""
        if self._over():
            return
        if self._target is not None and self._network.apart(self._target, self._process.host):
            self._later()
            return
        self.fail("refused", errno.ECONNREFUSED)

    def fail(self, kind: str, code: int) -> None:
        """For good."""
        if not self._over():
            self._told(kind)
            self._outcome.set_exception(os_error(code))


def _syn_arrives(dial: Dial) -> None:
    dial.syn_arrives()


def _syn_answered(dial: Dial) -> None:
    dial.answered()


def _refused(dial: Dial) -> None:
    dial.refused()


def _timed_out(dial: Dial) -> None:
    dial.fail("timeout", errno.ETIMEDOUT)
