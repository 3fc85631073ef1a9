"""How large the chains and how long the runs are, and what must be reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEAST_RATIO: Final = 8.0  # full sync to fast sync, every header signature checked
LEAST_TRUSTED_RATIO: Final = 25.0  # the same under a trusted head
LEAST_OF_DISK: Final = 0.4  # state download to writing the same accounts
LEAST_CHAOS: Final = 0.6  # speed per honest peer among liars, to that without liars
MOST_MEMORY: Final = 200 * 1024 * 1024  # bytes, anonymous, of either side


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of one run of the benchmark."""

    quick: bool
    blocks: int
    transfers: int
    accounts: int  # that the transfers make
    interval: int  # blocks between snapshots
    states: tuple[int, ...]  # accounts in a genesis
    chaos: int  # accounts in the genesis of that part
    kills: int
    moves: int  # blocks that the chain moves on while its snapshot goes
    base: int  # accounts of that chain, and of the one that goes on while it is served
    seconds: int  # that a node serves and follows


WHOLE: Final = Scale(
    quick=False,
    blocks=204_900,
    transfers=400_000,
    accounts=200_000,
    interval=1024,
    states=(1_000_000, 3_000_000),
    chaos=3_000_000,
    kills=25,
    moves=5000,
    base=200_000,
    seconds=30,
)
QUICK: Final = Scale(
    quick=True,
    blocks=612,
    transfers=6000,
    accounts=3000,
    interval=256,
    states=(20_000,),
    chaos=20_000,
    kills=2,
    moves=256,  # so that enough blocks follow the newest snapshot
    base=20_000,
    seconds=2,
)
