"""How long things take, by message type: counts per bucket, cheap enough for every request."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

__all__ = ["BOUNDS", "Latencies", "Latency"]

# Seconds; from a memory's answer over the round trips of lines to the time that a request has.
BOUNDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Latency:
    """What was measured of one type."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        """How many took up to each of `BOUNDS` and longer than the one before; at last, those
        that took longer than all of them."""
        self.seconds = 0.0
        """Of all together."""

    @property
    def count(self) -> int:
        """How many were measured."""
        return sum(self.buckets)


class Latencies:
    """One `Latency` for each message type that occurred, by its number."""

    __slots__ = ("by_type",)

    def __init__(self) -> None:
        self.by_type: dict[int, Latency] = {}

    def observe(self, kind: int, seconds: float) -> None:
        """One of this type took so long."""
        latency = self.by_type.get(kind)
        if latency is None:
            latency = self.by_type[kind] = Latency()
        latency.buckets[bisect_left(BOUNDS, seconds)] += 1
        latency.seconds += seconds
