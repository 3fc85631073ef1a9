"""News in a simulated network: everybody gets them, soon, and hardly ever twice."""

from __future__ import annotations

import pytest

from moderntensor.network.gossip import transactions as gossip_transactions
from moderntensor.simulation.scenario import run_scenario


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
    monkeypatch.setattr(gossip_transactions, "RELAY_LATER", 30.0)
    small = {"nodes": 8, "outbound": 2, "transactions": 4, "blocks": 1, "validators": 2}
    result = run_scenario("propagation", 1, block_time=6, **small)
    assert any("a transaction reached 99 % of the nodes in" in text for text in result.violations)
