"""Dialling: from a host and a port to a peer."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from ..errors import ConnectError, HandshakeError, NetworkError
from .addresses import canonical, format_address
from .handshake import Handshake
from .peer import Peer

if TYPE_CHECKING:
    from .p2p import P2PNode

__all__ = ["Dialer", "resolve"]


class Dialer:
    """Makes outgoing connections, one at a time to each address."""

    def __init__(self, node: P2PNode) -> None:
        self._node = node
        self._dialling: dict[tuple[str, int], asyncio.Future[Peer | None]] = {}

    def __len__(self) -> int:
        return len(self._dialling)

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._dialling

    async def connect(self, host: str, port: int, node_id: bytes | None = None) -> Peer:
        """The peer at this address: the one that is connected, or a new one.

        Raises `ConnectError` if nobody is there or we are turned away, `HandshakeError` if what
        is there is no peer for us.
        """
        key = (host, port)
        under_way = self._dialling.get(key)
        if under_way is not None:
            peer = await asyncio.shield(under_way)
            if peer is None:
                raise ConnectError(f"{format_address(host, port)}: could not be connected")
            return peer
        outcome: asyncio.Future[Peer | None] = asyncio.get_running_loop().create_future()
        self._dialling[key] = outcome
        peer = None
        try:
            peer = await self._connect(host, port, node_id)
        finally:
            del self._dialling[key]
            outcome.set_result(peer)
        return peer

    async def _connect(self, host: str, port: int, node_id: bytes | None) -> Peer:
        node = self._node
        problem = "no address found"
        for ip in await resolve(node, host, port):
            address = format_address(ip, port)
            known = node.table.find(address)
            if known is not None and not known.closed:
                return known
            handshake = node.gate.dial(node_id)
            try:
                return await self._shake_hands(handshake, ip, port)
            except OSError as error:
                problem = _spell(error, node.config.connect_timeout)
            finally:
                if handshake.peer is None and not handshake.connection.closing:
                    handshake.give_up("dialling was given up")
        raise ConnectError(f"{format_address(host, port)}: {problem}")

    async def _shake_hands(self, handshake: Handshake, ip: str, port: int) -> Peer:
        node = self._node
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(node.config.connect_timeout):
            await loop.create_connection(lambda: handshake.connection, ip, port)
        node.gate.dialled(handshake)
        await handshake.settled.wait()
        if handshake.error is None and handshake.peer is not None:
            return handshake.peer
        other = node.table.by_id.get(handshake.remote_id or b"")
        if other is not None and not other.closed:
            return other  # the two of us dialled each other, or another address of it
        address = format_address(ip, port)
        if isinstance(handshake.error, HandshakeError):
            raise handshake.error
        if isinstance(handshake.error, NetworkError):
            raise ConnectError(f"{address}: {handshake.error}") from handshake.error
        raise ConnectError(f"{address}: no handshake")


async def resolve(node: P2PNode, host: str, port: int) -> list[str]:
    """The IP addresses of `host`, itself if it is one. Raises `ConnectError`."""
    ip = canonical(host)
    if ip is not None:
        return [ip]
    try:
        # On a thread that the node owns: the loop's own would outlive the node.
        found = await node.runtime.run(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectError(f"{format_address(host, port)}: {error.strerror or error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _spell(error: OSError, timeout: float) -> str:
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no connection within {timeout:g} s"
    # asyncio's own text names the address a second time and not the cause.
    return os.strerror(error.errno) if error.errno else str(error)
