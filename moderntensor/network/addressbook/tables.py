"""Where addresses stand: tables of buckets with slots that a secret chooses.

What an address may displace depends on the book's secret key, its group and the group of who
told of it, so that nobody can aim, and nobody whose addresses lie in few groups reaches more than
a few buckets. The idea is that of Bitcoin Core's addrman.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..limits import (
    ADDRESS_BUCKET_SIZE,
    NEW_BUCKETS,
    NEW_BUCKETS_PER_ADDRESS,
    NEW_BUCKETS_PER_SOURCE,
    TRIED_BUCKETS,
    TRIED_BUCKETS_PER_GROUP,
)
from .entry import KnownAddress

if TYPE_CHECKING:
    from random import Random

__all__ = ["NewTable", "Table", "TriedTable"]

Group = Callable[[KnownAddress], str]
"""What counts as one party: the netgroup, or the address itself where groups do not matter."""


class Table:
    """Buckets of slots. A place is a bucket's number times the slots of one, plus the slot."""

    def __init__(self, name: bytes, key: bytes, group: Group) -> None:
        """`key` (32 bytes) is the secret; `name` sets the tables of one book apart."""
        self._name = name
        self._key = key
        self._group = group
        self._buckets: dict[int, dict[int, KnownAddress]] = {}  # those that hold something

    def __len__(self) -> int:
        """Places that are taken."""
        return sum(map(len, self._buckets.values()))

    def get(self, place: int) -> KnownAddress | None:
        """Who stands there."""
        bucket, slot = divmod(place, ADDRESS_BUCKET_SIZE)
        return self._buckets.get(bucket, {}).get(slot)

    def put(self, place: int, entry: KnownAddress) -> None:
        """Let `entry` stand there, which must be free."""
        bucket, slot = divmod(place, ADDRESS_BUCKET_SIZE)
        self._buckets.setdefault(bucket, {})[slot] = entry

    def clear(self, place: int) -> None:
        """Free a place that is taken."""
        bucket, slot = divmod(place, ADDRESS_BUCKET_SIZE)
        slots = self._buckets[bucket]
        del slots[slot]
        if not slots:
            del self._buckets[bucket]

    def buckets(self) -> dict[int, int]:
        """How many addresses each bucket holds that is not empty."""
        return {number: len(slots) for number, slots in self._buckets.items()}

    def draw(self, random: Random) -> Iterator[KnownAddress]:
        """All that stand here in random order: first a bucket, then one of it, so that full
        buckets get no more than others. The table must not change meanwhile."""
        numbers = list(self._buckets)
        opened: dict[int, list[KnownAddress]] = {}
        while numbers:
            bits = random.getrandbits(64)  # one call for both choices: it asks the system
            chosen = (bits >> 32) % len(numbers)
            number = numbers[chosen]
            left = opened.get(number)
            if left is None:
                left = opened[number] = list(self._buckets[number].values())
            at = (bits & 0xFFFFFFFF) % len(left)
            left[at], left[-1] = left[-1], left[at]
            yield left.pop()
            if not left:
                numbers[chosen] = numbers[-1]
                numbers.pop()

    def _hash(self, data: bytes) -> int:
        digest = hashlib.blake2b(data, digest_size=8, key=self._key, person=self._name).digest()
        return int.from_bytes(digest, "big")

    def _place(self, bucket: int, entry: KnownAddress) -> int:
        slot = self._hash(b"slot %d " % bucket + entry.wire) % ADDRESS_BUCKET_SIZE
        return bucket * ADDRESS_BUCKET_SIZE + slot


class TriedTable(Table):
    """Addresses that were reached by dialling, each in the one place that it can have."""

    def __init__(self, key: bytes, group: Group) -> None:
        super().__init__(b"tried", key, group)

    def place(self, entry: KnownAddress) -> int:
        """Where `entry` belongs: in one of the few buckets of its group."""
        which = self._hash(b"which " + entry.wire) % TRIED_BUCKETS_PER_GROUP
        bucket = self._hash(f"bucket {which} {self._group(entry)}".encode()) % TRIED_BUCKETS
        return self._place(bucket, entry)

    def remove(self, entry: KnownAddress) -> None:
        """Take `entry` out, if it is there."""
        place = self.place(entry)
        if self.get(place) is entry:
            self.clear(place)


class NewTable(Table):
    """Addresses that were told of and not reached yet, in a place for each group of those who
    told, up to a few."""

    def __init__(self, key: bytes, group: Group) -> None:
        super().__init__(b"new", key, group)

    def place(self, entry: KnownAddress, source: str) -> int:
        """Where `entry` belongs if a node of the group `source` told: in one of that group's
        buckets, the same for all addresses of one group."""
        which = self._hash(f"which {source} {self._group(entry)}".encode())
        which %= NEW_BUCKETS_PER_SOURCE
        bucket = self._hash(f"bucket {which} {source}".encode()) % NEW_BUCKETS
        return self._place(bucket, entry)

    def full(self, entry: KnownAddress) -> bool:
        """Whether `entry` has as many places as an address may have."""
        return len(entry.sources) >= NEW_BUCKETS_PER_ADDRESS

    def add(
        self, entry: KnownAddress, source: str, terrible: Callable[[KnownAddress], bool]
    ) -> tuple[bool, KnownAddress | None]:
        """Give `entry` a place for `source`, if that is free, or held by one that is `terrible`
        or has other places while `entry` has none. Whether it has that place now, and who has
        no place left for it."""
        if source in entry.sources or self.full(entry):
            return False, None
        place = self.place(entry, source)
        holder = self.get(place)
        if holder is entry:  # by another source
            return False, None
        lost = None
        if holder is not None:
            if not (terrible(holder) or (len(holder.sources) > 1 and not entry.sources)):
                return False, None
            self._take(holder, place)
            lost = None if holder.sources else holder
        self.put(place, entry)
        entry.sources = (*entry.sources, source)
        return True, lost

    def _take(self, entry: KnownAddress, place: int) -> None:
        """Take one place from `entry`."""
        self.clear(place)
        entry.sources = tuple(s for s in entry.sources if self.place(entry, s) != place)

    def remove(self, entry: KnownAddress) -> None:
        """Take `entry` out of all its places."""
        for source in entry.sources:
            self.clear(self.place(entry, source))
        entry.sources = ()
