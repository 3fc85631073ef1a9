"""Dialling: from a host and a port to a peer."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from ..awaiting import unharmed
from ..errors import ConnectError, HandshakeError, NetworkError
from .addresses import canonical, format_address
from .gate import Gate
from .handshake import Handshake
from .host import Host
from .messages import DisconnectCode
from .peer import Peer
from .purpose import Purpose
from .resolver import resolve

__all__ = ["Dialer"]


@dataclass(slots=True, eq=False)
class _Dial:
    """One attempt, for which all who want this address wait together."""

    wanted: tuple[bytes | None, Purpose]
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
        """Attempts under way to get a peer; feelers aside."""
        return len(self._dialling)

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._dialling

    @property
    def hosts(self) -> list[str]:
        """Whom we are dialling, by name or address."""
        return [host for host, _ in self._dialling]

    async def connect(
        self,
        host: str,
        port: int,
        node_id: bytes | None = None,
        purpose: Purpose = Purpose.FULL,
    ) -> Peer:
        """The peer at this address: the one that is connected, or a new one.

        Raises `ConnectError` if nobody is there, we are turned away, have banned it or the node
        stops, `HandshakeError` if what is there is no peer for us, or not the node of this id.
        """
        host, wanted = canonical(host) or host, (node_id, purpose)
        while (dial := self._dialling.get((host, port))) is not None and dial.wanted != wanted:
            await asyncio.wait([dial.task])  # that one is to reach somebody else
        if not self._host.running:  # by now
            raise ConnectError(f"{format_address(host, port)}: dialling was ended")
        if dial is None:
            dial = self._begin(host, port, node_id, purpose)
        dial.callers += 1
        try:
            return await unharmed(dial.outcome)
        finally:
            dial.callers -= 1
            if not dial.callers and not dial.outcome.done():
                dial.task.cancel()
                await asyncio.wait([dial.task])

    async def feel(self, ip: str, port: int, node_id: bytes | None = None) -> bytes:
        """The id of the node at this address, which is left again at once, unless it is on a
        chain that is news to us. Raises as `connect`."""
        handshake = self._gate.dial(node_id, Purpose.FEELER)
        try:
            await self._shake_hands(handshake, ip, port)
        except OSError as error:
            raise self._no_connection(ip, port, error) from error
        finally:
            _end(handshake)
        outcome = handshake.error
        if handshake.peer is not None:
            return handshake.peer.node_id
        if handshake.remote_id is not None and isinstance(outcome, HandshakeError):
            # Said by us, who came only to see, or are connected with that node.
            if outcome.code in (DisconnectCode.SHUTTING_DOWN, DisconnectCode.ALREADY_CONNECTED):
                return handshake.remote_id
            raise outcome
        raise ConnectError(f"{format_address(ip, port)}: {outcome}")

    def _begin(self, host: str, port: int, node_id: bytes | None, purpose: Purpose) -> _Dial:
        outcome: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        task = self._host.tasks.start(
            self._run(outcome, host, port, node_id, purpose),
            f"connecting {format_address(host, port)}",
        )
        dial = self._dialling[host, port] = _Dial((node_id, purpose), outcome, task)

        def over(_: asyncio.Task[None]) -> None:
            del self._dialling[host, port]
            if not outcome.done():  # cancelled, perhaps before it began
                _fail(outcome, ConnectError(f"{format_address(host, port)}: dialling was ended"))

        task.add_done_callback(over)
        return dial

    async def _run(
        self,
        outcome: asyncio.Future[Peer],
        host: str,
        port: int,
        node_id: bytes | None,
        purpose: Purpose,
    ) -> None:
        try:
            outcome.set_result(await self._connect(host, port, node_id, purpose))
        except Exception as error:  # it is for those who wait
            _fail(outcome, error)

    async def _connect(self, host: str, port: int, node_id: bytes | None, purpose: Purpose) -> Peer:
        """Of the addresses of a name the first where there is a peer for us."""
        ips = await resolve(self._host.runtime, host, port)
        self._host.book.resolved(host, port, ips)
        errors: list[NetworkError] = []
        for ip in ips:
            try:
                return await self._connect_ip(ip, port, node_id, purpose)
            except OSError as error:
                errors.append(self._no_connection(host, port, error))
            except NetworkError as error:
                errors.append(error)
        # The one that tells most: another of them may be a name of ours.
        raise max(
            errors,
            key=_telling,
            default=ConnectError(f"{format_address(host, port)}: no address found"),
        )

    async def _connect_ip(
        self, ip: str, port: int, node_id: bytes | None, purpose: Purpose
    ) -> Peer:
        address, node = format_address(ip, port), self._host
        known = node.table.find(address)
        if known is not None and not known.closed and node_id in (None, known.node_id):
            return known
        left = self._gate.banned(ip, port, node_id)
        if left:
            raise ConnectError(f"{address}: banned for another {left:.0f} s")
        handshake = self._gate.dial(node_id, purpose)
        try:
            await self._shake_hands(handshake, ip, port)
        finally:
            _end(handshake)
        error = handshake.error
        if error is None and handshake.peer is not None:
            return handshake.peer
        if isinstance(error, HandshakeError) and error.code != DisconnectCode.ALREADY_CONNECTED:
            raise error
        other = node.table.by_id.get(handshake.remote_id or b"")
        if other is not None and not other.closed:
            return other  # the two of us dialled each other, or another address of it
        if isinstance(error, HandshakeError):
            raise error
        if isinstance(error, NetworkError):
            wait = error.retry_after if isinstance(error, ConnectError) else 0
            raise ConnectError(f"{address}: {error}", retry_after=wait) from error
        raise ConnectError(f"{address}: no handshake")

    async def _shake_hands(self, handshake: Handshake, ip: str, port: int) -> None:
        """Until `handshake` has come to its end. Raises OSError if there is no connection."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._host.config.connect_timeout):
            await loop.create_connection(lambda: handshake.connection, ip, port)
        self._gate.dialled(handshake)
        await handshake.settled.wait()

    def _no_connection(self, host: str, port: int, error: OSError) -> ConnectError:
        why = _spell(error, self._host.config.connect_timeout)
        return ConnectError(f"{format_address(host, port)}: {why}")


def _end(handshake: Handshake) -> None:
    """Of an attempt that was cancelled or failed half-way nothing is left."""
    if handshake.peer is None and not handshake.connection.closing:
        handshake.give_up("dialling was given up")


def _telling(error: NetworkError) -> int:
    if not isinstance(error, HandshakeError):
        return 1
    return 0 if error.code == DisconnectCode.SELF else 2


def _fail(outcome: asyncio.Future[Peer], error: Exception) -> None:
    outcome.set_exception(error)
    outcome.exception()  # seen, even if by now nobody waits


def _spell(error: OSError, timeout: float) -> str:
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no connection within {timeout:g} s"
    # asyncio's own text names the address a second time and not the cause.
    return os.strerror(error.errno) if error.errno else str(error)
