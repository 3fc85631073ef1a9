"""The table of docs/metrics.md, from the JSON file of the last run.

python -m benchmarks.api_cost.page
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from .ratios import Ratio
from .run import PLAIN, SAYS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "metrics.md"
RESULT = ROOT / "benchmarks" / "results" / "api_cost.json"
BEGIN, END = "<!-- api cost: begin -->", "<!-- api cost: end -->"


def lines(found: dict[str, Any]) -> Iterator[str]:
    """What stands between the markers."""
    plain = found["samples"][PLAIN]
    rate = median(sample["rate"] for sample in plain)
    seconds = median(sample["seconds"] for sample in plain)
    yield (
        f"{found['blocks']:,} blocks of {found['transfers']} transfers from {found['suppliers']} "
        f"suppliers, {len(plain)} rounds; plain {rate:,.0f} blocks/s, {seconds:.1f} s a sync. "
        f"{found['processors']}. Page: {found['page']}. {found['machine']}."
    )
    yield ""
    yield "| Node | Its work | Allowed | | Rate | Processor time | Requests/s |"
    yield "|---|---|---|---|---|---|---|"
    for arm, cost in found["costs"].items():
        yield (
            f"| {SAYS[arm]} | {cost['work']:.1%} | {cost['most']:.0%} | "
            f"{'held' if cost['met'] else '**missed**'} | {Ratio(**cost['rate']).change} | "
            f"{Ratio(**cost['processor']).change} | {cost['requests_per_second']:.1f} |"
        )


def write(found: dict[str, Any], page: Path = PAGE) -> None:
    """Replace what stands between the markers."""
    text = "\n".join((BEGIN, *lines(found), END))
    before = page.read_text(encoding="utf-8")
    page.write_text(
        re.sub(f"{BEGIN}.*{END}", lambda _: text, before, flags=re.DOTALL), encoding="utf-8"
    )


if __name__ == "__main__":
    write(json.loads(RESULT.read_text(encoding="utf-8")))
