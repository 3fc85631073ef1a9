"""Run many real nodes in one process and virtual time, and say what that costs.

    python benchmarks/simulation_size.py --nodes 1000 --rate 2
    python benchmarks/simulation_size.py --nodes 200 --rate 20

Full nodes with encrypted connections, eight outbound each, 100 ms apart (one way); a block every
12 s and so many transactions per second, handed in all over the network, for five simulated
minutes. Signatures are checked once and shared. Prints what has been reached every 30 simulated
seconds, and adds a line to `benchmarks/results/simulation_size.json`. Exit code 0 only if all nodes
end on one head with all transactions.

CPU seconds are those of this process, which has one thread: on a busy machine it takes longer.
Gigabytes of small objects are bound by the processor's table of pages, so that on Linux with glibc
2.35 and later it starts itself again with memory in huge pages; `--small-pages` does not.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

from moderntensor import backend
from moderntensor.blockchain.workload import demo_config, demo_keys
from moderntensor.simulation.host import Host
from moderntensor.simulation.lines import Link
from moderntensor.simulation.workload import Workload
from moderntensor.simulation.world import EPOCH, World

RESULTS = Path(__file__).parent / "results" / "simulation_size.json"
BLOCK_TIME = 12
VALIDATORS = 10
ACCOUNTS = 128
LINK = Link(0.1, jitter=0.02)
START_OVER = 20.0  # simulated seconds over which the nodes are started
SETTLE = 10.0  # and after which all have found their peers
STEP = 30.0
TAIL = 2 * BLOCK_TIME + 6.0  # for the last transactions to get into blocks


HUGE_PAGES = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def has_huge_pages() -> bool:
    """Whether this process was started with them."""
    return all(os.environ.get(name) == value for name, value in HUGE_PAGES.items())


def start_with_huge_pages() -> None:
    """Replace this process by one that has them, where glibc can."""
    name, version = platform.libc_ver()
    if name == "glibc" and tuple(map(int, version.split("."))) >= (2, 35) and not has_huge_pages():
        os.execve(sys.executable, sys.orig_argv, os.environ | HUGE_PAGES)  # noqa: S606  # ourselves


def resident() -> int:
    """Bytes of memory that this process has now; at most so far, where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")


class Meter:
    """CPU, wall clock and memory since it was made."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._base = resident()
        print(
            f"{'simulated':>10} {'CPU s':>8} {'wall s':>8} {'heads':>11} {'segments':>11} "
            f"{'MB sent':>8} {'MiB':>7}",
            flush=True,
        )

    def read(self) -> dict[str, float]:
        net = self.world.network.hosts.values()
        return {
            "simulated_seconds": round(self.world.now, 1),
            "cpu_seconds": round(time.process_time() - self._cpu, 1),
            "wall_seconds": round(time.perf_counter() - self._wall, 1),
            "segments": sum(host.segments_out for host in net),
            "bytes": sum(host.bytes_out for host in net),
            "memory": resident() - self._base,
        }

    def show(self) -> None:
        now, heads = self.read(), sorted(height_of(host) for host in self.world.hosts)
        print(
            f"{now['simulated_seconds']:10.0f} {now['cpu_seconds']:8.1f} "
            f"{now['wall_seconds']:8.1f} {heads[0]:>5}-{heads[-1]:<5} {now['segments']:11,} "
            f"{now['bytes'] / 1e6:8.1f} {now['memory'] / 2**20:7.0f}",
            flush=True,
        )


def height_of(host: Host) -> int:
    return host.node.chain.head.height if host.node is not None else 0


def heads(world: World) -> set[bytes]:
    return {host.node.chain.head.hash for host in world.hosts if host.node is not None}


async def simulate(world: World, arguments: argparse.Namespace) -> dict[str, Any]:
    meter = Meter(world)
    keys = demo_keys(VALIDATORS, "validator")
    hosts = [
        world.add_host(validator=keys[i] if i < VALIDATORS else None)
        for i in range(arguments.nodes)
    ]
    for host in hosts:
        others = [other for other in hosts if other is not host]
        host.bootstrap = world.random.sample(others, min(arguments.outbound, len(others)))
    await world.start(hosts, over=START_OVER)
    await asyncio.sleep(SETTLE)
    meter.show()
    started = meter.read()
    gc.collect()
    gc.freeze()  # what is there now stays: not to be looked through again and again
    workload = Workload(world, demo_keys(ACCOUNTS), hosts)
    running = asyncio.create_task(workload.run(arguments.rate, arguments.seconds))
    end = world.now + arguments.seconds
    while world.now < end:
        await asyncio.sleep(min(STEP, end - world.now))
        meter.show()
    await running
    done = meter.read()
    await asyncio.sleep(TAIL)
    for _ in range(BLOCK_TIME):  # a block may be on its way just now
        if len(heads(world)) == 1:
            break
        await asyncio.sleep(1)
    meter.show()
    node = hosts[0].node
    assert node is not None
    peers = [len(host.node.p2p.peers) for host in hosts if host.node is not None]
    return {
        "nodes": arguments.nodes,
        "rate": arguments.rate,
        "simulated_seconds": arguments.seconds,
        "peers_per_node": round(sum(peers) / len(peers), 1),
        "blocks": node.chain.head.height,
        "transactions": len(workload.submitted),
        "refused": workload.refused,
        "not_in_the_chain": len(workload.missing(hosts[0])),
        "heads": len(heads(world)),
        "start": started,
        "end": done,
        "kib_per_node_at_the_start": round(started["memory"] / arguments.nodes / 1024),
        "kib_per_node_at_the_end": round(done["memory"] / arguments.nodes / 1024),
        "signatures_checked": world.signatures.checked,
    }


def record(result: dict[str, Any]) -> None:
    """In place of an earlier one of the same size."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    size = result["nodes"], result["rate"]
    known = [each for each in known if (each["nodes"], each["rate"]) != size]
    known.append(result)
    known.sort(key=lambda each: (each["nodes"], each["rate"]))
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--rate", type=float, default=2.0, help="transactions per second")
    parser.add_argument("--seconds", type=float, default=300.0, help="simulated, under load")
    parser.add_argument("--outbound", type=int, default=8, help="peers that a node dials")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-record", action="store_true", help="leave the results as they are")
    parser.add_argument("--small-pages", action="store_true", help="memory as it is by default")
    arguments = parser.parse_args()
    if not arguments.small_pages:
        start_with_huge_pages()
    logging.disable(logging.WARNING)
    config = demo_config(
        demo_keys(ACCOUNTS),
        demo_keys(VALIDATORS, "validator"),
        timestamp=int(EPOCH),
        block_time=BLOCK_TIME,
    )
    world = World(arguments.seed, config=config, link=LINK)
    result = world.run(lambda world: simulate(world, arguments))
    result |= {
        "engines": backend.NAME,
        "python": platform.python_version(),
        "huge_pages": has_huge_pages(),
        "trace": world.trace.digest(),
    }
    print(json.dumps(result, indent=1))
    if not arguments.no_record and arguments.seconds >= 300:
        record(result)
    if result["heads"] != 1 or result["not_in_the_chain"]:
        sys.exit("the nodes do not agree, or transactions are missing")


if __name__ == "__main__":
    main()
