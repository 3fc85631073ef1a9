"""One peer as a sync sees it, and what may come of asking it."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from ..offences import Offence
from ..peer import Peer
from .pace import Capacity


class Kind(IntEnum):
    """What is asked for; each has its own limits and rates."""

    HEADERS = 0
    BODIES = 1
    NODES = 2  # of a state tree
    STATE = 3  # accounts


# Of what may be large, the first request asks for so little, or the replies of all peers together
# would fill a thin line for longer than any of them may take.
FIRST_ITEMS: Final[dict[Kind, int]] = {Kind.BODIES: 4}
# Of what is small, 4 or 5 KiB are worth a round trip however long the ones before took: by one that
# asked for a single item a peer far away would look slow for ever.
LEAST_ITEMS: Final[dict[Kind, int]] = {Kind.HEADERS: 16, Kind.NODES: 64}


class Refused(Exception):  # noqa: N818  (an outcome, no error)
    """The peer does not have what was asked for (NOT_FOUND, PRUNED); no blame."""


class TooLarge(Refused):
    """The peer says that what was asked for is more than fits into a reply."""


class Unanswered(Exception):  # noqa: N818  (an outcome, no error)
    """No answer this time: busy, timed out or gone; the pool has taken note."""


class Misbehaviour(Exception):  # noqa: N818  (an outcome, no error)
    """The peer served something false."""

    def __init__(self, offence: Offence, reason: str) -> None:
        self.offence = offence
        self.reason = reason
        super().__init__(offence, reason)


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
        "busy_since",
        "capacity",
        "delivered_at",
        "dismissed",
        "holds_up",
        "hopeless_until",
        "in_flight",
        "owed_height",
        "passed_until",
        "peer",
        "pruned",
        "rests_until",
        "silent_since",
        "slow_since",
    )

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.capacity = tuple(
            Capacity(FIRST_ITEMS.get(kind), LEAST_ITEMS.get(kind, 1)) for kind in Kind
        )
        self.in_flight = [0] * len(Kind)  # by Kind
        self.rests_until = 0.0  # loop time
        # All these are loop times by Kind, for who serves the one may withhold the other.
        self.delivered_at = [float("-inf")] * len(Kind)  # of its last useful item
        self.silent_since: list[float | None] = [None] * len(
            Kind
        )  # of the first unanswered request
        # of the first that was not answered in time although bytes came
        self.slow_since: list[float | None] = [None] * len(Kind)
        self.busy_since: list[float | None] = [None] * len(
            Kind
        )  # of the first of nothing but "busy"
        # Others were asked beside it, and it has delivered nothing since.
        self.holds_up = [False] * len(Kind)
        self.dismissed: dict[bytes, float] = {}  # claimed hash → loop time until it may be followed
        self.hopeless_until = 0.0  # loop time; nothing that it claims can be reached before
        self.owed_height = 0  # that it has yet to show, since we left other headers for its chain
        self.passed_until = 0.0  # loop time; others answered before it, and are followed before it
        self.pruned = False  # so it said when it last did not have something
        self.broken_claims = 0.0
        self.broken_at = 0.0  # loop time of the last of them

    def keeps(self, snapshot: tuple[int, bytes]) -> bool:
        """Whether it announces the state of that block (height, hash)."""
        return snapshot in self.peer.snapshots

    def size(self, kind: Kind, most: int) -> int:
        """How many items of a kind to ask it for at once, of so many that are allowed."""
        return self.capacity[kind].size(most, self._latency)

    def has_room(self, kind: Kind, most: int) -> bool:
        """Whether it may be asked once more now; `most`: requests of a kind that we allow."""
        most = min(most, self.peer.max_per_type)
        return (
            sum(self.in_flight) < self.peer.max_inflight
            and self.in_flight[kind] < most
            and self.in_flight[kind] < self.capacity[kind].requests(most, self._latency)
        )

    @property
    def _latency(self) -> float:
        return self.peer.min_latency or 0.0

    @property
    def bytes_received(self) -> int:
        """All that has come from it so far."""
        return self.peer.connection.bytes_received

    def useful(self, kind: Kind, now: float) -> None:
        """What it served is wanted: it is neither silent nor only busy."""
        self.delivered_at[kind] = now
        self.holds_up[kind] = False
        self.silent_since[kind] = self.slow_since[kind] = self.busy_since[kind] = None

    @property
    def proven(self) -> bool:
        """Whether it has delivered anything useful yet."""
        return max(self.delivered_at) > float("-inf")

    def __repr__(self) -> str:
        return f"<{self.peer.address}>"
