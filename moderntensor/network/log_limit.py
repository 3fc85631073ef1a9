"""Log lines that others cause: so many, and what is over them is counted."""

from __future__ import annotations

from .rates import TokenBucket

__all__ = ["LogLimit"]


class LogLimit:
    """A rate of lines, and how many were kept back since the last one."""

    __slots__ = ("_bucket", "_kept_back")

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        """`now` is loop time."""
        self._bucket = TokenBucket(per_second, burst, now)
        self._kept_back = 0

    def admit(self, now: float) -> str | None:
        """None where a line is one too many, and is counted; else what to write behind it."""
        if not self._bucket.take(now):
            self._kept_back += 1
            return None
        more = f" ({self._kept_back} lines kept back)" if self._kept_back else ""
        self._kept_back = 0
        return more
