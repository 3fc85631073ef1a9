"""``moderntensor simulate``: whole nodes on a simulated network, one seed or a campaign of them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from ..simulation.campaign import MAX_SEEDS, SEED_SECONDS, check_names, load, run_campaign
from ..simulation.journal import FILE as JOURNAL
from ..simulation.page import FILE as PAGE
from ..simulation.page import MISSING
from ..simulation.page import write as write_page
from ..simulation.report import as_json, summarize
from ..simulation.report import write as write_results
from ..simulation.result import Parameter
from ..simulation.scenario import ALL, Scenario, run_scenario
from .output import bad_option, console, emit, working
from .simulate_display import show_list, show_result, show_summaries, watch_campaign, watch_run


def simulate(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Scenarios; `all` for all there are."),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Say which scenarios there are.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="What one run follows from.")] = 0,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="FIRST-LAST", help="Run a campaign: all these seeds, in parallel."),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="Other than the default."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=256, help="Seeds at a time; as many as processors.")
    ] = None,
    limit: Annotated[
        float, typer.Option(min=1, help="Seconds of wall time after which a seed has failed.")
    ] = SEED_SECONDS,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where a campaign keeps each result at once, and at the end index.html and"
            " results.json. Started again, it goes on there.",
        ),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write down all that happens in one run.")
    ] = None,
    module: Annotated[
        list[str] | None,
        typer.Option("-m", "--module", help="Import this first: scenarios of your own."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print results as JSON alone.")] = False,
) -> None:
    """Run whole nodes on a simulated network, in virtual time, through faults.

    The same seed gives the same run, event by event. Exits with 1 if anything that must hold did
    not, and says with which line to see it again.
    """
    modules = tuple(module or ())
    if modules:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    load(modules)
    if listing:
        if json:
            emit([_facts(name, each) for name, each in ALL.items()])
        else:
            show_list(console(), ALL)
        return
    if not names:
        raise bad_option("NAME", "no scenario is named (--list says which there are)")
    if names == ["all"]:
        names = sorted(ALL)
    parameters = _parameters(parameter or [], names)
    with _quiet():
        if seeds is None:
            if len(names) > 1:
                raise bad_option("NAME", "several scenarios make a campaign, which needs --seeds")
            if out is not None:
                raise bad_option("--out", "is for campaigns, which need --seeds")
            held = _one(names[0], seed, parameters, trace, json)
        else:
            if trace is not None:
                raise bad_option("--trace", "is for one run")
            chosen = _seeds(seeds)
            held = _campaign(names, chosen, parameters, modules, jobs, limit, out, json)
    if not held:
        raise typer.Exit(1)


def _facts(name: str, scenario: Scenario) -> dict[str, object]:
    return {"name": name, "about": scenario.about, "parameters": dict(scenario.parameters)}


def _one(name: str, seed: int, parameters: dict[str, Any], trace: Path | None, json: bool) -> bool:
    """One run; whether all held."""
    check_names([name], parameters)
    if json:
        with working(f"simulating {name}, seed {seed}"):
            result = run_scenario(name, seed, trace_file=trace, **parameters)
        typer.echo(result.to_json())
        return result.ok
    out = console()
    with watch_run(out, name, seed) as on_world:
        result = run_scenario(name, seed, trace_file=trace, on_world=on_world, **parameters)
    show_result(out, result)
    if trace is not None:
        out.print(f"what happened is in {trace}", markup=False)
    return result.ok


def _campaign(
    names: list[str],
    seeds: range,
    parameters: dict[str, Parameter],
    modules: tuple[str, ...],
    jobs: int | None,
    limit: float,
    directory: Path | None,
    json: bool,
) -> bool:
    """All seeds of all scenarios; whether all held."""
    out = console(stderr=json)
    with watch_campaign(out, names, seeds) as on_progress:
        results = run_campaign(
            names,
            seeds,
            parameters=parameters,
            modules=modules,
            at_once=jobs or os.cpu_count() or 1,
            limit=limit,
            journal=None if directory is None else directory / JOURNAL,
            on_progress=on_progress,
        )
    summaries = summarize(results, {name: ALL[name].about for name in names})
    if json:
        typer.echo(as_json(summaries))
    else:
        show_summaries(out, summaries)
    if directory is not None:
        write_results(directory, summaries)
        title = f"Simulation: {', '.join(names)}"
        if not write_page(directory, summaries, title):
            out.print(MISSING, markup=False)
        out.print(f"results: {directory / PAGE}", markup=False)
    return all(result.ok for result in results)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of nodes among faults, which are what a simulation is about, unless
    more than them was asked for."""
    if logging.getLogger().level < logging.WARNING:
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # errors are looked at by the run
    try:
        yield
    finally:
        logging.disable(before)


def _seeds(text: str) -> range:
    first, dash, last = text.partition("-")
    numbers = first.isdecimal() and (last.isdecimal() if dash else True)
    if not (text.isascii() and numbers and len(text) <= 40):
        raise bad_option("--seeds", f"{text!r} is neither a number nor two with a - between")
    seeds = range(int(first), int(last if dash else first) + 1)
    if not 1 <= len(seeds) <= MAX_SEEDS:
        raise bad_option("--seeds", f"{text!r} are {len(seeds)} seeds, not 1 to {MAX_SEEDS}")
    return seeds


def _parameters(given: list[str], names: list[str]) -> dict[str, Parameter]:
    """Values of the types that the scenarios' defaults have."""
    parameters: dict[str, Parameter] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise bad_option("-p", f"{text!r} is no NAME=VALUE")
        defaults = [ALL[each].parameters.get(name) for each in names if each in ALL]
        default = next((each for each in defaults if each is not None), None)
        try:
            parameters[name] = _value(value, default)
        except ValueError:
            raise bad_option("-p", f"{name} is a {type(default).__name__}, not {value!r}") from None
    try:
        check_names(names, parameters)
    except ConfigError as error:
        raise bad_option("-p" if given else "NAME", str(error)) from error
    return parameters


def _value(text: str, default: Parameter | None) -> Parameter:
    """ValueError if `text` is not of the type of `default`."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if isinstance(default, int | float):
        return type(default)(text)
    return text
