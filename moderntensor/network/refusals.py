"""Addresses that are kept away for a while."""

from __future__ import annotations

from .limits import REFUSALS

__all__ = ["Refusals"]


class Refusals:
    """Until when which address is refused (loop time); the soonest over is forgotten first."""

    def __init__(self, limit: int = REFUSALS) -> None:
        self._until: dict[str, float] = {}
        self._limit = limit

    def __len__(self) -> int:
        return len(self._until)

    def refuse(self, key: str, now: float, seconds: float) -> None:
        """Refuse `key` for `seconds` from now, or for as long as it is refused already."""
        self._until[key] = max(now + seconds, self._until.get(key, 0.0))
        if len(self._until) > self._limit:
            del self._until[min(self._until, key=self._until.__getitem__)]

    def lift(self, key: str) -> None:
        """Refuse `key` no more."""
        self._until.pop(key, None)

    def remaining(self, key: str, now: float) -> float:
        """For how many more seconds `key` is refused; 0 if it is welcome."""
        until = self._until.get(key)
        if until is None:
            return 0.0
        if until <= now:
            del self._until[key]
            return 0.0
        return until - now
