"""An in-memory network of simulated hosts, below the transports of asyncio."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextvars import ContextVar
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from .dialling import Dial, SimServer, loopback
from .lines import LOOPBACK, Line, Link, Pipe
from .stream import Stream
from .transport import SimTransport, os_error

if TYPE_CHECKING:
    from .loop import VirtualLoop

__all__ = ["NetHost", "NetworkTrace", "Process", "SimNetwork", "current_process"]

# As Linux gives them out.
_FIRST_PORT: Final = 32768
_PORTS: Final = 28232
_ANY: Final = ("0.0.0.0", "::", "", None)  # noqa: S104 - of no real host

current_process: ContextVar[Process] = ContextVar("current_process")
"""Whose code runs: who starts a node sets it, and its tasks inherit it."""


class NetworkTrace(Protocol):
    """Who is told of what the network does."""

    def connection(self, kind: str, a: str, b: str) -> None:
        """Addresses of two hosts, the dialling one first; `kind` is `opened`, `refused`, `timeout`
        or `reset`."""

    def segment(self, sender: str, receiver: str, data: bytes | memoryview) -> None:
        """Bytes have arrived; none at the end of a stream."""


class NetHost:
    """A machine: one address, one line, at most one living process."""

    def __init__(self, ip: str, link: Link | None) -> None:
        self.ip = ip
        self.link = link
        self.up: Pipe | None = None
        self.down: Pipe | None = None
        self.powered = True
        self.process: Process | None = None
        self.listeners: dict[int, SimServer] = {}
        self.bytes_in = self.bytes_out = 0  # payload
        self.segments_in = self.segments_out = 0
        self._ports = count()

    def free_port(self) -> int:
        """One that no listener has."""
        for number in self._ports:
            port = _FIRST_PORT + number % _PORTS
            if port not in self.listeners:
                return port
        raise AssertionError


class Process:
    """One life of a host's node. What it opened is closed by the kernel when it ends; whatever it
    does afterwards has no effect."""

    def __init__(self, host: NetHost, loop: VirtualLoop) -> None:
        self.host = host
        self.loop = loop
        self.alive = True
        self.transports: dict[SimTransport, None] = {}

    def gone(self, transport: SimTransport) -> None:
        """Its socket is closed."""
        self.transports.pop(transport, None)


class SimNetwork:
    """Hosts by their addresses (text), what lies between them, and its faults.

    All that is random comes from `random`. It becomes the network of `loop`.
    """

    def __init__(
        self, loop: VirtualLoop, random: Random, trace: NetworkTrace | None = None
    ) -> None:
        self.loop = loop
        self.random = random
        self.trace = trace
        self.link = Link(0.0)  # between hosts of which nothing else is said
        self.hosts: dict[str, NetHost] = {}
        self.obstacles = False  # whether anybody is apart from anybody
        self.stuck: dict[Stream, None] = {}  # what waits for the end of an outage
        self._links: dict[tuple[str, str], Link] = {}
        self._blocked: set[tuple[str, str]] = set()
        self._sides: dict[str, int] = {}
        loop.network = self

    # --- hosts -----------------------------------------------------------------------------

    def add_host(self, ip: str, *, line: Line | None = None, link: Link | None = None) -> NetHost:
        """A machine that is switched on and runs nothing. ValueError if the address is taken.

        `link` is to an average place: between two such hosts latencies are averaged.
        """
        if ip in self.hosts:
            raise ValueError(f"there is a host {ip} already")
        self.hosts[ip] = NetHost(ip, link)
        self.set_line(ip, line)
        return self.hosts[ip]

    def start_process(self, ip: str) -> Process:
        """A fresh life of a host, which is switched on. ValueError if one is alive."""
        host = self.hosts[ip]
        if host.process is not None and host.process.alive:
            raise ValueError(f"{ip} runs already")
        host.process = Process(host, self.loop)
        host.powered = True
        self._healed()
        return host.process

    def kill(self, process: Process, *, silent: bool = False) -> None:
        """End a process at once. Its kernel closes its sockets, or, if `silent`, the power is gone
        and nobody is told until the host runs again. Idempotent."""
        if not process.alive:
            return
        process.alive = False
        process.host.listeners.clear()
        for transport in list(process.transports):
            if silent:
                transport.outgoing.cut()
                process.gone(transport)
            else:
                transport.outgoing.keep_to_kernel()
                transport.close_socket()
        if silent:
            process.host.powered = False
            self.obstacles = True

    def set_line(self, ip: str, line: Line | None) -> None:
        """From now on, for what waits in it, too; None for no bound."""
        host, line, now = self.hosts[ip], line or Line(), self.loop.time()
        for name, rate in (("up", line.up), ("down", line.down)):
            pipe: Pipe | None = getattr(host, name)
            if pipe is None or rate is None:
                setattr(host, name, None if rate is None else Pipe(rate))
            else:
                pipe.change(now, rate)

    def set_link(self, a: str, b: str, link: Link | None) -> None:
        """Between two hosts, both ways, from now on; None for what it was at first."""
        for pair in ((a, b), (b, a)):
            if link is None:
                self._links.pop(pair, None)
            else:
                self._links[pair] = link
        for transport in self._between(a, b):
            now = self.link_between(self.hosts[a], self.hosts[b])
            transport.outgoing.use(now)
            transport.incoming.use(now)

    def link_between(self, a: NetHost, b: NetHost) -> Link:
        """What packets between two hosts meet."""
        if a is b:
            return LOOPBACK
        link = self._links.get((a.ip, b.ip))
        if link is not None:
            return link
        if a.link is None and b.link is None:
            return self.link
        return (a.link or self.link).joined(b.link or self.link)

    def _between(self, a: str, b: str | None) -> list[SimTransport]:
        process = self.hosts[a].process
        if process is None:
            return []
        return [t for t in process.transports if b is None or t.outgoing.target.ip == b]

    @property
    def open_sockets(self) -> int:
        """Of living processes: each end of a connection, and what listens."""
        return sum(
            len(host.listeners) + (len(host.process.transports) if host.process else 0)
            for host in self.hosts.values()
        )

    # --- faults ----------------------------------------------------------------------------

    def apart(self, source: NetHost, target: NetHost) -> bool:
        """Whether nothing gets from one host to the other now."""
        if not self.obstacles or source is target:
            return False
        a, b = source.ip, target.ip
        return (
            not target.powered
            or (a, b) in self._blocked
            or (bool(self._sides) and self._sides.get(a) != self._sides.get(b))
        )

    def block(self, a: str, b: str) -> None:
        """Nothing gets from `a` to `b`. Idempotent."""
        self._blocked.add((a, b))
        self.obstacles = True

    def unblock(self, a: str, b: str) -> None:
        """Undo `block`. Idempotent."""
        self.unblock_all([(a, b)])

    def unblock_all(self, pairs: Iterable[tuple[str, str]]) -> None:
        """`unblock` of many at once."""
        self._blocked.difference_update(pairs)
        self._healed()

    def partition(self, *groups: Iterable[str]) -> None:
        """Nothing gets from one group to another, either way, nor to those in none, who stay
        together. It replaces the partition before."""
        self._sides = {ip: number for number, group in enumerate(groups) for ip in group}
        self._healed()

    def heal(self) -> None:
        """Undo all blocks and the partition. Hosts without power stay dark."""
        self._blocked.clear()
        self._sides.clear()
        self._healed()

    def _healed(self) -> None:
        dark = any(not host.powered for host in self.hosts.values())
        self.obstacles = bool(self._blocked or self._sides or dark)
        for stream in list(self.stuck):
            if stream.try_again():
                del self.stuck[stream]

    def reset(self, a: str, b: str | None = None) -> None:
        """Both ends of all connections of `a` (with `b`) meet a reset, now."""
        for transport in self._between(a, b):
            if self.trace is not None:
                self.trace.connection("reset", a, transport.outgoing.target.ip)
            peer = transport.peer
            transport.hit_reset()
            if peer is not None:
                peer.hit_reset()

    # --- sockets ---------------------------------------------------------------------------

    def _process(self) -> Process:
        process = current_process.get(None)
        if process is None:
            raise os_error(errno.ENETDOWN)
        return process

    async def listen(
        self, factory: Any, host: Any = None, port: Any = None, *, start_serving: bool = True
    ) -> SimServer:
        """`create_server`: on the current process's host, whatever address of it is given.

        Raises OSError if the port is taken, or the address is not of this host.
        """
        process = self._process()
        if not process.alive:
            raise os_error(errno.ENETDOWN)
        names = [host] if host is None or isinstance(host, str) else list(host)
        own = process.host
        if any(name not in (*_ANY, own.ip) and not loopback(name) for name in names):
            raise os_error(errno.EADDRNOTAVAIL)
        port = port or own.free_port()
        if port in own.listeners:
            raise os_error(errno.EADDRINUSE)
        server = SimServer(process, factory, names[0] or _ANY[0], port)
        own.listeners[port] = server
        if start_serving:
            await server.start_serving()
        return server

    async def connect(self, factory: Any, host: Any, port: Any) -> tuple[SimTransport, Any]:
        """`create_connection`, to an address of a host. Raises OSError: refused after a round
        trip, ETIMEDOUT after `SYN_GIVE_UP` where nobody answers."""
        dial = Dial(self, self._process(), factory, str(host), int(port))
        return await dial.run()

    def accept(self, stream: Stream) -> None:
        """The dialling side's last packet of the handshake is here. Called by the stream."""
        client = stream.sender
        assert client is not None  # noqa: S101 - made with it
        server = stream.target.listeners.get(client.get_extra_info("peername")[1])
        if server is None or not server.is_serving():
            client.incoming.reset()
        else:
            server.accept(stream, client)
