"""Both ends of one kind of stream, run from here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Self

from . import KINDS, PURE
from .work import DISTINCT

_START = 4 * DISTINCT  # messages of the first try, from which the number for a run is found


@dataclass(frozen=True, slots=True)
class Run:
    """One stream: messages per second, and the processor seconds that each end took for one."""

    rate: float
    sender_cost: float
    receiver_cost: float
    digest: str | None = None


class Pair:
    """Two processes with one connection between them, for streams of any size one by one."""

    def __init__(self, kind: str) -> None:
        self._ends = [_End(side, KINDS[kind], kind == PURE) for side in ("sender", "receiver")]
        self._connected = False
        self._counts: dict[int, int] = {}  # messages of a run, by size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end.close()

    def connect(self) -> None:
        """Wait until both processes are there. Done by the first run otherwise."""
        if not self._connected:
            sender, receiver = self._ends
            receiver.ask(port=sender.told()["port"])
            self._connected = True

    def run(self, size: int, count: int, *, keep: bool = False) -> Run:
        """Send `count` messages of `size` bytes; raises AssertionError if they do not arrive."""
        self.connect()
        sender, receiver = self._ends
        receiver.ask(size=size, count=count, keep=keep)
        sent = sender.ask(size=size, count=count)
        got = receiver.told()
        assert (got["count"], got["size"]) == (count, size * count), got
        return Run(got["rate"], sent["busy"] / count, got["busy"] / count, got["digest"])

    def run_for(self, size: int, seconds: float) -> Run:
        """Send messages for about so long."""
        if size not in self._counts:
            self.connect()
            count = _START
            while (taken := self._time(size, count)) < seconds / 4:
                count *= 2 if taken > seconds / 16 else 8
            self._counts[size] = max(1, round(count * seconds / taken / DISTINCT)) * DISTINCT
        return self.run(size, self._counts[size])

    def _time(self, size: int, count: int) -> float:
        began = time.perf_counter()
        self.run(size, count)
        return time.perf_counter() - began


class _End:
    def __init__(self, side: str, module: str, pure: bool) -> None:
        environment = dict(os.environ)
        if pure:
            environment["MODERNTENSOR_PURE"] = "1"
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.end", side, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, **order: Any) -> Any:
        """Give an order; the next answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self.told()

    def told(self) -> Any:
        """The next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} has ended")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.communicate()
