"""Whether what a process holds grows: a robust slope over one life of a node, against a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

MIB: Final = 1024 * 1024
WARM_UP: Final = 60.0  # seconds of a life that are not judged
LEAST_SAMPLES: Final = 8  # of a life, after that; a shorter one is not judged
MOST_SAMPLES: Final = 400  # of a life; the slope looks at each pair

Point = tuple[float, float]
"""Seconds since some moment, and a value."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Growth that is allowed: `floor`, and `per_minute` of the time that was judged."""

    floor: float
    per_minute: float

    def allowed(self, seconds: float) -> float:
        """Over so many seconds."""
        return self.floor + self.per_minute * seconds / 60


# The floors are what connections that come and go move by themselves in a life of a minute.
LIMITS: Final = {
    "memory": Limit(8 * MIB, 0.25 * MIB),
    "tasks": Limit(10, 0.1),
    "descriptors": Limit(6, 0.1),
    "threads": Limit(3, 0.05),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one figure in one life. `growth` is the slope times the `seconds` that were judged."""

    node: int
    life: int
    figure: str
    seconds: float
    per_minute: float
    growth: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.growth <= self.allowed


def slope(points: Sequence[Point]) -> float:
    """Theil and Sen's: the median of the slopes of all pairs, per second. ValueError where no two
    points differ in time. More than `MOST_SAMPLES` points are thinned evenly."""
    if len(points) > MOST_SAMPLES:
        step = len(points) / MOST_SAMPLES
        points = [points[int(number * step)] for number in range(MOST_SAMPLES)]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(points)
        for later in points[number + 1 :]
        if later[0] != earlier[0]
    ]
    if not slopes:
        raise ValueError("a slope needs two moments")
    return median(slopes)


def judge(
    node: int, life: int, figure: str, points: Sequence[Point], warm_up: float = WARM_UP
) -> Verdict | None:
    """On points whose times count from the beginning of the life; None where it was too short."""
    judged = [point for point in points if point[0] >= warm_up]
    if len(judged) < LEAST_SAMPLES:
        return None
    seconds, each = judged[-1][0] - judged[0][0], slope(judged)
    return Verdict(
        node, life, figure, seconds, each * 60, each * seconds, LIMITS[figure].allowed(seconds)
    )
