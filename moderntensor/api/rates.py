"""How often one address may ask: a token bucket each, for a bounded number of addresses."""

from __future__ import annotations

from collections import OrderedDict
from math import ceil

from ..network.bans import host_key
from .limits import ADDRESSES

__all__ = ["Rates"]


class Rates:
    """Token buckets by client address, of IPv6 by /64. Who has not asked for longest is forgotten
    first, with a full bucket in most cases."""

    def __init__(self, rate: float, burst: int, addresses: int = ADDRESSES) -> None:
        """`rate` requests a second in the long run, `burst` at once."""
        self._rate = rate
        self._burst = burst
        self._limit = addresses
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, loop time

    def __len__(self) -> int:
        return len(self._buckets)

    def admit(self, host: str, now: float) -> int:
        """Take note of a request: 0 where it is admitted, else after how many seconds one will
        be."""
        key = host_key(host)
        tokens, at = self._buckets.pop(key, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - at) * self._rate)
        admitted = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if admitted else tokens, now)
        if len(self._buckets) > self._limit:
            self._buckets.popitem(last=False)
        return 0 if admitted else max(1, ceil((1.0 - tokens) / self._rate))
