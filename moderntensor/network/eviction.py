"""Who makes room when all inbound places are taken and somebody new knocks.

In the spirit of Bitcoin Core's `SelectNodeToEvict`: each kind of merit protects some peers, and
an attacker would have to excel in all of them at once, and in netgroups that nobody can foresee,
to push honest peers out. No I/O, no clock: the same candidates give the same answer.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

__all__ = ["Candidate", "select_to_evict"]

# Protected by each merit: Bitcoin Core's numbers (`SelectNodeToEvict`, net.cpp), and together at
# most half of a table that is smaller than those of Bitcoin Core.
_BY_NETGROUP: Final = 4
_BY_LATENCY: Final = 8
_BY_TRANSACTIONS: Final = 4
_BY_BLOCKS: Final = 4
_FULL_TABLE: Final = 2 * (_BY_NETGROUP + _BY_LATENCY + _BY_TRANSACTIONS + _BY_BLOCKS)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An inbound peer. Times are of the loop's clock, None what never happened."""

    number: int
    """Which it is: unique among the candidates, greater for younger connections."""
    netgroup: str
    connected_at: float
    min_latency: float | None = None
    last_transaction_at: float | None = None
    """When it last brought a transaction that was new and valid."""
    last_block_at: float | None = None
    """When it last brought a block that was new and valid."""


def select_to_evict(candidates: Collection[Candidate], key: bytes) -> Candidate | None:
    """The one that has to go, or None if all are protected.

    `key` (up to 64 bytes) is the node's secret: without it nobody knows which netgroups are
    protected. Of those that no merit protects, the youngest of the netgroup with the most goes.
    """
    left = {candidate.number: candidate for candidate in candidates}
    total = len(left)

    def share(count: int) -> int:
        return min(count, round(total * count / _FULL_TABLE))

    for best in _netgroups(left.values(), key)[: share(_BY_NETGROUP)]:
        del left[best.number]
    merits: tuple[tuple[int, Callable[[Candidate], float | None]], ...] = (
        (_BY_LATENCY, lambda c: c.min_latency),
        (_BY_TRANSACTIONS, lambda c: _negative(c.last_transaction_at)),
        (_BY_BLOCKS, lambda c: _negative(c.last_block_at)),
    )
    for count, merit in merits:
        for best in _best(left.values(), merit)[: share(count)]:
            del left[best.number]
    # Half of the rest for their time here: an attacker would have to stay for as long.
    longest = sorted(left.values(), key=lambda c: (c.connected_at, c.number))
    for best in longest[: (len(longest) + 1) // 2]:
        del left[best.number]
    return _youngest_of_largest(left.values())


def _netgroups(candidates: Collection[Candidate], key: bytes) -> list[Candidate]:
    """The eldest of each netgroup, in an order that only `key` tells."""
    eldest: dict[str, Candidate] = {}
    for candidate in candidates:
        known = eldest.get(candidate.netgroup)
        if known is None or _age(candidate) < _age(known):
            eldest[candidate.netgroup] = candidate
    return sorted(
        eldest.values(),
        key=lambda c: hashlib.blake2b(c.netgroup.encode(), key=key, digest_size=16).digest(),
    )


def _best(
    candidates: Collection[Candidate], merit: Callable[[Candidate], float | None]
) -> list[Candidate]:
    """Those who have this merit, the least value first."""
    rated = [(value, c.number, c) for c in candidates if (value := merit(c)) is not None]
    return [candidate for _, _, candidate in sorted(rated, key=lambda entry: entry[:2])]


def _youngest_of_largest(candidates: Collection[Candidate]) -> Candidate | None:
    groups: defaultdict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.netgroup].append(candidate)
    # Of equally large groups the one whose youngest is youngest, as Bitcoin Core does.
    youngest = [(len(group), max(group, key=_age)) for group in groups.values()]
    return max(youngest, key=lambda entry: (entry[0], _age(entry[1])))[1] if youngest else None


def _age(candidate: Candidate) -> tuple[float, int]:
    return candidate.connected_at, candidate.number


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
