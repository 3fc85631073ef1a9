"""How fast the accounts of a large state arrive, beside writing them to the same disk alone."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import lmdb

from benchmarks.fast_sync import chains
from benchmarks.fast_sync.fleet import Fleet
from benchmarks.fast_sync.scale import LEAST_OF_DISK, MOST_MEMORY, Scale
from moderntensor.blockchain.tables import TABLES
from moderntensor.network.sync.state import COMMIT_ACCOUNTS
from moderntensor.storage import open_store

PEERS = 4
MIB = 1024 * 1024


def measure(scale: Scale, cache: Path, transport: str) -> dict[str, Any]:
    """For each size of state: both rates, memory."""
    found = []
    for accounts in scale.states:
        source = chains.large_state(cache, accounts, 128)
        bare = min(_bare_seconds(source) for _ in range(2))
        with Fleet(transport) as fleet:
            for _ in range(PEERS):
                fleet.serve(source)
            run = fleet.sync(source, fast=True)
        bare = min(bare, _bare_seconds(source))
        rate = source.accounts / run["state_seconds"]
        found.append(
            {
                "accounts": source.accounts,
                "seconds": run["seconds"],
                "phases": run["phases"],
                "threads": run["threads"],
                "bytes": run["bytes"],
                "rate": rate,
                "bare_rate": source.accounts / bare,
                "share": rate * bare / source.accounts,
                "memory": run["memory"],
            }
        )
    return {"peers": PEERS, "states": found, "batch": COMMIT_ACCOUNTS}


def _bare_seconds(source: chains.Source) -> float:
    """Seconds in which LMDB alone takes the source's accounts, in the batches that a fast sync
    commits."""
    taken, batch = 0.0, []
    with (
        open_store(source.data / chains.CHAIN, TABLES, map_size=chains.MAP_SIZE) as store,
        tempfile.TemporaryDirectory(prefix="moderntensor-") as name,
        lmdb.open(name, map_size=chains.MAP_SIZE, max_dbs=1) as env,
    ):
        table = env.open_db(b"accounts")

        def write() -> float:
            began = time.perf_counter()
            with env.begin(write=True) as txn:
                txn.cursor(table).putmulti(batch, append=True)
            return time.perf_counter() - began

        for rows in chains.rows_of(store):
            batch += rows
            while len(batch) >= COMMIT_ACCOUNTS:
                rest = batch[COMMIT_ACCOUNTS:]
                del batch[COMMIT_ACCOUNTS:]
                taken += write()
                batch = rest
        return taken + write()


def lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    shown = []
    for found in result["states"]:
        memory = found["memory"]
        phases = ", ".join(
            f"{phase} {seconds:.2f}"
            for phase, seconds in found["phases"].items()
            if seconds >= 0.005
        )
        threads = ", ".join(f"{name} {spent:.2f}" for name, spent in found["threads"].items())
        shown += [
            f"{found['accounts']:,} accounts: {found['rate']:,.0f} accounts/s, "
            f"{found['share']:.0%} of LMDB alone ({found['bare_rate']:,.0f}/s in batches of "
            f"{result['batch']:,}; mark {LEAST_OF_DISK:.0%})",
            f"  {found['seconds']:.2f} s: {phases}; threads: {threads}",
            f"  anonymous memory: syncing {memory['syncer'] / MIB:.0f} MiB, "
            f"serving {memory['server'] / MIB:.0f} MiB (mark {MOST_MEMORY / MIB:.0f})",
        ]
    return shown


def misses(result: dict[str, Any]) -> list[str]:
    """The marks that it does not reach."""
    return [
        f"{what} at {found['accounts']:,} accounts"
        for found in result["states"]
        for what, missed in (
            ("state download", found["share"] < LEAST_OF_DISK),
            ("memory", max(found["memory"].values()) > MOST_MEMORY),
        )
        if missed
    ]
