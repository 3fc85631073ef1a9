"""Timing what can be called again and again in this process."""

from __future__ import annotations

import gc
import timeit
from collections.abc import Callable
from typing import Any

from .case import Contender, Scale


def calls(
    scale: Scale,
    name: str,
    function: Callable[..., Any],
    *arguments: Any,
    units: int = 1,
    differs: str = "",
    seconds: float | None = None,
) -> Contender:
    """A contender that calls `function(*arguments)`, each call worth `units` units of work.

    The call stands in the timed loop itself, without a wrapper around it. The collector stays on,
    as it is in the programs that people run; what lives already is put out of its sight.
    """
    names = {f"a{i}": value for i, value in enumerate(arguments)}
    timer = timeit.Timer(
        f"f({', '.join(names)})", "gc.enable()", globals={"f": function, "gc": gc} | names
    )
    repeats = 0

    def sample() -> float:
        nonlocal repeats
        if not repeats:
            function(*arguments)
            gc.collect()
            gc.freeze()
            repeats = _repeats(timer, seconds or scale.seconds)
        return units * repeats / timer.timeit(repeats)

    return Contender(name, sample, differs)


def _repeats(timer: timeit.Timer, seconds: float) -> int:
    """How many calls take about so long."""
    repeats = 1
    while (taken := timer.timeit(repeats)) < seconds / 4:
        repeats *= 4 if taken < seconds / 16 else 2
    return max(1, round(repeats * seconds / taken))
