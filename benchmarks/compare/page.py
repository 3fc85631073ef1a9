"""Writes the figures into docs/performance.md, from the JSON files of the last runs.

python -m benchmarks.compare.page

Only what stands between the two marker lines of the page is replaced.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import families
from .case import OURS
from .report import amount, ratio

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
CHARTS = ROOT / "docs" / "charts"
BEGIN = "<!-- figures: written by python -m benchmarks.compare.page -->"
END = "<!-- end of figures -->"

Family = dict[str, Any]


def load(directory: Path) -> list[Family]:
    """The results of every family that has been run, in the order of the families."""
    paths = [directory / f"{name}.json" for name in families.NAMES]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def figures(results: list[Family]) -> Iterator[str]:
    """The lines between the markers."""
    yield from _machine(results)
    yield from _marks(results)
    for family in results:
        yield from _family(family)


def _machine(results: list[Family]) -> Iterator[str]:
    newest = max(results, key=lambda family: family["when"])["machine"]
    yield "## What was measured on"
    yield ""
    yield (
        f"{newest['processor']}, {newest['cores']} cores, {newest['system']}, Python "
        f"{newest['python']} ({newest['compiler']}), {newest['openssl']}; SHA-256 by "
        f"`{newest['sha256']}`."
    )
    yield ""
    packages = newest["packages"].items()
    yield ", ".join(f"{name} {version}" for name, version in packages if version) + "."
    yield ""


def _marks(results: list[Family]) -> Iterator[str]:
    yield "## The marks"
    yield ""
    yield "| Family | Case | Against | At least | Result | Spread | |"
    yield "|---|---|---|--:|--:|--:|---|"
    bounds = []
    for family in results:
        for case in family["cases"]:
            for mark in case["marks"]:
                lower = case["better"] == "lower" and not mark["against"]
                who = f" ({mark['ours']})" if mark["ours"] != OURS else ""
                spread = mark["figure"]
                verdict = "met" if mark["met"] else "**missed**"
                if not mark["met"] and mark["bound"]:
                    against = f", against {mark['against']}" if mark["against"] else ""
                    bounds.append(f"{case['case']}{against}: {mark['bound']}")
                    verdict += f" ({len(bounds)})"
                yield (
                    f"| {family['family']} | {case['case']}{who} | {mark['against']} "
                    f"| {'≤ ' if lower else ''}{_text(mark, case, mark['target'])} "
                    f"| **{_text(mark, case, spread['median'])}** "
                    f"| {_text(mark, case, spread['low'])} – {_text(mark, case, spread['high'])} "
                    f"| {verdict} |"
                )
    yield ""
    for number, bound in enumerate(bounds, 1):
        yield f"{number}. {bound}"
    if bounds:
        yield ""


def _text(mark: dict[str, Any], case: dict[str, Any], value: float) -> str:
    if mark["against"]:
        return ratio(value, percent=mark["percent"])
    return amount(value, case["unit"])


def _family(family: Family) -> Iterator[str]:
    yield f"## {family['title']}"
    yield ""
    yield f"![{family['title']}]({CHARTS.name}/{family['family']}.svg)"
    yield ""
    yield f"| Case | Contender | {OURS} is | Median | Spread |"
    yield "|---|---|--:|--:|--:|"
    remarks = []
    for case in family["cases"]:
        unit = case["unit"]
        for index, contender in enumerate(case["contenders"]):
            name = contender["name"]
            if contender["differs"]:
                remarks.append(f"{case['case']}, {name}: {contender['differs']}")
                name += f" ({len(remarks)})"
            times = ratio(contender["ratio"]["median"]) if contender["ratio"] else ""
            yield (
                f"| {case['case'] if not index else ''} | {name} | {times} "
                f"| {amount(contender['median'], unit)} "
                f"| {amount(contender['low'])} – {amount(contender['high'])} |"
            )
    yield ""
    for number, remark in enumerate(remarks, 1):
        yield f"{number}. {remark}"
    if remarks:
        yield ""
    notes = [f"- {case['case']}: {case['note']}" for case in family["cases"] if case["note"]]
    if notes:
        yield from notes
        yield ""


def main() -> int:
    """Write the page and its charts; exit code 1 if the results are of a quick run."""
    results = load(RESULTS)
    quick = [family["family"] for family in results if family["quick"]]
    if quick or not results:
        print(f"no full results of {', '.join(quick) or 'any family'}: nothing was written")
        return 1
    from . import charts  # the one module that needs matplotlib

    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    lines = "\n".join(figures(results)).rstrip()
    PAGE.write_text(f"{before}{BEGIN}\n\n{lines}\n\n{END}{after}", encoding="utf-8")
    CHARTS.mkdir(exist_ok=True)
    for family in results:
        charts.draw(family, CHARTS / f"{family['family']}.svg")
    print(f"{PAGE.relative_to(ROOT)} and {len(results)} charts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
