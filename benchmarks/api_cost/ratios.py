"""How much one side costs beside another, from rounds in which both had their turn."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Self

RESAMPLES: Final = 2000
COVERED: Final = 0.95  # of the resamples lie between `low` and `high`


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of one side over that of the other, and how far that can be trusted."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, with_: Sequence[float], without: Sequence[float]) -> Self:
        """Of amounts round by round, in the same order. Rounds are drawn anew, both sides of one
        together, so that what disturbed a whole round counts on either side. ValueError if there
        are none or not as many of each."""
        rounds = list(zip(with_, without, strict=True))
        if not rounds:
            raise ValueError("no round was measured")

        def ratio(of: Sequence[tuple[float, float]]) -> float:
            return median(one for one, _ in of) / median(other for _, other in of)

        chance = random.Random(len(rounds))
        drawn = sorted(ratio(chance.choices(rounds, k=len(rounds))) for _ in range(RESAMPLES))
        cut = round(RESAMPLES * (1 - COVERED) / 2)
        return cls(ratio(rounds), drawn[cut], drawn[-1 - cut])

    @property
    def change(self) -> str:
        """For people: how much more or less it is, and the range of that."""
        return f"{self.middle - 1:+.1%} ({self.low - 1:+.1%} to {self.high - 1:+.1%})"
