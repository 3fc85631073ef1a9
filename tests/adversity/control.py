"""A line of JSON to a child process, a line of JSON back."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 60.0  # seconds until a child that does not answer is killed


# --- in the child --------------------------------------------------------------------------


async def obey(commands: dict[str, Callable[..., Any]], ready: dict[str, Any]) -> None:
    """Say `ready`, then answer commands, plain or async, until stdin ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        print(json.dumps(ready), flush=True)
        while line := await reader.readline():
            asked = json.loads(line)
            answer = commands[asked.pop("do")](**asked)
            if asyncio.iscoroutine(answer):
                answer = await answer
            print(json.dumps(answer), flush=True)
    finally:
        pipe.close()


# --- in the test ---------------------------------------------------------------------------


class Child:
    """A module of this package in a process of its own."""

    def __init__(
        self, module: str, setup: dict[str, Any], errors: Path, within: Sequence[str] = ()
    ) -> None:
        """What it writes to stderr is kept in the file `errors`. `within` is a command that runs
        another one, somewhere."""
        self.errors = errors
        with errors.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*within, sys.executable, "-W", "error", "-m", module, json.dumps(setup)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
            )
        self.pid = self._process.pid
        try:
            self.ready = self._answer()
        except BaseException:
            self.kill()
            raise

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise AssertionError(f"the child has ended: {self.errors.read_text()[-4000:]}")
        return json.loads(line)

    def ask(self, do: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def stop(self) -> str:
        """Let it end by itself; what it wrote to stderr. AssertionError if it did not end well."""
        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        try:
            code = process.wait(PATIENCE)
        finally:
            self.kill()
        said = self.errors.read_text()
        assert code == 0, said[-4000:]
        return said

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        self._process.send_signal(number)
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        process = self._process
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    # --- from outside ----------------------------------------------------------------------

    def memory(self) -> int:
        """Bytes that no file stands behind."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        fields = (
            Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        )
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
