"""SIGKILL at ten moments of a sync, with peers in other processes: nothing committed is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sync_loopback.py"


def test_ten_kills_lose_nothing_that_was_committed() -> None:
    arguments = ["--blocks", "1500", "--transfers", "1", "--peers", "2", "--kills", "10"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments, "--batch", "16"],
        cwd=SCRIPT.parents[1],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill 10: at block" in done.stdout
    assert "head and state root agree" in done.stdout
