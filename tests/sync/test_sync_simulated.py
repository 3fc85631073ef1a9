"""The scheduler in virtual time: how much of a line it uses, and whom it must not blame."""

from __future__ import annotations

import asyncio
import logging

import pytest
from helpers.simulated import add_hosts, heads, make_world

from moderntensor.simulation import Delays, World
from moderntensor.simulation.scenario import run_scenario

LARGE = {"blocks": 1500, "block_bytes": 100_000}  # 60 s at the bound


def sync_seconds(**parameters: int | str) -> tuple[float, float]:
    """Of one sync, and as a share of what the line allows."""
    result = run_scenario("bound", 1, **parameters)
    assert result.ok, result.violations
    seconds, share = result.metrics["sync_seconds"], result.metrics["bound_share"]
    assert isinstance(seconds, list)
    assert isinstance(share, float)
    return seconds[0], share


def test_a_thin_line_is_used_from_the_first_seconds_on() -> None:
    """Of eight seconds at the bound, most of one goes to the handshakes and to what peers are."""
    assert sync_seconds(blocks=200)[1] > 0.8


@pytest.mark.slow
def test_a_long_sync_uses_its_line_and_faults_of_one_peer_cost_little() -> None:
    calm, share = sync_seconds(**LARGE)
    assert share >= 0.85
    assert sync_seconds(**LARGE, fault="stall")[0] < 1.03 * calm
    assert sync_seconds(**LARGE, fault="death")[0] < 1.10 * calm


@pytest.mark.parametrize("seed", [1, pytest.param(4, marks=pytest.mark.long)])
def test_a_claim_that_our_own_block_has_overtaken_is_nobodys_fault(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Two slow producers whose heads tie all the time: each asks for what it then makes itself."""

    async def main(world: World) -> None:
        hosts = add_hosts(world, 3)
        await world.start()
        for _ in range(30):
            await asyncio.sleep(world.random.uniform(0.2, 3))
            host = world.random.choice(hosts[:2])
            await host.crash()
            await host.restart()
        for _ in range(40):
            await asyncio.sleep(5)
            if len(heads(hosts)) == 1:
                return

    with caplog.at_level(logging.WARNING, "moderntensor.network.reputation"):
        make_world(seed, delays=Delays(0.2, 1.5)).run(main)
    assert "shows_less" not in caplog.text
