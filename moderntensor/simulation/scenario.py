"""Scenarios: short coroutines over a world of nodes, by name, and how one seed of one is run."""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from ..errors import ConfigError
from .checks import Checks
from .host import of_the_living
from .result import FAILURE, MAX_VIOLATIONS, Parameter, ScenarioResult, samples
from .world import World

__all__ = ["ALL", "Scenario", "run_scenario", "scenario"]

Run = Callable[..., Awaitable[None]]

MAX_LOGGED: Final = 20
"""Errors in the nodes' logs that become violations of one run; one would do."""


@dataclass(frozen=True)
class Scenario:
    """A coroutine function of a world, its checks and parameters that all have defaults."""

    name: str
    about: str
    """One line."""
    run: Run
    parameters: Mapping[str, Parameter]
    """Name → default."""

    def checked(self, given: Mapping[str, Any]) -> dict[str, Parameter]:
        """The parameters that differ from the defaults; ConfigError for one that is not there is
        of another type, or is infinite or no number."""
        differing: dict[str, Parameter] = {}
        for name, value in given.items():
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise ConfigError(f"{self.name} has no parameter {name} (it has {known})")
            default = self.parameters[name]
            whole = type(value) is int and type(default) is float
            if type(value) is not type(default) and not whole:
                kind = type(default).__name__
                raise ConfigError(f"{self.name}: {name} is {value!r}, not of type {kind}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{self.name}: {name} is {value!r}, no number to reckon with")
            if value != default:
                differing[name] = float(value) if whole else value
        return differing


_registered: Final[dict[str, Scenario]] = {}
ALL: Final[Mapping[str, Scenario]] = MappingProxyType(_registered)
"""The scenarios that are known, by name; those of the package once `simulation.scenarios` is
imported."""


def scenario(name: str, *, about: str) -> Callable[[Run], Run]:
    """Register ``async def run(world, check, *, parameter=default, …)`` under `name`.

    `about` says in one line what it does. ConfigError if the name is taken by another function, or
    a parameter has no default.
    """

    def register(run: Run) -> Run:
        parameters = {}
        for parameter in list(inspect.signature(run).parameters.values())[2:]:
            if not isinstance(parameter.default, bool | int | float | str):
                raise ConfigError(f"scenario {name}: {parameter.name} needs a default")
            parameters[parameter.name] = parameter.default
        known = _registered.get(name)
        if known is not None and known.run.__qualname__ != run.__qualname__:
            raise ConfigError(f"scenario {name}: there is one of this name")
        _registered[name] = Scenario(name, about, run, MappingProxyType(parameters))
        return run

    return register


class _Errors(logging.Handler):
    """Collects what the nodes log as errors: a healthy one has none, whatever its peers do."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.addFilter(of_the_living)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) >= MAX_LOGGED:
            return
        line = " ".join(record.getMessage().split())
        if record.exc_info and record.exc_info[1] is not None:
            line += f" ({record.exc_info[1]!r})"
        if line not in self.lines:
            self.lines.append(line)


def run_scenario(
    name: str,
    seed: int,
    *,
    trace_file: Path | None = None,
    on_world: Callable[[World], None] | None = None,
    **parameters: Parameter,
) -> ScenarioResult:
    """Run one seed of a scenario to its end; the same seed and parameters give the same trace.

    `trace_file` gets the trace as text; `on_world` is called once before the run begins.
    ConfigError for an unknown name or parameter, and for values with which the run cannot begin;
    SimulationError if that file cannot be written; whatever else the run raises is a violation.
    """
    from . import scenarios  # noqa: F401, PLC0415  (they register themselves here)

    chosen = ALL.get(name)
    if chosen is None:
        raise ConfigError(f"no scenario {name} (there are {', '.join(sorted(ALL))})")
    differing = chosen.checked(parameters)
    started = time.perf_counter()
    errors = _Errors()
    logger = logging.getLogger("moderntensor")
    logger.addHandler(errors)
    world = World(seed, record=trace_file or False)
    check = Checks(world)
    heights: dict[str, int] = {}

    async def main(_: World) -> None:
        await chosen.run(world, check, **parameters)
        check.finish()
        for host in world.honest:
            if host.node is not None:
                heights[host.name] = host.node.chain.head.height
        if world.now > 0:
            check.metrics.setdefault(
                "received_per_second",
                samples(host.bytes_received / world.now for host in world.honest),
            )
            check.metrics.setdefault(
                "sent_per_second", samples(host.bytes_sent / world.now for host in world.honest)
            )

    try:
        if on_world is not None:
            on_world(world)
        world.run(main)
    except Exception as error:
        world.trace.check()  # the fault of a disk is no fault of the run
        if isinstance(error, ConfigError) and not world.now:
            raise  # it could not begin
        logging.getLogger(__name__).debug("the run of %s %d failed", name, seed, exc_info=True)
        check.violate(FAILURE, _described(error))
    finally:
        logger.removeHandler(errors)
    for line in errors.lines:
        if any(part in line for part in check.expected_errors):
            continue
        check.violate(FAILURE, f"a node logged: {line}")
    violations = check.violations[:MAX_VIOLATIONS]
    if len(check.violations) > MAX_VIOLATIONS:
        violations.append(f"{FAILURE}: {len(check.violations) - MAX_VIOLATIONS} more")
    return ScenarioResult(
        scenario=name,
        seed=seed,
        parameters=differing,
        violations=violations,
        virtual_seconds=world.now,
        wall_seconds=time.perf_counter() - started,
        trace_hash=world.trace.digest(),
        heights=heights,
        metrics=check.metrics,
    )


def _described(error: BaseException) -> str:
    """An exception in one line, those in a group included, with the place that raised it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_described(each) for each in error.exceptions)
    place = ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" at {Path(code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return " ".join(f"{type(error).__name__}: {error}".split()) + place
