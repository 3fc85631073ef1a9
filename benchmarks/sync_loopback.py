"""Sync a fresh node over loopback TCP from peers in other processes, and measure it.

    python benchmarks/sync_loopback.py --blocks 20000 --transfers 2 --peers 3 --kills 10

Builds a signed chain, gives each serving process a copy, and lets one more process sync it from
nothing. With `--kills` a second run follows, in which the syncing process is ended by SIGKILL that
many times along the way and started again; after each start nothing that it had committed may be
missing. Exit code 0 only if head and state root agree everywhere and nobody met a
limit of the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import sync_profile

from moderntensor import backend
from moderntensor.blockchain.chain_types import ChainHead
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.blockchain.workload import build_chain, demo_config, demo_keys
from moderntensor.config import NodeConfig
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.sync import SyncManager

MAP_SIZE = 8 << 30
END_SECONDS = 30.0  # for a process to end by itself
REPORT_SECONDS = 0.005  # how often a syncing process tells its height


def settings(batch: int) -> NodeConfig:
    return NodeConfig(
        listen_host="127.0.0.1",
        listen_port=0,
        discovery=False,
        apply_batch_blocks=batch,
        blocks_per_request=min(128, batch),
    )


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


# --- the processes -------------------------------------------------------------------------


def build(directory: Path, blocks: int, transfers: int) -> ChainHead:
    """Make the chain in `directory`; its head."""
    accounts, validators = demo_keys(64), demo_keys(3, "validator")
    config = demo_config(accounts, validators)
    config.save(directory / "genesis.json")
    with StateDB(directory / "source", map_size=MAP_SIZE) as state_db:
        chain = BlockValidator(state_db, config).chain
        for _ in build_chain(
            chain,
            validators=validators,
            accounts=accounts,
            blocks=blocks,
            transfers_per_block=transfers,
        ):
            pass
        return chain.head


class Limited:
    """What a node's limits have cost its peers."""

    def __init__(self, node: P2PNode) -> None:
        self._node = node
        self._gone = 0
        node.on_peer_disconnected.append(self._left)

    def _left(self, peer: Peer) -> None:
        self._gone += self._of(peer)

    @staticmethod
    def _of(peer: Peer) -> int:
        return peer.info.messages_refused + peer.info.busy_replies

    @property
    def total(self) -> int:
        """Messages over a rate, requests answered BUSY, offences, peers dropped for memory."""
        node = self._node
        here = sum(map(self._of, node.peers.values()))
        offences = sum(node.reputation.counts.offences.values())
        return self._gone + here + offences + node.budget.dropped


async def serve(directory: Path, genesis: Path) -> None:
    """Serve a chain until stdin ends."""
    with StateDB(directory, map_size=MAP_SIZE) as state_db:
        node = P2PNode(config=settings(256))
        node.attach_chain(BlockValidator(state_db, ChainConfig.load(genesis)).chain)
        limited = Limited(node)
        async with node:
            before = sync_profile.thread_seconds()
            say(port=node.listen_port)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            say(threads=sync_profile.thread_seconds(before), limited=limited.total)


def anonymous_memory() -> int:
    """Bytes of this process that no file stands behind; 0 where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


async def sync(arguments: argparse.Namespace) -> None:
    """Sync from these ports; tell heights on the way and the result at the end."""
    config = ChainConfig.load(arguments.genesis)
    if arguments.trusted:
        height, block_hash = arguments.trusted
        config = config.trusting(int(height), bytes.fromhex(block_hash))
    with StateDB(arguments.sync, map_size=MAP_SIZE) as state_db:
        node = P2PNode(config=settings(arguments.batch))
        manager = SyncManager(node, BlockValidator(state_db, config))
        limited = Limited(node)
        chain = manager.chain
        loop = asyncio.get_running_loop()
        probe = sync_profile.Probe() if arguments.profile else None
        say(start=chain.head.height, hash=chain.head.hash.hex())

        async def report() -> None:
            told = chain.head.height
            while True:
                await asyncio.sleep(arguments.report)
                if chain.head.height != told:
                    told = chain.head.height
                    say(height=told, at=loop.time(), memory=anonymous_memory())

        async with node, manager:
            for port in arguments.ports:
                await node.connect_peer("127.0.0.1", port)
            reporting = asyncio.ensure_future(report())
            work = manager.sync_headers if arguments.headers else manager.sync
            result = await work(arguments.target)
            reporting.cancel()
            say(
                done=result.height,
                header_height=chain.header_head.height,
                header_hash=chain.header_head.hash.hex(),
                memory=anonymous_memory(),
                blocks=result.blocks,
                transactions=result.transactions,
                bytes=result.bytes_received,
                seconds=result.seconds,
                header_seconds=result.header_seconds,
                headers=result.headers,
                peers=len(node.peers),
                hash=chain.head.hash.hex(),
                state_root=chain.head.state_root.hex(),
                profile=probe and probe.found(),
                limited=limited.total,
            )


# --- what starts and ends them -------------------------------------------------------------


@contextmanager
def spawned(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """This program in another role. The end of its stdin ends it; whatever happens here, it is
    gone afterwards."""
    with subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C is ours to pass on, as the end of stdin
    ) as process:
        try:
            yield process
            assert process.stdin is not None
            process.stdin.close()
            process.wait(END_SECONDS)
        finally:
            process.kill()  # nothing to a process that has ended


def lines(stream: IO[str] | None) -> Iterator[dict[str, Any]]:
    assert stream is not None
    for line in stream:
        yield json.loads(line)


@contextmanager
def servers(
    directory: Path, count: int, ends: list[dict[str, Any]] | None = None
) -> Iterator[list[int]]:
    """So many processes that serve copies of the source; their ports. What they say when they
    end is added to `ends`."""
    with ExitStack() as stack:
        processes = []
        for i in range(count):
            copy = directory / f"peer-{i}"
            shutil.copytree(directory / "source", copy)
            server = spawned("--serve", copy, "--genesis", directory / "genesis.json")
            processes.append(stack.enter_context(server))
        yield [next(lines(process.stdout))["port"] for process in processes]
        for process in processes if ends is not None else ():
            assert process.stdin is not None
            process.stdin.close()
            ends += lines(process.stdout)


def syncing(
    directory: Path, name: str, ports: Sequence[int], *options: object
) -> AbstractContextManager[subprocess.Popen[str]]:
    """A process that syncs from these ports into `directory / name`."""
    return spawned(
        *("--sync", directory / name, "--genesis", directory / "genesis.json"),
        *(*options, "--ports", *ports),
    )


def run_once(
    directory: Path, ports: Sequence[int], *options: object, start: str | None = None
) -> list[dict[str, Any]]:
    """One whole sync without disturbance, into a store that is removed, and begins as a copy of
    `start` if that is given; what it said, the result last."""
    try:
        if start is not None:
            shutil.copytree(directory / start, directory / "fresh")
            os.sync()  # else the first commit would have to write the copy to the disk
        with syncing(directory, "fresh", ports, *options) as process:
            said = list(lines(process.stdout))
    finally:
        shutil.rmtree(directory / "fresh", ignore_errors=True)
    if not said or "done" not in said[-1]:
        raise SystemExit("the syncing process ended early")
    return said


def run_killed(
    directory: Path, ports: list[int], batch: int, kills: int, blocks: int
) -> dict[str, Any]:
    """A sync that is killed `kills` times, each time some blocks further; what it said last."""
    committed, step, chance = 0, blocks // (kills + 1), random.Random(kills)
    for kill in range(kills + 1):
        with syncing(directory, "killed", ports, "--batch", batch) as process:
            said: dict[str, Any] = {}
            target = chance.uniform(0.2, 0.9) * step
            for said in lines(process.stdout):
                if "start" in said:
                    if said["start"] < committed:
                        raise SystemExit(
                            f"block {committed} was committed, {said['start']} is left"
                        )
                    start = committed = said["start"]
                elif "height" in said:
                    committed = said["height"]
                    if kill < kills and committed - start >= target:
                        time.sleep(chance.uniform(0, 0.01))
                        process.send_signal(signal.SIGKILL)
                        break
            for said in lines(process.stdout):  # what it had said before it died
                committed = max(committed, said.get("height", 0))
        if kill < kills:
            if process.returncode != -signal.SIGKILL:
                raise SystemExit(f"it was done before kill {kill + 1}; use more blocks")
            print(f"  kill {kill + 1}: at block {committed}", flush=True)
    if "done" not in said:
        raise SystemExit("the syncing process ended early")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=20_000)
    parser.add_argument("--transfers", type=int, default=2, help="in each block")
    parser.add_argument("--peers", type=int, default=3, help="serving processes")
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs in the second run")
    parser.add_argument("--batch", type=int, default=256, help="blocks per commit")
    for role in ("--serve", "--sync", "--genesis"):
        parser.add_argument(role, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--headers", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--trusted", nargs=2, help=argparse.SUPPRESS)  # height, hash
    parser.add_argument("--target", type=int, help=argparse.SUPPRESS)  # height to stop at
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=int, nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--report", type=float, default=REPORT_SECONDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return asyncio.run(serve(arguments.serve, arguments.genesis))
    if arguments.sync:
        return asyncio.run(sync(arguments))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        began = time.perf_counter()
        head = build(directory, arguments.blocks, arguments.transfers)
        print(
            f"built {arguments.blocks} blocks with {arguments.transfers} transfers each "
            f"in {time.perf_counter() - began:.1f} s",
            flush=True,
        )
        ends: list[dict[str, Any]] = []
        with servers(directory, arguments.peers, ends) as ports:
            *_, last = run_once(directory, ports, "--batch", arguments.batch)
            results = {"one run": last}
            if arguments.kills:
                results[f"{arguments.kills} kills"] = run_killed(
                    directory, ports, arguments.batch, arguments.kills, arguments.blocks
                )
    print(f"{backend.NAME} engines, {arguments.peers} peers in other processes")
    for title, said in results.items():
        seconds, header_seconds = said["seconds"], said["header_seconds"] or 1e-9
        print(
            f"{title}: {said['blocks']} blocks, {said['transactions']} transactions in "
            f"{seconds:.2f} s: {said['headers'] / header_seconds:,.0f} headers/s, "
            f"{said['blocks'] / seconds:,.0f} blocks/s, "
            f"{said['transactions'] / seconds:,.0f} transactions/s, "
            f"{said['bytes'] / 1e6:.1f} MB, {said['peers']} peers kept"
        )
        found = said["done"], said["hash"], said["state_root"]
        if found != (head.height, head.hash.hex(), head.state_root.hex()):
            raise SystemExit(f"{title}: the synced chain is another one")
    print("head and state root agree")
    limited = sum(said["limited"] for said in (*results.values(), *ends))
    if limited:
        raise SystemExit(f"an honest sync met limits {limited} times")
    print("nothing met a limit")
    return None


if __name__ == "__main__":
    main()
