"""A worker process seen from the one that measures: commands out, results back, line by line."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

_GRACE = 10.0  # seconds for a worker to end once its input has


class Worker:
    """A process that runs one end (`python -m benchmarks.compare.nodes.run END`).

    It serves commands while its event loop runs, so between samples its connections live on.
    """

    def __init__(self, end: str, **settings: Any) -> None:
        """`end` names a class of `run.ENDS`, made with `settings`."""
        self.end = end
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.run", end, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def begin(self, command: str, **arguments: Any) -> None:
        """Send a command without waiting for what comes of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, arguments]) + "\n")
        self._process.stdin.flush()

    def result(self) -> Any:
        """What came of the oldest command whose result was not read yet."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.end} ended: exit code {self._process.wait(_GRACE)}")
        return json.loads(line)

    def ask(self, command: str, **arguments: Any) -> Any:
        """Send a command and wait for what comes of it."""
        self.begin(command, **arguments)
        return self.result()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(_GRACE)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
