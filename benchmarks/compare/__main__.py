"""The command: `python -m benchmarks.compare [--quick] [FAMILY ...]`."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from . import families, machine
from .case import Scale, run_case
from .report import as_json, show, write

RESULTS = Path(__file__).parent.parent / "results"


def main() -> int:
    """Run the families that were asked for. Exit code 1 if results differ, 0 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(families.NAMES))
    parser.add_argument("--quick", action="store_true", help="in small, within two minutes")
    parser.add_argument(
        "--out", type=Path, help="folder of the JSON files (benchmarks/results; --quick: none)"
    )
    options = parser.parse_args()
    unknown = set(options.families) - set(families.NAMES)
    if unknown:
        parser.error(
            f"no family {', '.join(sorted(unknown))}; there are {', '.join(families.NAMES)}"
        )
    names = options.families or families.NAMES
    out = options.out or (None if options.quick else RESULTS)
    scale = Scale(options.quick)
    console = Console(width=None if sys.stdout.isatty() else 130)
    described = machine.describe()
    console.print(
        f"{described['processor']}, {described['cores']} cores, Python {described['python']}, "
        f"engines {described['engines']}, SHA-256 {described['sha256']}"
    )
    for name in names:
        began = time.perf_counter()
        try:
            family = importlib.import_module(f"{__package__}.families.{name}")
        except ModuleNotFoundError as error:
            sys.exit(f"{name} needs {error.name}: pip install -e '.[bench]'")
        outcomes = []
        for case in family.cases(scale):
            console.print(f"[dim]{name}: {case.name}[/]")
            outcomes.append(run_case(case, scale))
        show(console, family.TITLE, outcomes)
        took = time.perf_counter() - began
        console.print(f"[dim]{name}: {took:.0f} s[/]")
        if out is not None:
            content = {
                "family": name,
                "title": family.TITLE,
                "quick": scale.quick,
                "when": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(took, 1),
                "machine": described,
                "cases": [as_json(outcome) for outcome in outcomes],
            }
            console.print(f"[dim]{write(out, name, content)}[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
