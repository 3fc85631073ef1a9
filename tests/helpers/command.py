"""The ``moderntensor`` command in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = [sys.executable, "-W", "error", "-m", "moderntensor"]
PATIENCE = 60.0  # seconds until a child that hangs is killed

# What would colour or fold the output on somebody's machine.
_UNWANTED = {"COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "PY_COLORS", "GITHUB_ACTIONS"}


def environment(**more: str) -> dict[str, str]:
    """That of this process, without what changes the looks of the output."""
    kept = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*PYTHON, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


# Runs one command after the other: starting Python is most of what a short one costs.
_EACH = """
import contextlib, io, json, sys
from moderntensor.cli import main
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def run_each(commands: Iterable[Sequence[str | Path]]) -> list[subprocess.CompletedProcess[str]]:
    """Run many commands in one child process."""
    lines = [json.dumps([str(argument) for argument in command]) for command in commands]
    child = subprocess.run(
        [sys.executable, "-W", "error", "-c", _EACH],
        env=environment(COLUMNS="200"),
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert not child.stderr
    return [
        subprocess.CompletedProcess(line, *json.loads(result))
        for line, result in zip(lines, child.stdout.splitlines(), strict=True)
    ]


def succeed(*arguments: str | Path, cwd: Path | None = None) -> str:
    """What it prints; it must end well and complain of nothing."""
    return printed(run(*arguments, cwd=cwd))


def printed(result: subprocess.CompletedProcess[str]) -> str:
    """As `succeed`, of what has run."""
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    return result.stdout


def complaint(*arguments: str | Path, code: int = 1) -> str:
    """The one line on stderr with which it must refuse, and nothing on stdout."""
    return complaint_of(run(*arguments), code=code)


def complaint_of(result: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """As `complaint`, of what has run."""
    assert result.returncode == code, result.stdout + result.stderr
    assert not result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("moderntensor: error: ")
    return lines[0].removeprefix("moderntensor: error: ")


class Running:
    """A child that goes on until it is told to stop."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""

    def line_with(self, text: str) -> str:
        """The next line of its output that contains `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if text in line:
                return line
        raise AssertionError(f"it ended without saying {text!r}: {self.said}")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; exit code, the rest of stdout, and all of stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate()
        return self.process.returncode, out, err


@contextmanager
def running(
    *arguments: str | Path, cwd: Path | None = None, patience: float = PATIENCE
) -> Iterator[Running]:
    """The command in the background; killed at the end, or after `patience` seconds."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So are the background jobs of a script started, and children inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [*PYTHON, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(patience, process.kill)
        watchdog.start()
        try:
            yield Running(process)
        finally:
            watchdog.cancel()
            process.kill()
