"""What is looked at while it runs: processes from outside, nodes from inside, their events."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from moderntensor.client.model import MissedEvent
from moderntensor.errors import ClientError

from .fleet import Node
from .judge import LIMITS, WARM_UP, Point, Verdict, judge

INSIDE: Final = {
    "tasks": "tasks",
    "height": "head_height",
    "mempool": "mempool_transactions",
    "database": "database_bytes",
}


def outside(pid: int) -> dict[str, float]:
    """From /proc: anonymous resident bytes, descriptors, threads. OSError if it has ended."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    if "RssAnon" not in fields:
        raise ProcessLookupError(f"process {pid} has ended")
    return {
        "memory": int(fields["RssAnon"].split()[0]) * 1024,
        "threads": int(fields["Threads"]),
        "descriptors": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
    }


def inside(text: str) -> dict[str, float]:
    """From a node's metrics; what is absent is left out."""
    found = {}
    for name, metric in INSIDE.items():
        match = re.search(rf"^moderntensor_{metric} (\S+)$", text, re.MULTILINE)
        if match:
            found[name] = float(match[1])
    return found


class Watch:
    """Samples by node and life, and events by node."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.samples: dict[tuple[int, int], list[dict[str, float]]] = defaultdict(list)
        self.events: dict[int, Counter[str]] = {node.number: Counter() for node in nodes}
        self.scrapes_failed = 0
        self._nodes = nodes

    async def sample(self, every: float) -> None:
        """All nodes, every so many seconds, until cancelled."""
        while True:
            await asyncio.gather(*(self._one(node) for node in self._nodes))
            await asyncio.sleep(every)

    async def _one(self, node: Node) -> None:
        pid, life = node.pid, node.life
        if pid is None:
            return
        at = asyncio.get_running_loop().time() - node.began
        try:
            taken = {"at": at, **outside(pid), **inside(await node.client.metrics())}
        except (OSError, ClientError):
            self.scrapes_failed += node.up and node.life == life
            return
        if node.up and node.life == life:
            self.samples[node.number, life].append(taken)

    async def listen(self, node: Node) -> None:
        """To a node's events over all its lives, until cancelled."""
        async with node.client.events() as events:
            async for event in events:
                name = type(event).__name__
                self.events[node.number][name] += (
                    event.events if isinstance(event, MissedEvent) else 1
                )

    def verdicts(self, warm_up: float = WARM_UP) -> list[Verdict]:
        """On each figure of each life that was long enough."""
        found = []
        for (node, life), samples in sorted(self.samples.items()):
            for figure in LIMITS:
                points: list[Point] = [(s["at"], s[figure]) for s in samples if figure in s]
                verdict = judge(node, life, figure, points, warm_up)
                if verdict is not None:
                    found.append(verdict)
        return found
