"""What came out, for the terminal and for the files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .case import OURS, Mark, Outcome, Spread, Verdict

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value: float, unit: str = "") -> str:
    """A number with three digits that matter and its unit's prefix: ``4.21M headers/s``."""
    factor, prefix = next(
        ((factor, prefix) for factor, prefix in _PREFIXES if abs(value) >= factor), (1.0, "")
    )
    value /= factor
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}{prefix} {unit}".rstrip()


def ratio(value: float, *, percent: bool = False) -> str:
    """``3.2×`` or ``87 %``."""
    if percent:
        return f"{value * 100:.0f} %"
    return f"{value:.0f}×" if value >= 100 else f"{value:.1f}×" if value >= 10 else f"{value:.2f}×"


def figure(verdict: Verdict, unit: str) -> tuple[str, str, str]:
    """A verdict's target, figure and spread as text."""
    mark = verdict.mark

    def text(value: float) -> str:
        return ratio(value, percent=mark.percent) if mark.against else amount(value, unit)

    spread = verdict.figure
    return text(mark.target), text(spread.median), f"{text(spread.low)} – {text(spread.high)}"


def show(console: Console, title: str, outcomes: Sequence[Outcome]) -> None:
    """The tables of a family: the marks first, then every contender's rate, then the notes."""
    marks = _marks(title, outcomes)
    console.print()
    if marks.row_count:
        console.print(marks)
        console.print()
    console.print(_rates(title, outcomes))
    for outcome in outcomes:
        for line in _notes(outcome):
            console.print(f"  {outcome.case.name}: {line}", markup=False, highlight=False)


def _marks(title: str, outcomes: Sequence[Outcome]) -> Table:
    table = Table(title=f"{title}: marks", title_justify="left", show_edge=False)
    for column in ("case", "against", "target", "result", "spread", ""):
        table.add_column(column, justify="left" if column in ("case", "against") else "right")
    for outcome in outcomes:
        case = outcome.case
        for verdict in map(outcome.verdict, case.marks):
            target, result, spread = figure(verdict, case.unit)
            met = "[green]met[/]" if verdict.met else "[bold red]missed[/]"
            lower = case.better == "lower" and not verdict.mark.against
            who = f" ({verdict.mark.ours})" if verdict.mark.ours != OURS else ""
            table.add_row(
                case.name + who,
                verdict.against,
                f"{'≤' if lower else '≥'} {target}",
                result,
                spread,
                met,
            )
    return table


def _rates(title: str, outcomes: Sequence[Outcome]) -> Table:
    table = Table(title=f"{title}: all", title_justify="left", show_edge=False)
    for column in ("case", "contender", "median", "spread", f"{OURS} is"):
        table.add_column(column, justify="left" if column in ("case", "contender") else "right")
    for outcome in outcomes:
        case = outcome.case
        for index, contender in enumerate(case.contenders):
            values = outcome.spread(contender.name)
            against = ""
            if contender.name != OURS and OURS in outcome.samples:
                against = ratio(outcome.ratio(OURS, contender.name).median)
            table.add_row(
                "" if index else case.name,
                contender.name + (" *" if contender.differs else ""),
                amount(values.median, case.unit),
                f"{amount(values.low)} – {amount(values.high)}",
                against,
            )
    return table


def _notes(outcome: Outcome) -> Iterator[str]:
    for contender in outcome.case.contenders:
        if contender.differs:
            yield f"* {contender.name}: {contender.differs}"
    if outcome.case.note:
        yield outcome.case.note
    for verdict in map(outcome.verdict, outcome.case.marks):
        if not verdict.met and verdict.mark.bound:
            yield f"missed, because {verdict.mark.bound}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """One case as plain data; `page.py` writes the documentation from it."""
    case = outcome.case
    return {
        "case": case.name,
        "unit": case.unit,
        "better": case.better,
        "note": case.note,
        "marks": [_mark(outcome.verdict(mark)) for mark in case.marks],
        "contenders": [
            {
                "name": contender.name,
                "differs": contender.differs,
                **_spread(outcome.spread(contender.name)),
                "samples": [_round(value) for value in outcome.samples[contender.name]],
                "ratio": None
                if contender.name == OURS or OURS not in outcome.samples
                else _spread(outcome.ratio(OURS, contender.name)),
            }
            for contender in case.contenders
        ],
    }


def _mark(verdict: Verdict) -> dict[str, Any]:
    mark: Mark = verdict.mark
    return {
        "ours": mark.ours,
        "against": verdict.against,
        "candidates": list(mark.against),
        "percent": mark.percent,
        "target": mark.target,
        "figure": _spread(verdict.figure),
        "met": verdict.met,
        "bound": mark.bound,
    }


def _spread(spread: Spread) -> dict[str, float]:
    return {
        "median": _round(spread.median),
        "low": _round(spread.low),
        "high": _round(spread.high),
    }


def _round(value: float) -> float:
    return float(f"{value:.6g}")


def write(directory: Path, family: str, content: dict[str, Any]) -> Path:
    """Write a family's results as `<family>.json`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{family}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
