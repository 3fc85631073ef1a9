"""A sync over a thin line beside what the line allows, in virtual time.

    python benchmarks/sync_bound.py [--seeds N] [--quick]

Eight peers hold a chain of 150 MB; one node syncs it over 20 Mbit/s that all connections share, at
100 ms there and back. The bound is the bytes that must cross (headers, bodies, the least framing)
over the line's rate, and the round trips before the first body. Each run is repeated with one peer
that stalls for two seconds, and with the fastest peer, which could bring half of the line alone,
losing power. No clock of this machine counts: the figures are the same on every one.

Writes `benchmarks/results/sync_bound.json`; exit code 1 if a sync uses less than 85 % of the bound,
a stall costs 3 % or more, or a death 10 % or more.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from moderntensor.simulation.scenario import run_scenario

RESULTS = Path(__file__).parent / "results" / "sync_bound.json"
CHAINS = {"blocks of 100 kB": (1500, 100_000), "blocks of 23 kB": (6500, 23_000)}
LEAST_SHARE = 0.85
MOST_COST = {"stall": 0.03, "death": 0.10}


def one(seed: int, blocks: int, block_bytes: int, fault: str) -> dict[str, float]:
    result = run_scenario("bound", seed, blocks=blocks, block_bytes=block_bytes, fault=fault)
    if not result.ok:
        raise SystemExit(f"seed {seed}, {fault}: {'; '.join(result.violations)}")
    metrics: dict[str, Any] = result.metrics
    return {
        "seconds": round(metrics["sync_seconds"][0], 3),
        "bound": round(metrics["bound_seconds"], 3),
        "share": round(metrics["bound_share"], 4),
        "bytes_over_least": round(metrics["bytes_over_least"], 4),
    }


def measured(seed: int, blocks: int, block_bytes: int) -> dict[str, Any]:
    """The three runs of one seed, and what the faults cost."""
    runs = {fault: one(seed, blocks, block_bytes, fault) for fault in ("none", *MOST_COST)}
    calm = runs["none"]["seconds"]
    costs = {fault: round(runs[fault]["seconds"] / calm - 1, 4) for fault in MOST_COST}
    return {"seed": seed, "runs": runs, "costs": costs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed of the larger blocks")
    given = parser.parse_args()
    chains = dict(list(CHAINS.items())[:1]) if given.quick else CHAINS
    found: dict[str, list[dict[str, Any]]] = {}
    missed = 0
    for name, (blocks, block_bytes) in chains.items():
        found[name] = []
        for seed in range(1, 2 if given.quick else given.seeds + 1):
            outcome = measured(seed, blocks, block_bytes)
            found[name].append(outcome)
            calm, costs = outcome["runs"]["none"], outcome["costs"]
            good = calm["share"] >= LEAST_SHARE and all(
                costs[fault] < most for fault, most in MOST_COST.items()
            )
            missed += not good
            print(
                f"{name}, seed {seed}: {calm['seconds']:.1f} s, bound {calm['bound']:.1f} s "
                f"({calm['share']:.1%}); 2-s stall {costs['stall']:+.1%}, "
                f"death of the fastest {costs['death']:+.1%}{'' if good else '  MISSED'}",
                flush=True,
            )
    if not given.quick:
        RESULTS.write_text(json.dumps({"family": "sync_bound", "chains": found}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
