"""Handshakes of those who dialled us: bounded, and not for one party to fill."""

from __future__ import annotations

from collections import Counter

from .addresses import netgroup
from .handshake import Handshake

__all__ = ["Pending"]


class Pending:
    """Handshakes that have not come to their HELLO, in order of arrival."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._groups: dict[Handshake, str] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, handshake: Handshake, host: str) -> Handshake | None:
        """One more, dialled from `host`. Returns the one that has to make room for it, if any:
        the oldest of the netgroup that has the most, since an honest one takes a round trip."""
        self._groups[handshake] = netgroup(host)
        if len(self._groups) <= self._limit:
            return None
        sizes = Counter(self._groups.values())
        # The first in order of arrival among those of the largest.
        return max(self._groups, key=lambda each: sizes[self._groups[each]])

    def remove(self, handshake: Handshake) -> None:
        """It is over, or never was among them."""
        self._groups.pop(handshake, None)
