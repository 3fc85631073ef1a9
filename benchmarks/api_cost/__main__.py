"""What being watched costs a node under a full-speed sync: `python -m benchmarks.api_cost`.

Real processes and sockets on loopback. Rounds follow one another, and in each the same chain is
synced from nothing by a node without HTTP, by one whose metrics are scraped, and by one that has
the status page open in Chromium as well, beside a program that asks and listens as the page does
(two of them where there is no Chromium). The node has half of the processors to itself, so that
what counts is its own work and not that of the browser or the suppliers; `--together` lets all
share all. Writes benchmarks/results/api_cost.json and the table of docs/metrics.md, unless `--out`
names another file. Rates differ from round to round by more than what is to be seen, so that the
work itself is measured as well: the processor time of the event loop, and of what others than the
sync have worker threads do. Exit code 0 only if of metrics that is at most 2 % of the node's, of
all of it at most 5 %, and no rate is shown to fall by more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import page, run
from .ratios import Ratio


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--blocks", type=int, default=20_000)
    parser.add_argument("--transfers", type=int, default=10, help="in each block")
    parser.add_argument("--peers", type=int, default=3, help="processes that serve the chain")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--scrape", type=float, default=5.0, help="seconds between two")
    parser.add_argument("--arms", nargs="+", choices=[*run.ARMS][1:], default=[*run.ARMS][1:])
    parser.add_argument("--together", action="store_true", help="all share all processors")
    parser.add_argument("--quick", action="store_true", help="show that it runs, in a minute")
    parser.add_argument("--chain", type=Path, help="directory for the chain, to be used again")
    parser.add_argument("--dir", type=Path, help="where the nodes keep their data meanwhile")
    parser.add_argument("--out", type=Path, help="the result goes there, and the page stays")
    given = parser.parse_args(arguments)
    if given.quick:
        given.blocks, given.transfers, given.rounds = 1500, 2, 1
    found = measure(given)
    for arm, cost in found["costs"].items():
        print(
            f"{run.SAYS[arm]}:\n  its work {cost['work']:.1%} of the processor time, "
            f"rate {Ratio(**cost['rate']).change}, "
            f"processor time {Ratio(**cost['processor']).change}; "
            f"{cost['requests_per_second']:.1f} requests a second, {cost['failures']} in vain, "
            f"the slowest answer in {cost['slowest_answer'] * 1000:.0f} ms: "
            f"{'held' if cost['met'] else 'MISSED'}, at most {cost['most']:.0%}"
        )
    text = json.dumps(found, indent=1) + "\n"
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    elif not given.quick:
        page.RESULT.write_text(text, encoding="utf-8")
        page.write(found)
    return 0 if given.quick or all(cost["met"] for cost in found["costs"].values()) else 1


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All rounds. RuntimeError or AssertionError if a sync or a watcher failed."""
    ends: list[dict[str, Any]] = []
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with tempfile.TemporaryDirectory(prefix="moderntensor-", dir=given.dir) as name:
        home = Path(name)
        chain = run.chain(given.chain or home / "chain", given.blocks, given.transfers)
        processors = run.split(given.together)
        if processors is not None:
            os.sched_setaffinity(0, processors[1])  # and so of the suppliers and the browser
        try:
            with run.suppliers(chain, home, given.peers, ends) as ports:
                rounds = run.Rounds(chain, home, ports, processors and processors[0], given.scrape)
                looked = asyncio.run(rounds.run([run.PLAIN, *given.arms], given.rounds))
        finally:
            if processors is not None and before is not None:
                os.sched_setaffinity(0, before)
    limited = sum(end["limited"] for end in ends)
    if limited:
        raise RuntimeError(f"an honest sync met limits {limited} times")
    return {
        "machine": run.machine(),
        "processors": "All processes share all processors"
        if processors is None
        else f"The node has {len(processors[0])} of them, everybody else {len(processors[1])}",
        "page": looked,
        "blocks": given.blocks,
        "transfers": given.transfers,
        "suppliers": given.peers,
        "scrape_seconds": given.scrape,
        "samples": rounds.found,
        "costs": run.judged(rounds.found),
    }


if __name__ == "__main__":
    sys.exit(main())
