"""One node syncs a long chain over a thin line, beside what line and distance allow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from ...blockchain.chain import Blockchain
from ...blockchain.crypto import KeyPair
from ...blockchain.genesis import ChainConfig
from ...blockchain.tables import TABLES
from ...blockchain.workload import build_chain, demo_config, demo_keys
from ...config import NodeConfig
from ...errors import ConfigError
from ...storage import MemoryStore
from ..checks import Checks
from ..host import Host
from ..lines import Line, Link
from ..result import LIVENESS
from ..scenario import scenario
from ..world import EPOCH, World

__all__ = ["bound"]

ACCOUNTS: Final = 4
# What frames the bytes of a chain, at the least: 5 bytes of frame and 9 of reply for each reply,
# which is at most 2 MiB, and a record's 20 for each 256 KiB.
REPLY_BYTES: Final = 14
REPLY_MOST: Final = 2 << 20
RECORD_BYTES: Final = 20
RECORD_MOST: Final = 256 << 10
# Before the first body: TCP, two of the handshake and the HELLOs, one that asks for headers and
# one that asks for bodies. All others can be hidden behind the bytes.
ROUND_TRIPS: Final = 5
PATIENCE: Final = 10  # times the bound, until a sync is called hung
PEERS_SHARE: Final = 2.0  # what all peers can send, times what the line brings


@scenario("bound", about="a sync over a thin line, as a share of what line and distance allow")
async def bound(
    world: World,
    check: Checks,
    *,
    peers: int = 8,
    blocks: int = 1500,
    block_bytes: int = 100_000,
    rate: float = 2_500_000.0,
    round_trip: float = 0.1,
    fault: str = "none",
    at: float = 0.4,
) -> None:
    """`fault`: ``none``, ``stall`` (two seconds of one peer) or ``death`` (the fastest dies), at
    this share of the bound. `rate` is in bytes/s: 20 Mbit/s by default. The first of the peers
    sends up to half of that, the others share three times as much evenly."""
    if fault not in ("none", "stall", "death") or peers < 2:
        raise ConfigError("bound: fault is none, stall or death, and there are at least two peers")
    world.settings = NodeConfig(discovery=False, follow_interval=1.0)
    world.link = Link(round_trip / 2)
    config, chain = _built(blocks, block_bytes)
    world.config = config
    check.trust_chain(chain, [key.address for key in _keys()[1]])
    fastest = rate * PEERS_SHARE / 4
    others = (rate * PEERS_SHARE - fastest) / (peers - 1)
    servers = [
        world.add_host(f"server{i}", line=Line(up=fastest if i == 0 else others))
        for i in range(peers)
    ]
    for server in servers:
        server.disk.put(chain.store)
    client = world.add_host("client", bootstrap=servers, line=Line(down=rate))
    await world.start(servers)

    least_bytes = _least_bytes(chain)
    least = least_bytes / rate + ROUND_TRIPS * round_trip
    began, received = world.now, client.bytes_received
    failing = asyncio.create_task(_fail(world, fault, servers, client, at * least), name="fault")
    await client.start()
    try:
        async with asyncio.timeout(PATIENCE * least):
            await _reach(client, chain.head.hash)
    except TimeoutError:
        check.violate(LIVENESS, f"not synced after {PATIENCE} times the bound")
    failing.cancel()
    taken = world.now - began
    check.metrics["sync_seconds"] = [taken]
    check.metrics["bound_seconds"] = least
    check.metrics["bound_share"] = least / taken
    check.metrics["least_bytes"] = float(least_bytes)
    check.metrics["bytes_over_least"] = (client.bytes_received - received) / least_bytes


async def _reach(client: Host, head: bytes) -> None:
    node = client.node
    assert node is not None  # noqa: S101
    reached = asyncio.Event()

    def changed(_: object) -> None:
        if node.chain.head.hash == head:
            reached.set()

    unsubscribe: Callable[[], None] = node.chain.subscribe(changed)
    try:
        await reached.wait()
    finally:
        unsubscribe()


async def _fail(world: World, fault: str, servers: list[Host], client: Host, after: float) -> None:
    await asyncio.sleep(after)
    if fault == "stall":
        world.trace.fault("stall", servers[1].name)
        world.network.block(servers[1].ip, client.ip)
        await asyncio.sleep(2.0)
        world.network.unblock(servers[1].ip, client.ip)
    elif fault == "death":
        world.trace.fault("death", servers[0].name)
        await servers[0].crash(silent=True)


def _keys() -> tuple[list[KeyPair], list[KeyPair]]:
    return demo_keys(1, "validator"), demo_keys(ACCOUNTS)


@lru_cache(maxsize=1)
def _built(blocks: int, block_bytes: int) -> tuple[ChainConfig, Blockchain]:
    """A chain that ends when a world begins; a few blocks per process, so it is made once."""
    validators, users = _keys()
    config = demo_config(users, validators, timestamp=int(EPOCH) - blocks - 1, block_time=1)
    chain = Blockchain(MemoryStore(TABLES), config)
    for _ in build_chain(
        chain,
        validators=validators,
        accounts=users,
        blocks=blocks,
        transfers_per_block=1,
        data_bytes=block_bytes,
    ):
        pass
    return config, chain


def _least_bytes(chain: Blockchain) -> int:
    """Headers and bodies once, in as few replies and records as there can be."""
    size = 0
    for height in range(1, chain.head.height + 1):
        block = chain.get_block(height)
        assert block is not None  # noqa: S101
        size += 4 + len(block.encode())
    size += (size // REPLY_MOST + 1) * REPLY_BYTES
    return size + (size // RECORD_MOST + 1) * RECORD_BYTES
