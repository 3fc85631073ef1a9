"""Writes the figures of campaigns into docs/simulation.md, with their charts beside it.

    moderntensor simulate all --seeds 0-499 --out DIR
    python -m benchmarks.simulation_page DIR [DIR...]

Each DIR is that of a campaign; its results are also kept in benchmarks/results. Only what stands
between the two marker lines of the page is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from moderntensor.errors import ConfigError
from moderntensor.simulation import report

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "simulation.md"
CHARTS = ROOT / "docs" / "charts" / "simulation"
KEPT = ROOT / "benchmarks" / "results" / "simulation.json"
BEGIN = "<!-- figures: written by python -m benchmarks.simulation_page -->"
END = "<!-- end of figures -->"
KINDS = ("propagation", "recovery", "sync")
"""Charts that the page shows."""


def figures(summaries: Sequence[report.Summary], charts: Sequence[str] = ()) -> Iterator[str]:
    """The lines between the markers; `charts`: names of files in docs/charts/simulation."""
    yield from report.markdown(summaries)
    for name in charts:
        yield ""
        yield f"![{name.removesuffix('.svg')}](charts/simulation/{name})"


def replaced(text: str, lines: Iterator[str]) -> str:
    """`text` with other lines between the markers. ValueError if they are not there."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError("the page lacks its markers")
    return f"{before}{BEGIN}\n\n" + "\n".join(lines).rstrip() + f"\n\n{END}{after}"


def main(directories: Sequence[str]) -> int:
    """Exit code 2 without a directory, 1 if one holds no results."""
    if not directories:
        print(__doc__)
        return 2
    summaries: dict[str, report.Summary] = {}
    for directory in directories:
        try:
            found = report.load(Path(directory) / report.FILE)
        except (ConfigError, OSError) as error:
            print(error)
            return 1
        summaries |= {each.scenario: each for each in found}
    from moderntensor.simulation import charts  # the one module that needs matplotlib

    CHARTS.mkdir(parents=True, exist_ok=True)
    names = []
    for each in summaries.values():
        for chart in charts.draw(each):
            if chart.name.removeprefix(f"{each.scenario}-") in KINDS:
                (CHARTS / f"{chart.name}.svg").write_text(chart.svg, encoding="utf-8")
                names.append(f"{chart.name}.svg")
    ordered = list(summaries.values())
    text = replaced(PAGE.read_text(encoding="utf-8"), figures(ordered, names))
    PAGE.write_text(text, encoding="utf-8")
    KEPT.write_text(report.as_json(ordered) + "\n", encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} and {len(names)} charts")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
