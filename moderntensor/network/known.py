"""Bounded memory of hashes, so that nothing is sent or looked at twice."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

__all__ = ["KnownSet"]


class KnownSet:
    """The hashes seen last, at most `limit` of them; the oldest sixteenth is forgotten first."""

    __slots__ = ("_forgotten", "_hashes", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._forgotten = max(1, limit // 16)
        self._hashes: dict[bytes, None] = {}  # in order of arrival

    def __contains__(self, item: bytes) -> bool:
        return item in self._hashes

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, item: bytes) -> bool:
        """Remember `item`; False if it was known."""
        hashes = self._hashes
        if item in hashes:
            return False
        hashes[item] = None
        if len(hashes) > self._limit:
            # Some at a time: to find the oldest, a dict walks over all that were deleted.
            for oldest in tuple(islice(hashes, self._forgotten)):
                del hashes[oldest]
        return True

    def update(self, items: Iterable[bytes]) -> None:
        """Remember all of `items`."""
        for item in items:
            self.add(item)

    def discard(self, item: bytes) -> None:
        """Forget `item`."""
        self._hashes.pop(item, None)
