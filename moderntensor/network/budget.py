"""Token buckets: how much of something is admitted per time."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Admits `rate` units a second on average and up to `burst` at once.

    Times are seconds of the loop's clock, given by the caller.
    """

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float, units: float = 1.0) -> bool:
        """Take `units` if they are there."""
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < units:
            return False
        self._tokens -= units
        return True
