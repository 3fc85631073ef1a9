"""What lies between two simulated hosts: links with a latency, lines with a bandwidth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

__all__ = [
    "LINE_QUEUE",
    "LOOPBACK",
    "MSS",
    "NORMAL",
    "NORMAL_BITS",
    "Line",
    "Link",
    "Pipe",
    "retransmission",
]

# Bytes of a connection in one packet: Ethernet's, less the headers of IPv4 and TCP with timestamps.
MSS: Final = 1448
# A queue before a line that is longer than these seconds makes connections send less: what the
# buffer of a home router or of a cable modem with active queue management holds.
LINE_QUEUE: Final = 0.1
# The first retransmission after 0.2 s at least, the next after twice as long, up to 120 s (Linux).
RETRANSMIT_MIN: Final = 0.2
RETRANSMIT_MAX: Final = 120.0


@dataclass(frozen=True, slots=True)
class Link:
    """Between two hosts, each way. `latency` is the median one-way time in seconds, `jitter` about
    its standard deviation (log-normal: late packets are later than early ones are early), `loss`
    the chance of each packet (`MSS`) to be lost, which TCP turns into lateness.

    ValueError for what is negative, or a loss of 1 and more.
    """

    latency: float
    jitter: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        if self.latency < 0 or self.jitter < 0 or not 0 <= self.loss < 1:
            raise ValueError(f"no such link: {self}")

    @property
    def sigma(self) -> float:
        """The standard deviation of the latency's natural logarithm."""
        return math.sqrt(math.log1p((self.jitter / self.latency) ** 2)) if self.latency else 0.0

    def joined(self, other: Link) -> Link:
        """Between a host with this link to an average place and one with the other."""
        return Link(
            (self.latency + other.latency) / 2,
            math.hypot(self.jitter, other.jitter) / 2,
            1 - math.sqrt((1 - self.loss) * (1 - other.loss)),
        )


# Of the normal distribution, in equal steps: drawing one of them takes a tenth of the time, and no
# packet is later than 3.7 standard deviations.
NORMAL_BITS: Final = 12
NORMAL: Final = tuple(
    NormalDist().inv_cdf((step + 0.5) / (1 << NORMAL_BITS)) for step in range(1 << NORMAL_BITS)
)

LOOPBACK: Final = Link(20e-6)


@dataclass(frozen=True, slots=True)
class Line:
    """Of one host, shared by all its connections: bytes of payload per second to the network and
    from it; None for no bound. ValueError for rates that are not positive."""

    up: float | None = None
    down: float | None = None

    def __post_init__(self) -> None:
        if any(rate is not None and rate <= 0 for rate in (self.up, self.down)):
            raise ValueError(f"no such line: {self}")


class Pipe:
    """One direction of a line: segments pass one after the other."""

    __slots__ = ("free_at", "rate")

    def __init__(self, rate: float) -> None:
        """`rate` in bytes/s."""
        self.rate = rate
        self.free_at = 0.0

    def passed(self, now: float, size: int) -> float:
        """When `size` bytes that join the queue now will be through."""
        self.free_at = max(self.free_at, now) + size / self.rate
        return self.free_at

    def change(self, now: float, rate: float) -> None:
        """From now on the line is so fast, also for what waits."""
        if self.free_at > now:
            self.free_at = now + (self.free_at - now) * self.rate / rate
        self.rate = rate


def retransmission(first: float, now: float, round_trip: float) -> float:
    """When TCP tries again, `now` or later, what it has sent in vain since `first`.

    The pauses double: after an outage of a minute it may take another one.
    """
    pause, at = max(RETRANSMIT_MIN, 2 * round_trip), first
    while at < now:
        at += pause
        pause = min(2 * pause, RETRANSMIT_MAX)
    return at
