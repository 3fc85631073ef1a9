"""Finding peers: dial towards a target, ask those who are there for more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from ..errors import ConnectError, HandshakeError, NetworkError
from .addressbook import KnownAddress
from .addresses import format_address, netgroup
from .anchors import Anchor, Anchors
from .dialer import Dialer
from .host import Host
from .limits import DIAL_CONCURRENCY, RETRY_AFTER_MAX
from .messages import DisconnectCode, GetPeersMessage, MessageType, PeersMessage
from .peer import Peer
from .rates import RATES, TokenBucket
from .reputation import AVOIDED

__all__ = ["Discovery"]

logger = logging.getLogger(__name__)

_ASK_FOR = 50  # the protocol's default for GET_PEERS
_ENOUGH_ADDRESSES = 1000  # Bitcoin Core asks a new peer for addresses while it has fewer
# Of the addresses of the book: Bitcoin Core dials one in 500 ms. Where dials fail at once, as while
# our own line is down, nothing else would keep us from going through the whole book.
_DIALS_PER_SECOND = 2.0
_DIALS_BURST = 2.0 * DIAL_CONCURRENCY


class Discovery:
    """Keeps `target_outbound` peers dialled.

    Bootstrap addresses are dialled even where discovery is off, and again after they were lost.
    The anchors of the last run come first, each once. Peers are asked for addresses when they
    connect and one of them in every interval.
    """

    def __init__(self, host: Host, dialer: Dialer, anchors: Anchors) -> None:
        """Dials through `dialer`."""
        self._host = host
        self._dialer = dialer
        self._anchors = anchors
        self._wake = asyncio.Event()
        self._next_ask = 0.0
        self._asking: TokenBucket | None = None
        self._pace: TokenBucket | None = None
        self._returning = 0  # places kept for anchors that will have us in a moment

    def wake(self) -> None:
        """Something changed: a peer came or went, an address was learned."""
        self._wake.set()

    async def run(self) -> None:
        """Dial and ask until cancelled."""
        host = self._host
        self._dial_anchors()
        while True:
            self._wake.clear()
            now = host.runtime.loop_time()
            self._dial(now)
            if host.config.discovery and now >= self._next_ask:
                self._next_ask = now + host.config.discovery_interval
                self._ask_someone()
            pause = self._next_ask - now if host.config.discovery else 3600.0
            due = host.book.next_due(self.wanted()) if self._missing() > 0 else None
            if due is not None:
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
        if host.config.discovery:
            self._start_asking(peer)
        self.wake()

    # --- dialling --------------------------------------------------------------------------

    def _missing(self) -> int:
        host = self._host
        room = host.config.max_peers - len(host.table)
        return min(host.config.target_outbound - host.table.outbound, room) - len(self._dialer)

    def wanted(self) -> Callable[[KnownAddress], bool]:
        """Which addresses lead to nobody who is connected or being dialled."""
        host = self._host
        ids = host.table.by_id
        taken = {peer.address for peer in host.table}
        taken |= {peer.listen_address or "" for peer in host.table}

        def wanted(entry: KnownAddress) -> bool:
            return (
                (entry.bootstrap or host.config.discovery)
                and (entry.host, entry.port) not in self._dialer
                and (entry.expected_id or entry.node_id) not in ids
                and entry.address not in taken
            )

        return wanted

    def _dial_anchors(self) -> None:
        host = self._host
        for anchor in list(self._anchors)[: max(self._missing(), 0)]:
            if not host.reputation.refused(anchor.host, anchor.port, anchor.node_id):
                address = format_address(anchor.host, anchor.port)
                host.book.postpone(anchor.host, anchor.port, host.config.connect_timeout)
                host.tasks.start(self._return_to(anchor), f"returning to {address}")

    async def _return_to(self, anchor: Anchor) -> None:
        """Who is there and turns us away has heard from us too lately, before we were restarted:
        its place is kept until it will listen, or those who are at hand would have them all."""
        try:
            await self._reach(anchor.host, anchor.port, anchor.node_id)
        except NetworkError as error:
            logger.info("could not return to a peer of the last run: %s", error)
            if not (isinstance(error, ConnectError) and isinstance(error.__cause__, NetworkError)):
                return
        else:
            return
        self._returning += 1
        try:
            await asyncio.sleep(self._host.config.redial_interval)
        finally:
            self._returning -= 1
        try:
            await self._reach(anchor.host, anchor.port, anchor.node_id)
        except NetworkError as error:
            logger.info("could not return to a peer of the last run, again: %s", error)

    def _dial(self, now: float) -> None:
        host = self._host
        count = min(self._missing() - self._returning, DIAL_CONCURRENCY - len(self._dialer))
        if count <= 0:
            return
        groups = [netgroup(peer.host_address) for peer in host.table if peer.outbound]
        groups += map(netgroup, self._dialer.hosts)
        for entry in host.book.due(now, count, wanted=self.wanted(), groups=groups):
            left = host.reputation.refused(entry.host, entry.port)
            if left:
                # Looked at again before that: a ban can be lifted.
                host.book.postpone(entry.host, entry.port, min(left, host.config.redial_interval))
            elif entry.bootstrap or self._in_pace(now):
                # Until the outcome is known, as if it had failed: one attempt per interval.
                host.book.postpone(entry.host, entry.port, host.config.connect_timeout)
                host.tasks.start(self._try(entry), f"dialling {entry.address}")

    def _in_pace(self, now: float) -> bool:
        """Whether one more of the book may be dialled; bootstrap addresses, which are few, have
        their own delays."""
        if self._pace is None:
            self._pace = TokenBucket(_DIALS_PER_SECOND, _DIALS_BURST, now)
        return self._pace.take(now)

    async def _try(self, entry: KnownAddress) -> None:
        try:
            await self._reach(entry.host, entry.port, entry.expected_id)
        except NetworkError as error:
            level = logging.INFO if entry.bootstrap else logging.DEBUG
            if isinstance(error, HandshakeError) and error.code == DisconnectCode.IDENTITY:
                level = logging.WARNING if entry.bootstrap else level
            logger.log(level, "could not connect to %s: %s", entry.address, error)

    async def _reach(self, ip_or_name: str, port: int, node_id: bytes | None) -> None:
        """Dial, and let the book know what came of it. Raises `NetworkError`."""
        host = self._host
        try:
            peer = await self._dialer.connect(ip_or_name, port, node_id)
        except NetworkError as error:
            host.book.failed(ip_or_name, port)
            if isinstance(error, HandshakeError) and error.code == DisconnectCode.SELF:
                host.book.is_own(ip_or_name, port)  # a name of ours
            elif isinstance(error, HandshakeError) and error.code in AVOIDED:
                host.book.postpone(ip_or_name, port, host.config.refusal_time)
            elif isinstance(error, ConnectError):
                host.book.postpone(ip_or_name, port, min(error.retry_after, RETRY_AFTER_MAX))
            raise
        else:
            host.book.succeeded(ip_or_name, port, peer.node_id, peer.host_address)
        finally:
            self.wake()

    # --- asking ----------------------------------------------------------------------------

    def _ask_someone(self) -> None:
        host = self._host
        if len(host.table):
            self._start_asking(host.runtime.random.choice(list(host.table)))

    def _start_asking(self, peer: Peer) -> None:
        """Unless we have asked more often than even a single peer admits, or know enough; whom we
        dialled is asked even so, or one who told us many of his own would keep others from it."""
        host, now = self._host, self._host.runtime.loop_time()
        if self._asking is None:
            admitted = RATES[MessageType.GET_PEERS]
            self._asking = TokenBucket(admitted.messages / 2, admitted.burst / 2, now)
        enough = len(host.book) >= _ENOUGH_ADDRESSES and not peer.outbound
        if not enough and self._asking.take(now):
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
