"""Who gives up a place where all are taken: so that no client has them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

__all__ = ["who_yields"]


def who_yields(holders: Iterable[str], client: str) -> str | None:
    """Of the clients that hold places (one entry for each), the one that has to give one up for
    `client`: who has the most, if those are at least two more than `client` has. Else None, so
    that two who come back again and again do not drive each other out."""
    held = Counter(holders)
    for most, count in held.most_common(1):
        if count > held[client] + 1:
            return most
    return None
