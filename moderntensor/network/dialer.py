"""Dialling: from a host and a port to a peer."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass

from ..errors import ConnectError, HandshakeError, NetworkError
from ..runtime import Runtime
from .addresses import canonical, format_address
from .gate import Gate
from .handshake import Handshake
from .host import Host
from .messages import DisconnectCode
from .peer import Peer

__all__ = ["Dialer", "resolve"]


@dataclass(slots=True, eq=False)
class _Dial:
    """One attempt, for which all who want this address wait together."""

    node_id: bytes | None
    outcome: asyncio.Future[Peer]
    task: asyncio.Task[None]
    callers: int = 0


class Dialer:
    """Makes outgoing connections, one at a time to each address.

    An attempt is a task of the node: it ends when the node stops, or when nobody waits for it
    any more.
    """

    def __init__(self, host: Host, gate: Gate) -> None:
        self._host = host
        self._gate = gate
        self._dialling: dict[tuple[str, int], _Dial] = {}

    def __len__(self) -> int:
        return len(self._dialling)

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._dialling

    async def connect(self, host: str, port: int, node_id: bytes | None = None) -> Peer:
        """The peer at this address: the one that is connected, or a new one.

        Raises `ConnectError` if nobody is there, we are turned away or the node stops,
        `HandshakeError` if what is there is no peer for us.
        """
        while (dial := self._dialling.get((host, port))) is not None and dial.node_id != node_id:
            await asyncio.wait([dial.task])  # that one is to reach somebody else
        if dial is None:
            dial = self._begin(host, port, node_id)
        dial.callers += 1
        try:
            return await asyncio.shield(dial.outcome)
        finally:
            dial.callers -= 1
            if not dial.callers and not dial.outcome.done():
                dial.task.cancel()
                await asyncio.wait([dial.task])

    def _begin(self, host: str, port: int, node_id: bytes | None) -> _Dial:
        outcome: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        task = self._host.tasks.start(
            self._run(outcome, host, port, node_id), f"connecting {format_address(host, port)}"
        )
        dial = self._dialling[host, port] = _Dial(node_id, outcome, task)

        def over(_: asyncio.Task[None]) -> None:
            del self._dialling[host, port]
            if not outcome.done():  # cancelled, perhaps before it began
                _fail(outcome, ConnectError(f"{format_address(host, port)}: dialling was ended"))

        task.add_done_callback(over)
        return dial

    async def _run(
        self, outcome: asyncio.Future[Peer], host: str, port: int, node_id: bytes | None
    ) -> None:
        try:
            outcome.set_result(await self._connect(host, port, node_id))
        except Exception as error:  # it is for those who wait
            _fail(outcome, error)

    async def _connect(self, host: str, port: int, node_id: bytes | None) -> Peer:
        table, problem = self._host.table, "no address found"
        for ip in await resolve(self._host.runtime, host, port):
            known = table.find(format_address(ip, port))
            if known is not None and not known.closed and node_id in (None, known.node_id):
                return known
            handshake = self._gate.dial(node_id)
            try:
                return await self._shake_hands(handshake, ip, port)
            except OSError as error:
                problem = _spell(error, self._host.config.connect_timeout)
            finally:
                if handshake.peer is None and not handshake.connection.closing:
                    handshake.give_up("dialling was given up")
        raise ConnectError(f"{format_address(host, port)}: {problem}")

    async def _shake_hands(self, handshake: Handshake, ip: str, port: int) -> Peer:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._host.config.connect_timeout):
            await loop.create_connection(lambda: handshake.connection, ip, port)
        self._gate.dialled(handshake)
        await handshake.settled.wait()
        error = handshake.error
        if error is None and handshake.peer is not None:
            return handshake.peer
        if isinstance(error, HandshakeError) and error.code != DisconnectCode.ALREADY_CONNECTED:
            raise error
        other = self._host.table.by_id.get(handshake.remote_id or b"")
        if other is not None and not other.closed:
            return other  # the two of us dialled each other, or another address of it
        if isinstance(error, HandshakeError):
            raise error
        address = format_address(ip, port)
        if isinstance(error, NetworkError):
            raise ConnectError(f"{address}: {error}") from error
        raise ConnectError(f"{address}: no handshake")


async def resolve(runtime: Runtime, host: str, port: int) -> list[str]:
    """The IP addresses of `host`, itself if it is one. Raises `ConnectError`."""
    ip = canonical(host)
    if ip is not None:
        return [ip]
    try:
        # On a thread that the node owns: the loop's own would outlive the node.
        found = await runtime.run(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectError(f"{format_address(host, port)}: {error.strerror or error}") from error
    except UnicodeError as error:  # a label that is empty or too long
        raise ConnectError(f"{format_address(host, port)}: not a host name") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _fail(outcome: asyncio.Future[Peer], error: Exception) -> None:
    outcome.set_exception(error)
    outcome.exception()  # seen, even if by now nobody waits


def _spell(error: OSError, timeout: float) -> str:
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no connection within {timeout:g} s"
    # asyncio's own text names the address a second time and not the cause.
    return os.strerror(error.errno) if error.errno else str(error)
