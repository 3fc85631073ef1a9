"""What a campaign's results come to, per scenario: counts, spreads and curves, as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ..errors import ConfigError
from .result import (
    CURVE_PERCENT,
    FAILURE,
    LIVENESS,
    MEASURES,
    SAFETY,
    Parameter,
    ScenarioResult,
    kind_of,
    quantile,
    samples,
)

FILE: Final = "results.json"
CURVES: Final = tuple(name for name, measure in MEASURES.items() if measure.kind == "curve")
MILESTONES: Final = (50, 90, 99)
"""Percent of all nodes."""
MAX_BAD: Final = 100
"""Seeds that did not hold of which a summary tells; the journal has all of them."""
_VERSION: Final = 1


@dataclass(frozen=True)
class Spread:
    """Of `count` numbers."""

    count: int
    low: float
    median: float
    p90: float
    p99: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """ValueError if there are none."""
        ordered = sorted(values)
        if not ordered:
            raise ValueError("no values")
        middle, most, nearly_all = (quantile(ordered, share) for share in (0.5, 0.9, 0.99))
        return cls(len(ordered), ordered[0], middle, most, nearly_all, ordered[-1])


@dataclass(frozen=True)
class Curve:
    """Seconds until the first percent, two percent … of the nodes: over all seeds the median, and
    between which values eight of ten seeds lie. It ends at the share that half of them reached."""

    median: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Bad:
    """A seed that did not hold, and the line that replays it."""

    seed: int
    violations: list[str]
    replay: str


@dataclass(frozen=True)
class Summary:
    """All seeds of one scenario."""

    scenario: str
    about: str
    parameters: dict[str, Parameter]
    seeds: int
    held: int
    violations: dict[str, int]
    """``safety``, ``liveness`` and ``failure`` → seeds with such a one."""
    virtual_seconds: float
    wall_seconds: float
    spreads: dict[str, Spread]
    """Metric → its values in all seeds; of curves, the milestones as ``…_50`` to ``…_99``."""
    curves: dict[str, Curve] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Metric that gets a chart → its values, thinned out."""
    bad: list[Bad] = field(default_factory=list)


def summarize(results: Iterable[ScenarioResult], about: Mapping[str, str]) -> list[Summary]:
    """One summary per scenario, in the order in which they first come; `about`: name → a line."""
    groups: dict[str, list[ScenarioResult]] = {}
    for result in results:
        groups.setdefault(result.scenario, []).append(result)
    return [_summary(name, group, about.get(name, "")) for name, group in groups.items()]


def _summary(name: str, results: Sequence[ScenarioResult], about: str) -> Summary:
    kinds = [{kind_of(text) for text in result.violations} for result in results]
    values: dict[str, list[float]] = {}
    curves: dict[str, list[list[float]]] = {}
    for result in results:
        for metric, value in result.metrics.items():
            if metric in CURVES and isinstance(value, list):
                curves.setdefault(metric, []).append(value)
                for percent in MILESTONES:
                    reached = value[percent - 1 : percent]
                    values.setdefault(f"{metric}_{percent}", []).extend(reached)
            else:
                several = value if isinstance(value, list) else [value]
                values.setdefault(metric, []).extend(several)
    bad = [result for result in results if not result.ok]
    return Summary(
        scenario=name,
        about=about,
        parameters=dict(results[0].parameters),
        seeds=len(results),
        held=sum(result.ok for result in results),
        violations={
            kind: sum(kind in found for found in kinds) for kind in (SAFETY, LIVENESS, FAILURE)
        },
        virtual_seconds=round(sum(result.virtual_seconds for result in results), 3),
        wall_seconds=round(sum(result.wall_seconds for result in results), 3),
        spreads={metric: Spread.of(found) for metric, found in values.items() if found},
        curves={metric: _join(found) for metric, found in curves.items()},
        samples={metric: samples(values[metric]) for metric in MEASURES if values.get(metric)},
        bad=[Bad(each.seed, each.violations, each.replay) for each in bad[:MAX_BAD]],
    )


def _join(curves: Sequence[Sequence[float]]) -> Curve:
    joined = Curve([], [], [])
    for index in range(len(CURVE_PERCENT)):
        there = sorted(curve[index] for curve in curves if len(curve) > index)
        if 2 * len(there) < len(curves) or not there:
            break
        joined.median.append(quantile(there, 0.5))
        joined.low.append(quantile(there, 0.1))
        joined.high.append(quantile(there, 0.9))
    return joined


def write(directory: Path, summaries: Sequence[Summary]) -> Path:
    """Write ``results.json``; the same summaries give the same file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILE
    path.write_text(as_json(summaries) + "\n", encoding="utf-8")
    return path


def as_json(summaries: Sequence[Summary]) -> str:
    """All of it as text that `load` reads."""
    content = {"version": _VERSION, "scenarios": [asdict(each) for each in summaries]}
    return json.dumps(content, indent=1, allow_nan=False)


def load(path: Path) -> list[Summary]:
    """Read what `write` wrote; ConfigError if it is anything else."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != _VERSION:
            raise ConfigError(f"{path} is of version {content['version']}, not {_VERSION}")
        return [_from_json(each) for each in content["scenarios"]]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} holds no results of a campaign: {error}") from None


def _from_json(content: dict[str, Any]) -> Summary:
    spreads = {name: Spread(**each) for name, each in content["spreads"].items()}
    curves = {name: Curve(**each) for name, each in content["curves"].items()}
    bad = [Bad(**each) for each in content["bad"]]
    return Summary(**{**content, "spreads": spreads, "curves": curves, "bad": bad})


# --- for people ----------------------------------------------------------------------------------


def title_of(metric: str) -> str:
    """What a metric is called: ``sync_seconds`` → ``Sync of a node``."""
    if metric in MEASURES:
        return MEASURES[metric].title
    base, _, percent = metric.rpartition("_")
    if base in CURVES and percent.isdecimal():
        return f"{base.partition('_')[0].capitalize()} at {percent} % of the nodes"
    return metric.removesuffix("_seconds").replace("_", " ").capitalize()


def unit_of(metric: str) -> str:
    """``s``, ``B/s``, or nothing."""
    base = metric.rpartition("_")[0]
    if metric in MEASURES or base in CURVES:
        return MEASURES[metric if metric in MEASURES else base].unit
    return "s" if metric.endswith("_seconds") else ""


def said(value: float, unit: str) -> str:
    """A number for people, three digits that matter: ``340 ms``, ``12.3 kB/s``, ``1,234``."""
    if unit == "s":
        if 0 < abs(value) < 1:
            return f"{_three(value * 1000)} ms"
        return f"{_three(value)} s"
    if unit == "B/s":
        for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= factor:
                return f"{_three(value / factor)} {prefix}B/s"
        return f"{_three(value)} B/s"
    return f"{_three(value)} {unit}".rstrip()


def _three(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def simulated(seconds: float) -> str:
    """Simulated time in all: ``75 min``, ``12.5 h``, ``3.2 days``."""
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.1f} days"


def markdown(summaries: Sequence[Summary]) -> Iterator[str]:
    """The tables for documentation: what held, then the figures."""
    yield "| Scenario | Seeds | All held | Safety | Liveness | No end | Simulated | Wall time |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for each in summaries:
        counts = " | ".join(str(each.violations[kind]) for kind in (SAFETY, LIVENESS, FAILURE))
        yield (
            f"| `{each.scenario}`: {each.about} | {each.seeds:,} | {each.held:,} | {counts} "
            f"| {simulated(each.virtual_seconds)} | {each.wall_seconds / each.seeds:.2f} s a seed |"
        )
    rows = [
        (each.scenario, metric, spread)
        for each in summaries
        for metric, spread in each.spreads.items()
    ]
    if not rows:
        return
    yield ""
    yield "| Scenario | Figure | Median | 90 % | 99 % | Worst | Of |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    last = ""
    for name, metric, spread in rows:
        unit = unit_of(metric)
        numbers = (spread.median, spread.p90, spread.p99, spread.high)
        told = " | ".join(said(number, unit) for number in numbers)
        shown = f"`{name}`" if name != last else ""
        yield f"| {shown} | {title_of(metric)} | {told} | {spread.count:,} |"
        last = name
