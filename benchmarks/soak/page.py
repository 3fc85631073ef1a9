"""The table of docs/soak.md, from the JSON file of the last run.

python -m benchmarks.soak.page
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "soak.md"
RESULT = ROOT / "benchmarks" / "results" / "soak.json"
BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
MIB = 1024 * 1024


def lines(found: dict[str, Any]) -> Iterator[str]:
    """What stands between the markers."""
    yield (
        f"{found['seconds'] / 60:g} minutes, seed {found['seed']}: {found['restarts']} restarts by "
        f"SIGTERM and {found['kills']} by SIGKILL, {found['sent']:,} transactions, "
        f"{found['height']:,} blocks, {found['samples']:,} samples of {found['lives']} lives. "
        f"{found['machine']}."
    )
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, held in found["marks"].items():
        yield f"| {name.capitalize()} | {'held' if held else '**missed**'} |"
    yield ""
    yield "| Figure | Lives judged | In the longest | Allowed | In the worst | Allowed |"
    yield "|---|---|---|---|---|---|"
    for figure in dict.fromkeys(verdict["figure"] for verdict in found["verdicts"]):
        of_it = [verdict for verdict in found["verdicts"] if verdict["figure"] == figure]
        longest = max(of_it, key=lambda verdict: float(verdict["seconds"]))
        worst = max(of_it, key=lambda verdict: float(verdict["growth"] / verdict["allowed"]))
        unit, name = (MIB, " MiB") if figure == "memory" else (1, "")
        cells = (
            f"{verdict['growth'] / unit:+.1f}{name} in {verdict['seconds'] / 60:.1f} min"
            f" | {verdict['allowed'] / unit:.1f}{name}"
            for verdict in (longest, worst)
        )
        yield f"| {figure.capitalize()} | {len(of_it)} | {' | '.join(cells)} |"


def write(found: dict[str, Any], page: Path = PAGE) -> None:
    """Replace what stands between the markers."""
    text = "\n".join((BEGIN, *lines(found), END))
    before = page.read_text(encoding="utf-8")
    page.write_text(
        re.sub(f"{BEGIN}.*{END}", lambda _: text, before, flags=re.DOTALL), encoding="utf-8"
    )


if __name__ == "__main__":
    write(json.loads(RESULT.read_text(encoding="utf-8")))
