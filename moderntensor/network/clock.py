"""How far our clock is off, as far as fresh blocks can tell. It is reported, never corrected.

No message carries a time, but a block does: its producer signs it at the beginning of its slot, and
it is with us within seconds. So the time in the header of a new head, less ours when a peer told of
it, is the offset of our clock, less the block's way: of a clock that is right a little under zero.

- Above zero it is our clock that is slow (or a validator's that is fast), to the second: no way of
  a block is shorter than none. Headers that are refused as too far in the future count as well,
  since those are all that a clock that is very slow gets to see.
- Below zero a fast clock and a block that was late look the same. Only what exceeds a whole slot
  is called off.

Each netgroup has one vote, the newest, and the median counts: fewer than half of those who tell us
of blocks cannot move it beyond what the others say. They can all pass on one block of a validator
whose clock is wrong; its next block comes a round later, and the others' in between.
"""

from __future__ import annotations

import logging
from math import inf
from statistics import median
from typing import Final, NamedTuple, Protocol

from ..config import NodeConfig
from ..runtime import Runtime
from .addresses import is_exempt, netgroup

__all__ = ["CLOCK_OFF", "ClockOffset", "ClockReading", "Witness"]

logger = logging.getLogger(__name__)

# Seconds: two thirds of what the protocol lets a header be ahead of us (15 s), so that it is said
# before blocks are refused.
CLOCK_OFF: Final = 10.0
LEAST_VOTES: Final = 5  # Bitcoin Core: TimeOffsets, the fewest samples that say anything
MOST_VOTES: Final = 50  # Bitcoin Core: TimeOffsets::MAX_SIZE
VOTE_LIFETIME: Final = 3600.0  # seconds: clocks are set right meanwhile
WARN_INTERVAL: Final = 3600.0  # seconds between two warnings


class Witness(Protocol):
    """Who told of a block."""

    host_address: str
    address: str


class ClockReading(NamedTuple):
    """What is known of our clock."""

    seconds: float | None
    """How far the others are ahead of it; None while fewer than `LEAST_VOTES` have said."""
    peers: int
    """Netgroups that have said."""
    off: bool
    """Whether it should be looked after."""


class ClockOffset:
    """Collects what new heads say of our clock. For the loop's thread."""

    def __init__(self, config: NodeConfig, runtime: Runtime) -> None:
        self._config = config
        self._runtime = runtime
        self._votes: dict[str, tuple[float, float]] = {}  # seconds, when (loop time), oldest first
        self._warned_at = -inf
        self.block_time = 0  # seconds of a slot, by which a block may be late

    def sample(self, peer: Witness, seconds: float) -> None:
        """`peer` has told, without having heard it from us, of a new head whose time was so many
        seconds ahead of our wall clock then."""
        host = peer.host_address
        group = peer.address if is_exempt(host, self._config) else netgroup(host)
        self._votes.pop(group, None)
        self._votes[group] = (seconds, self._runtime.loop_time())
        if len(self._votes) > MOST_VOTES:
            del self._votes[next(iter(self._votes))]
        self._warn()

    def reading(self) -> ClockReading:
        """What all say together."""
        self._forget()
        votes = [seconds for seconds, _ in self._votes.values()]
        if len(votes) < LEAST_VOTES:
            return ClockReading(None, len(votes), off=False)
        seconds = median(votes)
        return ClockReading(
            seconds, len(votes), off=seconds > CLOCK_OFF or seconds < -CLOCK_OFF - self.block_time
        )

    def _forget(self) -> None:
        if not self._votes:
            return
        oldest = self._runtime.loop_time() - VOTE_LIFETIME
        for group in [group for group, (_, at) in self._votes.items() if at < oldest]:
            del self._votes[group]

    def _warn(self) -> None:
        now = self._runtime.loop_time()
        if now < self._warned_at + WARN_INTERVAL:
            return
        reading = self.reading()
        if reading.seconds is not None and reading.off:
            self._warned_at = now
            logger.warning(
                "our clock seems to be %.0f s %s: so say new blocks that %d others told of; "
                "blocks are refused, or made in vain, until it is set right",
                abs(reading.seconds),
                "slow" if reading.seconds > 0 else "fast (or blocks are late)",
                reading.peers,
            )
