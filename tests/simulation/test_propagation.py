"""News in a simulated network: everybody gets them, soon, and hardly ever twice."""

from __future__ import annotations

import asyncio

import pytest

from moderntensor.network.gossip import transactions as gossip_transactions
from moderntensor.simulation.lines import Link
from moderntensor.simulation.scenario import run_scenario
from moderntensor.simulation.scenarios.setting import make_chain
from moderntensor.simulation.world import World


@pytest.mark.long
def test_blocks_and_transactions_reach_everybody_soon_and_once() -> None:
    small = {"nodes": 16, "outbound": 4, "transactions": 20, "blocks": 1, "validators": 3}
    result = run_scenario("propagation", 3, block_time=6, **small)
    assert result.violations == []
    assert len(result.metrics["block_propagation"]) == 100
    assert len(result.metrics["transaction_propagation"]) == 100
    assert result.metrics["block_transactions"] == 20
    again = run_scenario("propagation", 3, block_time=6, **small)
    assert again.trace_hash == result.trace_hash


def test_misses_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip_transactions, "TRANSACTION_PUSH_MIN", 0)
    monkeypatch.setattr(gossip_transactions, "RELAY_FEW", 0)
    monkeypatch.setattr(gossip_transactions, "RELAY_LATER", 30.0)
    small = {"nodes": 8, "outbound": 2, "transactions": 4, "blocks": 1, "validators": 2}
    result = run_scenario("propagation", 1, block_time=6, **small)
    assert any("a transaction reached 99 % of the nodes in" in text for text in result.violations)


def test_all_nodes_of_a_world_stop_at_once() -> None:
    world = World(5, link=Link(0.1))
    make_chain(world, validators=1)
    hosts = [world.add_host() for _ in range(8)]
    for host in hosts[1:]:
        host.bootstrap = hosts[:1]

    async def main(_: World) -> float:
        await world.start()
        await asyncio.sleep(20)
        return world.now

    ended = world.run(main)
    assert world.now - ended < 1  # some round trips, however many nodes there are
