"""The peers that a sync draws on: what each claims, delivers and owes."""

from __future__ import annotations

import logging
from collections.abc import Collection
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
from .present import PresentSources
from .source import Claim, Kind, Misbehaviour, Refused, Source, TooLarge, Unanswered
from .status import Meter

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Reply)

REST_SECONDS: Final = 0.25  # after "busy" without a time of its own

_KINDS: Final[dict[type[Reply], Kind]] = {
    HeadersMessage: Kind.HEADERS,
    BlockBodiesMessage: Kind.BODIES,
    StateNodesMessage: Kind.NODES,
    StateMessage: Kind.STATE,
}


class SourcePool(PresentSources):
    """All connected peers, chosen from by what they claim and how they deliver.

    Lives on the event loop. `attach()` begins to listen to the node, `detach()` ends it.
    """

    def __init__(self, node: P2PNode, runtime: Runtime, config: NodeConfig, meter: Meter) -> None:
        super().__init__(node, runtime, config)
        self._meter = meter
        self._most = {
            Kind.HEADERS: config.trusted_headers_per_request,
            Kind.BODIES: config.blocks_per_request,
            Kind.NODES: MAX_STATE_NODES,
            Kind.STATE: MAX_STATE_ACCOUNTS,
        }
        self._most_peers = config.sync_peers
        self._per_peer = config.sync_requests_per_peer
        self._followed_from = -1  # the height above which a claim was followed last
        self._fruitless = 0  # how often it was followed from there in vain
        self.patience = Patience(config.stall_timeout, config.stall_timeout_max)

    # --- choosing -------------------------------------------------------------------------

    def best_claim(self, above: int) -> Claim | None:
        """The highest head above `above` that a peer claims and that may be followed now."""
        return self._best(self._claims(above))

    def _best(self, claims: list[Claim]) -> Claim | None:
        # Among equals, who is known to be fast, then who delivered last; among those, any.
        now = self.now()
        return max(
            claims,
            key=lambda claim: (
                claim.source.passed_until <= now,
                claim.height,
                claim.source.capacity[Kind.HEADERS].rate or 0.0,
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
        return _oldest(self._claims(above))

    def other_claim(self, above: int, asked: Collection[Source]) -> Claim | None:
        """One more claim to follow beside those of peers who were `asked` and are silent: in turn
        of whom we have known longest and the best one."""
        claims = [claim for claim in self._claims(above) if claim.source not in asked]
        return _oldest(claims) if len(asked) % 2 else self._best(claims)

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
        best_rank: tuple[bool, bool, bool, float, float] | None = None
        for source in self._sources.values():
            if (
                source in refused
                or (announced and snapshot is not None and not source.keeps(snapshot))
                or source.rests_until > now
                or not source.has_room(kind, self._per_peer)
                or (working >= self._most_peers and not any(source.in_flight))
            ):
                continue
            rate = source.capacity[kind].rate
            rank = (
                source.peer.best_height >= height,
                not source.holds_up[kind],
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

    def size(self, source: Source, kind: Kind, wanted: int) -> int:
        """How many of the items that are wanted to ask this peer for at once."""
        return source.size(kind, min(wanted, self._most[kind]))

    def usual_seconds(self, kind: Kind, items: int) -> float:
        """In which a peer of middling speed delivers so many; infinite while nobody is known."""
        rates = [rate for s in self._sources.values() if (rate := s.capacity[kind].rate)]
        return items / median(rates) if rates else inf

    # --- asking ---------------------------------------------------------------------------

    async def ask(
        self, source: Source, request: Request, reply_type: type[R], seconds: float | None = None
    ) -> R:
        """One request to one peer. Returns only OK and PARTIAL replies; raises Refused where the
        peer does not have it, Unanswered where it did not answer."""
        kind = _KINDS[reply_type]
        began, before = self.now(), source.bytes_received
        try:
            reply = await source.peer.request(request, seconds)
        except RequestTimeoutError:
            self.overdue(source, kind, began, before)
            self.rest(source, self.patience.seconds)
            if seconds is None:
                self.patience.ran_out()
            else:  # one of those whom a claim is asked of
                above = self._followed_from
                claimants = [one for one in self if one.peer.best_height > above]
                self.patience.ran_out_for(source, claimants)
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
            source.silent_since[kind] = source.slow_since[kind] = None
            self.rest(source, reply.retry_ms / 1000 or REST_SECONDS)
            self.was_busy(source, kind)
            raise Unanswered
        if reply.status not in (Status.OK, Status.PARTIAL):
            source.silent_since[kind] = source.slow_since[kind] = None
            source.busy_since[kind] = None
            source.pruned = reply.status == Status.PRUNED
            raise TooLarge if reply.status == Status.TOO_LARGE else Refused
        return reply

    def delivered(self, source: Source, kind: Kind, items: int, size: int, seconds: float) -> None:
        """A peer served `items` of `size` bytes in all, which are wanted."""
        self.measured(source, kind, items, size, seconds)
        self.useful(source, kind)

    def useful(self, source: Source, kind: Kind) -> None:
        """What a peer served is wanted: it is neither silent nor only busy."""
        source.useful(kind, self.now())

    def measured(self, source: Source, kind: Kind, items: int, size: int, seconds: float) -> None:
        """A peer served so much, be it wanted or not."""
        source.capacity[kind].delivered(items, seconds)
        self._meter.received(size)

    def progressed(self) -> None:
        """What peers sent was found good and wanted."""
        self._meter.touch()

    def part_from(self, peer: Peer, offence: Offence, detail: str) -> None:
        """As `part`, be the peer a source or not; an error of this sync will name it."""
        self._meter.parted = f"peer {peer.address} was left: {detail}"
        super().part_from(peer, offence, detail)


def _oldest(claims: list[Claim]) -> Claim | None:
    return max(
        claims,
        key=lambda claim: (claim.source.peer.outbound, -claim.source.peer.connected_at),
        default=None,
    )


def _is_dismissed(source: Source, now: float) -> bool:
    return max(source.hopeless_until, source.dismissed.get(source.peer.best_hash, 0.0)) > now
