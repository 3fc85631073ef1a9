"""Token buckets: how much of something is admitted per time, and what one peer may send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from .offences import Offence
from .protocol import MessageType

__all__ = ["EXCESS_PER_OFFENCE", "RATES", "TOTAL", "PeerRates", "Rate", "TokenBucket", "retry_ms"]

_MIB: Final = 1024 * 1024
# What goes on after a bucket is empty, in messages, until it counts as one more offence. With
# the points of a flood (10) and what disconnects (50), a peer is gone after five times as many.
EXCESS_PER_OFFENCE: Final = 256
_STEPS: Final = 64  # in which a burst is taken from its bucket
_RETRY_MS_LEAST: Final = 250  # one bucket's refusal is over sooner, but many ask
_RETRY_MS_MOST: Final = 10_000


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
        self._fill(now)
        if self._tokens < units:
            return False
        self._tokens -= units
        return True

    def spend(self, now: float, units: float) -> bool:
        """Take `units` that are used already; False if more than there were."""
        self._fill(now)
        self._tokens -= units
        return self._tokens >= 0

    def wait(self, now: float) -> float:
        """Seconds until something is there; 0 if something is."""
        self._fill(now)
        return max(0.0, -self._tokens / self.rate)

    def _fill(self, now: float) -> None:
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now


class Rate(NamedTuple):
    """Messages and bytes of payload, per second and at once."""

    messages: float
    burst: float
    bytes: float
    bytes_burst: float


# Of one peer. What a node of ours sends at most with default settings stands beside it; a limit
# lies an order of magnitude above, and bursts above what piles up while either side is stuck for
# some seconds. `benchmarks/sync_loopback.py` fails if a sync at full speed meets one of these.
# Replies are not here: they are bounded by what we ask. Neither is DISCONNECT, the last message.
_ASKING: Final = Rate(1000, 4000, 4 * _MIB, 16 * _MIB)

RATES: Final[Mapping[int, Rate]] = {
    # One per 15 s. They are answered up to PINGS_PER_SECOND.
    MessageType.PING: Rate(10, 200, 1024, 16 * 1024),
    # A sync that runs at 100,000 headers/s asks 520 times a second for 192, each of its peers for
    # its share; 25,000 blocks/s in runs of 128 are 200 requests. In flight are 8 at a time.
    MessageType.GET_HEADERS: _ASKING,
    MessageType.GET_BLOCKS: _ASKING,
    MessageType.GET_BLOCK_BODIES: _ASKING,
    MessageType.GET_STATE: _ASKING,
    MessageType.GET_STATE_NODES: _ASKING,
    # For what was announced: at most once per announcement, which come once a turn of the loop.
    MessageType.GET_TRANSACTIONS: _ASKING,
    # One per 30 s and one per new peer.
    MessageType.GET_PEERS: Rate(10, 200, 1024, 16 * 1024),
    # One per turn of the sender's loop, while transactions come; a full block of transfers each
    # second (1,428) one by one, and twice what a mempool holds (5,120) at once. 16 MiB: its bytes.
    MessageType.NEW_TRANSACTION: Rate(2000, 12_000, 4 * _MIB, 64 * _MIB),
    # One per block and peer, each at most 64 KiB of ids at the default gas limit: blocks come every
    # second at the quickest. Bursts: a branch of 128 blocks, several times over.
    MessageType.NEW_BLOCK: Rate(50, 1000, 2 * _MIB, 16 * _MIB),
    MessageType.NEW_BLOCK_HASHES: Rate(50, 1000, 256 * 1024, 4 * _MIB),
    MessageType.HEADERS: Rate(50, 1000, 256 * 1024, 4 * _MIB),  # those that nobody asked for
}
# All of these together.
TOTAL: Final = Rate(4000, 16_000, 12 * _MIB, 96 * _MIB)

_OFFENCES: Final[dict[int, Offence]] = {
    int(kind): Offence.REQUEST_FLOOD if kind.name.startswith("GET_") else Offence.NEWS_FLOOD
    for kind in map(MessageType, RATES)
} | {int(MessageType.PING): Offence.PING_FLOOD}


class _Buckets:
    """The buckets of one type, or of all, and what was not taken from them yet."""

    __slots__ = ("bytes", "count", "excess", "messages", "most_bytes", "most_count", "over", "size")

    def __init__(self, rate: Rate, factor: float, now: float) -> None:
        self.messages = TokenBucket(rate.messages * factor, rate.burst * factor, now)
        self.bytes = TokenBucket(rate.bytes * factor, rate.bytes_burst * factor, now)
        self.count = self.size = 0
        self.most_count = max(1.0, rate.burst * factor / _STEPS)
        self.most_bytes = rate.bytes_burst * factor / _STEPS
        self.over = False  # when something was taken last
        self.excess = 0  # messages since the last offence

    def take(self, now: float, count: int, size: int) -> None:
        enough = self.messages.spend(now, count)
        self.over = not (self.bytes.spend(now, size) and enough)
        self.count = self.size = 0

    def wait(self, now: float) -> float:
        seconds = max(self.messages.wait(now), self.bytes.wait(now))
        self.over = seconds > 0
        return seconds


class PeerRates:
    """What one peer sends unasked, against `RATES` and `TOTAL`.

    Messages are counted when they have been read, in runs, and taken from the buckets in steps, so
    that counting costs next to nothing: a peer may go over by a step and what one turn of the loop
    decodes.
    """

    __slots__ = ("_factor", "_of_all", "_of_type", "_rates", "_since", "refused")

    def __init__(
        self,
        factor: float,
        now: float,
        rates: Mapping[int, Rate] = RATES,
        total: Rate = TOTAL,
    ) -> None:
        """`factor` multiplies all limits; `now` is loop time. Extensions have `rates` of their
        own."""
        self._factor = factor
        self._rates = rates
        self._since = now
        self._of_type: dict[int, _Buckets] = {}  # of those types that have come
        self._of_all = _Buckets(total, factor, now)
        self.refused = 0  # messages over a limit so far

    def spend(self, kind: int, now: float, count: int, size: int) -> None:
        """`count` messages of one type have come, of `size` payload bytes together."""
        buckets = self._of_type.get(kind) or self._first(kind)
        buckets.count += count
        buckets.size += size
        if buckets.count >= buckets.most_count or buckets.size >= buckets.most_bytes:
            self._of_all.take(now, buckets.count, buckets.size)
            buckets.take(now, buckets.count, buckets.size)

    def _first(self, kind: int) -> _Buckets:
        """The buckets of a type that had not come so far: full, as those of all are at first."""
        buckets = _Buckets(self._rates[kind], self._factor, self._since)
        self._of_type[kind] = buckets
        return buckets

    def wait(self, kind: int, now: float) -> float:
        """Seconds until a message of this type is admitted; 0: at once."""
        buckets, of_all = self._of_type.get(kind) or self._first(kind), self._of_all
        if not (buckets.over or of_all.over):
            return 0.0
        return max(buckets.wait(now), of_all.wait(now))

    def exceeded(self, kind: int, count: int) -> Offence | None:
        """So many of a type were refused: the offence that this comes to, if it does."""
        self.refused += count
        buckets = self._of_type.get(kind) or self._first(kind)
        offence = _OFFENCES.get(kind, Offence.MESSAGE_FLOOD)
        if not buckets.over:
            buckets, offence = self._of_all, Offence.MESSAGE_FLOOD
        buckets.excess += count
        if buckets.excess < EXCESS_PER_OFFENCE:
            return None
        buckets.excess = 0
        return offence


def retry_ms(seconds: float) -> int:
    """What BUSY tells who has to wait for so long."""
    return int(min(max(seconds * 1000, _RETRY_MS_LEAST), _RETRY_MS_MOST))
