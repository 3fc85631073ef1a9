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
from ...errors import ConfigError
from ...network.messages import DisconnectCode, MessageType
from ...network.offences import Offence
from ...network.peer import Peer
from ...node import FullNode
from ...storage import MemoryStore
from ..adversaries import BODY_LIES, HEADER_LIES, Liar, Met, busy, false_replies, never, slow
from ..checks import Checks
from ..host import Host
from ..lines import Line
from ..result import SAFETY
from ..scenario import scenario
from ..world import EPOCH, World
from .setting import draw_link

__all__ = ["sync_hostile"]

GRACE: Final = 2.0  # seconds for a lie to be on its way and looked at
SERVED: Final = (MessageType.GET_HEADERS, MessageType.GET_BLOCK_BODIES)


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
    honest = peers - stalling - lying - slow_ones
    if honest < 1:
        raise ConfigError("sync_hostile: one peer at least is honest")
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
    parts = ["stalls"] * stalling + ["lies"] * lying + ["slow"] * slow_ones + ["honest"] * honest
    random.shuffle(parts)
    cast = _Cast()
    servers = [_server(world, number, part, cast) for number, part in enumerate(parts)]
    for server in servers:
        server.disk.put(chain.store)
    order = random.sample(servers, len(servers))
    client = world.add_host("client", bootstrap=order)

    def parted(peer: Peer) -> None:
        offence, host = peer.offence, world.host_at(peer.host_address)
        if host is None:
            return
        cast.left.setdefault(host.name, world.now)
        if offence is not None and peer.dropped_by_us and host.name in cast.liars:
            cast.convicted.setdefault(host.name, offence)

    def watch(host: Host) -> None:
        if host is client and host.node is not None:
            host.node.p2p.on_peer_disconnected.append(parted)

    world.on_node.append(watch)
    await world.start(servers)
    began = world.now
    await client.start()
    await check.recovered(progress=0)
    check.metrics["sync_seconds"] = [world.now - began]
    _judge(check, cast, client)


def _unread(client: Host, server: Host) -> int:
    """How many replies of `server` came when `client` had no use for them any more, since another
    had answered: nobody looks into those."""
    node = client.node
    peer = node.p2p.table.by_id.get(server.node_id) if node is not None else None
    return 0 if peer is None else peer.late_replies


def _judge(check: Checks, cast: _Cast, client: Host) -> None:
    """Who lied and was heard is convicted, of what it did; who was not met shows in the figures."""
    world, heard = check.world, 0
    latest = world.now - GRACE - 4 * world.link.latency
    for name, (liar, code) in cast.liars.items():
        times = liar.told.get(client.node_id, [])
        heard += bool(times)
        offence = cast.convicted.get(name)
        if offence is not None and offence.code == code:
            continue
        if offence is not None and offence.points:
            was = f"{offence.value}: {offence.code.name}"
            check.violate(SAFETY, f"{name} lied ({code.name}) and was convicted of {was}")
            continue
        due = min(latest, cast.left.get(name, world.now) - GRACE)
        if sum(time < due for time in times) > _unread(client, world.host(name)):
            check.violate(SAFETY, f"{name} lied ({code.name}), was heard, and goes free")
    check.metrics["liars_heard"] = float(heard)
    check.metrics["liars_convicted"] = float(len(cast.convicted))
    check.metrics["liars_not_met"] = float(len(cast.liars) - heard)
    check.metrics["stallers_not_met"] = float(sum(not met.times for met in cast.stallers.values()))
    check.metrics["slow_not_met"] = float(
        sum(not world.host(name).bytes_sent for name in cast.lines)
        + sum(not met.times for met in cast.slow.values())
    )


class _Cast:
    """Who plays what, and what became of them."""

    def __init__(self) -> None:
        self.liars: dict[str, tuple[Liar, DisconnectCode]] = {}
        """Those who lie, and what for they are to be parted from."""
        self.stallers: dict[str, Met] = {}
        self.slow: dict[str, Met] = {}
        self.lines: list[str] = []
        """Those who are slow by their line."""
        self.convicted: dict[str, Offence] = {}
        self.left: dict[str, float] = {}
        """When the client had them no more, first."""


def _server(world: World, number: int, part: str, cast: _Cast) -> Host:
    name = f"{part}{number}"
    random = world.seeded_random("part", number)

    def make(host: Host) -> FullNode:
        node = host.make_node()
        if part == "stalls":
            cast.stallers[name] = _stall(node, random)
        elif part == "lies":
            of_headers = random.random() < 0.5
            code = DisconnectCode.BAD_HEADER if of_headers else DisconnectCode.BAD_BLOCK
            lies = HEADER_LIES if of_headers else BODY_LIES
            lie = lies[random.choice(list(lies))]
            # There are few requests for headers, and one leader answers most of those.
            after = random.choice((0, 0, 1, 2) if of_headers else (0, 1, 3, 6))
            cast.liars[name] = false_replies(node.p2p, lie, after=after), code
        elif part == "slow" and line is None:
            cast.slow[name] = slow(node.p2p, SERVED, seconds=random.uniform(1, 10))
        return node

    line = None
    if part == "slow" and random.random() < 0.5:
        line = Line(up=random.choice((2_000.0, 10_000.0, 30_000.0)))
        cast.lines.append(name)
    # A slow one is honest, but what it is dropped for as a bottleneck is nobody's offence.
    return world.add_host(name, line=line, honest=part in ("honest", "slow"), factory=make)


def _stall(node: FullNode, random: Random) -> Met:
    kinds = random.choice((SERVED, SERVED[:1], SERVED[1:]))
    after = random.choice((0, 0, 1, 2, 5))
    if random.random() < 0.25:
        return busy(node.p2p, kinds, after=after)
    return never(node.p2p, kinds, after=after)


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
