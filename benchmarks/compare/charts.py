"""One chart a family: a panel a case, a bar a contender, ours in colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .case import OURS
from .report import amount, ratio

COLUMNS = 2
OURS_COLOUR, OTHER_COLOUR, TEXT = "#0f766e", "#b8c0c8", "#1f2933"
# The same results give the same file, and text stays text.
STYLE = {
    "svg.hashsalt": OURS,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "ytick.color": TEXT,
}


def draw(family: dict[str, Any], path: Path) -> None:
    """Write a family's chart as SVG."""
    cases = family["cases"]
    rows = [cases[i : i + COLUMNS] for i in range(0, len(cases), COLUMNS)]
    heights = [max(len(case["contenders"]) for case in row) * 0.26 + 0.75 for row in rows]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, sum(heights)), facecolor="white", layout="constrained")
        grid = figure.add_gridspec(len(rows), min(COLUMNS, len(cases)), height_ratios=heights)
        for index, case in enumerate(cases):
            _panel(figure.add_subplot(grid[index // COLUMNS, index % COLUMNS]), case)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    # Trailing blanks of the writer would be changed by editors.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def _panel(axes: Axes, case: dict[str, Any]) -> None:
    contenders = case["contenders"]
    places = range(len(contenders))
    values = [contender["median"] for contender in contenders]
    axes.barh(
        places,
        values,
        height=0.72,
        color=[OURS_COLOUR if c["name"] == OURS else OTHER_COLOUR for c in contenders],
    )
    axes.errorbar(
        values,
        places,
        xerr=[
            [c["median"] - c["low"] for c in contenders],
            [c["high"] - c["median"] for c in contenders],
        ],
        fmt="none",
        ecolor=TEXT,
        elinewidth=0.8,
    )
    for place, contender in zip(places, contenders, strict=True):
        times = f"    {OURS} is {ratio(contender['ratio']['median'])}" if contender["ratio"] else ""
        axes.annotate(
            f"{amount(contender['median'])}{times}",
            (contender["high"], place),
            xytext=(4, 0),
            textcoords="offset points",
            verticalalignment="center",
            fontsize=8,
        )
    axes.set_yticks(places, [contender["name"] for contender in contenders])
    axes.invert_yaxis()
    axes.set_xlim(0, max(c["high"] for c in contenders) * 1.55)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    better = ", lower is better" if case["better"] == "lower" else ""
    axes.set_title(f"{case['case']} ({case['unit']}{better})", loc="left", fontsize=9.5)
