"""Full sync and fast sync of one chain, from the same peers, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.fast_sync import chains
from benchmarks.fast_sync.fleet import Fleet
from benchmarks.fast_sync.scale import LEAST_RATIO, LEAST_TRUSTED_RATIO, Scale

PEERS = 4


def measure(scale: Scale, cache: Path, transport: str) -> dict[str, Any]:
    """Seconds of each kind of sync, and where they went."""
    source = chains.history(cache, scale.blocks, scale.transfers, scale.accounts, scale.interval)
    trusted = (source.height, source.hash)
    with Fleet(transport) as fleet:
        for _ in range(PEERS):
            fleet.serve(source)
        # A run of each before the clock counts would warm up what no fresh node finds warm.
        fast = fleet.sync(source, fast=True)
        below = fleet.sync(source, fast=True, trusted=trusted)
        full = fleet.sync(source, fast=False)
        offences = [server.ask("offences") for server in fleet.servers]
    return {
        "blocks": source.height,
        "transactions": source.transactions,
        "accounts": source.accounts,
        "peers": PEERS,
        "full": full,
        "fast": fast,
        "trusted": below,
        "ratio": full["seconds"] / fast["seconds"],
        "trusted_ratio": full["seconds"] / below["seconds"],
        "marks": [LEAST_RATIO, LEAST_TRUSTED_RATIO],
        "offences": offences,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    shown = [
        f"{result['blocks']:,} blocks, {result['transactions']:,} transactions, "
        f"{result['accounts']:,} accounts; {result['peers']} peers; "
        "head, state root and every account equal"
    ]
    for name, title in (("full", "full sync"), ("fast", "fast sync"), ("trusted", "trusted head")):
        run = result[name]
        phases = ", ".join(
            f"{phase} {seconds:.2f}" for phase, seconds in run["phases"].items() if seconds >= 0.005
        )
        threads = ", ".join(f"{name} {spent:.2f}" for name, spent in run["threads"].items())
        shown += [
            f"{title:13} {run['seconds']:7.2f} s, {run['bytes'] / 1e6:.0f} MB  ({phases})",
            f"{'':13} processor seconds of its threads: {threads}",
        ]
    first, second = result["marks"]
    shown += [
        f"full / fast, every header signature checked: {result['ratio']:.1f} (mark {first:g})",
        f"full / fast, trusted head: {result['trusted_ratio']:.1f} (mark {second:g})",
    ]
    return shown


def misses(result: dict[str, Any]) -> list[str]:
    """The marks that it does not reach."""
    first, second = result["marks"]
    return [
        *(["ratio"] if result["ratio"] < first else []),
        *(["ratio under a trusted head"] if result["trusted_ratio"] < second else []),
    ]
