"""Plays every row and writes the table of docs/security.md: `python -m tests.adversity.report`.

The figures are kept in benchmarks/results/adversity.json; `--from-file` writes the table from
there.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE.parent)]

from adversity.rows import HAZARDS, Hazard  # noqa: E402
from moderntensor.blockchain import side  # noqa: E402
from moderntensor.blockchain.snapshots import keeper  # noqa: E402
from moderntensor.config import NodeConfig  # noqa: E402
from moderntensor.network import connection, limits, offences, protocol, rates  # noqa: E402
from moderntensor.network import reputation as reputations  # noqa: E402
from moderntensor.network.sync import fast, present, sources  # noqa: E402

PAGE = ROOT / "docs" / "security.md"
RESULT = ROOT / "benchmarks" / "results" / "adversity.json"
BEGIN, END = "<!-- hazards: begin -->", "<!-- hazards: end -->"
PLACES = (
    *(limits, connection, offences, reputations, protocol, rates, side, sources, present, fast),
    keeper,
    NodeConfig(),
)
MIB = 1024 * 1024
COMMON = {"test", "memory_grown", "slowest_pong", "syncs"}


@cache
def tests() -> dict[str, list[str]]:
    """Names of test functions by the row that they play, "07" as "7"."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                name = re.match(r"test_row_(\d+[a-c]?)_", node.name)
                if name:
                    found.setdefault(name[1].lstrip("0"), []).append(node.name)
    return found


def bound(name: str) -> str:
    """A constant by name, with its value. LookupError if there is none."""
    for place in PLACES:
        value = getattr(place, name, None)
        if value is not None:
            return f"`{name}` {value:,g}" if value < 1e6 else f"`{name}` {value / MIB:g} MiB"
    raise LookupError(name)


def amount(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if "memory" in name or "grown" in name:
        return f"{words} {value / MIB:.1f} MiB"
    return f"{words} {value:,.3g}" if isinstance(value, float) else f"{words} {value:,}"


def measured(hazard: Hazard, results: list[dict[str, Any]]) -> str:
    """What the tests of a row have seen."""
    names = tests().get(hazard.row, ())
    own = [r for r in results if re.sub(r"\[.*", "", r["test"]) in names]
    if not own:
        return ""
    figures: dict[str, Any] = {}
    for result in own:
        figures.update({k: v for k, v in result.items() if k not in COMMON})
    told = [amount(name, value) for name, value in figures.items()]
    grown = max(r["memory_grown"] for r in own) / MIB
    told.append(f"memory {grown:+.1f} MiB")
    if pong := max(r.get("slowest_pong", 0) for r in own):
        told.append(f"slowest honest PING {pong * 1000:.1f} ms")
    return "; ".join(told)


def rows(results: list[dict[str, Any]]) -> Iterator[str]:
    """The table, line by line."""
    yield "| Row | What a peer does | Answer | Tests | Bound | Measured |"
    yield "|---|---|---|---|---|---|"
    for hazard in HAZARDS:
        names = [f"`{name}`" for name in tests().get(hazard.row, ())]
        if hazard.elsewhere and hazard.elsewhere != hazard.answer:
            names.append(f"`{hazard.elsewhere}`")
        cells = (
            *(hazard.row, hazard.what, hazard.answer, "<br>".join(names) or "–"),
            *(", ".join(map(bound, hazard.bounds)), measured(hazard, results)),
        )
        yield "| " + " | ".join(cells) + " |"


def section(results: list[dict[str, Any]]) -> str:
    """All between the markers, and these."""
    return "\n".join((BEGIN, *rows(results), END))


def write(results: list[dict[str, Any]]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    new = re.sub(f"{BEGIN}.*{END}", lambda _: section(results), page, flags=re.DOTALL)
    PAGE.write_text(new, encoding="utf-8")


def play() -> list[dict[str, Any]]:
    """Run the tests; their figures. SystemExit where one fails."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "not slow",
             str(HERE), "--deselect", "tests/adversity/test_documented.py"],
            cwd=ROOT,
            env={**os.environ, "MODERNTENSOR_ADVERSITY_FIGURES": directory},
            check=True,
        )  # fmt: skip
        paths = sorted(Path(directory).iterdir())
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def main() -> None:
    if "--from-file" in sys.argv:
        results = json.loads(RESULT.read_text(encoding="utf-8"))
    else:
        results = play()
        RESULT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write(results)


if __name__ == "__main__":
    main()
