"""How long `import moderntensor` takes, and how many packages the library alone brings along.

    python -m benchmarks.import_time [--runs 15]

Each run is a process of its own. What is printed is the time within the interpreter, from before
the import to after it, with the module files compiled already: the start of Python is not in it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent

# What is measured, by the name under which it is printed.
STATEMENTS = {
    "import moderntensor": "import moderntensor",
    "from moderntensor import P2PNode": "from moderntensor import P2PNode",
    "from moderntensor import FullNode": "from moderntensor import FullNode",
}
_CLOCK = "import time\nt = time.perf_counter()\n{}\nprint(time.perf_counter() - t)"


def seconds(statement: str, runs: int) -> list[float]:
    """How long it took in each of `runs` fresh processes."""

    def once() -> float:
        code = _CLOCK.format(statement)
        return float(subprocess.check_output([sys.executable, "-c", code], text=True))

    once()  # compiles the modules
    return [once() for _ in range(runs)]


def wanted(lines: Iterable[str], extras: Iterable[str] = ()) -> dict[str, set[str]]:
    """Packages, each with the extras of it, that requirements ask for on this system."""
    found: dict[str, set[str]] = {}
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": each}) for each in ("", *extras)):
            found[canonicalize_name(requirement.name)] = requirement.extras
    return found


def brought() -> tuple[set[str], set[str]]:
    """Names of the packages that the library needs itself, and of all that come along, without
    any of its extras. Raises PackageNotFoundError if one of them is not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = wanted(project["dependencies"])
    every: set[str] = set()
    waiting = list(direct.items())
    while waiting:
        name, extras = waiting.pop()
        if name not in every:
            every.add(name)
            waiting.extend(wanted(requires(name) or (), extras).items())
    return set(direct), every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    for name, statement in {"nothing": "pass", **STATEMENTS}.items():
        times = seconds(statement, runs)
        print(
            f"{name}: {statistics.median(times) * 1e3:.1f} ms, median of {runs},"
            f" {min(times) * 1e3:.1f} to {max(times) * 1e3:.1f}"
        )
    try:
        direct, every = brought()
    except PackageNotFoundError as error:
        sys.exit(f"not installed: {error}")
    print(f"{len(direct)} packages, {len(every)} with what those need:")
    print(", ".join(sorted(every)))


if __name__ == "__main__":
    main()
