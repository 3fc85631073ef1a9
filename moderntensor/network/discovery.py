"""Finding peers: dial towards a target, ask those who are there for more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from ..errors import HandshakeError, NetworkError
from .addressbook import KnownAddress
from .addresses import netgroup
from .dialer import Dialer
from .host import Host
from .limits import DIAL_CONCURRENCY
from .messages import DisconnectCode, GetPeersMessage, PeersMessage
from .peer import Peer
from .reputation import AVOIDED

__all__ = ["Discovery"]

logger = logging.getLogger(__name__)

_ASK_FOR = 50  # the protocol's default for GET_PEERS
_ENOUGH_ADDRESSES = 1000  # Bitcoin Core asks a new peer for addresses while it has fewer


class Discovery:
    """Keeps `target_outbound` peers dialled.

    Bootstrap addresses are dialled even where discovery is off, and again after they were lost.
    Peers are asked for addresses when they connect and one of them in every interval.
    """

    def __init__(self, host: Host, dialer: Dialer) -> None:
        """Dials through `dialer`."""
        self._host = host
        self._dialer = dialer
        self._wake = asyncio.Event()
        self._next_ask = 0.0

    def wake(self) -> None:
        """Something changed: a peer came or went, an address was learned."""
        self._wake.set()

    async def run(self) -> None:
        """Dial and ask until cancelled."""
        host = self._host
        while True:
            self._wake.clear()
            now = host.runtime.loop_time()
            self._dial(now)
            if host.config.discovery and now >= self._next_ask:
                self._next_ask = now + host.config.discovery_interval
                self._ask_someone()
            due = host.book.next_due(self._wanted())
            pause = self._next_ask - now if host.config.discovery else 3600.0
            if due is not None and self._missing() > 0:
                # Due ones that were not dialled wait for a free place or another netgroup.
                pause = min(pause, max(due - now, host.config.bootstrap_redial))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    def peer_connected(self, peer: Peer) -> None:
        """Called by the node: remember where it is, ask it for others."""
        host = self._host
        if not peer.outbound and peer.listen_port:
            host.book.met(peer.host_address, peer.listen_port, peer.node_id)
        if host.config.discovery and len(host.book) < _ENOUGH_ADDRESSES:
            host.tasks.start(self._ask(peer), f"asking {peer.address} for peers")
        self.wake()

    # --- dialling --------------------------------------------------------------------------

    def _missing(self) -> int:
        host = self._host
        room = host.config.max_peers - len(host.table)
        return min(host.config.target_outbound - host.table.outbound, room) - len(self._dialer)

    def _wanted(self) -> Callable[[KnownAddress], bool]:
        """Which addresses lead to nobody who is connected or being dialled."""
        host = self._host
        ids = host.table.by_id
        taken = {peer.address for peer in host.table}
        taken |= {peer.listen_address or "" for peer in host.table}

        def wanted(entry: KnownAddress) -> bool:
            return (
                (entry.bootstrap or host.config.discovery)
                and (entry.host, entry.port) not in self._dialer
                and (entry.node_id is None or entry.node_id not in ids)
                and entry.address not in taken
            )

        return wanted

    def _dial(self, now: float) -> None:
        host = self._host
        count = min(self._missing(), DIAL_CONCURRENCY - len(self._dialer))
        if count <= 0:
            return
        groups = [netgroup(peer.host_address) for peer in host.table if peer.outbound]
        for entry in host.book.due(now, count, wanted=self._wanted(), groups=groups):
            left = host.reputation.refused(entry.host, entry.port)
            if left:
                # Looked at again before that: a ban can be lifted.
                host.book.postpone(entry.host, entry.port, min(left, host.config.redial_interval))
            else:
                # Until the outcome is known, as if it had failed: one attempt per interval.
                host.book.postpone(entry.host, entry.port, host.config.connect_timeout)
                host.tasks.start(self._try(entry), f"dialling {entry.address}")

    async def _try(self, entry: KnownAddress) -> None:
        host = self._host
        try:
            peer = await self._dialer.connect(entry.host, entry.port, entry.expected_id)
        except NetworkError as error:
            logger.log(
                logging.INFO if entry.bootstrap else logging.DEBUG,
                "could not connect to %s: %s",
                entry.address,
                error,
            )
            host.book.failed(entry.host, entry.port)
            if isinstance(error, HandshakeError) and error.code == DisconnectCode.SELF:
                host.book.is_own(entry.host, entry.port)  # a name of ours
            elif isinstance(error, HandshakeError) and error.code in AVOIDED:
                host.book.postpone(entry.host, entry.port, host.config.refusal_time)
        else:
            host.book.succeeded(entry.host, entry.port, peer.node_id, peer.host_address)
        self.wake()

    # --- asking ----------------------------------------------------------------------------

    def _ask_someone(self) -> None:
        host = self._host
        if len(host.table) and len(host.book) < _ENOUGH_ADDRESSES:
            peer = host.runtime.random.choice(list(host.table))
            host.tasks.start(self._ask(peer), f"asking {peer.address} for peers")

    async def _ask(self, peer: Peer) -> None:
        try:
            reply = await peer.request(GetPeersMessage(max_peers=_ASK_FOR))
        except NetworkError as error:
            logger.debug("%s gave no addresses: %s", peer, error)
            return
        source = peer.host_address
        if self._host.book.learn_records(cast(PeersMessage, reply).peers, source):
            self.wake()
