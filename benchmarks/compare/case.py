"""What a family of the comparison consists of: cases, their contenders, the marks to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

T = TypeVar("T")

OURS = "moderntensor"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: the same cases, in small for ``--quick``."""

    quick: bool

    @property
    def rounds(self) -> int:
        """Repetitions of each contender; they take turns."""
        return 3 if self.quick else 9

    @property
    def seconds(self) -> float:
        """How long one repetition of something that can be repeated at will should take."""
        return 0.01 if self.quick else 0.06

    def pick(self, full: T, quick: T) -> T:
        """The size of a piece of work."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of doing the work.

    `sample()` does it once, for a while, and returns a rate (units per second) or, in a case
    that says `better="lower"`, an amount. `differs` says in what its work is not the same.
    """

    name: str
    sample: Callable[[], float]
    differs: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """What has to be reached: a ratio against others, or an amount when `against` is empty.

    Against several contenders, the best of them counts. `bound` says what bounds the figure, for
    a mark that is not met.
    """

    target: float
    against: tuple[str, ...] = ()
    percent: bool = False
    ours: str = OURS
    bound: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One piece of work, its contenders and its marks.

    `check()` runs before anything is timed and raises AssertionError unless all contenders come
    to the same result. `rounds` overrides the scale's, for work that takes long.
    """

    name: str
    unit: str
    contenders: tuple[Contender, ...]
    marks: tuple[Mark, ...] = ()
    check: Callable[[], None] | None = None
    better: str = "higher"
    rounds: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of several repetitions, and how far they lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A mark and what came out: the figure is the median of the ratios round by round."""

    mark: Mark
    against: str
    figure: Spread
    met: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case that was run: each contender's samples in the order of the rounds."""

    case: Case
    samples: dict[str, list[float]]

    def spread(self, contender: str) -> Spread:
        return Spread.of(self.samples[contender])

    def ratio(self, contender: str, against: str) -> Spread:
        """How many times better `contender` is, round by round, so that drift cancels."""
        pairs = zip(self.samples[contender], self.samples[against], strict=True)
        if self.case.better == "lower":
            return Spread.of([theirs / ours for ours, theirs in pairs])
        return Spread.of([ours / theirs for ours, theirs in pairs])

    def verdict(self, mark: Mark) -> Verdict:
        """What came out of a mark of the case."""
        if not mark.against:
            figure = self.spread(mark.ours)
            lower = self.case.better == "lower"
            met = figure.median <= mark.target if lower else figure.median >= mark.target
            return Verdict(mark, "", figure, met)
        against, figure = min(
            ((other, self.ratio(mark.ours, other)) for other in mark.against),
            key=lambda pair: pair[1].median,
        )
        return Verdict(mark, against, figure, figure.median >= mark.target)


def run_case(case: Case, scale: Scale) -> Outcome:
    """Check the results, then sample the contenders in turns, each round in another order."""
    if case.check is not None:
        case.check()
    samples: dict[str, list[float]] = {contender.name: [] for contender in case.contenders}
    count = len(case.contenders)
    for turn in range(case.rounds or scale.rounds):
        for place in range(count):
            contender = case.contenders[(turn + place) % count]
            samples[contender.name].append(contender.sample())
    return Outcome(case, samples)
