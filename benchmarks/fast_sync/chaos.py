"""Four of six peers lie, each in a way of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.fast_sync import chains
from benchmarks.fast_sync.fleet import Fleet
from benchmarks.fast_sync.lies import LIES
from benchmarks.fast_sync.scale import LEAST_CHAOS, Scale

HONEST = 2


def measure(scale: Scale, cache: Path, transport: str) -> dict[str, Any]:
    """Rates of two honest peers alone and of the two among four liars; what befell these."""
    source = chains.large_state(cache, scale.chaos, 128)
    runs = {}
    for name, honest, liars in (
        ("alone", HONEST, ()),
        ("among liars", HONEST, tuple(LIES)),
    ):
        with Fleet(transport) as fleet:
            for _ in range(honest):
                fleet.serve(source)
            for lie in liars:
                fleet.serve(source, lie=lie)
            runs[name] = run = fleet.sync(source, fast=True)
            told = {
                lie: {
                    "lies": server.ask("served").get("lies", 0),
                    "node_id": server.ready["node_id"],
                    "fate": run["partings"].get(server.ready["node_id"], "still there"),
                }
                for lie, server in zip(liars, fleet.servers[honest:], strict=True)
            }
    rates = {name: source.accounts / run["state_seconds"] / HONEST for name, run in runs.items()}
    return {
        "accounts": source.accounts,
        "rates_per_honest_peer": rates,
        "share": rates["among liars"] / rates["alone"],
        "liars": told,
        "offences": runs["among liars"]["offences"],
        "seconds": {name: run["seconds"] for name, run in runs.items()},
        "phases": runs["among liars"]["phases"],
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    rates = result["rates_per_honest_peer"]
    return [
        f"{result['accounts']:,} accounts; accounts/s per honest peer: "
        + ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()),
        f"among liars / the same two alone: {result['share']:.0%} (mark {LEAST_CHAOS:.0%})",
        *(
            f"  who {'answers with false ' + lie if lie in ('accounts', 'nodes') else lie}: "
            f"{found['fate']}; {found['lies']} lies"
            for lie, found in result["liars"].items()
        ),
        f"  offences: {result['offences']}",
    ]


def misses(result: dict[str, Any]) -> list[str]:
    """The marks that it does not reach."""
    unpunished = [lie for lie, found in result["liars"].items() if found["fate"] == "still there"]
    return [
        *(["speed among liars"] if result["share"] < LEAST_CHAOS else []),
        *(f"the conviction of the one who {lie}" for lie in unpunished),
    ]
