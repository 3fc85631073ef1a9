"""A sync over lines with delay, jitter and loss, beside iperf3: `python -m benchmarks.namespaces`.

Needs Linux, root and iperf3. A syncing node in one network namespace, serving nodes in others,
each behind a line of its own, `tc netem` where the kernel has it and a user-space emulator where
not. First iperf3 with as many streams as there are servers, then the sync, over the same lines,
for every congestion control; several rounds, of which the median counts. Writes
benchmarks/results/namespaces.json, unless it is `--quick`, which only shows that everything runs.
Exit code 1 where a mark is missed, 0 with a sentence where this may not run at all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.namespaces import measure  # noqa: E402
from benchmarks.namespaces.star import Lines, NotPermittedError, require  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "namespaces.json"


def parse() -> argparse.Namespace:
    """What was asked for."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    number = {"type": float}
    parser.add_argument("--peers", type=int, default=8, help="serving nodes, a line each")
    parser.add_argument("--delay", **number, default=100.0, help="ms, met once in a round trip")
    parser.add_argument("--jitter", **number, default=20.0, help="ms, plus or minus")
    parser.add_argument("--loss", **number, default=1.0, help="percent of the packets of the data")
    parser.add_argument("--rate", **number, default=20.0, help="Mbit/s of the shared downlink")
    parser.add_argument("--size", **number, default=50.0, help="MB of the chain")
    parser.add_argument("--seconds", type=int, default=15, help="of each run of iperf3")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--congestion", nargs="+", default=["bbr", "cubic"])
    parser.add_argument("--ordered", action="store_true", help="jitter keeps packets in order")
    parser.add_argument("--emulator", action="store_true", help="do without netem")
    parser.add_argument("--plaintext", action="store_true", help="no encryption between nodes")
    parser.add_argument("--seed", type=int, default=1, help="of the emulator's losses")
    parser.add_argument("--cache", type=Path, help="directory for the chain, to be used again")
    parser.add_argument("--quick", action="store_true", help="show that it runs, in seconds")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    lines = Lines(
        delay=arguments.delay / 1000,
        jitter=arguments.jitter / 1000,
        loss=arguments.loss / 100,
        rate=int(arguments.rate * 1e6),
        ordered=arguments.ordered,
        seed=arguments.seed,
    )
    emulator = True if arguments.emulator else None
    quick = arguments.quick
    with ExitStack() as stack:
        cache = arguments.cache or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="moderntensor-"))
        )
        try:
            require("iperf3")
            found = measure.measure(
                lines,
                peers=min(arguments.peers, 2) if quick else arguments.peers,
                size=1_000_000 if quick else int(arguments.size * 1e6),
                congestion=arguments.congestion[:1] if quick else arguments.congestion,
                rounds=1 if quick else arguments.rounds,
                seconds=1 if quick else arguments.seconds,
                probes=50 if quick else 1000,
                cache=cache,
                transport="plaintext" if arguments.plaintext else "secure",
                emulator=emulator,
            )
            if not quick:
                found["ceiling"] = measure.ceiling(5, emulator)
        except NotPermittedError as error:
            print(f"skipped: {error}")
            return 0
    print("\n".join(told(found)))
    if quick:
        return 0
    cores = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    found["machine"] = f"{cores}, Linux {platform.release()}"
    keep(found)
    missed = [
        name for name, run in found["congestion"].items() if run["ratio"] < measure.LEAST_RATIO
    ]
    print("marks missed: " + (", ".join(missed) or "none"))
    return 1 if missed else 0


def keep(found: dict[str, Any]) -> None:
    """Into the file of results, beside what others found by other congestion controls."""
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    same = ("lines", "peers", "blocks", "transactions", "transport", "by", "machine")
    if all(before.get(name) == found[name] for name in same):
        found = {**found, "congestion": {**before["congestion"], **found["congestion"]}}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def told(found: dict[str, Any]) -> list[str]:
    """The result for people."""
    lines, probe = found["lines"], found["probe"]
    rate = f"{lines['rate'] / 1e6:g} Mbit/s shared" if lines["rate"] else "no bound"
    shown = [
        f"{found['peers']} lines by {found['by']}: {lines['delay'] * 1000:g} ms ± "
        f"{lines['jitter'] * 1000:g} ms, {lines['loss']:.1%} loss, {rate}",
        f"a line as it is: round trip {probe['mean'] * 1000:.1f} ms ({probe['least'] * 1000:.1f} "
        f"to {probe['most'] * 1000:.1f}), {probe['lost']:.1%} lost, {probe['overtaken']:.0%} "
        f"overtaken, of {probe['packets']}",
    ]
    if "ceiling" in found:
        most = found["ceiling"]["rate"] * 8 / 1e6
        shown.append(f"one stream without delay, loss and bound: {most:.0f} Mbit/s")
    shown.append(
        f"sync of {found['blocks']:,} blocks, {found['transactions']:,} transactions "
        f"({found['transport']}); head, state root and every account equal"
    )
    for name, run in found["congestion"].items():
        for turn in run["turns"]:
            other, sync = turn["iperf3"], turn["sync"]
            shown.append(
                f"{name:6} iperf3 {other['rate'] * 8 / 1e6:6.2f} Mbit/s, sync "
                f"{sync['rate'] * 8 / 1e6:6.2f} Mbit/s ({sync['bytes'] / 1e6:.1f} MB in "
                f"{sync['seconds']:.1f} s): {sync['rate'] / other['rate']:.0%}"
            )
        shown.append(f"{name:6} sync / iperf3: {run['ratio']:.0%} (mark {measure.LEAST_RATIO:.0%})")
    return shown


if __name__ == "__main__":
    sys.exit(main())
