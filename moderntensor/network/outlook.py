"""Looking further than the peers that we have: who else is there, and do ours keep us behind?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from ..errors import HandshakeError, NetworkError
from .addressbook import KnownAddress
from .addresses import netgroup
from .dialer import Dialer
from .host import Host
from .messages import DisconnectCode
from .peer import Peer
from .purpose import Purpose

__all__ = ["Outlook", "TipWatch", "least_useful"]

logger = logging.getLogger(__name__)

# One address in so many seconds is dialled only to see who is there: Bitcoin Core's
# FEELER_INTERVAL.
FEELER_INTERVAL: Final = 120.0
_JITTER: Final = 0.25
# Without a new head for so many times the block time ours looks old: Bitcoin Core's TipMayBeStale.
# While a third of the validators are away, one in 27 times it is the network that is slow.
STALE_BLOCKS: Final = 3
# How often the head and the extra peer are looked at, and how long one has time to prove useful:
# Bitcoin Core's EXTRA_PEER_CHECK_INTERVAL and MINIMUM_CONNECT_TIME.
EXTRA_CHECK_INTERVAL: Final = 45.0
EXTRA_TIME: Final = 30.0

Wanted = Callable[[KnownAddress], bool]


class TipWatch:
    """Since when the head of a chain has been the same."""

    def __init__(self) -> None:
        self._head = b""
        self._since = 0.0

    def age(self, head: bytes, now: float) -> float:
        """For how many seconds of those that were looked at `head` has been the head."""
        if head != self._head:
            self._head, self._since = head, now
        return now - self._since


def least_useful(peers: Iterable[Peer], now: float, spared: int = 0) -> Peer | None:
    """Of outbound peers the one whose last new block is the longest ago, of several that brought
    none the one that came last; nobody who has just come or who owes us a reply.

    So many are `spared` that have been here longest, of those that ever brought one: who is always
    the first with news, and is found by one feeler after the other, must not get all places
    (Bitcoin Core's MAX_OUTBOUND_PEERS_TO_PROTECT_FROM_DISCONNECT)."""
    settled = [p for p in peers if p.outbound and now - p.connected_at >= EXTRA_TIME]
    proven = [p for p in settled if p.purpose is Purpose.FULL and p.last_block_at is not None]
    kept = sorted(proven, key=lambda p: p.connected_at)[:spared]
    return min(
        (p for p in settled if not p.owes_us and p not in kept),
        key=lambda p: (p.last_block_at or float("-inf"), -p.connected_at),
        default=None,
    )


class Outlook:
    """Sends out feelers once all outbound places are taken, so that the book knows who is really
    there before it needs them; dials one peer more while our head looks old. That one, or whom a
    feeler found with blocks that we know nothing of, stays if it is more useful than others."""

    def __init__(
        self, host: Host, dialer: Dialer, wanted: Callable[[], Wanted], wake: Callable[[], None]
    ) -> None:
        """`wanted` gives which addresses lead to nobody who is connected or being dialled;
        `wake` is called when a place has become free."""
        self._host = host
        self._dialer = dialer
        self._wanted = wanted
        self._wake = wake
        self._tip = TipWatch()
        self._anyone = False  # whose turn it is: of anybody, or of who was never reached

    # --- feelers ---------------------------------------------------------------------------

    async def run_feelers(self) -> None:
        """One after the other, until cancelled."""
        host = self._host
        while True:
            spread = 1.0 + _JITTER * (2.0 * host.runtime.random.random() - 1.0)
            await asyncio.sleep(FEELER_INTERVAL * spread)
            if host.table.outbound >= host.config.target_outbound:
                await self._feel()

    async def _feel(self) -> None:
        host, now = self._host, self._host.runtime.loop_time()
        # A network that was torn in two has its places filled in each part by the time it is
        # whole again: somebody of the other part, known of old, is found by chance alone.
        self._anyone = not self._anyone
        entry = None
        if self._anyone:
            entry = next(
                iter(host.book.due(now, 1, wanted=self._wanted(), groups=self._groups())), None
            )
        if entry is None:
            entry = host.book.next_feeler(now, wanted=self._wanted(), groups=self._groups())
        if entry is None:
            return
        left = host.reputation.refused(entry.host, entry.port)
        if left:
            host.book.postpone(entry.host, entry.port, left)
            return
        host.book.postpone(entry.host, entry.port, host.config.redial_interval)
        try:
            node_id = await self._dialer.feel(entry.host, entry.port)
        except NetworkError as error:
            logger.debug("a feeler found nobody at %s: %s", entry.address, error)
            if isinstance(error, HandshakeError) and error.code == DisconnectCode.SELF:
                host.book.is_own(entry.host, entry.port)
            else:
                host.book.failed(entry.host, entry.port)
        else:
            host.book.succeeded(entry.host, entry.port, node_id, entry.host)

    def _groups(self) -> list[str]:
        return [netgroup(peer.host_address) for peer in self._host.table if peer.outbound]

    # --- the head --------------------------------------------------------------------------

    async def watch_head(self) -> None:
        """Look at our head from time to time, until cancelled."""
        while True:
            await asyncio.sleep(EXTRA_CHECK_INTERVAL)
            now = self._host.runtime.loop_time()
            stale = self._stale(now)
            if self._host.table.extra:
                self._settle(now)
            elif stale:
                await self._dial_extra(now)

    def _stale(self, now: float) -> bool:
        chain = self._host.chain
        if chain is None:
            return False
        return self._tip.age(chain.head.hash, now) >= STALE_BLOCKS * chain.config.block_time

    async def _dial_extra(self, now: float) -> None:
        host = self._host
        if host.table.outbound < host.config.target_outbound:
            return  # one more is being looked for anyway
        found = host.book.due(now, 1, wanted=self._wanted(), groups=self._groups())
        for entry in found:
            if host.reputation.refused(entry.host, entry.port):
                continue
            logger.info("no new block for a while: asking another peer, %s", entry.address)
            host.book.postpone(entry.host, entry.port, host.config.connect_timeout)
            try:
                peer = await self._dialer.connect(
                    entry.host, entry.port, entry.expected_id, Purpose.EXTRA
                )
            except NetworkError as error:
                logger.debug("no extra peer at %s: %s", entry.address, error)
                host.book.failed(entry.host, entry.port)
            else:
                host.book.succeeded(entry.host, entry.port, peer.node_id, peer.host_address)

    def _settle(self, now: float) -> None:
        """The extra peer has had its time: it stays in the place of a less useful one, or goes."""
        extra = next(p for p in self._host.table if p.purpose is Purpose.EXTRA)
        if now - extra.connected_at < EXTRA_TIME:
            return
        table = self._host.table
        worst = least_useful(table, now, spared=table.outbound // 2)
        if worst is None:
            return
        extra.purpose = Purpose.FULL
        worst.disconnect(DisconnectCode.SHUTTING_DOWN, "one outbound peer more than needed")
        self._wake()
