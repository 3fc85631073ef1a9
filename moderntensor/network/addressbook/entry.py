"""One address that a node knows of: what is remembered, and what it is worth."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..addresses import format_address, to_wire
from ..limits import (
    ADDRESS_GIVE_UP,
    ADDRESS_HORIZON,
    ADDRESS_NEW_GIVE_UP,
    ADDRESS_OUTAGE,
)

__all__ = ["KnownAddress"]

_FUTURE = 600.0  # seconds that a clock may be ahead: Bitcoin Core's IsTerrible
_JUST_TRIED = 60.0  # seconds in which an attempt is not judged yet: the same
_CHANCE_PER_FAILURE = 0.66  # Bitcoin Core's GetChance, not below that of 8 failures
_CHANCE_FAILURES = 8


@dataclass(slots=True, eq=False)
class KnownAddress:
    """One place to dial. `last_seen` and `last_success` are Unix seconds (0: unknown, never),
    other times are of the loop's clock.

    About 550 bytes in a book, everything that leads to it counted.
    """

    host: str
    port: int
    node_id: bytes | None = None  # who was there; what is only told is not believed
    last_seen: int = 0
    last_success: int = 0
    bootstrap: bool = False
    expected_id: bytes | None = None  # of a bootstrap node: nobody else will do
    met: bool = False  # its node has been connected to us, whoever dialled
    tried: bool = False  # in the table of those that were found there by dialling
    sources: tuple[str, ...] = ()  # groups of those who told of it, one for each place among new
    failures: int = 0  # in a row
    failing_since: float = 0.0
    last_try: float = field(default=float("-inf"))
    next_dial: float = 0.0

    @property
    def key(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port

    @property
    def address(self) -> str:
        """``host:port``."""
        return format_address(self.host, self.port)

    @property
    def wire(self) -> bytes:
        """18 bytes: the IP address as on the wire, and the port."""
        return to_wire(self.host) + self.port.to_bytes(2, "big")

    @property
    def chance(self) -> float:
        """How likely it is taken when it is drawn: 1, and less with every failure."""
        return _CHANCE_PER_FAILURE ** min(self.failures, _CHANCE_FAILURES)

    def is_terrible(self, wall: float, now: float) -> bool:
        """Whether it may make room for any other: nobody has seen it for a month, it was never
        reached in three attempts, or not in ten attempts of a week."""
        if now - self.last_try < _JUST_TRIED:
            return False
        if not wall - ADDRESS_HORIZON <= self.last_seen <= wall + _FUTURE:
            return True
        if not self.last_success:
            return self.failures >= ADDRESS_NEW_GIVE_UP
        return self.failures >= ADDRESS_GIVE_UP and wall - self.last_success > ADDRESS_OUTAGE
