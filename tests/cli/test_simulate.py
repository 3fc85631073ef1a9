"""``moderntensor simulate``: one seed, a campaign, what is said of those that did not hold."""

from __future__ import annotations

import hashlib
import json
import re
import signal
from pathlib import Path

import pytest
from helpers.command import ROOT, complaint_of, run_each, running

from moderntensor.simulation.journal import FILE as JOURNAL
from moderntensor.simulation.result import ScenarioResult

TOY = ("-m", "helpers.toy_scenarios")


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that children find the toys."""
    monkeypatch.syspath_prepend(str(ROOT / "tests"))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tests")  # modules of one's own are looked for here
    trace = tmp_path / "toy.trace"
    listed, one, bad, machine, several, nothing, wrong, seeds, none, *unnamed = run_each(
        [
            ["simulate", "--list", *TOY],
            ["simulate", "toy", "--seed", "4", "-p", "nodes=5", "--trace", trace, *TOY],
            ["simulate", "toy", "--seed", "3", "-p", "bad=3", *TOY],
            ["simulate", "toy", "--seed", "3", "-p", "bad=3", "--json", *TOY],
            ["simulate", "toy", "toy-trouble", *TOY],
            ["simulate"],
            ["simulate", "toy", "-p", "nodes=many", *TOY],
            ["simulate", "toy", "--seeds", "9-2", *TOY],
            ["simulate", "neverland"],
            ["simulate", "--list", "-m", ""],
            ["simulate", "--list", "-m", ".scenarios"],
        ]
    )
    assert listed.returncode == 0
    names = [line.split()[0] for line in listed.stdout.splitlines() if line[0] != " "]
    assert {"chaos", "partition", "leave", "skew", "toy"} <= set(names)
    assert "nodes=3 bad=-1" in listed.stdout
    assert one.returncode == 0, one.stderr
    (said,) = re.findall(r"^trace +([0-9a-f]{64})$", one.stdout, re.MULTILINE)
    assert hashlib.sha256(trace.read_bytes()).hexdigest() == said
    assert bad.returncode == machine.returncode == 1
    assert "liveness: no head <in> sight" in bad.stdout
    replay = "moderntensor simulate toy --seed 3 -p bad=3 --trace toy-3.trace"
    assert f"again: {replay}" in bad.stdout
    assert ScenarioResult.from_json(machine.stdout).replay == replay
    for result, says in (
        (several, "needs --seeds"),
        (nothing, "no scenario is named"),
        (wrong, "nodes is a int, not 'many'"),
        (seeds, "are 0 seeds"),
        (none, "no scenario neverland"),
    ):
        assert says in complaint_of(result, code=2)
    for result in unnamed:
        assert "not the whole name of a module" in complaint_of(result)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_trace_for_which_there_is_no_room_is_no_failure_of_the_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT / "tests")
    command = ["simulate", "toy", "--trace", "/dev/full", *TOY]
    shown, machine = run_each([command, [*command, "--json"]])
    for result in (shown, machine):
        assert result.returncode == 1
        assert "trace file /dev/full: No space left on device" in result.stderr
        assert "failure" not in result.stdout and "/dev/full" not in result.stdout
    assert machine.stdout == ""


@pytest.mark.long
def test_a_campaign_keeps_what_is_done_when_interrupted_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = ["simulate", "toy-trouble", "--jobs", "1", "--out", str(tmp_path), *TOY]
    cwd = ROOT / "tests"
    with running(*command, "--seeds", "0-5", "-p", "hangs=3", cwd=cwd) as child:
        child.line_with("6 seeds each")
        journal = tmp_path / JOURNAL
        while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
            assert child.process.poll() is None
        code, _, err = child.stop(signal.SIGINT)
    assert (code, err) == (130, "")
    assert journal.read_bytes().count(b"\n") == 3
    # The seed that hung was not kept, as it had no end; without it, the rest runs.
    with running(*command, "--seeds", "0-2", "-p", "hangs=3", cwd=cwd) as child:
        assert "3 found" in child.line_with("done 3 of 3")
        child.line_with("results: ")
        assert child.process.wait() == 0
    content = json.loads((tmp_path / "results.json").read_text())
    assert [each["seeds"] for each in content["scenarios"]] == [3]
    assert (tmp_path / "index.html").stat().st_size > 2000
