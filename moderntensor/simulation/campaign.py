"""Many seeds of many scenarios at once, on the processes or the machines of any executor.

    with Workers(2, limit=300) as workers:
        results = run_campaign(["partition"], range(500), executor=workers, at_once=2)

Every seed gets a result: one whose worker dies, or that takes too long, is a failure of that seed.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any, Final, NamedTuple

from ..errors import ConfigError, ModernTensorError
from .journal import Journal
from .result import Parameter, ScenarioResult, failed
from .scenario import ALL, run_scenario
from .workers import WorkerLost, Workers

SEED_SECONDS: Final = 600.0
"""Seconds of wall time for one seed, unless told otherwise."""
LOOK_SECONDS: Final = 0.5
"""Between two looks at seeds that take too long, and two calls of `on_progress` meanwhile."""
GRACE_SECONDS: Final = 30.0
"""On top of a seed's limit, for workers that are not ours: their start, the way there and back."""
MAX_SEEDS: Final = 1_000_000
"""Runs of one campaign."""


class Job(NamedTuple):
    """One seed of one scenario, as it travels to a worker."""

    scenario: str
    seed: int
    parameters: dict[str, Parameter]
    modules: tuple[str, ...] = ()
    """To be imported first: where scenarios of one's own are registered."""


def run_job(job: Job) -> ScenarioResult:
    """Run one seed, here and now. What the run raises becomes a failure that says where."""
    started = time.perf_counter()
    try:
        load(job.modules)
        parameters: dict[str, Any] = job.parameters
        return run_scenario(job.scenario, job.seed, **parameters)
    except Exception as error:  # one seed's failure must not end the campaign
        return failed(
            job.scenario,
            job.seed,
            job.parameters,
            _where(error),
            wall_seconds=time.perf_counter() - started,
        )


def _where(error: BaseException) -> str:
    """An exception with the place that raised it, in a line."""
    frames = extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".split()) + place


def check_names(
    names: Sequence[str], parameters: Mapping[str, Parameter], modules: Sequence[str] = ()
) -> dict[str, dict[str, Parameter]]:
    """Each name with those of `parameters` that differ from its defaults.

    ConfigError if a scenario is unknown, named twice, or has no such parameter.
    """
    load(modules)
    checked: dict[str, dict[str, Parameter]] = {}
    for name in names:
        if name not in ALL:
            raise ConfigError(f"no scenario {name} (there are {', '.join(sorted(ALL))})")
        if name in checked:
            raise ConfigError(f"scenario {name} is named twice")
        checked[name] = ALL[name].checked(parameters)
    return checked


def load(modules: Sequence[str] = ()) -> None:
    """Register the package's scenarios and those of `modules`. ConfigError if one is not there."""
    for module in (f"{__package__}.scenarios", *modules):
        if not module or module.startswith("."):
            raise ConfigError(f"cannot import {module!r}: not the whole name of a module")
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigError(f"cannot import {module}: {error}") from None


@dataclass
class Progress:
    """How far a campaign is."""

    total: int
    found: int = 0
    """Of `total`, those that an earlier run of it had left."""
    done: int = 0
    """Of `total`, with `found`."""
    bad: list[ScenarioResult] = field(default_factory=list)
    """Those that did not hold."""
    running: int = 0
    virtual_seconds: float = 0.0
    """Simulated in this run."""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Of wall time, in this run."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Seeds per second of wall time."""
        return (self.done - self.found) / max(self.seconds, 1e-6)

    @property
    def seconds_to_go(self) -> float | None:
        """None before the first is done."""
        return (self.total - self.done) / self.rate if self.done > self.found else None

    def add(self, result: ScenarioResult) -> None:
        """One more is done."""
        self.done += 1
        self.virtual_seconds += result.virtual_seconds
        if not result.ok:
            self.bad.append(result)


def run_campaign(
    names: Sequence[str],
    seeds: Sequence[int],
    *,
    parameters: Mapping[str, Parameter] | None = None,
    modules: Sequence[str] = (),
    executor: Executor | None = None,
    at_once: int | None = None,
    limit: float = SEED_SECONDS,
    journal: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[ScenarioResult]:
    """Run every seed of every scenario; their results, in the order of `names` and `seeds`.

    `at_once` of them (by default, as many as there are processors here) are with the executor at a
    time: as many as it has workers. Without an executor, `Workers` are started and ended; with one,
    it is left running. `limit` bounds the seconds of wall time that a seed may take; workers of a
    foreign executor cannot be killed from here, so that one that hangs is given up with its seed,
    and the campaign ends early when none is left (ModernTensorError).

    With a `journal` each result is kept there as soon as there is one, and what is there already is
    not run again, but for failures. Interrupted by an exception, KeyboardInterrupt among them, all
    that was done is in it. `on_progress` is called in this thread, about twice a second.
    ConfigError for an unknown scenario or parameter, before anything runs.
    """
    chosen_parameters = check_names(names, parameters or {}, modules)
    here = os.cpu_count() or 1
    at_once = here if at_once is None else at_once
    if at_once < 1 or limit <= 0:
        raise ConfigError("a campaign runs at least one seed at a time, for more than 0 seconds")
    if len(names) * len(seeds) > MAX_SEEDS:
        raise ConfigError(f"a campaign has at most {MAX_SEEDS} runs")
    own = Workers(at_once, limit=limit) if executor is None else None
    chosen = own or executor
    assert chosen is not None  # noqa: S101  one of the two is there
    kept = Journal(journal) if journal is not None else None
    try:
        results = _found(kept, chosen_parameters, seeds) if kept is not None else {}
        progress = Progress(len(names) * len(seeds), found=len(results), done=len(results))
        progress.bad.extend(result for result in results.values() if not result.ok)
        jobs = deque(
            Job(name, seed, chosen_parameters[name], tuple(modules))
            for name in names
            for seed in seeds
            if (name, seed) not in results
        )
        # Our own workers hold to the limit by themselves.
        patience = limit + GRACE_SECONDS if own is None else None
        for result in _run(jobs, chosen, at_once, patience, progress, on_progress):
            results[result.scenario, result.seed] = result
            if kept is not None:
                kept.add(result)
            progress.add(result)
        if on_progress is not None:
            on_progress(progress)
        return [results[name, seed] for name in names for seed in seeds]
    except BaseException:
        if own is not None:
            own.kill()
        raise
    finally:
        if own is not None:
            own.shutdown()
        if kept is not None:
            kept.close()


def _found(
    journal: Journal, parameters: Mapping[str, dict[str, Parameter]], seeds: Sequence[int]
) -> dict[tuple[str, int], ScenarioResult]:
    """What an earlier run left."""
    return {
        (name, seed): result
        for name, own in parameters.items()
        for seed, result in journal.finished(name, own, seeds).items()
    }


def _run(
    jobs: deque[Job],
    executor: Executor,
    at_once: int,
    patience: float | None,
    progress: Progress,
    on_progress: Callable[[Progress], None] | None,
) -> Iterator[ScenarioResult]:
    """A result for each of `jobs`, as they come."""
    running: dict[Future[ScenarioResult], tuple[Job, float]] = {}
    given_up: set[Future[ScenarioResult]] = set()  # their workers hang, or do not tell us otherwise
    try:
        while jobs or running:
            given_up = {future for future in given_up if not future.done()}
            while jobs and len(running) + len(given_up) < at_once:
                job = jobs.popleft()
                try:
                    future = executor.submit(run_job, job)
                except RuntimeError as error:  # BrokenProcessPool among them
                    raise ModernTensorError(f"the executor is broken: {error}") from error
                running[future] = job, time.monotonic()
            if not running:
                raise ModernTensorError(
                    f"all {at_once} workers hang: {len(jobs)} seeds have not been run"
                )
            progress.running = len(running)
            done, _ = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                job, since = running.pop(future)
                yield _outcome(future, job, time.monotonic() - since)
            for future, (job, since) in list(running.items()):
                seconds = time.monotonic() - since
                if patience is not None and seconds > patience:
                    del running[future]
                    if not future.cancel():
                        given_up.add(future)
                    reason = f"not at its end after {seconds:.0f} s; its worker was given up"
                    yield failed(*job[:3], reason, wall_seconds=seconds)
            if on_progress is not None:
                on_progress(progress)
    finally:
        for future in (*running, *given_up):
            future.cancel()


def _outcome(future: Future[ScenarioResult], job: Job, seconds: float) -> ScenarioResult:
    """What came back, or what became of it. An executor that is broken as a whole raises later,
    when it gets the next one."""
    try:
        return future.result()
    except CancelledError:
        reason = "its worker was cancelled"
    except WorkerLost as error:
        reason = str(error)
    except Exception as error:  # executors tell of a lost worker in many ways
        reason = f"its worker was lost: {_where(error)}"
    return failed(job.scenario, job.seed, job.parameters, reason, wall_seconds=seconds)
