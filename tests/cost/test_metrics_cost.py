"""`benchmarks/metrics_cost.py` in small: both of its runs end, and a cost is judged."""

from __future__ import annotations

import sys

import pytest

from benchmarks import metrics_cost

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_rounds_are_taken_in_turns_and_compared() -> None:
    taken: list[bool] = []

    def sample(counted: bool) -> list[float]:
        taken.append(counted)
        return [1.1, 2.5] if counted else [1.0, 2.0]

    cost = metrics_cost.Cost(2, sample)
    assert taken == [False, True, True, False]
    assert cost.processor.middle == pytest.approx(1.1)
    assert cost.throughput.middle == pytest.approx(0.8)


@pytest.mark.long
def test_a_small_run_says_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--rounds", "1", "--blocks", "100", "--transfers", "1", "--messages", "500"]
    assert metrics_cost.main([*given, "--most", "10"]) == 0
    told = capsys.readouterr().out
    assert "sync: throughput" in told and "messages: throughput" in told
    assert "MISSED" not in told
