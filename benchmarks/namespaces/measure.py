"""One comparison: iperf3 over the lines, then a sync over the same ones."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from adversity.control import Child

from benchmarks.fast_sync import chains
from benchmarks.fast_sync.fleet import compare, wait_for
from benchmarks.namespaces.star import Lines, Star
from benchmarks.namespaces.streams import iperf, probe

LEAST_RATIO: Final = 0.6  # payload of the sync to that of iperf3
TRANSFERS: Final = 20  # in a block
DATA_BYTES: Final = 1000  # in a transfer: the line is to be the bound, not signatures
_BLOCK_BYTES: Final = TRANSFERS * (DATA_BYTES + 144) + 250
_SNAPSHOTS: Final = 64  # blocks between them; the chain's cache wants one


def source_of(cache: Path, size: int) -> chains.Source:
    """A chain of about `size` bytes."""
    blocks = max(150, size // _BLOCK_BYTES)
    return chains.history(cache, blocks, blocks * TRANSFERS, 0, _SNAPSHOTS, DATA_BYTES)


@contextmanager
def copies(source: chains.Source, count: int) -> Iterator[list[Path]]:
    """A directory with the chain for each server."""
    with tempfile.TemporaryDirectory(prefix="moderntensor-", ignore_cleanup_errors=True) as name:
        found = [Path(name) / f"server-{i}" for i in range(count)]
        for copy in found:
            shutil.copytree(source.data, copy)
        os.sync()  # else the commits of who syncs would have to write the copies to the disk
        yield found


def sync(star: Star, source: chains.Source, data: list[Path], transport: str) -> dict[str, Any]:
    """A whole sync by the node in the middle from one server behind each line. AssertionError
    unless head, state root and every account are the source's."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moderntensor-")))

        def child(role: str, number: int, **setup: Any) -> Child:
            setup |= {"genesis": source.genesis, "transport": transport}
            within = star.within(star.names[number])
            module, errors = f"benchmarks.fast_sync.{role}", directory / f"{role}-{number}.err"
            made = Child(module, setup, errors, within)
            stack.callback(made.kill)
            return made

        servers = [
            child("server", i, data=[str(copy)], host=star.addresses[i])
            for i, copy in enumerate(data, 1)
        ]
        peers = [server.ready for server in servers]
        syncer = child("syncer", 0, data=str(directory / "synced"), fast=False, peers=peers)
        before = [server.cpu_seconds() for server in servers]
        syncer.ask("begin")
        result = wait_for(syncer)
        compare(syncer, result, source, fast=False)
        served = [server.cpu_seconds() for server in servers]
        said = syncer.stop()
        assert "Traceback" not in said, said[-4000:]
    return {
        **result,
        "rate": result["bytes"] / result["seconds"],
        "serving_cpu": sum(served) - sum(before),
    }


def measure(
    lines: Lines,
    *,
    peers: int,
    size: int,
    congestion: list[str],
    rounds: int,
    seconds: int,
    probes: int,
    cache: Path,
    transport: str,
    emulator: bool | None,
) -> dict[str, Any]:
    """What iperf3 and the sync got for each congestion control, in turns."""
    source = source_of(cache, size)
    found: dict[str, Any] = {
        "lines": asdict(lines),
        "peers": peers,
        "blocks": source.height,
        "transactions": source.transactions,
        "transport": transport,
        "congestion": {},
    }
    with copies(source, peers) as data, Star(peers, lines, emulator=emulator) as star:
        found["by"] = "the line emulator" if star.emulated else "tc netem"
        found["probe"] = probe(star, probes)
        for name in congestion:
            star.congestion(name)
            turns = [
                {"iperf3": iperf(star, seconds), "sync": sync(star, source, data, transport)}
                for _ in range(rounds)
            ]
            ratios = [turn["sync"]["rate"] / turn["iperf3"]["rate"] for turn in turns]
            found["congestion"][name] = {
                "turns": turns,
                "ratios": ratios,
                "ratio": statistics.median(ratios),
            }
    found["carried"] = star.counts
    return found


def ceiling(seconds: int, emulator: bool | None) -> dict[str, Any]:
    """What one stream of iperf3 gets over a line without delay, loss or bound."""
    lines = Lines(delay=0, jitter=0, loss=0, rate=0)
    with Star(1, lines, emulator=emulator) as star:
        return iperf(star, seconds, 1)
