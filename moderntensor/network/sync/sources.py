"""The peers that a sync draws on: what each claims, delivers and owes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from math import inf
from statistics import median
from typing import Final, TypeVar

from ...config import NodeConfig
from ...errors import NetworkError, PeerBusyError, RequestTimeoutError
from ...runtime import Runtime
from ..messages import (
    BlockBodiesMessage,
    HeadersMessage,
    Reply,
    Request,
    StateMessage,
    StateNodesMessage,
    Status,
)
from ..offences import Offence
from ..p2p import P2PNode
from ..peer import Peer
from ..protocol import MAX_STATE_ACCOUNTS, MAX_STATE_NODES
from .pace import Patience
from .source import Claim, Kind, Misbehaviour, Refused, Source, TooLarge, Unanswered
from .status import Meter

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Reply)

REST_SECONDS: Final = 0.25  # after "busy" without a time of its own
MAX_REST_SECONDS: Final = 10.0  # a peer cannot ask for a longer one
MAX_DISMISSED: Final = 64  # claims remembered as dismissed, per peer
MAX_BROKEN_CLAIMS: Final = 3  # claims not kept until a peer is useless,
BROKEN_CLAIM_PAUSES: Final = 12  # if no more than so many dismissals' time lay between them
BUSY_REQUESTS: Final = 4  # requests' time of nothing but "busy" until a peer serves nothing
SILENT_REQUESTS: Final = 2  # requests' time without an answer until a peer serves nothing
POLL_SECONDS: Final = 1.0  # claims move with announcements and PONGs, which nobody reports

_KINDS: Final[dict[type[Reply], Kind]] = {
    HeadersMessage: Kind.HEADERS,
    BlockBodiesMessage: Kind.BODIES,
    StateNodesMessage: Kind.NODES,
    StateMessage: Kind.STATE,
}


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
        self._most = {
            Kind.HEADERS: config.trusted_headers_per_request,
            Kind.BODIES: config.blocks_per_request,
            Kind.NODES: MAX_STATE_NODES,
            Kind.STATE: MAX_STATE_ACCOUNTS,
        }
        self._most_peers = config.sync_peers
        self._per_peer = config.sync_requests_per_peer
        self._request_timeout = config.request_timeout
        self._dismissal = config.follow_interval  # when claims are looked at again
        self._followed_from = -1  # the height above which a claim was followed last
        self._fruitless = 0  # how often it was followed from there in vain
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
        # Among equals, who delivered last; among those, any.
        return max(
            self._claims(above),
            key=lambda claim: (
                claim.height,
                max(claim.source.delivered_at),
                self._runtime.random.random(),
            ),
            default=None,
        )

    def next_claim(self, above: int) -> Claim | None:
        """The claim to follow now. After one that led no higher than `above`, every second time
        it is that of whom we have known longest, those whom we dialled first: ever new strangers
        with ever greater claims must not keep us from peers who can show theirs."""
        self._fruitless = self._fruitless + 1 if above == self._followed_from else 0
        self._followed_from = above
        if self._fruitless % 2 == 0:
            return self.best_claim(above)
        return max(
            self._claims(above),
            key=lambda claim: (claim.source.peer.outbound, -claim.source.peer.connected_at),
            default=None,
        )

    def _claims(self, above: int) -> list[Claim]:
        now = self.now()
        return [
            Claim(source.peer.best_height, source.peer.best_hash, source)
            for source in self._sources.values()
            if source.peer.best_height > above
            and source.rests_until <= now
            and not _is_dismissed(source, now)
        ]

    def highest_claim(self) -> int:
        """The greatest height that any peer claims and that may be reached, now or a little
        later: it may rest, or be tried again after a while."""
        return max(
            (
                source.peer.best_height
                for source in self._sources.values()
                if source.hopeless_until <= self.now()
            ),
            default=0,
        )

    def pick(
        self,
        kind: Kind,
        height: int,
        refused: Collection[Source],
        snapshot: tuple[int, bytes] | None = None,
    ) -> Source | None:
        """A peer with room for one more request, if possible one that claims to have `height`;
        None if there is none. For what belongs to a `snapshot` (height, hash) it is one that
        announces that, as long as there is any, be it that it has no room."""
        now = self.now()
        announced = snapshot is not None and any(
            source.keeps(snapshot) and source not in refused for source in self._sources.values()
        )
        working = sum(1 for source in self._sources.values() if any(source.in_flight))
        best: Source | None = None
        best_rank: tuple[bool, bool, float, float] | None = None
        for source in self._sources.values():
            if (
                source in refused
                or (announced and snapshot is not None and not source.keeps(snapshot))
                or source.rests_until > now
                or source.in_flight[kind] >= min(self._per_peer, source.peer.max_per_type)
                or sum(source.in_flight) >= source.peer.max_inflight
                or (working >= self._most_peers and not any(source.in_flight))
            ):
                continue
            rate = source.capacity[kind].rate
            rank = (
                source.peer.best_height >= height,
                # Who has delivered anything is not left idle for who has only claimed.
                source.proven and not source.in_flight[kind],
                # A peer of unknown speed is tried before a known one is loaded twice.
                (1e9 if rate is None else rate) / (1 + source.in_flight[kind]),
                self._runtime.random.random(),
            )
            if best_rank is None or rank > best_rank:
                best, best_rank = source, rank
        return best

    def freed(self, source: Source) -> None:
        """A peer owes one reply less. Where it allows few at a time, whoever asks it for something
        else may have waited for that."""
        if sum(source.in_flight) + 1 >= source.peer.max_inflight:
            self.notify()

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

    def size(self, source: Source, kind: Kind, wanted: int) -> int:
        """How many of the items that are wanted to ask this peer for at once."""
        return source.capacity[kind].size(min(wanted, self._most[kind]))

    def usual_seconds(self, kind: Kind, items: int) -> float:
        """In which a peer of middling speed delivers so many; infinite while nobody is known."""
        rates = [rate for s in self._sources.values() if (rate := s.capacity[kind].rate)]
        return items / median(rates) if rates else inf

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
        kind = _KINDS[reply_type]
        began = self.now()
        try:
            reply = await source.peer.request(request, seconds)
        except RequestTimeoutError:
            self.overdue(source, kind, began)
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
            raise Misbehaviour(Offence.WRONG_REPLY, "a reply of another type")
        if reply.status == Status.BUSY:
            source.silent_since[kind] = None
            self.rest(source, reply.retry_ms / 1000 or REST_SECONDS)
            self._was_busy(source, kind)
            raise Unanswered
        if reply.status not in (Status.OK, Status.PARTIAL):
            source.silent_since[kind] = source.busy_since[kind] = None
            source.pruned = reply.status == Status.PRUNED
            raise TooLarge if reply.status == Status.TOO_LARGE else Refused
        return reply

    def delivered(self, source: Source, kind: Kind, items: int, size: int, seconds: float) -> None:
        """A peer served `items` of `size` bytes in all, which are wanted."""
        self.measured(source, kind, items, size, seconds)
        self.useful(source, kind)

    def useful(self, source: Source, kind: Kind) -> None:
        """What a peer served is wanted: it is neither silent nor only busy."""
        source.delivered_at[kind] = self.now()
        source.silent_since[kind] = source.busy_since[kind] = None

    def measured(self, source: Source, kind: Kind, items: int, size: int, seconds: float) -> None:
        """A peer served so much, be it wanted or not."""
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
        """Do not follow what this peer claims now for a while; if `hopeless`, neither follow nor
        wait for anything that it claims, lest it bind us by ever new claims."""
        if len(source.dismissed) >= MAX_DISMISSED:
            del source.dismissed[next(iter(source.dismissed))]
        source.dismissed[source.peer.best_hash] = self.now() + self._dismissal
        if hopeless:
            source.hopeless_until = self.now() + self._dismissal

    # --- parting --------------------------------------------------------------------------

    def overdue(self, source: Source, kind: Kind, since: float) -> None:
        """A peer left a request of loop time `since` unanswered. It is dropped if it gave nothing
        of the kind since its first such request while others did: then our line is not slow."""
        for capacity in source.capacity:
            capacity.failed()
        if source.delivered_at[kind] >= since or source not in self:
            return
        silent = source.silent_since[kind]
        if silent is None:
            silent = source.silent_since[kind] = since
        if any(other.delivered_at[kind] > silent for other in self):
            self.part(source, Offence.SERVES_NOTHING, "served nothing in time while others did")
        elif self.now() - silent >= SILENT_REQUESTS * self._request_timeout:
            self.part(source, Offence.SERVES_NOTHING, "serves nothing")

    def _was_busy(self, source: Source, kind: Kind) -> None:
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

    def broke_claim(self, source: Source) -> None:
        """A peer does not have what it claims. A head that changes may show twice, in headers and
        in bodies, so that a peer is of no use who does it a third time; that is no offence of one
        that says that it keeps no bodies so old."""
        self.dismiss(source)
        now = self.now()
        if now - source.broken_at > BROKEN_CLAIM_PAUSES * self._dismissal:
            source.broken_claims = 0
        source.broken_at = now
        source.broken_claims += 1
        if source.broken_claims >= MAX_BROKEN_CLAIMS:
            offence = Offence.USELESS if source.pruned else Offence.SHOWS_LESS
            self.part(source, offence, "does not have what it claims")

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


def _is_dismissed(source: Source, now: float) -> bool:
    return max(source.hopeless_until, source.dismissed.get(source.peer.best_hash, 0.0)) > now
