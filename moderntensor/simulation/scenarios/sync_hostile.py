"""One node syncs from eight, of which three stall, two lie and one is slow."""

from __future__ import annotations

from functools import lru_cache
from random import Random
from typing import Final

from ...blockchain.chain import Blockchain
from ...blockchain.crypto import KeyPair
from ...blockchain.genesis import ChainConfig
from ...blockchain.tables import TABLES
from ...blockchain.workload import build_chain, demo_config, demo_keys
from ...config import NodeConfig
from ...network.messages import DisconnectCode, MessageType
from ...storage import MemoryStore
from ..adversaries import BODY_LIES, HEADER_LIES
from ..checks import Checks
from ..scenario import scenario
from ..world import EPOCH, World
from .cast import Cast, FalseReply, draw_parts
from .setting import draw_link

__all__ = ["sync_hostile"]

ASKED: Final = (MessageType.GET_HEADERS, MessageType.GET_BLOCK_BODIES)
SERVED: Final = (ASKED, ASKED[:1], ASKED[1:])


@scenario("sync_hostile", about="a sync from 8 peers of which 3 stall, 2 lie and 1 is slow")
async def sync_hostile(
    world: World,
    check: Checks,
    *,
    peers: int = 8,
    stalling: int = 3,
    lying: int = 2,
    slow_ones: int = 1,
    blocks: int = 2000,
) -> None:
    """Who does what, in what way, and from which reply on is drawn."""
    random = world.random
    config, chain = _built(blocks)
    world.config = config
    world.link = draw_link(world)
    world.settings = NodeConfig(
        discovery=False,
        follow_interval=1.0,
        transport=random.choice(("plaintext", "secure")),
        headers_per_request=random.choice((64, 192, 512)),
        blocks_per_request=random.choice((16, 64, 128)),
    )
    check.trust_chain(chain, [key.address for key in _keys()[1]])
    parts = draw_parts(world, peers=peers, stalling=stalling, lying=lying, slow_ones=slow_ones)
    cast = Cast(check, SERVED, _draw_lie)
    servers = [cast.serve(number, part) for number, part in enumerate(parts)]
    for server in servers:
        server.disk.put(chain.store)
    order = random.sample(servers, len(servers))
    client = world.add_host("client", bootstrap=order)
    cast.watch(client)
    await world.start(servers)
    began = world.now
    await client.start()
    await check.recovered(progress=0)
    check.metrics["sync_seconds"] = [world.now - began]
    cast.judge()


def _draw_lie(random: Random) -> FalseReply:
    of_headers = random.random() < 0.5
    lies = HEADER_LIES if of_headers else BODY_LIES
    lie = lies[random.choice(list(lies))]
    # There are few requests for headers, and one leader answers most of those.
    after = random.choice((0, 0, 1, 2) if of_headers else (0, 1, 3, 6))
    code = DisconnectCode.BAD_HEADER if of_headers else DisconnectCode.BAD_BLOCK
    return FalseReply(lie, after, code)


def _keys() -> tuple[list[KeyPair], list[KeyPair]]:
    return demo_keys(3, "validator"), demo_keys(4)


@lru_cache(maxsize=2)
def _built(blocks: int) -> tuple[ChainConfig, Blockchain]:
    """A chain that ends when a world begins; made once per process."""
    validators, users = _keys()
    config = demo_config(users, validators, timestamp=int(EPOCH) - blocks - 1, block_time=1)
    chain = Blockchain(MemoryStore(TABLES), config)
    for _ in build_chain(
        chain, validators=validators, accounts=users, blocks=blocks, transfers=blocks // 4
    ):
        pass
    return config, chain
