"""What a run of a scenario leaves: kept as JSON and read again, thinned, joined to curves."""

from __future__ import annotations

import json
import math
import pickle

import pytest

from moderntensor.errors import ConfigError
from moderntensor.simulation.result import (
    CURVE_PERCENT,
    FAILURE,
    LIVENESS,
    MAX_SAMPLES,
    SAFETY,
    ScenarioResult,
    failed,
    kind_of,
    propagation,
    quantile,
    samples,
)

RESULT = ScenarioResult(
    scenario="partition",
    seed=7,
    parameters={"nodes": 12, "encrypted": True},
    violations=["safety: two heads"],
    virtual_seconds=900.5,
    wall_seconds=1.25,
    trace_hash="ab" * 32,
    heights={"node-0": 60},
    metrics={"recovery_seconds": 31.5, "sync_seconds": [1.0, 2.5]},
)


def test_a_result_is_one_line_of_json_and_comes_back() -> None:
    line = RESULT.to_json()
    assert "\n" not in line
    assert ScenarioResult.from_json(line) == RESULT
    assert pickle.loads(pickle.dumps(RESULT)) == RESULT  # noqa: S301  (made one line above)
    assert not RESULT.ok


@pytest.mark.parametrize(
    "line",
    ["", "[]", "{}", '{"scenario":', '"text"']
    + [
        json.dumps({**json.loads(RESULT.to_json()), name: value})
        for name, value in [("seed", "7"), ("seed", True), ("metrics", []), ("unknown", 1)]
    ],
)
def test_what_is_no_result_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="no result of a scenario"):
        ScenarioResult.from_json(line)


def test_no_metric_is_infinite() -> None:
    with pytest.raises(ValueError, match="JSON"):
        ScenarioResult("x", 1, metrics={"sync_seconds": math.inf}).to_json()


def test_violations_say_their_kind() -> None:
    assert kind_of(failed("x", 1, {}, "the worker died").violations[0]) == FAILURE
    assert kind_of("liveness: no head") == LIVENESS
    assert kind_of("safety: two heads") == SAFETY
    assert kind_of("something else") == SAFETY


def test_samples_are_thinned_evenly_with_their_ends() -> None:
    assert samples([3, 1, math.nan, math.inf, 2]) == [1, 2, 3]
    many = samples(range(100_000))
    assert len(many) == MAX_SAMPLES
    assert (many[0], many[-1]) == (0, 99_999)
    assert abs(many[MAX_SAMPLES // 2] - 50_000) < 200


def test_a_curve_is_the_median_over_what_was_spread() -> None:
    slow, fast, middle = ([factor * i for i in range(100)] for factor in (3.0, 1.0, 2.0))
    curve = propagation([slow, fast, middle], 100)
    assert len(curve) == len(CURVE_PERCENT)
    assert curve == [2.0 * i for i in range(100)]


def test_a_curve_ends_where_half_of_them_ended() -> None:
    assert propagation([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0]], 4)[-1] == 1.0
    assert len(propagation([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0]], 4)) == 50
    assert propagation([], 4) == []


def test_quantiles_are_of_the_samples() -> None:
    assert [quantile([1, 2, 3, 4], share) for share in (0, 0.5, 0.75, 0.9, 1)] == [1, 2, 3, 4, 4]
