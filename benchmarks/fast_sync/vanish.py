"""The snapshot goes on all peers, half-way, and the chain has moved on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.fast_sync import chains
from benchmarks.fast_sync.fleet import Fleet, total
from benchmarks.fast_sync.scale import Scale

PEERS = 2
SHARES = (0.01, 0.2)
LEAST_SUBTREE = 64
TOLERANCE = 0.02  # what was there is a half of the state, not a sample of it


def measure(scale: Scale, cache: Path, transport: str) -> dict[str, Any]:
    """For each share of accounts that the blocks change: how much of what was there is kept."""
    source = chains.large_state(cache, scale.base, 128)
    found = []
    for share in SHARES:
        moved = chains.moved_on(source, scale.moves, share)
        with Fleet(transport) as fleet:
            for _ in range(PEERS):
                fleet.serve(source, moved, most=source.accounts // 2 // PEERS)
            run = fleet.sync(source, fast=True, expected=moved)
            before, fetched = total(fleet.servers, "before"), total(fleet.servers, "accounts")
        again = max(fetched - moved.accounts, 0)
        found.append(
            {
                "changed": share,
                "before": before,
                "fetched": fetched,
                "reused": 1 - again / before,
                "unchanged_at_best": _unchanged(source, moved),
                "seconds": run["seconds"],
                "phases": run["phases"],
            }
        )
    return {"accounts": source.accounts, "moves": scale.moves, "runs": found}


def _unchanged(old: chains.Source, new: chains.Source) -> float:
    """The share of accounts in subtrees that did not change between the snapshots, where trees
    are compared down to subtrees of 64 accounts: the most that can be kept."""
    with chains.snapshot_of(old) as before, chains.snapshot_of(new) as after:

        def kept(depth: int, prefix: bytes) -> int:
            ours, theirs = before.node(depth, prefix), after.node(depth, prefix)
            if ours is None or theirs is None:
                return 0
            middle = int.from_bytes(prefix, "big") | 1 << 255 - depth
            found = 0
            for half, below in ((0, prefix), (40, middle.to_bytes(32, "big"))):
                size = int.from_bytes(theirs[half + 32 : half + 40], "big")
                if ours[half : half + 40] == theirs[half : half + 40]:
                    found += size
                elif size > LEAST_SUBTREE:
                    found += kept(depth + 1, below)
            return found

        return kept(0, bytes(32)) / after.info.accounts


def lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    return [
        f"{run['changed']:.0%} of {result['accounts']:,} accounts changed within "
        f"{result['moves']:,} blocks: {run['before']:,} were here, {run['reused']:.0%} of them "
        f"kept ({run['unchanged_at_best']:.0%} lie in unchanged subtrees of {LEAST_SUBTREE}); "
        f"{run['seconds']:.2f} s in all"
        for run in result["runs"]
    ]


def misses(result: dict[str, Any]) -> list[str]:
    """The marks that it does not reach: subtrees that did not change were fetched again."""
    return [
        f"reuse with {run['changed']:.0%} changed"
        for run in result["runs"]
        if run["reused"] < run["unchanged_at_best"] - TOLERANCE
    ]
