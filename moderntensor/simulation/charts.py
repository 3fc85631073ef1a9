"""A campaign's charts as SVG and PNG. The one module of the simulator that needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .report import CURVES, MILESTONES, Summary, said, title_of, unit_of

INK: Final = "#1f2933"
FAINT: Final = "#d3dae1"
COLOURS: Final = ("#0f766e", "#b45309")
"""Of what is shown first and second. The page puts its own in their place where it is dark."""
SIZE: Final = (5.6, 3.1)  # inches
PNG_DOTS: Final = 160  # per inch
BINS: Final = 40
_STYLE: Final[dict[str, Any]] = {
    # The same results give the same file, and text stays text.
    "svg.hashsalt": "moderntensor",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
}


class Chart(NamedTuple):
    """One picture."""

    name: str
    """Of its files, without their endings."""
    title: str
    about: str
    """What there is to see, in a sentence, for those who do not."""
    svg: str


def draw(summary: Summary, directory: Path | None = None) -> list[Chart]:
    """Every chart that a scenario's figures allow; below `directory`, NAME.svg and NAME.png."""
    charts = []
    with mpl.rc_context(_STYLE):
        for kind, title, about, figure in _figures(summary):
            name = f"{summary.scenario}-{kind}"
            svg = _svg(figure)
            charts.append(Chart(name, title, about, svg))
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
                (directory / f"{name}.svg").write_text(svg, encoding="utf-8")
                figure.savefig(directory / f"{name}.png", dpi=PNG_DOTS, facecolor="white")
    return charts


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # No ground of its own, so that it may stand on a light one and on a dark one.
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _figures(summary: Summary) -> Iterator[tuple[str, str, str, Figure]]:
    """Kind, title, description and figure of each chart."""
    curves = [name for name in CURVES if name in summary.curves and summary.curves[name].median]
    if curves:
        figure, axes = _new()
        told = [_curve(axes, summary, name, COLOURS[i]) for i, name in enumerate(curves)]
        _finish_curves(axes, len(curves) > 1)
        yield "propagation", "Propagation", "; ".join(told), figure
    rates = [name for name in ("received_per_second", "sent_per_second") if _has(summary, name)]
    if rates:
        figure, axes = _new()
        told = [_shares(axes, summary, name, COLOURS[i]) for i, name in enumerate(rates)]
        axes.set_ylabel("% of the nodes, at most")
        axes.set_ylim(0, 102)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: said(x, "B/s")))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        _legend(axes, len(rates) > 1, "lower right")
        yield "bandwidth", "Bandwidth per node", "; ".join(told), figure
    for kind, name in (("sync", "sync_seconds"), ("recovery", "recovery_seconds")):
        if _has(summary, name):
            figure, axes = _new()
            about = _histogram(axes, summary, name)
            yield kind, title_of(name), about, figure


def _has(summary: Summary, name: str) -> bool:
    return name in summary.spreads and bool(summary.samples.get(name))


def _new() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    return figure, axes


def _curve(axes: Axes, summary: Summary, name: str, colour: str) -> str:
    """A propagation curve with its milestones; what it says."""
    curve = summary.curves[name]
    percent = range(1, len(curve.median) + 1)
    what = "Blocks" if name.startswith("block") else "Transactions"
    axes.fill_betweenx(percent, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(curve.median, percent, color=colour, linewidth=1.8, label=what)
    told = []
    for mark in MILESTONES:
        if mark > len(curve.median):
            continue
        seconds = curve.median[mark - 1]
        text = f"{mark} %: {said(seconds, 's')}"
        told.append(text)
        axes.plot([seconds], [mark], marker="o", markersize=4.5, color=colour)
        axes.annotate(
            text,
            (seconds, mark),
            xytext=(7, -8),
            textcoords="offset points",
            fontsize=8,
            color=colour,
        )
    return f"{what}, median over the seeds: {', '.join(told) or 'fewer than half of the nodes'}"


def _finish_curves(axes: Axes, several: bool) -> None:
    axes.set_ylim(0, 104)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.12)  # room for the texts
    axes.set_yticks([0, *MILESTONES], ["0", *map(str, MILESTONES)])
    axes.set_ylabel("% of the nodes")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: said(x, "s")))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _legend(axes, several, "lower right")


def _shares(axes: Axes, summary: Summary, name: str, colour: str) -> str:
    """How many of the nodes need no more than so much; what it says."""
    values, spread = summary.samples[name], summary.spreads[name]
    share = [100 * (i + 1) / len(values) for i in range(len(values))]
    what = title_of(name).removesuffix(" by a node")
    axes.step([values[0], *values], [0, *share], where="post", color=colour, lw=1.8, label=what)
    unit = unit_of(name)
    return f"{what}: median {said(spread.median, unit)}, 99 % {said(spread.p99, unit)}"


def _histogram(axes: Axes, summary: Summary, name: str) -> str:
    """How often so many seconds; what it says."""
    values, spread = summary.samples[name], summary.spreads[name]
    highest = max(values[-1], 1e-6)
    counts, _, _ = axes.hist(
        values,
        bins=min(BINS, max(len(values), 5)),
        range=(0, highest),
        weights=[100 / len(values)] * len(values),
        color=COLOURS[0],
        edgecolor="none",
        rwidth=0.88,
    )
    marks = [("median", spread.median), ("99 %", spread.p99)]
    if spread.p99 - spread.median < highest / 5:
        del marks[1]  # the texts would lie upon each other
    for text, value in marks:
        axes.axvline(value, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
        right = value > highest * 0.7
        axes.annotate(
            f"{text} {said(value, 's')}",
            (value, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if right else 4, -9),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=8,
        )
    axes.set_ylim(0, float(max(counts)) * 1.18)
    axes.set_xlim(0, highest * 1.03)
    axes.set_ylabel("% of all")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: said(x, "s")))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    told = f"median {said(spread.median, 's')}, 99 % {said(spread.p99, 's')}"
    return f"{title_of(name)}: {told}, at most {said(spread.high, 's')}, of {spread.count:,}"


def _legend(axes: Axes, wanted: bool, place: str) -> None:
    if wanted:
        axes.legend(loc=place, frameon=False, fontsize=8.5)
