"""A fast sync that is ended by SIGKILL again and again, and goes on each time."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from benchmarks.fast_sync import chains
from benchmarks.fast_sync.fleet import LOOK, Fleet, compare, killed, total, wait_for
from benchmarks.fast_sync.scale import Scale

PEERS = 2


def measure(scale: Scale, cache: Path, transport: str) -> dict[str, Any]:
    """What was fetched twice, in how long."""
    source = chains.large_state(cache, scale.states[-1], 128)
    chance = random.Random(scale.kills)
    marks = sorted(chance.uniform(0, 0.95) for _ in range(scale.kills))
    found: list[dict[str, Any]] = []
    began = time.perf_counter()
    with Fleet(transport) as fleet:
        for _ in range(PEERS):
            fleet.serve(source)
        before: dict[str, Any] = {"accounts_done": 0, "header_height": 0}
        for mark in marks:
            syncer, _ = fleet.syncer(source, fast=True, name="killed")
            syncer.ask("begin")
            status = _until(syncer, source, mark, once=scale.quick)
            time.sleep(chance.uniform(0, 0.05))
            killed(syncer)
            served = total(fleet.servers, "accounts")
            found.append({**status, "served": served})
            assert status["header_height"] >= before["header_height"], "headers were lost"
            assert status["accounts_done"] >= before["accounts_done"], "accounts were lost"
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


def _until(syncer: Any, source: chains.Source, mark: float, once: bool) -> dict[str, Any]:
    """Wait until this share of the accounts is there; with `once`, for nothing."""
    while True:
        status: dict[str, Any] = syncer.ask("status")
        assert status["error"] is None, status["error"]
        assert status["result"] is None, f"it was done before {mark:.0%}; use a longer chain"
        if once or status["accounts_done"] >= mark * source.accounts:
            return status
        time.sleep(LOOK / 4)


def _in_flight(found: list[dict[str, Any]]) -> list[int]:
    """Accounts that had been served and were not committed at each kill, as far as seen from
    outside: the last status is some milliseconds older than the kill."""
    lost, wasted = [], 0
    for status in found:
        waste = max(status["served"] - status["accounts_done"] - wasted, 0)
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
