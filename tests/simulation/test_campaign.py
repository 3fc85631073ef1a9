"""Campaigns: every seed gets a result, whatever becomes of its worker; what is done is kept."""

from __future__ import annotations

import sys
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from moderntensor.errors import ConfigError, ModernTensorError
from moderntensor.simulation import page, report
from moderntensor.simulation.campaign import Job, Progress, run_campaign, run_job
from moderntensor.simulation.result import ScenarioResult
from moderntensor.simulation.workers import WorkerLost, Workers

MODULES = ("helpers.toy_scenarios",)


class Here(Executor):
    """Runs what it gets at once, in this process."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.jobs.extend(args)
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Deaf(Executor):
    """Takes everything and gives nothing back."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        return future


def toys(seeds: range, **options: Any) -> list[ScenarioResult]:
    options.setdefault("executor", Here())
    return run_campaign(["toy"], seeds, modules=MODULES, **options)


def test_results_come_in_order_and_are_those_of_single_runs() -> None:
    parameters: dict[str, Any] = {"bad": 2, "nodes": 3}  # 3 is the default
    results = toys(range(4), parameters=parameters)
    assert [result.seed for result in results] == [0, 1, 2, 3]
    assert [result.ok for result in results] == [True, True, False, True]
    assert results[2].violations[0].startswith("liveness: no head <in> sight")
    assert results[2].replay == "moderntensor simulate toy --seed 2 -p bad=2 --trace toy-2.trace"
    again = run_job(Job("toy", 1, {"bad": 2}, MODULES))
    assert again.trace_hash == results[1].trace_hash
    assert len({result.metrics["sync_seconds"][0] for result in results}) == 4  # type: ignore[index]


@pytest.mark.parametrize(
    ("names", "parameters", "says"),
    [
        (["nothing"], {}, "no scenario nothing"),
        (["toy", "toy"], {}, "named twice"),
        (["toy"], {"colour": 1}, "no parameter colour"),
        (["toy"], {"nodes": "many"}, "not of type int"),
    ],
)
def test_what_cannot_run_is_said_before_anything_does(
    names: list[str], parameters: dict[str, Any], says: str
) -> None:
    here = Here()
    with pytest.raises(ConfigError, match=says):
        run_campaign(names, [1], parameters=parameters, modules=MODULES, executor=here)
    assert not here.jobs


def test_a_campaign_goes_on_where_it_was(tmp_path: Path) -> None:
    journal = tmp_path / "results.jsonl"

    def stop(progress: Progress) -> None:
        if progress.done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toys(range(10), journal=journal, at_once=1, on_progress=stop)
    kept = journal.read_bytes()
    done = kept.count(b"\n")
    assert 3 <= done < 10
    journal.write_bytes(kept + b'{"scenario":"toy","se')  # killed over a line
    here, seen = Here(), []
    results = toys(range(10), journal=journal, executor=here, on_progress=seen.append)
    assert len(here.jobs) == 10 - done
    assert (seen[-1].found, seen[-1].done, seen[-1].total) == (done, 10, 10)
    assert [result.seed for result in results] == list(range(10))
    assert journal.read_bytes().startswith(kept)
    assert journal.read_bytes().count(b"\n") == 10


def test_results_of_other_parameters_are_not_joined(tmp_path: Path) -> None:
    journal = tmp_path / "results.jsonl"
    toys(range(2), journal=journal)
    with pytest.raises(ConfigError, match="nodes=5: use another directory"):
        toys(range(2), journal=journal, parameters={"nodes": 5})


def test_a_journal_is_no_other_file(tmp_path: Path) -> None:
    journal = tmp_path / "results.jsonl"
    journal.write_text("what else\n")
    with pytest.raises(ConfigError, match="line 1"):
        toys(range(1), journal=journal)
    assert journal.read_text() == "what else\n"


def test_only_failures_are_run_again(tmp_path: Path) -> None:
    journal = tmp_path / "results.jsonl"
    first = Here()
    lost = ScenarioResult("toy", 0, violations=["failure: its process died"])
    bad = ScenarioResult("toy", 1, violations=["safety: two heads"])
    journal.write_text(lost.to_json() + "\n" + bad.to_json() + "\n")
    results = toys(range(2), journal=journal, executor=first)
    assert [job.seed for job in first.jobs] == [0]
    assert [result.ok for result in results] == [True, False]


@pytest.mark.long
def test_a_worker_that_dies_or_hangs_is_a_failure_of_its_seed_alone() -> None:
    results = run_campaign(
        ["toy-trouble"],
        range(4),
        parameters={"dies": 1, "hangs": 2},
        modules=MODULES,
        at_once=2,
        limit=2.0,
    )
    assert [result.ok for result in results] == [True, False, False, True]
    assert results[1].violations == ["failure: its process died (exit code 9)"]
    assert results[2].violations == ["failure: not at its end after 2 s"]


def test_workers_that_are_killed_leave_nobody_waiting() -> None:
    workers = Workers(1, limit=60)
    future = workers.submit(run_job, Job("toy-trouble", 1, {"hangs": 1}, MODULES))
    waiting = workers.submit(run_job, Job("toy-trouble", 2, {}, MODULES))
    workers.kill()
    assert waiting.cancelled()
    assert isinstance(future.exception(timeout=30), WorkerLost)
    with pytest.raises(RuntimeError, match="after shutdown"):
        workers.submit(run_job, Job("toy", 1, {}, MODULES))


@pytest.mark.slow
def test_any_executor_will_do() -> None:
    expected = [result.trace_hash for result in toys(range(3))]
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    with pool, ThreadPoolExecutor(1) as thread:
        for executor in (pool, thread):
            assert [r.trace_hash for r in toys(range(3), executor=executor)] == expected


@pytest.mark.slow
def test_a_broken_pool_fails_what_it_had_and_says_so() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(ModernTensorError, match="executor is broken"),
    ):
        run_campaign(
            ["toy-trouble"],
            range(3),
            parameters={"dies": 0},
            modules=MODULES,
            executor=pool,
            at_once=1,
        )


def test_foreign_workers_that_hang_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderntensor.simulation.campaign.GRACE_SECONDS", 0.0)
    monkeypatch.setattr("moderntensor.simulation.campaign.LOOK_SECONDS", 0.01)
    with pytest.raises(ModernTensorError, match="all 2 workers hang: 3 seeds"):
        toys(range(5), executor=Deaf(), at_once=2, limit=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # theirs
def test_dask_spreads_a_campaign() -> None:
    distributed = pytest.importorskip("distributed")
    expected = [result.trace_hash for result in toys(range(6))]
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        results = toys(range(6), executor=client.get_executor(pure=False), at_once=2)
    assert [result.trace_hash for result in results] == expected


@pytest.mark.long
def test_the_page_and_the_file_tell_what_was_seen(tmp_path: Path) -> None:
    results = toys(range(5), parameters={"bad": 3})
    (summary,) = summaries = report.summarize(results, {"toy": "no nodes & no time"})
    assert (summary.seeds, summary.held, summary.violations["liveness"]) == (5, 4, 1)
    assert summary.spreads["block_propagation_90"].median == pytest.approx(0.9)
    assert report.load(report.write(tmp_path, summaries)) == summaries
    drawn = page.write(tmp_path, summaries, "A <title>")
    text = (tmp_path / page.FILE).read_text(encoding="utf-8")
    assert "A &lt;title&gt;" in text
    assert "no head &lt;in&gt; sight" in text
    assert "no nodes &amp; no time" in text
    assert summary.bad[0].replay in text
    assert "http" not in text.replace("http://www.w3.org/", "")  # needs nothing else
    assert ("charts are missing" in text) is not drawn
    if drawn:
        kinds = ("propagation", "bandwidth", "sync", "recovery")
        files = {path.name for path in (tmp_path / page.CHARTS).iterdir()}
        assert files == {f"toy-{kind}.{ending}" for kind in kinds for ending in ("svg", "png")}
        assert text.count("<svg") == len(kinds)


def test_without_matplotlib_the_page_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "moderntensor.simulation.charts", raising=False)
    summaries = report.summarize(toys(range(1)), {})
    assert not page.write(tmp_path, summaries)
    assert page.MISSING.replace("'", "&#x27;") in (tmp_path / page.FILE).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"version": 2}', '{"version": 1, "scenarios": 3}']
)
def test_what_holds_no_results_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        report.load(path)


def test_the_scenario_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page_text = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text(encoding="utf-8")
    example = page_text.split("```python\n")[1].split("```")[0]
    (tmp_path / "corner.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = run_job(Job("corner", 1, {"away": 20.0}, ("corner",)))
    assert result.violations == []
    assert len(result.heights) == 5
