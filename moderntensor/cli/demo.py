"""``moderntensor demo``: a real chain, real nodes on loopback, a real sync, in one command."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from ..blockchain.block import Block
from ..blockchain.chain import Blockchain, HeadChanged
from ..blockchain.crypto import KeyPair
from ..blockchain.genesis import ChainConfig
from ..blockchain.producer import BlockProducer
from ..blockchain.tables import TABLES
from ..blockchain.transaction import Transaction
from ..blockchain.workload import build_chain
from ..config import NodeConfig
from ..errors import ModernTensorError
from ..network.sync import SyncResult
from ..node import CHAIN_DIRECTORY, FullNode
from ..runtime import Runtime
from ..storage import open_store
from .demo_display import Display, LiveBlock, make_display, show_summary
from .devnet import INITIAL_BALANCE, blocks_per_commit, derive_keys
from .output import console, count

BLOCK_TIME = 1  # seconds: the shortest slot, so that live blocks need no patience
SEED = bytes(32)
MAP_SIZE = 4 * 1024**3  # bytes of address space per node; a demo's chain is far smaller
PEER_PATIENCE = 15.0  # seconds for the first connection, all on loopback
GOSSIP_PATIENCE = 15.0  # seconds for a live block to reach every node


@dataclass(frozen=True)
class Plan:
    """What the demo builds and runs."""

    blocks: int
    transfers: int
    accounts: int
    peers: int
    live_blocks: int


@dataclass
class Outcome:
    """What was seen."""

    result: SyncResult
    live: list[LiveBlock] = field(default_factory=list)
    heads: dict[str, tuple[int, bytes, bytes]] = field(default_factory=dict)

    @property
    def agree(self) -> bool:
        """Whether all nodes have the same head and state root."""
        return len(set(self.heads.values())) == 1


def demo(
    blocks: Annotated[int, typer.Option(min=1, help="Blocks of the chain to sync.")] = 5000,
    transfers: Annotated[int, typer.Option(min=0, max=1000, help="Transfers per block.")] = 2,
    accounts: Annotated[int, typer.Option(min=2, max=100_000, help="Accounts.")] = 100,
    peers: Annotated[int, typer.Option(min=1, max=20, help="Nodes that serve the chain.")] = 3,
    live_blocks: Annotated[
        int, typer.Option(min=0, max=1000, help="Blocks to produce after the sync.")
    ] = 5,
) -> None:
    """Build a signed chain, serve it from several nodes, sync a fresh node, then produce live.

    Everything happens on this machine: temporary directories, TCP on loopback. Exits with 0 only
    if all nodes agree on head and state in the end.
    """
    plan = Plan(blocks, transfers, accounts, peers, live_blocks)
    with tempfile.TemporaryDirectory(prefix="moderntensor-demo-") as directory:
        outcome = asyncio.run(run(plan, Path(directory)))
    if not outcome.agree:
        raise ModernTensorError("the nodes do not agree on the head of the chain")


async def run(plan: Plan, directory: Path) -> Outcome:
    """The whole demo below `directory`; prints as it goes."""
    out = console()
    runtime = Runtime()
    validators = derive_keys(SEED, "validator", plan.peers)
    owners = derive_keys(SEED, "account", plan.accounts)
    config = ChainConfig(
        chain_id=1,
        timestamp=int(runtime.wall_time()) - plan.blocks * BLOCK_TIME,
        block_time=BLOCK_TIME,
        validators=tuple(key.public_key for key in validators),
        alloc={key.address: INITIAL_BALANCE for key in owners},
    )
    try:
        with make_display(out) as display:
            homes = [directory / f"node-{i}" for i in range(plan.peers)]
            await _build(plan, config, validators, owners, homes, display, runtime)
            async with AsyncExitStack() as stack:
                servers = [await stack.enter_async_context(_node(home, config)) for home in homes]
                addresses = [f"127.0.0.1:{server.p2p.listen_port}" for server in servers]
                fresh = await stack.enter_async_context(
                    _node(directory / "fresh", config, addresses)
                )
                outcome = Outcome(await _sync(fresh, display))
                for i in range(plan.live_blocks):
                    nodes = [*servers, fresh]
                    outcome.live.append(
                        await _live_block(i, nodes, validators, owners, display, runtime)
                    )
                for i, node in enumerate(servers):
                    outcome.heads[f"node {i}"] = _head(node)
                outcome.heads["fresh node"] = _head(fresh)
    finally:
        runtime.close()
    show_summary(out, outcome.result, outcome.live, outcome.heads)
    return outcome


def _node(home: Path, config: ChainConfig, bootstrap: list[str] | None = None) -> FullNode:
    settings = NodeConfig(map_size=MAP_SIZE)
    return FullNode(
        home,
        config,
        listen_host="127.0.0.1",
        listen_port=0,
        bootstrap_nodes=bootstrap or (),
        settings=settings,
    )


def _head(node: FullNode) -> tuple[int, bytes, bytes]:
    head = node.chain.head
    return head.height, head.hash, head.state_root


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
                batch=blocks_per_commit(plan.transfers),
            )
            for head in heads:
                display.built(head.height, plan.blocks)
                if given_up.is_set():
                    return

    display.say(f"building {count(plan.blocks)} signed blocks with {plan.transfers} transfers each")
    homes[0].mkdir()
    try:
        await runtime.run(build)
    finally:
        given_up.set()  # a thread cannot be cancelled, and whoever interrupts us waits for it
    for home in homes[1:]:
        await runtime.run(shutil.copytree, homes[0], home)


async def _sync(fresh: FullNode, display: Display) -> SyncResult:
    display.say(f"a fresh node syncs from its peers over TCP, port {fresh.p2p.listen_port}")
    async with asyncio.TaskGroup() as group:
        sync = group.create_task(fresh.sync.sync(wait_for_peers=PEER_PATIENCE))
        while not sync.done():
            await asyncio.wait([sync], timeout=display.interval)
            display.syncing(fresh.sync.status)
    return sync.result()


async def _live_block(
    number: int,
    nodes: list[FullNode],
    validators: list[KeyPair],
    owners: list[KeyPair],
    display: Display,
    runtime: Runtime,
) -> LiveBlock:
    """A transaction enters at the fresh node; whoever owns the next slot makes a block of it."""
    if number == 0:
        display.say("live: transactions enter at the fresh node, the others make the blocks")
    servers, fresh = nodes[:-1], nodes[-1]
    sender, recipient = owners[number % len(owners)], owners[(number + 1) % len(owners)]
    transaction = Transaction.create(
        sender,
        chain_id=fresh.chain.config.chain_id,
        nonce=fresh.chain.get_account(sender.address).nonce,
        to=recipient.address,
        value=1,
    )
    await fresh.p2p.broadcast_transaction(transaction)
    config = fresh.chain.config
    slot = max(config.slot_of(int(runtime.wall_time())), config.slot_of(fresh.chain.head.timestamp))
    slot += 1
    await asyncio.sleep(max(0.0, config.timestamp + slot * BLOCK_TIME - runtime.wall_time()))
    turn = slot % len(validators)
    maker = servers[turn]
    producer = BlockProducer(maker.chain, maker.mempool, validators[turn], maker.runtime)
    block = await maker.runtime.run_writer(producer.produce, config.timestamp + slot * BLOCK_TIME)
    made = runtime.loop_time()
    with _watching(nodes) as moved:
        await maker.p2p.broadcast_block(block)
        await _everywhere(block, nodes, moved)
    seen = LiveBlock(
        block.height,
        turn,
        len(block.transactions),
        transaction.hash in {included.hash for included in block.transactions},
        runtime.loop_time() - made,
    )
    display.live(seen)
    return seen


@contextmanager
def _watching(nodes: list[FullNode]) -> Iterator[asyncio.Event]:
    """An event that is set whenever the head of one of the nodes moves."""
    moved = asyncio.Event()
    loop = asyncio.get_running_loop()

    def head_changed(_: HeadChanged) -> None:
        loop.call_soon_threadsafe(moved.set)  # the chain calls on its writing thread

    endings = [node.chain.subscribe(head_changed) for node in nodes]
    try:
        yield moved
    finally:
        for unsubscribe in endings:
            unsubscribe()


async def _everywhere(block: Block, nodes: list[FullNode], moved: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(GOSSIP_PATIENCE):
            while any(node.chain.head.hash != block.hash for node in nodes):
                await moved.wait()
                moved.clear()
    except TimeoutError:
        behind = sum(node.chain.head.hash != block.hash for node in nodes)
        raise ModernTensorError(
            f"block {block.height} did not reach {behind} of {len(nodes)} nodes within "
            f"{GOSSIP_PATIENCE:g} s"
        ) from None
