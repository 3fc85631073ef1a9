"""One node begins with a state that it fetches from eight, most of which do it no good."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import Final

from ...blockchain import state_slots
from ...blockchain.chain import Blockchain
from ...blockchain.crypto import KeyPair
from ...blockchain.genesis import ChainConfig
from ...blockchain.tables import TABLES
from ...blockchain.workload import build_chain, demo_config, demo_keys
from ...config import NodeConfig
from ...network.messages import DisconnectCode, MessageType
from ...storage import MemoryStore
from ..adversaries import BODY_LIES, HEADER_LIES, STATE_LIES
from ..checks import Checks
from ..host import Host
from ..result import LIVENESS, SAFETY
from ..scenario import scenario
from ..world import EPOCH, World
from .cast import Cast, FalseReply, draw_parts
from .setting import draw_link

__all__ = ["fast_hostile"]

STATE: Final = (MessageType.GET_STATE, MessageType.GET_STATE_NODES)
BLOCKS: Final = (MessageType.GET_HEADERS, MessageType.GET_BLOCK_BODIES)
SERVED: Final = (STATE + BLOCKS, STATE, STATE, STATE[:1], STATE[1:], BLOCKS)
MADE_WITHIN: Final = 60.0  # seconds for the servers to make their snapshots
ON_ITS_WAY: Final = 30.0  # seconds that half a megabyte takes on the worst of lines
ADDRESS: Final = 20  # bytes, of an account's row the first


@scenario("fast_hostile", about="a fast sync from 8 peers of which 3 stall, 2 lie and 1 is slow")
async def fast_hostile(
    world: World,
    check: Checks,
    *,
    peers: int = 8,
    stalling: int = 3,
    lying: int = 2,
    slow_ones: int = 1,
    blocks: int = 480,
    accounts: int = 20_000,
    interval: int = 128,
) -> None:
    """Who does what, in what way, and from which reply on is drawn; in every third run the one
    that syncs is killed on the way, up to three times, and goes on."""
    random = world.random
    config, chain = _built(blocks, accounts, interval)
    world.config = config
    world.link = draw_link(world)
    world.settings = NodeConfig(
        discovery=False,
        follow_interval=1.0,
        transport=random.choice(("plaintext", "secure")),
        headers_per_request=random.choice((64, 192, 512)),
    )
    check.trust_chain(chain, _addresses(chain))
    parts = draw_parts(world, peers=peers, stalling=stalling, lying=lying, slow_ones=slow_ones)
    cast = Cast(check, SERVED, _draw_lie, grace=ON_ITS_WAY)
    servers = [cast.serve(number, part) for number, part in enumerate(parts)]
    for server in servers:
        server.disk.put(chain.store)
    order = random.sample(servers, len(servers))
    client = world.add_host("client", bootstrap=order, settings={"fast_sync": True})
    cast.watch(client)
    await world.start(servers)
    async with asyncio.timeout(MADE_WITHIN):
        while not all(_announces(server) for server in servers):  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.1)
    began = world.now
    await client.start()
    for _ in range(random.choice((0, 0, 0, 0, 1, 3))):
        await asyncio.sleep(random.choice((0.2, 1.0, 5.0)) * random.random())
        await client.crash()
        await asyncio.sleep(random.uniform(0.1, 5.0))
        await client.restart()
    await check.recovered(progress=0)
    check.metrics["sync_seconds"] = [world.now - began]
    await asyncio.sleep(2 * ON_ITS_WAY)
    cast.judge()
    _compare(check, client, chain)


def _announces(host: Host) -> bool:
    node = host.node
    return node is not None and node.snapshots is not None and bool(node.snapshots.announced)


def _compare(check: Checks, client: Host, chain: Blockchain) -> None:
    """The whole state, account by account, and whether it was fetched."""
    if client.node is None:
        return
    if _rows(client.node.chain) != _rows(chain):
        check.violate(SAFETY, "the state of the client is another one than that of the chain")
    if client.node.chain.earliest_height <= 1:
        check.violate(LIVENESS, "all blocks were executed, though honest peers had a snapshot")


def _draw_lie(random: Random) -> FalseReply:
    lies, code, after = random.choice(
        (
            (STATE_LIES, DisconnectCode.BAD_STATE, (0, 0, 1, 2)),
            (STATE_LIES, DisconnectCode.BAD_STATE, (0, 0, 1, 2)),
            (HEADER_LIES, DisconnectCode.BAD_HEADER, (0, 0, 1)),
            (BODY_LIES, DisconnectCode.BAD_BLOCK, (0, 0, 1)),
        )
    )
    return FalseReply(lies[random.choice(list(lies))], random.choice(after), code)


def _keys() -> tuple[list[KeyPair], list[KeyPair]]:
    return demo_keys(3, "validator"), demo_keys(8)


@lru_cache(maxsize=2)
def _built(blocks: int, accounts: int, interval: int) -> tuple[ChainConfig, Blockchain]:
    """A chain that ends when a world begins; made once per process. Each of the accounts but the
    first few comes to be by a transfer: a fresh node knows none of them."""
    validators, users = _keys()
    config = replace(
        demo_config(users, validators, timestamp=int(EPOCH) - blocks - 1, block_time=1),
        snapshot_interval=interval,
    )
    chain = Blockchain(MemoryStore(TABLES), config)
    for _ in build_chain(
        chain,
        validators=validators,
        accounts=users,
        blocks=blocks,
        transfers=accounts,
        new_accounts=accounts,
    ):
        pass
    return config, chain


def _rows(chain: Blockchain) -> list[tuple[bytes, bytes]]:
    with chain.store.read() as reading:
        return list(reading.range(state_slots.active(reading).accounts))


def _addresses(chain: Blockchain) -> list[bytes]:
    return [row[:ADDRESS] for _, row in _rows(chain)]
