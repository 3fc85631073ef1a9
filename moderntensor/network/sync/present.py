"""The peers that are there: who comes, who rests, and who has to go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from ...config import NodeConfig
from ...runtime import Runtime
from ..limits import SILENT_BYTES
from ..offences import Offence
from ..p2p import P2PNode
from ..peer import Peer
from .source import Kind, Misbehaviour, Source

log = logging.getLogger(__name__)

MAX_REST_SECONDS: Final = 10.0  # a peer cannot ask for a longer one
MAX_DISMISSED: Final = 64  # claims remembered as dismissed, per peer
MAX_BROKEN_CLAIMS: Final = 3  # claims not kept until a peer is useless,
MOVED_CLAIM: Final = 0.25  # as much of one counts where the claim has changed meanwhile,
BROKEN_CLAIM_PAUSES: Final = 12  # if no more than so many dismissals' time lay between them
PASSED_PAUSES: Final = 6  # dismissals' time until one that was too slow a leader is tried again
BUSY_REQUESTS: Final = 4  # requests' time of nothing but "busy" until a peer serves nothing
SILENT_REQUESTS: Final = 2  # requests' time without an answer until a peer serves nothing
POLL_SECONDS: Final = 1.0  # claims move with announcements and PONGs, which nobody reports


class PresentSources:
    """All connected peers, and the verdicts on them.

    Lives on the event loop. `attach()` begins to listen to the node, `detach()` ends it.
    """

    def __init__(self, node: P2PNode, runtime: Runtime, config: NodeConfig) -> None:
        self._node = node
        self._runtime = runtime
        self._sources: dict[Peer, Source] = {}
        self._watchers: dict[asyncio.Event, None] = {}  # told in the order in which they came
        self._request_timeout = config.request_timeout
        self._dismissal = config.follow_interval  # when claims are looked at again

    def now(self) -> float:
        """Loop time."""
        return self._runtime.loop_time()

    # --- who is there ---------------------------------------------------------------------

    def attach(self) -> None:
        """Know all present peers, and those that come and go from now on."""
        self._node.on_peer_connected.append(self._connected)
        self._node.on_peer_disconnected.append(self._disconnected)
        for peer in self._node.peers.values():
            self._connected(peer)

    def detach(self) -> None:
        """Forget everyone."""
        self._node.on_peer_connected.remove(self._connected)
        self._node.on_peer_disconnected.remove(self._disconnected)
        for peer in self._sources:
            peer.on_told = None
        self._sources.clear()

    def _connected(self, peer: Peer) -> None:
        if peer not in self._sources:
            self._sources[peer] = Source(peer)
            peer.on_told = self.notify
            self.notify()

    def _disconnected(self, peer: Peer) -> None:
        self._sources.pop(peer, None)
        self.notify()

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[Source]:
        return iter(tuple(self._sources.values()))

    def __contains__(self, source: Source) -> bool:
        return source.peer in self._sources

    def of(self, peer: Peer) -> Source | None:
        """The source that a peer is, if it is connected."""
        return self._sources.get(peer)

    def watch(self, event: asyncio.Event) -> None:
        """Set `event` whenever peers, their claims or their rests change, until `unwatch`."""
        self._watchers[event] = None

    def unwatch(self, event: asyncio.Event) -> None:
        """End `watch`."""
        self._watchers.pop(event, None)

    def notify(self) -> None:
        """Something changed for those who look for a peer."""
        for event in self._watchers:
            event.set()

    def next_rested(self) -> float | None:
        """Loop time at which the next resting peer or dismissed claim may be tried again."""
        now = self.now()
        times = [
            time
            for source in self._sources.values()
            for time in (
                source.rests_until,
                source.hopeless_until,
                source.dismissed.get(source.peer.best_hash, 0.0),
            )
            if time > now
        ]
        return min(times, default=None)

    async def changed(self, ready: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until `ready()`, looking whenever something changed; False after `seconds`."""
        deadline = None if seconds is None else self.now() + seconds
        event = asyncio.Event()
        self.watch(event)
        try:
            while not ready():
                now = self.now()
                if deadline is not None and now >= deadline:
                    return False
                event.clear()
                times = [now + POLL_SECONDS, self.next_rested(), deadline]
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(t for t in times if t is not None)):
                        await event.wait()
        finally:
            self.unwatch(event)
        return True

    # --- resting and parting ------------------------------------------------------------------

    def rest(self, source: Source, seconds: float) -> None:
        """Ask this peer nothing for a while; others are looked for at once."""
        source.rests_until = self.now() + min(seconds, MAX_REST_SECONDS)
        self.notify()

    def passed_over(self, source: Source) -> None:
        """Another answered a locator before this one, which is followed after others for a while:
        no reproach."""
        source.passed_until = self.now() + PASSED_PAUSES * self._dismissal

    def dismiss(self, source: Source, *, hopeless: bool = False) -> None:
        """Do not follow what this peer claims now for a while; if `hopeless`, neither follow nor
        wait for anything that it claims, lest it bind us by ever new claims."""
        if len(source.dismissed) >= MAX_DISMISSED:
            del source.dismissed[next(iter(source.dismissed))]
        source.dismissed[source.peer.best_hash] = self.now() + self._dismissal
        if hopeless:
            source.hopeless_until = self.now() + self._dismissal

    def overdue(self, source: Source, kind: Kind, since: float, read_before: int) -> None:
        """A peer left a request of loop time `since` unanswered, when `read_before` bytes had come
        from it. It is dropped if it gave nothing of the kind since its first such request while
        others did: then our line is not slow. If bytes came all the same, they may be the reply,
        and it gets more time."""
        for capacity in source.capacity:
            capacity.failed()
        if source.delivered_at[kind] >= since or source not in self:
            return
        if source.bytes_received - read_before >= SILENT_BYTES:
            slow = source.slow_since[kind]
            if slow is None:
                slow = source.slow_since[kind] = since
            if self.now() - slow < SILENT_REQUESTS * self._request_timeout:
                return
            since = slow
        silent = source.silent_since[kind]
        if silent is None:
            silent = source.silent_since[kind] = since
        if any(other.delivered_at[kind] > silent for other in self):
            self.part(
                source,
                Offence.SERVES_NOTHING,
                f"served no {kind.name.lower()} in time while others did",
            )
        elif self.now() - silent >= SILENT_REQUESTS * self._request_timeout:
            self.part(source, Offence.SERVES_NOTHING, f"serves no {kind.name.lower()}")

    def was_busy(self, source: Source, kind: Kind) -> None:
        """A peer that says "busy" and nothing else holds up the sync as well as a silent one, and
        seems alive: it gets more time, but not for ever."""
        now = self.now()
        since = source.busy_since[kind]
        if since is None:
            source.busy_since[kind] = now
        elif now - since >= BUSY_REQUESTS * self._request_timeout:
            self.part(source, Offence.SERVES_NOTHING, "is busy all the time")

    def part_from_silent(self) -> None:
        """All is done: those who were asked and gave nothing, while others did, are of no use."""
        for source in self:
            if any(
                silent is not None and any(other.delivered_at[kind] > silent for other in self)
                for kind, silent in enumerate(source.silent_since)
            ):
                self.part(source, Offence.SERVES_NOTHING, "served nothing while others did")

    def broke_claim(self, source: Source, claimed: bytes | None = None) -> None:
        """A peer does not have what it claims; `claimed`: the head that it was asked about, if it
        was one. A head that changes may show twice, in headers and in bodies, so that a peer is of
        no use who does it a third time, or a dozenth where it has said meanwhile that its head is
        another; that is no offence of one that says that it keeps no bodies so old."""
        self.dismiss(source)
        now = self.now()
        if now - source.broken_at > BROKEN_CLAIM_PAUSES * self._dismissal:
            source.broken_claims = 0.0
        source.broken_at = now
        moved = claimed is not None and source.peer.best_hash != claimed
        source.broken_claims += MOVED_CLAIM if moved else 1
        if source.broken_claims >= MAX_BROKEN_CLAIMS:
            offence = Offence.USELESS if source.pruned else Offence.SHOWS_LESS
            self.part(source, offence, f"does not have block {source.peer.best_height}, its claim")

    def convict(self, source: Source, fault: Misbehaviour) -> None:
        """Part from a peer that served something false."""
        self.part(source, fault.offence, fault.reason)

    def part(self, source: Source, offence: Offence, detail: str) -> None:
        """Punish a peer by disconnecting it; what it owed fails at once and goes elsewhere. One
        that has left meanwhile is punished all the same, unless that costs it nothing."""
        if source in self or offence.points:
            self.part_from(source.peer, offence, detail)

    def part_from(self, peer: Peer, offence: Offence, detail: str) -> None:
        """As `part`, be the peer a source or not."""
        if offence is Offence.FORKS_TOO_DEEP:
            log.error("peer %s is on a chain that we cannot follow: %s", peer.address, detail)
        self._disconnected(peer)
        peer.punish(offence, detail)
