"""Scenarios by name, and a seed or two of each, small."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest

from moderntensor.blockchain.mempool import Mempool
from moderntensor.errors import ConfigError
from moderntensor.simulation import scenarios
from moderntensor.simulation.checks import Checks
from moderntensor.simulation.result import LIVENESS
from moderntensor.simulation.scenario import (
    ALL,
    Scenario,
    _registered,
    run_scenario,
    scenario,
)
from moderntensor.simulation.world import World

SMALL: dict[str, dict[str, Any]] = {
    "chaos": {"nodes": 6, "validators": 3, "faults": 8, "seconds": 40.0},
    "partition": {"nodes": 6, "validators": 4, "blocks": 8},
    "skew": {"nodes": 5, "validators": 3, "seconds": 60.0, "worst": 60.0},
    "leave": {"nodes": 5, "validators": 2, "rounds": 1, "longest": 30.0},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_holds_and_has_figures(name: str) -> None:
    result = run_scenario(name, 1, **SMALL[name])
    assert result.violations == []
    assert result.parameters == {k: v for k, v in SMALL[name].items() if v != default(name, k)}
    assert len(set(result.heights.values())) == 1
    assert len(result.heights) == SMALL[name]["nodes"]
    assert result.metrics["blocks"] == next(iter(result.heights.values())) > 0
    assert result.metrics["recovery_seconds"]
    assert result.metrics["block_propagation"]
    assert len(result.metrics["received_per_second"]) == SMALL[name]["nodes"]  # type: ignore[arg-type]
    assert result.virtual_seconds > 0
    assert result.trace_hash


def default(name: str, parameter: str) -> Any:
    return ALL[name].parameters[parameter]


@pytest.mark.parametrize("name", scenarios.__all__)
def test_each_says_in_a_line_what_it_does(name: str) -> None:
    assert ALL[name].name == name
    assert 0 < len(ALL[name].about) <= 80
    assert ALL[name].about.isprintable()


def test_a_seed_repeats() -> None:
    first, again = (run_scenario("leave", 2, **SMALL["leave"]) for _ in range(2))
    assert first.trace_hash == again.trace_hash
    assert first.metrics == again.metrics
    assert first.heights == again.heights


@pytest.mark.slow
def test_a_mempool_that_forgets_what_was_undone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With real nodes: what only the losing half had included must come back."""
    monkeypatch.setattr(Mempool, "_transactions_of", lambda self, block_hash: ())
    violations = run_scenario("partition", 1, **SMALL["partition"], rate=1.0).violations
    assert len(violations) == 1
    assert "transactions did not come back: " in violations[0]


# --- the registry -----------------------------------------------------------------------------


async def fail(error: Exception) -> None:
    raise error


async def quick(world: World, check: Checks, *, what: str = "nothing", size: float = 1.0) -> None:
    """Runs no node."""
    if what == "raise":
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(ValueError("one fault")))
            group.create_task(fail(KeyError("another")))
    if what == "log":
        logging.getLogger("moderntensor.network").error("following has ended: %s", "fault")
    if what == "violate":
        for i in range(70):
            check.violate(LIVENESS, f"breach {i}")


@pytest.fixture
def registered() -> Iterator[None]:
    scenario("quick", about="does what it is told")(quick)
    yield
    del _registered["quick"]


@pytest.mark.usefixtures("registered")
def test_what_a_run_raises_is_a_failure() -> None:
    (violation,) = run_scenario("quick", 1, what="raise").violations
    assert violation.startswith("failure: ValueError: one fault at test_scenarios.py:")
    assert "KeyError: 'another'" in violation


@pytest.mark.usefixtures("registered")
def test_what_a_node_logs_as_an_error_is_a_failure() -> None:
    (violation,) = run_scenario("quick", 1, what="log").violations
    assert violation.startswith("failure: a node logged: following has ended: fault")
    assert not logging.getLogger("moderntensor").handlers


@pytest.mark.usefixtures("registered")
def test_violations_are_bounded() -> None:
    violations = run_scenario("quick", 1, what="violate").violations
    assert len(violations) == 51
    assert violations[-1] == "failure: 20 more"


@pytest.mark.usefixtures("registered")
def test_parameters_are_checked() -> None:
    result = run_scenario("quick", 1, size=2)
    assert result.parameters == {"size": 2.0}
    assert run_scenario("quick", 1, size=1.0).parameters == {}
    with pytest.raises(ConfigError, match="no parameter speed"):
        run_scenario("quick", 1, speed=1)
    with pytest.raises(ConfigError, match="not of type str"):
        run_scenario("quick", 1, what=3)
    with pytest.raises(ConfigError, match="size is nan, no number"):
        run_scenario("quick", 1, size=math.nan)
    with pytest.raises(ConfigError, match="size is inf, no number"):
        run_scenario("quick", 1, size=math.inf)
    with pytest.raises(ConfigError, match="no scenario slow"):
        run_scenario("slow", 1)


@pytest.mark.usefixtures("registered")
def test_names_and_defaults_are_needed() -> None:
    async def other(world: World, check: Checks) -> None: ...

    async def without_default(world: World, check: Checks, *, nodes: int) -> None: ...

    with pytest.raises(ConfigError, match="there is one of this name"):
        scenario("quick", about="another")(other)
    with pytest.raises(ConfigError, match="nodes needs a default"):
        scenario("bare", about="no default")(without_default)
    assert isinstance(ALL["chaos"], Scenario)


@pytest.mark.parametrize("name", ["chaos", "partition", "leave", "skew"])
def test_more_validators_than_nodes_are_told_as_such(name: str) -> None:
    with pytest.raises(ConfigError, match="2 nodes cannot hold the keys of 3 validators"):
        run_scenario(name, 1, nodes=2, validators=3)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("leave", {"validators": 0}),
        ("propagation", {"nodes": 1, "validators": 1}),
        ("propagation", {"nodes": 2}),
        ("propagation", {"outbound": 0}),
        ("propagation", {"block_time": 0}),
    ],
)
def test_values_with_which_it_cannot_begin_are_refused(
    name: str, parameters: dict[str, int]
) -> None:
    """They are no violation, which would be the nodes' fault."""
    with pytest.raises(ConfigError):
        run_scenario(name, 1, **parameters)


def test_a_skew_where_all_nodes_are_validators_and_nobody_transfers() -> None:
    for seed in (1, 5):
        result = run_scenario("skew", seed, nodes=3, validators=3, seconds=20.0, rate=0.0)
        assert result.violations == []
