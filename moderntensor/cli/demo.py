"""``moderntensor demo``: a real chain, real nodes on loopback, a real sync, in one command."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
import threading
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from ..blockchain.chain import Blockchain
from ..blockchain.crypto import KeyPair
from ..blockchain.genesis import ChainConfig
from ..blockchain.state_slots import active
from ..blockchain.tables import TABLES
from ..blockchain.workload import build_chain
from ..config import NodeConfig
from ..errors import ModernTensorError
from ..network.sync import SyncResult
from ..node import CHAIN_DIRECTORY, FullNode
from ..runtime import Runtime
from ..storage import open_store
from .demo_display import Display, LiveBlock, Standing, make_display, show_summary
from .demo_live import live_block
from .devnet import INITIAL_BALANCE, blocks_per_commit, derive_keys
from .facts import sync_facts
from .output import AsJson, console, count, emit

BLOCK_TIME = 1  # seconds: the shortest slot, so that live blocks need no patience
# Blocks from a snapshot to the end of the chain: a fast sync asks for at least 64.
SNAPSHOT_DEPTH = 100
SEED = bytes(32)
MAP_SIZE = 4 * 1024**3  # bytes of address space per node; a demo's chain is far smaller
PEER_PATIENCE = 15.0  # seconds for the first connection, all on loopback
SNAPSHOT_PATIENCE = 30.0  # seconds until the nodes that serve have their snapshots
ACCOUNTS_AT_ONCE = 4096  # read to be compared
LOOK_SECONDS = 0.05  # between two looks at whether they do


@dataclass(frozen=True)
class Plan:
    """What the demo builds and runs."""

    blocks: int
    transfers: int
    accounts: int
    peers: int
    live_blocks: int

    @property
    def new_accounts(self) -> int:
        """Every second transfer makes one."""
        return self.blocks * self.transfers // 2

    @property
    def snapshot_interval(self) -> int:
        """Blocks: once in the whole chain, far enough below its end to be used."""
        return max(self.blocks - SNAPSHOT_DEPTH, self.blocks // 2 + 1)


@dataclass
class Outcome:
    """What was seen."""

    full: SyncResult
    fast: SyncResult
    live: list[LiveBlock] = field(default_factory=list)
    nodes: dict[str, Standing] = field(default_factory=dict)

    @property
    def agree(self) -> bool:
        """Whether all nodes have the same head, state root and accounts."""
        return len(set(self.nodes.values())) == 1


def demo(
    blocks: Annotated[int, typer.Option(min=1, help="Blocks of the chain to sync.")] = 4200,
    transfers: Annotated[
        int, typer.Option(min=0, max=1000, help="Transfers per block; every second to a new one.")
    ] = 8,
    accounts: Annotated[
        int, typer.Option(min=2, max=100_000, help="Accounts at first, which send.")
    ] = 100,
    peers: Annotated[int, typer.Option(min=1, max=20, help="Nodes that serve the chain.")] = 3,
    live_blocks: Annotated[
        int, typer.Option(min=0, max=1000, help="Blocks to produce after the syncs.")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Build and serve a signed chain, sync one node in full and one fast, then produce live.

    Everything happens on this machine: temporary directories, TCP on loopback. Exits with 0 only
    if all nodes agree on head, state root and every account in the end.
    """
    plan = Plan(blocks, transfers, accounts, peers, live_blocks)
    with tempfile.TemporaryDirectory(prefix="moderntensor-demo-") as directory:
        outcome = asyncio.run(run(plan, Path(directory), as_json=as_json))
    if not outcome.agree:
        raise ModernTensorError("the nodes do not agree on the head of the chain and its accounts")


async def run(plan: Plan, directory: Path, *, as_json: bool = False) -> Outcome:
    """The whole demo below `directory`; prints as it goes, with `as_json` on stderr."""
    out = console(stderr=as_json)
    runtime = Runtime()
    validators = derive_keys(SEED, "validator", plan.peers)
    owners = derive_keys(SEED, "account", plan.accounts)
    config = ChainConfig(
        chain_id=1,
        timestamp=int(runtime.wall_time()) - plan.blocks * BLOCK_TIME,
        block_time=BLOCK_TIME,
        snapshot_interval=plan.snapshot_interval,
        validators=tuple(key.public_key for key in validators),
        alloc={key.address: INITIAL_BALANCE for key in owners},
    )
    try:
        with make_display(out) as display:
            homes = [directory / f"node-{i}" for i in range(plan.peers)]
            await _build(plan, config, validators, owners, homes, display, runtime)
            async with AsyncExitStack() as stack:
                nodes = [await stack.enter_async_context(_node(home, config)) for home in homes]
                await _snapshots(nodes, display)
                peers = [f"127.0.0.1:{node.p2p.listen_port}" for node in nodes]
                results = []
                for name in ("full", "fast"):
                    node = _node(directory / name, config, peers, fast=name == "fast")
                    nodes.append(await stack.enter_async_context(node))
                    results.append(await _sync(node, display))
                outcome = Outcome(full=results[0], fast=results[1])
                for i in range(plan.live_blocks):
                    outcome.live.append(
                        await live_block(i, nodes, validators, owners, display, runtime)
                    )
                names = [*(f"node {i}" for i in range(plan.peers)), "full sync", "fast sync"]
                for name, node in zip(names, nodes, strict=True):
                    outcome.nodes[name] = await runtime.run(_standing, node.chain)
    finally:
        runtime.close()
    if as_json:
        emit(_facts(outcome))
    else:
        show_summary(out, outcome.full, outcome.fast, outcome.live, outcome.nodes)
    return outcome


def _facts(outcome: Outcome) -> dict[str, object]:
    return {
        "agree": outcome.agree,
        "full_sync": sync_facts(outcome.full),
        "fast_sync": sync_facts(outcome.fast),
        "live_blocks": [asdict(block) for block in outcome.live],
        "nodes": {
            name: {
                "height": node.height,
                "head_hash": node.head.hex(),
                "state_root": node.state_root.hex(),
                "accounts": node.accounts,
            }
            for name, node in outcome.nodes.items()
        },
    }


def _node(
    home: Path, config: ChainConfig, bootstrap: list[str] | None = None, *, fast: bool = False
) -> FullNode:
    return FullNode(
        home,
        config,
        listen_host="127.0.0.1",
        listen_port=0,
        bootstrap_nodes=bootstrap or (),
        settings=NodeConfig(map_size=MAP_SIZE, fast_sync=fast),
    )


def _standing(chain: Blockchain) -> Standing:
    """The head of a chain, and a digest of every account that it has."""
    accounts, digest = 0, hashlib.sha256()
    with chain.store.read() as txn:
        table, start = active(txn).accounts, b""
        while rows := txn.range(table, start, limit=ACCOUNTS_AT_ONCE):
            accounts += len(rows)
            for _, record in rows:
                digest.update(record)
            start = rows[-1][0] + b"\0"
        head = chain.head
    return Standing(head.height, head.hash, head.state_root, accounts, digest.digest())


# --- acts ----------------------------------------------------------------------------------


async def _build(
    plan: Plan,
    config: ChainConfig,
    validators: list[KeyPair],
    owners: list[KeyPair],
    homes: list[Path],
    display: Display,
    runtime: Runtime,
) -> None:
    """The chain, once; then a copy for every node that serves it."""
    given_up = threading.Event()

    def build() -> None:
        with open_store(homes[0] / CHAIN_DIRECTORY, TABLES, map_size=MAP_SIZE) as store:
            heads = build_chain(
                Blockchain(store, config),
                validators=validators,
                accounts=owners,
                blocks=plan.blocks,
                transfers_per_block=plan.transfers,
                new_accounts=plan.new_accounts,
                batch=blocks_per_commit(plan.transfers),
            )
            for head in heads:
                display.built(head.height, plan.blocks)
                if given_up.is_set():
                    return

    display.say(
        f"building {count(plan.blocks)} signed blocks with {plan.transfers} transfers each, "
        f"which make {count(plan.new_accounts)} accounts"
    )
    homes[0].mkdir()
    try:
        await runtime.run(build)
    finally:
        given_up.set()  # a thread cannot be cancelled, and whoever interrupts us waits for it
    for home in homes[1:]:
        await runtime.run(shutil.copytree, homes[0], home)


async def _snapshots(servers: list[FullNode], display: Display) -> None:
    """Wait until all that serve have their snapshot, so that its making slows down no sync."""
    keepers = [keeper for node in servers if (keeper := node.p2p.snapshots) is not None]
    display.say("each of them makes a snapshot of its state")
    try:
        async with asyncio.timeout(SNAPSHOT_PATIENCE):
            while not all(keeper.announced for keeper in keepers):  # noqa: ASYNC110  they tell nobody
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise ModernTensorError(f"no snapshot was made within {SNAPSHOT_PATIENCE:g} s") from None
    (height, _), *_ = keepers[0].announced
    display.say(
        f"each of the {len(servers)} nodes has a snapshot of the state at block {count(height)}"
    )


async def _sync(node: FullNode, display: Display) -> SyncResult:
    """One sync to the head, shown as it goes."""
    port = node.p2p.listen_port
    if node.settings.fast_sync:
        display.say(
            f"fast sync: another node fetches the state, with proofs, over TCP, port {port}"
        )
        work = node.sync.fast_sync(wait_for_peers=PEER_PATIENCE)
    else:
        display.say(f"full sync: a fresh node executes all blocks, over TCP, port {port}")
        work = node.sync.sync(wait_for_peers=PEER_PATIENCE)
    async with asyncio.TaskGroup() as group:
        sync = group.create_task(work)
        while not sync.done():
            await asyncio.wait([sync], timeout=display.interval)
            display.syncing(node.sync.status)
    return sync.result()
