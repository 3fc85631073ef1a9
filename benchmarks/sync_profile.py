"""Where the time of one synced block goes: by process, by thread, and by kind of work.

    python benchmarks/sync_profile.py --blocks 20000 --transfers 10

A sync over loopback from peers in other processes, with clocks around what its threads do. A
thread's CPU time is the kernel's; `wall` beyond `CPU` of some work is waiting: for the GIL, for a
core, for the disk. Work within work is counted in both (commits are part of what they end).
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moderntensor.blockchain.chain import Blockchain
from moderntensor.network.codec import MessageCodec
from moderntensor.network.sync import blocks as block_stage
from moderntensor.network.sync import header_checks
from moderntensor.storage import lmdb_store

# What is looked at: (what it is, where it is found, under which name).
WORK = (
    ("loop: decode a message", MessageCodec, "decode_payload"),
    ("worker: rules of a header range", header_checks.HeaderChecker, "_rules"),
    ("worker: signatures of headers", header_checks, "verify_header_signatures"),
    ("worker: bodies decoded, senders recovered", block_stage, "prepare_bodies"),
    ("writer: store headers", Blockchain, "add_headers"),
    ("writer: execute and store blocks", Blockchain, "apply_bodies"),
    ("writer: of these, commits", lmdb_store._LmdbWrite, "__exit__"),
)

MAIN = "event loop"


def thread_seconds(before: Mapping[str, float] | None = None) -> dict[str, float]:
    """CPU seconds of this process's threads by what they are for, less those of `before`."""
    seconds: dict[str, float] = defaultdict(float)
    for name, spent in (before or {}).items():
        seconds[name] -= spent
    for thread in threading.enumerate():
        kind = thread.name.rstrip("0123456789").rstrip("_-")
        name = MAIN if thread is threading.main_thread() else kind.replace("moderntensor-", "")
        try:
            told = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text("ascii")
        except OSError:  # another system, or it has just ended
            continue
        seconds[name] += int(told.split()[0]) / 1e9
    return dict(seconds)


class Probe:
    """Clocks around the work of this process, from its making on."""

    def __init__(self) -> None:
        self._spent: dict[str, list[float]] = {name: [0, 0.0, 0.0] for name, _, _ in WORK}
        self._lock = threading.Lock()
        for name, place, attribute in WORK:
            setattr(place, attribute, self._timed(name, place, attribute))
        self._threads = thread_seconds()

    def _timed(self, name: str, place: Any, attribute: str) -> Any:
        function: Callable[..., Any] = getattr(place, attribute)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            wall, busy = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                wall, busy = time.perf_counter() - wall, time.thread_time() - busy
                with self._lock:
                    spent = self._spent[name]
                    spent[0] += 1
                    spent[1] += wall
                    spent[2] += busy

        plain = isinstance(vars(place).get(attribute), staticmethod)
        return staticmethod(timed) if plain else timed

    def found(self) -> dict[str, Any]:
        """CPU seconds by thread; (calls, wall seconds, CPU seconds) by kind of work."""
        return {"threads": thread_seconds(self._threads), "work": self._spent}


def table(said: dict[str, Any], servers: list[dict[str, float]]) -> str:
    """The figures of one sync per block, as Markdown."""
    blocks = said["blocks"] or said["headers"]
    seconds = said["seconds"]
    micro = 1e6 / blocks
    rows = [
        f"{blocks:,} blocks, {said['transactions']:,} transactions in {seconds:.2f} s: "
        f"{blocks / seconds:,.0f} blocks/s, {seconds * micro:.1f} µs of wall time each",
        "",
        "| CPU time by thread | µs per block |",
        "|---|---:|",
        *(
            f"| syncing process, {name} | {spent * micro:.1f} |"
            for name, spent in said["profile"]["threads"].items()
        ),
        *(
            f"| serving process {i + 1}, all threads | {sum(spent.values()) * micro:.1f} |"
            for i, spent in enumerate(servers)
        ),
        "",
        "| work in the syncing process | calls | CPU, µs per block | wall, µs per block |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {calls:,} | {busy * micro:.1f} | {wall * micro:.1f} |"
            for name, (calls, wall, busy) in said["profile"]["work"].items()
            if calls
        ),
    ]
    return "\n".join(rows)


def main() -> None:
    import sync_loopback as loopback

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=20_000)
    parser.add_argument("--transfers", type=int, default=10, help="in each block")
    parser.add_argument("--peers", type=int, default=3, help="serving processes")
    parser.add_argument("--trusted", action="store_true", help="headers alone, below a known hash")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        head = loopback.build(directory, arguments.blocks, arguments.transfers)
        options: tuple[object, ...] = ("--profile", "--report", 60)
        if arguments.trusted:
            options += ("--headers", "--trusted", head.height, head.hash.hex())
        ends: list[dict[str, Any]] = []
        with loopback.servers(directory, arguments.peers, ends) as ports:
            *_, said = loopback.run_once(directory, ports, *options)
    print(table(said, [end["threads"] for end in ends]))


if __name__ == "__main__":
    main()
