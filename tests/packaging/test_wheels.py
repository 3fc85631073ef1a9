"""The plan of the wheels: what cibuildwheel is told, the workflow that runs it, and the docs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOW = ROOT / ".github" / "workflows" / "wheels.yml"
TEXT = WORKFLOW.read_text(encoding="utf-8")
JOBS: dict[str, Any] = yaml.safe_load(TEXT)["jobs"]
CIBUILDWHEEL = PROJECT["tool"]["cibuildwheel"]


def test_wheels_are_built_for_every_python_that_the_project_names() -> None:
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert CIBUILDWHEEL["build"] == [f"cp{version.replace('.', '')}-*" for version in named]
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"


def test_every_wheel_is_tried_where_it_was_built() -> None:
    smoke, demo = CIBUILDWHEEL["test-command"]
    script = re.search(r"\{project\}/(\S+)", smoke)
    assert script is not None
    assert (ROOT / script[1]).exists()
    assert demo.startswith("moderntensor demo ")
    # Whatever has to be compiled at an installation is a finding, but for lmdb on musl.
    assert CIBUILDWHEEL["test-environment"] == {"PIP_ONLY_BINARY": ":all:"}
    (musl,) = CIBUILDWHEEL["overrides"]
    assert musl["select"] == "*-musllinux*"
    assert "lmdb" not in musl["test-environment"]["PIP_ONLY_BINARY"]


def test_the_matrix_is_what_pyproject_says() -> None:
    matrix = JOBS["wheels"]["strategy"]["matrix"]["include"]
    assert {row["arch"] for row in matrix if "linux" in row["name"]} == set(
        CIBUILDWHEEL["linux"]["archs"]
    )
    assert {row["arch"] for row in matrix if "macos" in row["name"]} == set(
        CIBUILDWHEEL["macos"]["archs"]
    )
    for row in matrix:
        system, _, arch = row["name"].partition("-")
        assert arch == row["arch"]
        skipped = {"manylinux": "*-musllinux_*", "musllinux": "*-manylinux_*", "macos": ""}
        assert row["skip"] == skipped[system]
        native = {"ubuntu-24.04": "x86_64", "ubuntu-24.04-arm": "aarch64"}
        native |= {"macos-15-intel": "x86_64", "macos-15": "arm64"}
        assert native[row["runner"]] == arch  # no emulation: the tests run the engines
    assert len({row["name"] for row in matrix}) == len(matrix)


def test_the_workflow_runs_what_is_there_and_publishes_nothing() -> None:
    assert yaml.safe_load(TEXT)["permissions"] == {"contents": "read"}
    runs = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    ours = [word for line in runs for word in line.split() if word.startswith(".ci/")]
    assert ours == [".ci/wheel"]
    assert all((ROOT / script).exists() for script in ours)
    assert "://" not in TEXT
    assert not re.search(r"twine|publish@|pypi|--repository", TEXT)
    for job in JOBS.values():
        assert job["timeout-minutes"] <= 60
        assert job["steps"][-1]["with"]["if-no-files-found"] == "error"


def test_actions_are_those_of_one_commit() -> None:
    """A tag can be moved."""
    uses = [line.strip() for line in TEXT.splitlines() if "uses:" in line]
    assert uses
    for line in uses:
        assert re.fullmatch(r"- uses: actions/[a-z-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line), line


def test_a_change_of_what_goes_into_a_wheel_is_tried() -> None:
    (paths,) = re.findall(r"paths:\n((?: +- .*\n)+)", TEXT)
    watched = re.findall(r'"(.+)"', paths)
    assert {"moderntensor/**", "ext/**", "pyproject.toml", "setup.py", "MANIFEST.in"} <= {*watched}
    scripts = set(re.findall(r"\.ci/[a-z.]+", TEXT + str(CIBUILDWHEEL)))
    assert {name for name in watched if name.startswith(".ci/")} == scripts
    assert all((ROOT / name.removesuffix("/**")).exists() for name in watched)


@pytest.mark.long
def test_the_workflow_follows_its_schema() -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.github-workflows", WORKFLOW),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_engines_are_compiled_for_any_processor() -> None:
    """What only some have is compiled function by function and chosen when it is loaded."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert not re.search(r"-march|-mtune|-mcpu|-mavx|-msse|-msha|/arch:", text)


def test_ci_tries_the_wheel_that_it_has_built() -> None:
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert '.ci/wheel "$work/dist" "$work/user"' in run
    assert (ROOT / ".ci" / "wheel").stat().st_mode & 0o111
