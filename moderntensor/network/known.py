"""Bounded memory of what another node knows, so that nothing is sent or looked at twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import Final

__all__ = ["KnownSet", "RecentBytes"]

# Bytes of memory for bytes that are kept under a hash, beside themselves: their header, the hash,
# its place.
ENTRY_COST: Final = 320


class KnownSet:
    """The hashes last told or heard of, at most `limit`; the oldest sixteenth is forgotten first.

    `repeats` counts what the other side has told of more than once. What it told of after we did
    is no repeat: both may have been on their way at once.
    """

    __slots__ = ("_forgotten", "_hashes", "_limit", "repeats")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._forgotten = max(1, limit // 16)
        # In the order in which they came: whether the other side has told of it.
        self._hashes: dict[bytes, bool] = {}
        self.repeats = 0

    def __contains__(self, item: bytes) -> bool:
        return item in self._hashes

    def __len__(self) -> int:
        return len(self._hashes)

    def has_all(self, items: dict[bytes, None]) -> bool:
        """Whether each of `items` is in it."""
        return items.keys() <= self._hashes.keys()

    def add(self, item: bytes) -> bool:
        """The other side has `item`, by us or otherwise; False if that was known."""
        hashes = self._hashes
        if item in hashes:
            return False
        hashes[item] = False
        if len(hashes) > self._limit:
            self._forget()
        return True

    def hear(self, item: bytes) -> bool:
        """The other side tells of `item`; False if it, or we, had done so before."""
        hashes = self._hashes
        told = hashes.get(item)
        hashes[item] = True
        if told is None:
            if len(hashes) > self._limit:
                self._forget()
            return True
        self.repeats += told
        return False

    def update(self, items: Iterable[bytes]) -> None:
        """As `add`, for all of `items`."""
        for item in items:
            self.add(item)

    def discard(self, item: bytes) -> None:
        """Forget `item`."""
        self._hashes.pop(item, None)

    def _forget(self) -> None:
        # Some at a time: to find the oldest, a dict walks over all that were deleted.
        for oldest in tuple(islice(self._hashes, self._forgotten)):
            del self._hashes[oldest]


class RecentBytes:
    """Encoded things by their hashes, at most `limit` bytes of memory; the oldest go first."""

    __slots__ = ("_items", "_limit", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[bytes, bytes] = OrderedDict()
        self.size = 0  # bytes of memory

    def __contains__(self, item: bytes) -> bool:
        return item in self._items

    def get(self, item: bytes) -> bytes | None:
        """What was kept under this hash, while it is here."""
        return self._items.get(item)

    def add(self, item: bytes, raw: bytes) -> None:
        """Keep `raw` under the hash `item`."""
        if item in self._items:
            return
        self._items[item] = raw
        self.size += len(raw) + ENTRY_COST
        while self.size > self._limit:
            _, oldest = self._items.popitem(last=False)
            self.size -= len(oldest) + ENTRY_COST
