"""A fast sync that is ended by SIGKILL again and again, and goes on each time."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from benchmarks.fast_sync import chains
from benchmarks.fast_sync.fleet import LOOK, Fleet, compare, killed, total, wait_for
from benchmarks.fast_sync.scale import Scale

PEERS = 4


def measure(scale: Scale, cache: Path, transport: str) -> dict[str, Any]:
    """What was fetched twice, in how long."""
    source = chains.history(cache, scale.blocks, scale.transfers, scale.accounts, scale.interval)
    chance = random.Random(scale.kills)
    marks = sorted(chance.uniform(0.02, 0.98) for _ in range(scale.kills))
    found: list[dict[str, Any]] = []
    began = time.perf_counter()
    with Fleet(transport) as fleet:
        for _ in range(PEERS):
            fleet.serve(source)
        before: dict[str, Any] = {"accounts_done": 0, "header_height": 0}
        for mark in marks:
            syncer, _ = fleet.syncer(source, fast=True, name="killed")
            syncer.ask("begin")
            status = _until(syncer, source, mark)
            time.sleep(chance.uniform(0, 0.05))
            killed(syncer)
            served = total(fleet.servers, "accounts")
            found.append({**status, "served": served})
            assert status["header_height"] >= before["header_height"], "headers were lost"
            before = status
        syncer, _ = fleet.syncer(source, fast=True, name="killed")
        syncer.ask("begin")
        result = wait_for(syncer)
        compare(syncer, result, source)
        syncer.stop()
        served = total(fleet.servers, "accounts")
        chunks = total(fleet.servers, "chunks")
    return {
        "kills": len(found),
        "accounts": source.accounts,
        "seconds": time.perf_counter() - began,
        "fetched": served,
        "refetched": served - source.accounts,
        "in_flight": _in_flight(found),
        "mean_chunk": served / max(chunks, 1),
        "at": found,
    }


def _until(syncer: Any, source: chains.Source, mark: float) -> dict[str, Any]:
    """Wait until the sync has come so far: half of the way are headers, half accounts."""
    while True:
        status: dict[str, Any] = syncer.ask("status")
        assert status["error"] is None, status["error"]
        assert status["result"] is None, f"it was done before {mark:.0%}; use a longer chain"
        headers = status["header_height"] / source.height
        accounts = (status["accounts_done"] or 0) / source.accounts
        if (headers + accounts) / 2 >= mark:
            return status
        time.sleep(LOOK / 4)


def _in_flight(found: list[dict[str, Any]]) -> list[int]:
    """Accounts that had been served and were not committed at each kill, as far as seen from
    outside: the last status is some milliseconds older than the kill."""
    lost, wasted = [], 0
    for status in found:
        waste = max(status["served"] - (status["accounts_done"] or 0) - wasted, 0)
        lost.append(waste)
        wasted += waste
    return lost


def lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    return [
        f"{result['kills']} kills in {result['seconds']:.1f} s; {result['fetched']:,} accounts "
        f"fetched of {result['accounts']:,}: {result['refetched']:,} again, "
        f"{result['refetched'] / result['kills']:,.0f} per kill "
        f"({result['refetched'] / result['kills'] / result['mean_chunk']:.1f} chunks)",
        f"  served and not yet committed at the kills: {result['in_flight']}",
    ]


def misses(result: dict[str, Any]) -> list[str]:
    """The marks that it does not reach."""
    return ["refetched"] if result["refetched"] > sum(result["in_flight"]) else []
