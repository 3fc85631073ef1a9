"""SIGKILL again and again along a sync from other processes: nothing committed is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sync_loopback.py"


@pytest.mark.parametrize(
    "kills",
    [pytest.param(3, marks=pytest.mark.long), pytest.param(10, marks=pytest.mark.slow)],
)
def test_kills_lose_nothing_that_was_committed(kills: int) -> None:
    arguments = ["--blocks", str(150 * kills), "--transfers", "1", "--peers", "2"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, "--batch", "16", "--kills", str(kills)],
        cwd=SCRIPT.parents[1],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"kill {kills}: at block" in done.stdout
    assert "head and state root agree" in done.stdout
