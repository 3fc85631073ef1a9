"""What a simulation shows: a live panel on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..simulation.campaign import Progress
from ..simulation.report import Spread, Summary, said, simulated, title_of, unit_of
from ..simulation.result import FAILURE, LIVENESS, SAFETY, ScenarioResult
from ..simulation.scenario import Scenario
from ..simulation.world import World
from .output import count, duration, key_value_table, show

EVENTS: Final = 6  # of the last ones on the screen
SHOWN_BAD: Final = 5  # seeds that did not hold, of those in a campaign
LINE_SECONDS: Final = 10.0  # between two lines where there is no terminal


def show_list(out: Console, scenarios: Mapping[str, Scenario]) -> None:
    """Every scenario with what it does and what can be set."""
    width = max(map(len, scenarios))
    for name, each in sorted(scenarios.items()):
        parameters = " ".join(f"{key}={value}" for key, value in each.parameters.items())
        out.print(f"{name:<{width}}  {each.about}", markup=False)
        if parameters:
            out.print(f"{'':<{width}}  {parameters}", style="dim", markup=False)


@contextmanager
def watch_run(out: Console, name: str, seed: int) -> Iterator[Callable[[World], None] | None]:
    """Shows a run as long as the `with` block lasts: gives what is to be told of its world."""
    if not out.is_terminal:
        out.print(f"{name}, seed {seed}", markup=False)
        yield None
        return
    view = RunView(name, seed)
    # A thread of rich looks at the world now and then; nothing there is changed by it.
    with Live(get_renderable=view.render, console=out, refresh_per_second=8, transient=True):
        yield view.on_world


class RunView:
    """One run as it goes on."""

    def __init__(self, name: str, seed: int) -> None:
        self._title = f"{name}, seed {seed}"
        self._world: World | None = None
        self._events: deque[str] = deque(maxlen=EVENTS)
        self._faults = 0
        self._started = time.monotonic()

    def on_world(self, world: World) -> None:
        """The run is about to begin."""
        self._world = world
        world.trace.on_record = self._on_record

    def _on_record(self, now: float, kind: str, text: str) -> None:
        if kind == "head":
            return
        self._faults += kind in ("fault", "crash")
        self._events.append(f"{now:9.1f} s  {kind} {text}")

    def render(self) -> Panel | Text:
        """May be called from another thread than that of the run."""
        world = self._world
        if world is None:
            return Text("")
        hosts = world.hosts
        nodes = [node for host in hosts if (node := host.node) is not None]
        heads = [node.chain.head for node in nodes]
        different = len({head.hash for head in heads})
        highest = max((head.height for head in heads), default=0)
        seconds = max(time.monotonic() - self._started, 1e-6)
        rows = {
            "simulated": f"{world.now:,.1f} s, {world.now / seconds:,.0f} times the clock's",
            "nodes": f"{len(nodes)} of {len(hosts)} up",
            "heads": f"{different}, up to height {count(highest)}",
            "faults": count(self._faults),
        }
        events = Text("\n".join(self._events), style="dim", no_wrap=True, overflow="ellipsis")
        return Panel(
            Group(key_value_table(dict(rows)), events), title=self._title, border_style="cyan"
        )


def show_result(out: Console, result: ScenarioResult) -> None:
    """How one run went."""
    rows: dict[str, object] = {
        "outcome": "all held" if result.ok else f"{len(result.violations)} did not hold",
        "simulated": f"{result.virtual_seconds:,.1f} s",
        "took": f"{result.wall_seconds:.2f} s",
        "trace": result.trace_hash,
    }
    if result.heights:
        low, high = min(result.heights.values()), max(result.heights.values())
        told = count(low) if low == high else f"{count(low)} to {count(high)}"
        rows["height"] = f"{told}, {len(result.heights)} nodes"
    for metric, value in result.metrics.items():
        values = value if isinstance(value, list) else [value]
        if not values:
            continue
        unit, spread = unit_of(metric), Spread.of(values)
        told = said(spread.median, unit)
        if len(values) > 1:
            told = f"median {told}, most {said(spread.high, unit)}"
        rows[title_of(metric)] = told
    show(rows)
    for violation in result.violations:
        out.print(violation, style="red", markup=False)
    if not result.ok:
        out.print(f"again: {result.replay}", markup=False)


@contextmanager
def watch_campaign(
    out: Console, names: Sequence[str], seeds: Sequence[int]
) -> Iterator[Callable[[Progress], None]]:
    """Shows a campaign as long as the `with` block lasts: gives what is to be told of it."""
    what = f"{', '.join(names)}: {count(len(seeds))} seeds each"
    view = CampaignView(what)
    if not out.is_terminal:
        out.print(what, markup=False)
        yield lambda progress: view.say(out, progress)
        return
    with Live(get_renderable=view.render, console=out, refresh_per_second=4):
        yield view.update


class CampaignView:
    """A campaign as it goes on."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._progress: Progress | None = None
        self._next_line = time.monotonic() + LINE_SECONDS
        self._ended = False

    def update(self, progress: Progress) -> None:
        """Where it is."""
        self._progress = progress

    def say(self, out: Console, progress: Progress) -> None:
        """A line now and then, and at the end."""
        ended = progress.done == progress.total
        if self._ended or (not ended and time.monotonic() < self._next_line):
            return
        self._ended = ended
        self._next_line = time.monotonic() + LINE_SECONDS
        numbers = _numbers(progress)
        out.print("  " + ", ".join(f"{name} {value}" for name, value in numbers.items()))

    def render(self) -> Panel | Text:
        """May be called from another thread."""
        progress = self._progress
        if progress is None:
            return Text("starting workers …")
        bar = ProgressBar(total=max(progress.total, 1), completed=progress.done, width=50)
        parts: list[Table | ProgressBar | Text] = [bar, key_value_table(dict(_numbers(progress)))]
        for each in progress.bad[-SHOWN_BAD:]:
            text = f"{each.scenario}, seed {each.seed}: {each.violations[0]}"
            parts.append(Text(text, style="red", no_wrap=True, overflow="ellipsis"))
        return Panel(Group(*parts), title=self._title, border_style="cyan")


def _numbers(progress: Progress) -> dict[str, str]:
    found = f" ({count(progress.found)} found)" if progress.found else ""
    return {
        "done": f"{count(progress.done)} of {count(progress.total)}{found}",
        "failed": count(len(progress.bad)),
        "rate": f"{progress.rate:.2f} seeds/s",
        "simulated": simulated(progress.virtual_seconds),
        "to go": duration(progress.seconds_to_go),
    }


def show_summaries(out: Console, summaries: Sequence[Summary]) -> None:
    """The tables at the end of a campaign, and how to see again what did not hold."""
    table = Table(title="what held", title_justify="left")
    table.add_column("scenario")
    for name in ("seeds", "held", SAFETY, LIVENESS, FAILURE, "simulated", "wall, a seed"):
        table.add_column(name, justify="right")
    for each in summaries:
        kinds = [count(each.violations[kind]) for kind in (SAFETY, LIVENESS, FAILURE)]
        wall = said(each.wall_seconds / each.seeds, "s")
        time_in_all = simulated(each.virtual_seconds)
        row = (each.scenario, count(each.seeds), count(each.held), *kinds, time_in_all, wall)
        table.add_row(*row)
    out.print(table)
    figures = Table(title="figures", title_justify="left")
    for name in ("scenario", "figure", "median", "90 %", "99 %", "worst"):
        left = name in ("scenario", "figure")
        figures.add_column(name, justify="left" if left else "right")
    for each in summaries:
        for metric, spread in each.spreads.items():
            numbers = (spread.median, spread.p90, spread.p99, spread.high)
            told = [said(number, unit_of(metric)) for number in numbers]
            figures.add_row(each.scenario, title_of(metric), *told)
    if figures.row_count:
        out.print(figures)
    for each in summaries:
        for bad in each.bad[:SHOWN_BAD]:
            out.print(f"{each.scenario}, seed {bad.seed}: {bad.violations[0]}", markup=False)
            out.print(f"  again: {bad.replay}", markup=False)
        if len(each.bad) > SHOWN_BAD:
            out.print(f"{each.scenario}: {count(each.seeds - each.held)} seeds did not hold")
