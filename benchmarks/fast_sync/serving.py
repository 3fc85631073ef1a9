"""A node serves four that fast-sync from it alone, and follows a chain of full blocks."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.fast_sync import chains
from benchmarks.fast_sync.fleet import LOOK, Fleet
from benchmarks.fast_sync.scale import Scale

SYNCERS = 4


def measure(scale: Scale, cache: Path, transport: str) -> dict[str, Any]:
    """How late each block came, undisturbed and while four others synced, again and again."""
    source = chains.large_state(cache, scale.base, 128)
    with Fleet(transport) as fleet:
        maker = fleet.follower(source)
        node = fleet.follower(source, bootstrap=[maker.ready["port"]])
        maker.ask("begin")
        time.sleep(scale.seconds / 2)
        first = node.ask("state")["height"] + 1
        syncs, until = 0, time.monotonic() + scale.seconds
        while time.monotonic() < until:
            syncs += _sync_all(fleet, source, node)
        last = node.ask("state")["height"]
        made = maker.ask("end")
        time.sleep(2)  # a block is late after one second
        state = node.ask("state")
    late = {
        int(height): state["at"].get(height, float("inf")) - when for height, when in made.items()
    }
    quiet = [delay for height, delay in late.items() if height < first]
    busy = [delay for height, delay in late.items() if first <= height <= last]
    slot = 1.0  # seconds
    return {
        "accounts": source.accounts,
        "syncs": syncs,
        "blocks": len(busy),
        "missed": sum(delay > slot for delay in busy),
        "missed_before": sum(delay > slot for delay in quiet),
        "latest_ms": max(busy) * 1000,
        "latest_before_ms": max(quiet) * 1000,
        "offences": state["offences"],
    }


def _sync_all(fleet: Fleet, source: chains.Source, node: Any) -> int:
    """Four fast syncs from `node` at once; how many were done."""
    begun = []
    for _ in range(SYNCERS):
        syncer, data = fleet.syncer(source, fast=True, peers=[node.ready])
        begun.append((syncer, data))
    try:
        for syncer, _ in begun:
            syncer.ask("begin")
        waiting = [syncer for syncer, _ in begun]
        while waiting:
            for syncer in tuple(waiting):
                status = syncer.ask("status")
                assert status["error"] is None, status["error"]
                if status["result"] is not None:
                    waiting.remove(syncer)
            time.sleep(LOOK)
    finally:
        for syncer, data in begun:
            syncer.kill()
            shutil.rmtree(data, ignore_errors=True)
    return SYNCERS


def lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    return [
        f"{result['syncs']} fast syncs of {result['accounts']:,} accounts, four at a time: "
        f"{result['missed']} of {result['blocks']} blocks missed "
        f"({result['missed_before']} before); the latest came after "
        f"{result['latest_ms']:.0f} ms ({result['latest_before_ms']:.0f} before)"
    ]


def misses(result: dict[str, Any]) -> list[str]:
    """The marks that it does not reach."""
    return ["blocks missed while serving"] if result["missed"] else []
