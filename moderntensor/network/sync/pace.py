"""How much to ask of a peer at once, and how long to wait for it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

# The target round trip: a request asks for what its peer delivers in about so long, beside what
# its line takes there and back.
TARGET_SECONDS: Final = 1.0
LATENCY_MOST: Final = 2.0  # seconds that a peer's line is granted, however late its PONGs are
MOVING_SHARE: Final = 0.3  # weight of the newest measurement in a peer's capacity
SILENT_MOST: Final = 8  # peers in a row that did not answer: then the line may be slow
GROWTH: Final = 4  # times what was delivered is asked for next, at most: few small requests


class Capacity:
    """Items per second that a peer delivers in one request, as a moving average, and what that
    means for the next one."""

    __slots__ = ("_least", "_most", "rate")

    def __init__(self, first: int | None = None, least: int = 1) -> None:
        """`first`: how many items to begin with where they may be large; None: all allowed.
        `least`: how many to ask for in any case."""
        self.rate: float | None = None  # nothing measured yet
        self._most = first
        self._least = least

    def delivered(self, items: int, seconds: float) -> None:
        """Learn from one reply."""
        measured = items / max(seconds, 0.001)
        if self._most is not None:
            self._most = max(self._most, GROWTH * items)
        if self.rate is None:
            self.rate = measured
            return
        share = MOVING_SHARE
        if measured < self.rate:
            # A small one that takes its time says what a round trip takes, and little else.
            share *= min(1.0, items / max(1.0, self.rate * TARGET_SECONDS))
        self.rate += (measured - self.rate) * share

    def failed(self) -> None:
        """Learn from a request that was not answered."""
        if self.rate is not None:
            self.rate /= 2

    def size(self, most: int, latency: float = 0.0) -> int:
        """How many items to ask for at once; `latency`: seconds there and back."""
        if self._most is not None:
            most = min(most, self._most)
        if self.rate is None:
            return most
        return min(most, max(self._least, int(self._in_time(latency))))

    def requests(self, most: int, latency: float = 0.0) -> int:
        """How many requests may be under way: one until the peer is known, and fewer where a
        single item takes longer than a request should."""
        if self.rate is None:
            return 1
        items = self._in_time(latency)
        return most if items >= 2 else min(most, 2 if items >= 0.5 else 1)

    def _in_time(self, latency: float) -> float:
        return (self.rate or 0.0) * (TARGET_SECONDS + min(latency, LATENCY_MOST))


class Patience:
    """How long one peer may hold up all the rest: doubles each time that it runs out, so that a
    slow line does not purge everyone, and shrinks again while all goes well."""

    __slots__ = ("_least", "_most", "_silent", "seconds")

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self._silent: set[object] = set()  # at this patience
        self.seconds = least

    def ran_out(self) -> None:
        """Wait twice as long the next time."""
        self._silent.clear()
        self.seconds = min(self._most, self.seconds * 2)

    def ran_out_for(self, who: object, others: Collection[object]) -> None:
        """Wait longer only once it ran out for all who may be asked, or for many, while nobody
        answered: a few that are silent say nothing about our line."""
        self._silent.add(who)
        if len(self._silent) >= SILENT_MOST or self._silent.issuperset(others):
            self.ran_out()

    def served(self) -> None:
        """An answer came in time."""
        self._silent.clear()
        self.seconds = max(self._least, self.seconds * 0.85)
