"""What judges a soak: slopes, limits, and the schedule of its disturbances."""

from __future__ import annotations

from itertools import pairwise

import pytest

from benchmarks.soak.judge import LEAST_SAMPLES, LIMITS, MIB, MOST_SAMPLES, judge, slope
from benchmarks.soak.schedule import Restart, Weather, plan


def line(per_second: float, count: int = 60, step: float = 5.0) -> list[tuple[float, float]]:
    return [(n * step, 100 + per_second * n * step) for n in range(count)]


def test_slope_is_that_of_the_many_not_of_the_few() -> None:
    points = line(0.5)
    for number in (3, 17, 40, 58):
        points[number] = points[number][0], 1e9
    assert slope(points) == pytest.approx(0.5, rel=0.05)
    assert slope(line(-2.0, MOST_SAMPLES * 3)) == pytest.approx(-2.0)
    with pytest.raises(ValueError, match="two moments"):
        slope([(1.0, 2.0), (1.0, 3.0)])


def test_a_leak_is_found_and_a_step_is_none() -> None:
    leak = judge(1, 0, "descriptors", line(5 / 60, 120))  # five a minute, for ten
    assert leak is not None and not leak.holds
    assert leak.per_minute == pytest.approx(5)
    flat = [(at, 20.0 + (at > 300)) for at, _ in line(0, 120)]
    steady = judge(1, 0, "descriptors", flat)
    assert steady is not None and steady.holds


def test_what_a_limit_allows_grows_with_the_time() -> None:
    limit = LIMITS["memory"]
    assert limit.allowed(0) == 8 * MIB
    assert limit.allowed(1800) == 15.5 * MIB


def test_warm_up_is_not_judged_and_a_short_life_neither() -> None:
    rising = [(at, min(at, 60.0) * MIB) for at in range(0, 200, 5)]
    held = judge(0, 0, "memory", rising, warm_up=60)
    assert held is not None and held.holds and held.growth == 0
    assert judge(0, 0, "memory", line(1)[: LEAST_SAMPLES - 1], warm_up=0) is None


def test_same_seed_same_schedule() -> None:
    assert plan(3, 1800, [1, 2, 3, 4], 60) == plan(3, 1800, [1, 2, 3, 4], 60)
    assert plan(3, 1800, [1, 2, 3, 4], 60) != plan(4, 1800, [1, 2, 3, 4], 60)


def test_schedule_restarts_all_and_ends_calm() -> None:
    steps = plan(1, 1800, [1, 2, 3, 4], 60)
    restarts = [step for step in steps if isinstance(step, Restart)]
    assert {step.node for step in restarts} == {1, 2, 3, 4}
    assert {step.hard for step in restarts} == {True, False}
    assert 20 < len(restarts) < 50
    for one, other in pairwise(restarts):
        assert one.at + one.down < other.at
    assert restarts[-1].at < 1770
    assert steps[-1] == Weather(1770, "clear")
