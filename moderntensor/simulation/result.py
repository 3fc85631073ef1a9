"""What one run of a scenario gives: plain data, to be pickled, kept as JSON and put into charts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import Any, Final, Literal, NamedTuple

from ..errors import ConfigError

Parameter = bool | int | float | str
Metric = float | list[float]

MAX_SAMPLES: Final = 512
"""Numbers of one metric that a result keeps; more are thinned out evenly, the ends kept."""
CURVE_PERCENT: Final = range(1, 101)
"""The shares of all nodes, in percent, for which a propagation curve tells a time."""
MAX_VIOLATIONS: Final = 50
"""Sentences that a result keeps; the rest is counted in one more."""

SAFETY: Final = "safety"
LIVENESS: Final = "liveness"
FAILURE: Final = "failure"
"""What a violation begins with, before a colon. A failure is a run that came to no end: an
exception, a worker that died, a limit of time."""


class Measure(NamedTuple):
    """What a metric of a known name means."""

    title: str
    unit: str
    """``s``, ``B/s``, or empty for a plain number."""
    kind: Literal["curve", "samples"]


MEASURES: Final[Mapping[str, Measure]] = {
    "block_propagation": Measure("Blocks: time to reach a share of the nodes", "s", "curve"),
    "transaction_propagation": Measure(
        "Transactions: time to reach a share of the nodes", "s", "curve"
    ),
    "received_per_second": Measure("Received by a node", "B/s", "samples"),
    "sent_per_second": Measure("Sent by a node", "B/s", "samples"),
    "sync_seconds": Measure("Sync of a node", "s", "samples"),
    "recovery_seconds": Measure("One head again after the last fault", "s", "samples"),
}
"""The metrics that get a chart. A scenario may record others: numbers for the results' table."""


@dataclass(frozen=True)
class ScenarioResult:
    """One seed of one scenario. It held (`ok`) if there are no violations."""

    scenario: str
    seed: int
    parameters: dict[str, Parameter] = field(default_factory=dict)
    """Those that differ from the scenario's defaults."""
    violations: list[str] = field(default_factory=list)
    """Sentences that begin with ``safety:``, ``liveness:`` or ``failure:``."""
    virtual_seconds: float = 0.0
    wall_seconds: float = 0.0
    trace_hash: str = ""
    """SHA-256 of the trace in hex; empty for a run that came to no end."""
    heights: dict[str, int] = field(default_factory=dict)
    """Host → height of its head in the end; honest hosts that run."""
    metrics: dict[str, Metric] = field(default_factory=dict)
    """Name → a number or samples; see `MEASURES`, `samples` and `propagation`."""

    @property
    def ok(self) -> bool:
        return not self.violations

    @property
    def came_to_an_end(self) -> bool:
        """Whether the run says anything about the nodes: no exception, no worker lost."""
        return not any(kind_of(text) == FAILURE for text in self.violations)

    @property
    def replay(self) -> str:
        """The line that runs this seed once more and writes down what happens."""
        options = "".join(f" -p {name}={value}" for name, value in self.parameters.items())
        trace = f"{self.scenario}-{self.seed}.trace"
        return f"moderntensor simulate {self.scenario} --seed {self.seed}{options} --trace {trace}"

    def to_json(self) -> str:
        """One line of JSON. Numbers that JSON lacks raise ValueError: a metric is finite."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> ScenarioResult:
        """Read a line of `to_json`; ConfigError if it is none."""
        try:
            content: Any = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"no result of a scenario: {error}") from None
        types = _TYPES
        if not isinstance(content, dict) or set(content) != set(types):
            raise ConfigError(f"no result of a scenario: not the fields {', '.join(types)}")
        for name, kind in types.items():
            if not isinstance(content[name], kind) or isinstance(content[name], bool):
                raise ConfigError(f"no result of a scenario: {name} is {content[name]!r}")
        return cls(**content)


_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "scenario": str,
    "seed": int,
    "parameters": dict,
    "violations": list,
    "virtual_seconds": (int, float),
    "wall_seconds": (int, float),
    "trace_hash": str,
    "heights": dict,
    "metrics": dict,
}
assert set(_TYPES) == {each.name for each in fields(ScenarioResult)}  # noqa: S101


def failed(
    scenario: str,
    seed: int,
    parameters: Mapping[str, Parameter],
    reason: str,
    *,
    wall_seconds: float = 0.0,
) -> ScenarioResult:
    """The result of a run that came to no end."""
    return ScenarioResult(
        scenario, seed, dict(parameters), [f"{FAILURE}: {reason}"], wall_seconds=wall_seconds
    )


def kind_of(violation: str) -> str:
    """``safety``, ``liveness`` or ``failure``; what says neither is taken for the worst."""
    kind, colon, _ = violation.partition(":")
    return kind if colon and kind in (LIVENESS, FAILURE) else SAFETY


def samples(values: Iterable[float]) -> list[float]:
    """`values` in order of size, rounded to six digits, at most `MAX_SAMPLES` of them.

    What is infinite or no number is left out.
    """
    ordered = sorted(value for value in values if math.isfinite(value))
    if len(ordered) > MAX_SAMPLES:
        step = (len(ordered) - 1) / (MAX_SAMPLES - 1)
        ordered = [ordered[round(i * step)] for i in range(MAX_SAMPLES)]
    return [float(f"{value:.6g}") for value in ordered]


def propagation(arrivals: Iterable[Sequence[float]], nodes: int) -> list[float]:
    """The curve of how something spreads over `nodes` nodes: seconds per share of `CURVE_PERCENT`.

    Each of `arrivals` is one block or transaction: the seconds after which each node had it, in any
    order, its maker's 0 included. The curve is the median over them; it ends at the share that half
    of them reached. Empty if there was nothing.
    """
    ordered = [sorted(times) for times in arrivals]
    if not ordered or nodes < 1:
        return []
    curve = []
    for percent in CURVE_PERCENT:
        needed = -(-percent * nodes // 100)
        seconds = median(
            times[needed - 1] if needed <= len(times) else math.inf for times in ordered
        )
        if not math.isfinite(seconds):
            break
        curve.append(float(f"{seconds:.6g}"))
    return curve


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of `ordered` (ascending, not empty) that `share` of them do not exceed."""
    # The product of floats may lie a hair above the whole number that is meant.
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]
