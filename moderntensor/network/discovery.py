"""Finding peers: dial towards a target, ask those who are there for more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from ..errors import HandshakeError, NetworkError
from .addressbook import KnownAddress
from .addresses import netgroup
from .limits import DIAL_CONCURRENCY
from .messages import GetPeersMessage, PeersMessage
from .peer import Peer
from .refusals import PUNISHED, refusal_key

if TYPE_CHECKING:
    from .p2p import P2PNode

__all__ = ["Discovery"]

logger = logging.getLogger(__name__)

_ASK_FOR = 50  # the protocol's default for GET_PEERS
_ENOUGH_ADDRESSES = 1000  # Bitcoin Core asks a new peer for addresses while it has fewer


class Discovery:
    """Keeps `target_outbound` peers dialled.

    Bootstrap addresses are dialled even where discovery is off, and again after they were lost.
    Peers are asked for addresses when they connect and one of them in every interval.
    """

    def __init__(self, node: P2PNode) -> None:
        self._node = node
        self._wake = asyncio.Event()
        self._next_ask = 0.0

    def wake(self) -> None:
        """Something changed: a peer came or went, an address was learned."""
        self._wake.set()

    async def run(self) -> None:
        """Dial and ask until cancelled."""
        node = self._node
        while True:
            self._wake.clear()
            now = node.runtime.loop_time()
            self._dial(now)
            if node.config.discovery and now >= self._next_ask:
                self._next_ask = now + node.config.discovery_interval
                self._ask_someone()
            due = node.book.next_due(self._wanted())
            pause = self._next_ask - now if node.config.discovery else 3600.0
            if due is not None and self._missing() > 0:
                # Due ones that were not dialled wait for a free place or another netgroup.
                pause = min(pause, max(due - now, node.config.bootstrap_redial))
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    def peer_connected(self, peer: Peer) -> None:
        """Called by the node: remember where it is, ask it for others."""
        node = self._node
        if not peer.outbound and peer.listen_port:
            node.book.met(peer.host_address, peer.listen_port, peer.node_id)
        if node.config.discovery and len(node.book) < _ENOUGH_ADDRESSES:
            node.tasks.start(self._ask(peer), f"asking {peer.address} for peers")
        self.wake()

    # --- dialling --------------------------------------------------------------------------

    def _missing(self) -> int:
        node = self._node
        room = node.config.max_peers - len(node.table)
        return min(node.config.target_outbound - node.table.outbound, room) - len(node.dialer)

    def _wanted(self) -> Callable[[KnownAddress], bool]:
        """Which addresses lead to nobody who is connected or being dialled."""
        node = self._node
        ids = node.table.by_id
        taken = {peer.address for peer in node.table}
        taken |= {peer.listen_address or "" for peer in node.table}

        def wanted(entry: KnownAddress) -> bool:
            return (
                (entry.bootstrap or node.config.discovery)
                and (entry.host, entry.port) not in node.dialer
                and (entry.node_id is None or entry.node_id not in ids)
                and entry.address not in taken
            )

        return wanted

    def _dial(self, now: float) -> None:
        node = self._node
        count = min(self._missing(), DIAL_CONCURRENCY - len(node.dialer))
        if count <= 0:
            return
        groups = [netgroup(peer.host_address) for peer in node.table if peer.outbound]
        for entry in node.book.due(now, count, wanted=self._wanted(), groups=groups):
            left = node.gate.refusals.remaining(refusal_key(entry.host, entry.port), now)
            if left:
                node.book.postpone(entry.host, entry.port, left)
            else:
                # Until the outcome is known, as if it had failed: one attempt per interval.
                node.book.postpone(entry.host, entry.port, node.config.connect_timeout)
                node.tasks.start(self._try(entry), f"dialling {entry.address}")

    async def _try(self, entry: KnownAddress) -> None:
        node = self._node
        try:
            peer = await node.dialer.connect(entry.host, entry.port)
        except NetworkError as error:
            logger.log(
                logging.INFO if entry.bootstrap else logging.DEBUG,
                "could not connect to %s: %s",
                entry.address,
                error,
            )
            node.book.failed(entry.host, entry.port)
            if isinstance(error, HandshakeError) and error.code in PUNISHED:
                node.book.postpone(entry.host, entry.port, node.config.refusal_time)
        else:
            node.book.succeeded(entry.host, entry.port, peer.node_id, peer.host_address)
        self.wake()

    # --- asking ----------------------------------------------------------------------------

    def _ask_someone(self) -> None:
        node = self._node
        if len(node.table) and len(node.book) < _ENOUGH_ADDRESSES:
            peer = node.runtime.random.choice(list(node.table))
            node.tasks.start(self._ask(peer), f"asking {peer.address} for peers")

    async def _ask(self, peer: Peer) -> None:
        try:
            reply = await peer.request(GetPeersMessage(max_peers=_ASK_FOR))
        except NetworkError as error:
            logger.debug("%s gave no addresses: %s", peer, error)
            return
        source = peer.host_address
        if self._node.book.learn_records(cast(PeersMessage, reply).peers, source):
            self.wake()
