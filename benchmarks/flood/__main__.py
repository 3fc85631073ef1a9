"""How fast an honest peer syncs from a node that thirty hostile ones attack, and what it holds.

    python -m benchmarks.flood [--quick]

Rounds of an undisturbed and a disturbed stretch; node, honest peer and attackers are processes of
their own. Writes benchmarks/results/flood.json and the section of docs/security.md, unless it is
`--quick`, which only shows that everything runs. Exit code 1 where a mark is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from adversity.control import Child  # noqa: E402

from benchmarks.flood import page  # noqa: E402

MIB = 1024 * 1024
BYTE_BUDGET = 96 * MIB
OVERHEAD = 64 * MIB  # interpreter, code, the chain in memory
LEAST_RATIO = 0.5
RESULT = ROOT / "benchmarks" / "results" / "flood.json"
SAMPLE = 0.1  # seconds between two looks at the node's memory


class Stretch:
    """Some seconds in which the honest peer's blocks, processor times and memory are counted."""

    def __init__(self, node: Child, syncer: Child, seconds: float, hostile: Child | None) -> None:
        watched = {"node": node, "honest": syncer}
        if hostile is not None:
            watched["hostile"] = hostile
        cpu = {name: child.cpu_seconds() for name, child in watched.items()}
        blocks, began, self.memory = syncer.ask("report")["blocks"], time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < seconds:
            self.memory = max(self.memory, node.memory())
            time.sleep(SAMPLE)
        self.rate = (syncer.ask("report")["blocks"] - blocks) / elapsed
        self.cpu = {name: (watched[name].cpu_seconds() - cpu[name]) / elapsed for name in watched}


def measure(rounds: int, seconds: float, blocks: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="moderntensor-") as name, ExitStack() as stack:

        def child(role: str, setup: dict[str, Any], number: int = 0) -> Child:
            made = Child(f"benchmarks.flood.{role}", setup, Path(name) / f"{role}-{number}.err")
            stack.callback(made.kill)
            return made

        data = Path(name) / "node"
        node = child("node", {"byte_budget": BYTE_BUDGET, "blocks": blocks, "data": str(data)})
        syncer = child("syncer", node.ready)
        while syncer.ask("report")["blocks"] < blocks:  # the first one warms up
            time.sleep(SAMPLE)
        at_rest = node.memory()
        quiet, loud, attacks = [], [], []
        for number in range(rounds):
            quiet.append(Stretch(node, syncer, seconds, None))
            hostile = child("hostile", node.ready, number)
            hostile.ask("start")
            time.sleep(1)
            loud.append(Stretch(node, syncer, seconds, hostile))
            attacks.append(hostile.ask("stop"))
            hostile.stop()
            time.sleep(1)
        after = Stretch(node, syncer, seconds / 2, None)
        said_last = syncer.ask("report")
        partings = said_last["partings"]
        state = node.ask("state")
        assert not partings, partings
        for process in (syncer, node):
            said = process.stop()
            assert "Traceback" not in said, said
    return {
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), Python "
        + platform.python_version(),
        "rounds": rounds,
        "seconds": seconds,
        "blocks": blocks,
        "undisturbed": [stretch.rate for stretch in quiet],
        "disturbed": [stretch.rate for stretch in loud],
        "after": after.rate,
        "ratio": statistics.median(b.rate / a.rate for a, b in zip(quiet, loud, strict=True)),
        "cpu_undisturbed": quiet[-1].cpu,
        "cpu_disturbed": loud[-1].cpu,
        "memory_at_rest": at_rest,
        "memory_most": max(stretch.memory for stretch in loud),
        "memory_allowed": BYTE_BUDGET + OVERHEAD,
        "busy_replies": said_last["busy"],
        "attacks": attacks[-1],
        "node": state,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="show that it runs, in 20 s")
    arguments = parser.parse_args()
    if arguments.quick:
        result = measure(rounds=1, seconds=4, blocks=1000)
    else:
        result = measure(rounds=3, seconds=10, blocks=4000)
    print(json.dumps(result, indent=1))
    print(f"\nsync under attack: {result['ratio']:.0%} of the undisturbed rate")
    print(f"memory: {result['memory_most'] / MIB:.0f} MiB of {result['memory_allowed'] / MIB:.0f}")
    if not arguments.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        page.write(result)
    good = result["memory_most"] <= result["memory_allowed"]
    return 0 if good and (arguments.quick or result["ratio"] >= LEAST_RATIO) else 1


if __name__ == "__main__":
    sys.exit(main())
