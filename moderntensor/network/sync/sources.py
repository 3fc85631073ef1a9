"""The peers that a sync draws on: what each claims, delivers and owes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from enum import IntEnum
from typing import Final, NamedTuple, TypeVar

from ...config import NodeConfig
from ...errors import NetworkError, PeerBusyError, RequestTimeoutError
from ...runtime import Runtime
from ..messages import DisconnectCode, Reply, Request, Status
from ..p2p import P2PNode
from ..peer import Peer
from .pace import Capacity, Patience
from .status import Meter

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Reply)

REST_SECONDS: Final = 0.25  # after "busy" without a time of its own
MAX_REST_SECONDS: Final = 10.0  # a peer cannot ask for a longer one
MAX_DISMISSED: Final = 64  # claims remembered as dismissed, per peer
MAX_BROKEN_CLAIMS: Final = 3  # claims not kept until a peer is useless,
BROKEN_CLAIM_PAUSES: Final = 12  # if no more than so many dismissals' time lay between them
SILENT_REQUESTS: Final = 2  # requests' time without an answer until a peer serves nothing
POLL_SECONDS: Final = 1.0  # claims move with announcements and PONGs, which nobody reports


class Kind(IntEnum):
    """What is asked for; each has its own limits and rates."""

    HEADERS = 0
    BODIES = 1


class Refused(Exception):  # noqa: N818  (an outcome, no error)
    """The peer does not have what was asked for (NOT_FOUND, PRUNED); no blame."""


class Unanswered(Exception):  # noqa: N818  (an outcome, no error)
    """No answer this time: busy, timed out or gone; the pool has taken note."""


class Misbehaviour(Exception):  # noqa: N818  (an outcome, no error)
    """The peer served something false. `code` is the DISCONNECT code."""

    def __init__(self, code: DisconnectCode, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(code, reason)


class Claim(NamedTuple):
    """The head that a peer says it has."""

    height: int
    hash: bytes
    source: Source


class Source:
    """One peer as the sync sees it."""

    __slots__ = (
        "broken_at",
        "broken_claims",
        "capacity",
        "delivered_at",
        "dismissed",
        "hopeless",
        "in_flight",
        "peer",
        "rests_until",
        "silent_since",
    )

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.capacity = (Capacity(), Capacity())  # by Kind
        self.in_flight = [0, 0]  # by Kind
        self.rests_until = 0.0  # loop time
        self.delivered_at = float("-inf")  # loop time of its last useful item
        self.silent_since: float | None = None  # loop time of the first request left unanswered
        self.dismissed: dict[bytes, float] = {}  # claimed hash → loop time until it may be followed
        self.hopeless: bytes | None = None  # a claimed hash that cannot be reached now
        self.broken_claims = 0
        self.broken_at = 0.0  # loop time of the last of them

    def __repr__(self) -> str:
        return f"<{self.peer.address}>"


class SourcePool:
    """All connected peers, chosen from by what they claim and how they deliver.

    Lives on the event loop. `attach()` begins to listen to the node, `detach()` ends it.
    """

    def __init__(self, node: P2PNode, runtime: Runtime, config: NodeConfig, meter: Meter) -> None:
        self._node = node
        self._runtime = runtime
        self._meter = meter
        self._sources: dict[Peer, Source] = {}
        self._watchers: set[asyncio.Event] = set()
        self._most = (config.headers_per_request, config.blocks_per_request)
        self._most_peers = config.sync_peers
        self._per_peer = config.sync_requests_per_peer
        self._request_timeout = config.request_timeout
        self._dismissal = config.follow_interval  # when claims are looked at again
        self.patience = Patience(config.stall_timeout, config.stall_timeout_max)

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
        self._sources.clear()

    def _connected(self, peer: Peer) -> None:
        if peer not in self._sources:
            self._sources[peer] = Source(peer)
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
        self._watchers.add(event)

    def unwatch(self, event: asyncio.Event) -> None:
        """End `watch`."""
        self._watchers.discard(event)

    def notify(self) -> None:
        """Something changed for those who look for a peer."""
        for event in self._watchers:
            event.set()

    # --- choosing -------------------------------------------------------------------------

    def best_claim(self, above: int) -> Claim | None:
        """The highest head above `above` that a peer claims and that may be followed now."""
        now = self.now()
        best: Claim | None = None
        best_rank: tuple[int, float, float] | None = None
        for source in self._sources.values():
            if source.peer.best_height <= above or source.rests_until > now:
                continue
            if _is_dismissed(source, now):
                continue
            # Among equals, who delivered last; among those, any.
            rank = (source.peer.best_height, source.delivered_at, self._runtime.random.random())
            if best_rank is None or rank > best_rank:
                best_rank = rank
                best = Claim(source.peer.best_height, source.peer.best_hash, source)
        return best

    def highest_claim(self) -> int:
        """The greatest height that any peer claims and that may be reached, now or a little
        later: it may rest, or be tried again after a while."""
        return max(
            (
                source.peer.best_height
                for source in self._sources.values()
                if source.peer.best_hash != source.hopeless or not _is_dismissed(source, self.now())
            ),
            default=0,
        )

    def pick(self, kind: Kind, height: int, refused: Collection[Source]) -> Source | None:
        """A peer with room for one more request, if possible one that claims to have `height`;
        None if there is none."""
        now = self.now()
        working = sum(1 for source in self._sources.values() if any(source.in_flight))
        best: Source | None = None
        best_rank: tuple[bool, float, float] | None = None
        for source in self._sources.values():
            if (
                source in refused
                or source.rests_until > now
                or source.in_flight[kind] >= self._per_peer
                or (working >= self._most_peers and not any(source.in_flight))
            ):
                continue
            rate = source.capacity[kind].rate
            rank = (
                source.peer.best_height >= height,
                # A peer of unknown speed is tried before a known one is loaded twice.
                (1e9 if rate is None else rate) / (1 + source.in_flight[kind]),
                self._runtime.random.random(),
            )
            if best_rank is None or rank > best_rank:
                best, best_rank = source, rank
        return best

    def next_rested(self) -> float | None:
        """Loop time at which the next resting peer or dismissed claim may be tried again."""
        now = self.now()
        times = [
            time
            for source in self._sources.values()
            for time in (source.rests_until, source.dismissed.get(source.peer.best_hash, 0.0))
            if time > now
        ]
        return min(times, default=None)

    def size(self, source: Source, kind: Kind) -> int:
        """How many items to ask this peer for at once."""
        return source.capacity[kind].size(self._most[kind])

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

    # --- asking ---------------------------------------------------------------------------

    async def ask(
        self, source: Source, request: Request, reply_type: type[R], seconds: float | None = None
    ) -> R:
        """One request to one peer. Returns only OK and PARTIAL replies; raises Refused where the
        peer does not have it, Unanswered where it did not answer."""
        began = self.now()
        try:
            reply = await source.peer.request(request, seconds)
        except RequestTimeoutError:
            self.overdue(source, began)
            self.rest(source, self.patience.seconds)
            self.patience.ran_out()
            raise Unanswered from None
        except PeerBusyError:
            self.rest(source, REST_SECONDS)
            raise Unanswered from None
        except NetworkError:
            self._disconnected(source.peer)
            raise Unanswered from None
        if not isinstance(reply, reply_type):
            raise Misbehaviour(DisconnectCode.PROTOCOL_ERROR, "a reply of another type")
        if reply.status == Status.BUSY:
            source.silent_since = None
            self.rest(source, reply.retry_ms / 1000 or REST_SECONDS)
            raise Unanswered
        if reply.status not in (Status.OK, Status.PARTIAL):
            source.silent_since = None
            raise Refused
        return reply

    def delivered(self, source: Source, kind: Kind, items: int, size: int, seconds: float) -> None:
        """A peer served `items` of `size` bytes in all."""
        source.delivered_at = self.now()
        source.silent_since = None
        source.capacity[kind].delivered(items, seconds)
        self._meter.received(size)

    def progressed(self) -> None:
        """What peers sent was found good and wanted."""
        self._meter.touch()

    def rest(self, source: Source, seconds: float) -> None:
        """Ask this peer nothing for a while; others are looked for at once."""
        source.rests_until = self.now() + min(seconds, MAX_REST_SECONDS)
        self.notify()

    def dismiss(self, source: Source, *, hopeless: bool = False) -> None:
        """Do not follow what this peer claims now for a while; if `hopeless`, do not wait for it
        either."""
        if len(source.dismissed) >= MAX_DISMISSED:
            del source.dismissed[next(iter(source.dismissed))]
        source.dismissed[source.peer.best_hash] = self.now() + self._dismissal
        if hopeless:
            source.hopeless = source.peer.best_hash

    # --- parting --------------------------------------------------------------------------

    def overdue(self, source: Source, since: float) -> None:
        """A peer left a request of loop time `since` unanswered. It is dropped if it gave nothing
        since its first such request while others did: then it is not our line that is slow."""
        for capacity in source.capacity:
            capacity.failed()
        if source.delivered_at >= since or source not in self:
            return
        if source.silent_since is None:
            source.silent_since = since
        silent = source.silent_since
        if any(other.delivered_at > silent for other in self._sources.values()):
            self.part(source, DisconnectCode.TIMEOUT, "served nothing in time while others did")
        elif self.now() - silent >= SILENT_REQUESTS * self._request_timeout:
            self.part(source, DisconnectCode.TIMEOUT, "serves nothing")

    def part_from_silent(self) -> None:
        """All is done: those who were asked and gave nothing, while others did, are of no use."""
        for source in self:
            silent = source.silent_since
            if silent is not None and any(other.delivered_at > silent for other in self):
                self.part(source, DisconnectCode.TIMEOUT, "served nothing while others did")

    def broke_claim(self, source: Source) -> None:
        """A peer does not have what it claims. Heads change, so once is no proof; a peer that does
        it again and again is of no use."""
        self.dismiss(source)
        now = self.now()
        if now - source.broken_at > BROKEN_CLAIM_PAUSES * self._dismissal:
            source.broken_claims = 0
        source.broken_at = now
        source.broken_claims += 1
        if source.broken_claims >= MAX_BROKEN_CLAIMS:
            self.part(source, DisconnectCode.USELESS, "does not have what it claims")

    def convict(self, source: Source, fault: Misbehaviour) -> None:
        """Part from a peer that served something false."""
        self.part(source, fault.code, fault.reason)

    def part(self, source: Source, code: DisconnectCode, reason: str) -> None:
        """Disconnect a peer; what it owed fails at once and goes elsewhere."""
        if source in self:
            log.warning("dropping peer %s: %s (%s)", source.peer.address, reason, code.name)
            self._disconnected(source.peer)
            source.peer.disconnect(code, reason)


def _is_dismissed(source: Source, now: float) -> bool:
    return source.dismissed.get(source.peer.best_hash, 0.0) > now
