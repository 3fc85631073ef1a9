"""How much to ask of a peer at once, and how long to wait for it."""

from __future__ import annotations

from typing import Final

TARGET_SECONDS: Final = 1.0  # a request asks for what its peer delivers in about so long
SMALLEST_REQUEST: Final = 16  # items; below that the round trip is all one measures
MOVING_SHARE: Final = 0.3  # weight of the newest measurement in a peer's capacity


class Capacity:
    """Items per second that a peer delivers in one request, as a moving average."""

    __slots__ = ("rate",)

    def __init__(self) -> None:
        self.rate: float | None = None  # nothing measured yet

    def delivered(self, items: int, seconds: float) -> None:
        """Learn from one reply."""
        measured = items / max(seconds, 0.001)
        if self.rate is None:
            self.rate = measured
        else:
            self.rate += (measured - self.rate) * MOVING_SHARE

    def failed(self) -> None:
        """Learn from a request that was not answered."""
        if self.rate is not None:
            self.rate /= 2

    def size(self, most: int) -> int:
        """How many items to ask for: all allowed until the peer is known to be slower."""
        if self.rate is None:
            return most
        return max(min(SMALLEST_REQUEST, most), min(most, int(self.rate * TARGET_SECONDS)))


class Patience:
    """How long one peer may hold up all the rest: doubles each time that it runs out, so that a
    slow line does not purge everyone, and shrinks again while all goes well."""

    __slots__ = ("_least", "_most", "seconds")

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self.seconds = least

    def ran_out(self) -> None:
        """Wait twice as long the next time."""
        self.seconds = min(self._most, self.seconds * 2)

    def served(self) -> None:
        """An answer came in time."""
        self.seconds = max(self._least, self.seconds * 0.85)
