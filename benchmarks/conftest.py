"""Fixtures of the benchmarks, and the table of ratios at their end.

pytest benchmarks                       # all of them
pytest benchmarks/bench_framing.py      # one family
"""

from __future__ import annotations

from typing import Any

import pytest
from helpers.engines import engine

__all__ = ["engine"]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What was run on both twins: the best rounds, and how many times faster compiled is."""
    session = getattr(config, "_benchmarksession", None)
    best: dict[str, dict[str, float]] = {}
    for bench in getattr(session, "benchmarks", ()):
        twin = next((name for name in ("pure", "compiled") if name in bench.name), None)
        if twin is not None and not bench.has_error:
            name = (
                bench.name.replace(twin, "")
                .replace("[-", "[")
                .replace("-]", "]")
                .removesuffix("[]")
            )
            title = f"{bench.group or ''}: {name}"
            best.setdefault(title, {})[twin] = bench.stats.min
    rows = [(title, both) for title, both in best.items() if len(both) == 2]
    if not rows:
        return
    terminalreporter.section("compiled against pure (best rounds of this run)")
    width = max(len(title) for title, _ in rows)
    for title, both in rows:
        terminalreporter.write_line(
            f"{title:<{width}}  pure {_time(both['pure']):>10}  "
            f"compiled {_time(both['compiled']):>10}  {both['pure'] / both['compiled']:7.1f}x"
        )


def _time(seconds: float) -> str:
    for factor, unit in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.1f} {unit}"
    return f"{seconds:.2f} s"
