"""What counting and being scraped cost a node: with both and without either, in turns.

    python benchmarks/metrics_cost.py --rounds 9 --blocks 4000

Two things are done with and without: a sync at full speed from another process, by a node that is
scraped every second; and a flood of small messages between two processes. Rounds follow one another
at once and begin with either side in turn. Without counting means that the counters' methods do
nothing in that process. Exit code 0 only if the medians say that neither costs more than `--most`
(2 %) of the throughput. Needs Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.api_cost.ratios import Ratio  # noqa: E402
from benchmarks.compare.nodes.process import Worker  # noqa: E402
from moderntensor.blockchain.genesis import ChainConfig  # noqa: E402
from moderntensor.blockchain.state import StateDB  # noqa: E402
from moderntensor.blockchain.validation import BlockValidator  # noqa: E402
from moderntensor.blockchain.workload import build_chain, demo_config, demo_keys  # noqa: E402
from moderntensor.config import NodeConfig  # noqa: E402
from moderntensor.metrics import scrape  # noqa: E402
from moderntensor.network.latencies import Latencies  # noqa: E402
from moderntensor.network.p2p import P2PNode  # noqa: E402
from moderntensor.network.traffic import Flow  # noqa: E402
from moderntensor.node import FullNode  # noqa: E402

SCRAPES = 1.0  # seconds between two
SETTINGS = NodeConfig(listen_host="127.0.0.1", listen_port=0, discovery=False)
_OURS, _UNCOUNTED = "moderntensor", "moderntensor, uncounted"


def count_nothing() -> None:
    """In this process, from now on."""

    def nothing(*_: object) -> None:
        pass

    for kind, names in ((Flow, ("add", "add_frames", "add_parts")), (Latencies, ("observe",))):
        for name in names:
            setattr(kind, name, nothing)


def chain_of(blocks: int, transfers: int) -> tuple[ChainConfig, BlockValidator]:
    accounts, validators = demo_keys(64), demo_keys(3, "validator")
    config = demo_config(accounts, validators)
    validator = BlockValidator(StateDB(None), config)
    made = build_chain(
        validator.chain,
        validators=validators,
        accounts=accounts,
        blocks=blocks,
        transfers_per_block=transfers,
    )
    for _ in made:
        pass
    return config, validator


# --- processes ---------------------------------------------------------------------------------


async def serve(blocks: int, transfers: int) -> None:
    """Serve such a chain until standard input ends."""
    node = P2PNode(config=SETTINGS.replace(rate_limits=1e6))
    node.attach_chain(chain_of(blocks, transfers)[1].chain)
    async with node:
        print(json.dumps([node.listen_port]), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def sync(port: int, blocks: int) -> None:
    """Sync from there; the seconds of this process and of the clock that it took."""
    config = demo_config(demo_keys(64), demo_keys(3, "validator"))
    async with FullNode(None, config, settings=SETTINGS) as node:

        async def watch() -> None:
            while True:
                await scrape(node)
                await asyncio.sleep(SCRAPES)

        watching = asyncio.create_task(watch()) if "--watched" in sys.argv else None
        began, cpu = time.perf_counter(), time.process_time()
        await node.p2p.connect_peer("127.0.0.1", port)
        while node.chain.head.height < blocks:  # noqa: ASYNC110 - of a chain on another thread
            await asyncio.sleep(0.005)
        print(json.dumps([time.process_time() - cpu, time.perf_counter() - began]), flush=True)
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


# --- measuring ---------------------------------------------------------------------------------


def child(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


@contextmanager
def serving(blocks: int, transfers: int) -> Iterator[int]:
    with child("--serve", blocks, transfers, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            (port,) = json.loads(process.stdout.readline())
            yield port
        finally:
            process.stdin.close()


class Cost:
    """With beside without, in rounds: processor time and the clock's, in seconds."""

    def __init__(self, rounds: int, sample: Callable[[bool], list[float]]) -> None:
        found: dict[bool, list[list[float]]] = {True: [], False: []}
        for number in range(rounds):
            for counted in (bool(number % 2), not number % 2):
                found[counted].append(sample(counted))
        with_, without = found[True], found[False]
        self.processor = Ratio.of([s[0] for s in with_], [s[0] for s in without])
        self.throughput = Ratio.of([1 / s[1] for s in with_], [1 / s[1] for s in without])


def of_sync(rounds: int, blocks: int, transfers: int) -> Cost:
    with serving(blocks, transfers) as port:

        def sample(counted: bool) -> list[float]:
            with child("--sync", port, blocks, *["--watched"] * counted) as process:
                assert process.stdout is not None
                return [float(seconds) for seconds in json.loads(process.stdout.readline())]

        sample(True)
        return Cost(rounds, sample)


def cpu_seconds(pid: int) -> float:
    """Of the thread on which a worker's loop runs."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def of_messages(rounds: int, count: int) -> Cost:
    with (
        Worker(_OURS) as near,
        Worker(_OURS) as far,
        Worker(_UNCOUNTED) as near_off,
        Worker(_UNCOUNTED) as far_off,
    ):
        for listener, dialler in ((near, far), (near_off, far_off)):
            dialler.ask("connect", port=listener.ask("listen"), count=1)
            for worker in (listener, dialler):
                worker.ask("ready", peers=1)

        def sample(counted: bool) -> list[float]:
            sender, receiver = (near, far) if counted else (near_off, far_off)
            before = [cpu_seconds(worker.pid) for worker in (sender, receiver)]
            receiver.ask("expect", count=count)
            began = sender.ask("flood", count=count)
            taken = float(receiver.ask("arrived") - began)
            after = [cpu_seconds(worker.pid) for worker in (sender, receiver)]
            # The slower side is what bounds the rate.
            return [max(b - a for a, b in zip(before, after, strict=True)), taken]

        for counted in (True, False):
            sample(counted)
        return Cost(rounds, sample)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--blocks", type=int, default=4000)
    parser.add_argument("--transfers", type=int, default=5, help="in each block")
    parser.add_argument("--messages", type=int, default=60_000, help="of a flood")
    parser.add_argument("--most", type=float, default=0.02, help="share of the throughput")
    given = parser.parse_args(arguments)
    missed = False
    for name, cost in (
        ("sync", of_sync(given.rounds, given.blocks, given.transfers)),
        ("messages", of_messages(given.rounds, given.messages)),
    ):
        met = 1 - cost.throughput.middle <= given.most
        print(
            f"{name}: throughput {cost.throughput.change}, processor time "
            f"{cost.processor.change}: {'held' if met else 'MISSED'}",
            flush=True,
        )
        missed |= not met
    return int(missed)


def program() -> int:
    """This one, or one of its processes."""
    if "--serve" in sys.argv:
        asyncio.run(serve(*map(int, sys.argv[2:4])))
        return 0
    if "--sync" in sys.argv:
        if "--watched" not in sys.argv:
            count_nothing()
        asyncio.run(sync(*map(int, sys.argv[2:4])))
        return 0
    return main()


if __name__ == "__main__":
    sys.exit(program())
