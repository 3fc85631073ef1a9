"""Real signed chains and real nodes on loopback, for tests that let nodes talk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.blockchain.workload import build_chain, demo_config, demo_keys
from moderntensor.config import NodeConfig
from moderntensor.network.p2p import P2PNode
from moderntensor.network.sync import SyncManager

ACCOUNTS = demo_keys(6)
VALIDATORS = demo_keys(2, "validator")
CONFIG = demo_config(ACCOUNTS, VALIDATORS)

# Loopback answers in a millisecond: a second of silence is long.
SETTINGS = NodeConfig(
    listen_host="127.0.0.1",
    listen_port=0,
    discovery=False,
    stall_timeout=0.5,
    sync_give_up=20.0,
    follow_interval=0.2,
    ping_interval=0.2,
)


def new_validator(config: ChainConfig = CONFIG) -> BlockValidator:
    """An empty chain in memory."""
    return BlockValidator(StateDB(None), config)


def extend(chain: Blockchain, blocks: int, transfers: int = 0) -> Blockchain:
    """Add blocks to a chain; the same arguments on the same chain give the same blocks."""
    for _ in build_chain(
        chain,
        validators=VALIDATORS,
        accounts=ACCOUNTS,
        blocks=blocks,
        transfers_per_block=transfers,
    ):
        pass
    return chain


def grown(blocks: int, transfers: int = 0, config: ChainConfig = CONFIG) -> Blockchain:
    """A chain of so many blocks in memory."""
    return extend(new_validator(config).chain, blocks, transfers)


@asynccontextmanager
async def serving(chain: Blockchain, *, settings: NodeConfig = SETTINGS) -> AsyncIterator[P2PNode]:
    """A node that serves a chain and follows nothing."""
    node = P2PNode(config=settings)
    node.attach_chain(chain)
    async with node:
        yield node


@asynccontextmanager
async def syncing(
    validator: BlockValidator | None = None, *, settings: NodeConfig = SETTINGS
) -> AsyncIterator[SyncManager]:
    """A node with a sync manager, not connected to anyone yet."""
    node = P2PNode(config=settings)
    sync = SyncManager(node, validator or new_validator())
    async with node, sync:
        yield sync


async def connect(sync: SyncManager, *nodes: P2PNode) -> None:
    """Dial nodes on loopback."""
    await connect_ports(sync, [node.listen_port for node in nodes])


async def connect_ports(sync: SyncManager, ports: Iterable[int]) -> None:
    """Dial whoever listens on loopback."""
    for port in ports:
        await sync.node.connect_peer("127.0.0.1", port)


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for a condition; TimeoutError, failing the test, if it never comes."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  conditions on foreign objects
            await asyncio.sleep(0.01)
