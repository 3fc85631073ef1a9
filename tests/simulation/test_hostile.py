"""Hostile nodes do their evil, and a seed of each scenario with them holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.tables import SIDE
from moderntensor.blockchain.workload import demo_config, demo_keys
from moderntensor.config import NodeConfig
from moderntensor.network.messages import (
    BlockBodiesMessage,
    GetBlockBodiesMessage,
    GetHeadersMessage,
    GetPeersMessage,
    HeadersMessage,
    MessageType,
    PeersMessage,
    Reply,
    Request,
    Status,
)
from moderntensor.node import FullNode
from moderntensor.simulation.adversaries import (
    BODY_LIES,
    HEADER_LIES,
    Forker,
    Loner,
    busy,
    false_replies,
    never,
    slow,
)
from moderntensor.simulation.host import Host
from moderntensor.simulation.scenario import run_scenario
from moderntensor.simulation.world import EPOCH, World

SMALL: dict[str, dict[str, Any]] = {
    "sync_hostile": {"blocks": 300},
    "eclipse": {"honest": 4, "hostile": 10, "validators": 3, "seconds": 60.0},
    "forks": {"nodes": 4, "seconds": 40.0, "most": 8},
}
HEADERS = GetHeadersMessage(request_id=1, start_height=0, max_headers=8)


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_holds(name: str) -> None:
    result = run_scenario(name, 1, **SMALL[name])
    assert result.violations == []
    assert len(set(result.heights.values())) == 1


def world_of(*keys: KeyPair, block_time: int = 2) -> World:
    settings = NodeConfig(discovery=False, transport="plaintext")
    config = demo_config(demo_keys(2), keys, timestamp=int(EPOCH), block_time=block_time)
    return World(3, config=config, settings=settings)


async def asked(evil: Callable[[FullNode], object], request: Request, world: World) -> Reply:
    """What a node with this evil in it answers another one."""

    def make(host: Host) -> FullNode:
        node = host.make_node()
        evil(node)
        return node

    key = demo_keys(1, "validator")[0]
    server = world.add_host("server", validator=key, honest=False, factory=make)
    client = world.add_host("client")
    await world.start()
    await asyncio.sleep(6)
    assert client.node is not None and server.node is not None
    p2p = client.node.p2p
    peer = await client.within(p2p.connect_peer(server.ip, server.port))
    if isinstance(request, GetBlockBodiesMessage):
        wanted = tuple(server.node.chain.hash_at(height) or b"" for height in (1, 2))
        request = request.replace(hashes=wanted)
    return await client.within(peer.request(request, timeout=20.0))


def answer(evil: Callable[[FullNode], object], request: Request) -> Reply:
    world = world_of(demo_keys(1, "validator")[0])
    return world.run(lambda world: asked(evil, request, world))


def test_an_honest_node_answers() -> None:
    reply = answer(lambda node: None, HEADERS)
    assert isinstance(reply, HeadersMessage)
    assert reply.count > 2


def test_who_never_answers_does_not() -> None:
    with pytest.raises(Exception, match=r"(?i)time|answer|reply"):
        answer(lambda node: never(node.p2p, [MessageType.GET_HEADERS]), HEADERS)


def test_who_is_busy_says_so() -> None:
    reply = answer(lambda node: busy(node.p2p, [MessageType.GET_HEADERS]), HEADERS)
    assert reply.status == Status.BUSY


def test_who_is_slow_takes_the_time() -> None:
    world = world_of(demo_keys(1, "validator")[0])

    async def main(world: World) -> float:
        reply = await asked(
            lambda node: slow(node.p2p, [MessageType.GET_HEADERS], seconds=9.0), HEADERS, world
        )
        assert reply.status == Status.OK
        return world.now

    assert world.run(main) > 6 + 9


@pytest.mark.parametrize("name", HEADER_LIES)
def test_a_liar_changes_headers(name: str) -> None:
    honest = answer(lambda node: None, HEADERS)
    false = answer(lambda node: false_replies(node.p2p, HEADER_LIES[name]), HEADERS)
    assert isinstance(honest, HeadersMessage)
    assert isinstance(false, HeadersMessage)
    assert false.count == honest.count
    assert false.headers != honest.headers


def test_a_liar_cuts_bodies() -> None:
    request = GetBlockBodiesMessage(request_id=1, hashes=(bytes(32),))
    honest = answer(lambda node: None, request)
    false = answer(lambda node: false_replies(node.p2p, BODY_LIES["cut"]), request)
    assert isinstance(honest, BlockBodiesMessage)
    assert isinstance(false, BlockBodiesMessage)
    assert [len(body) + 1 for body in false.bodies] == [len(body) for body in honest.bodies]


def test_a_liar_swaps_bodies() -> None:
    reply = BlockBodiesMessage(request_id=1, bodies=(b"\0\0\0\0", b"\0\0\0\1"))
    false = BODY_LIES["swapped"](reply)
    assert isinstance(false, BlockBodiesMessage)
    assert false.bodies == reply.bodies[::-1]


def test_a_loner_dials_its_victim_and_tells_of_its_like() -> None:
    world = world_of(*demo_keys(1, "validator"))

    async def main(world: World) -> None:
        victim = world.add_host("victim", validator=demo_keys(1, "validator")[0])
        hostiles: list[Host] = []

        def make(host: Host) -> FullNode:
            return Loner(host, [victim], hostiles, world.seeded_random(host.name))

        hostiles += [world.add_host(f"h{i}", honest=False, factory=make) for i in range(3)]
        await world.start()
        await asyncio.sleep(20)
        assert victim.node is not None
        peers = victim.node.p2p.peers
        assert len(peers) == 3
        peer = next(iter(peers.values()))
        reply = await victim.within(peer.request(GetPeersMessage(request_id=7, max_peers=50)))
        assert isinstance(reply, PeersMessage)
        assert {record.node_id for record in reply.peers} == {h.node_id for h in hostiles}
        assert victim.node.chain.head.height > 2
        for host in hostiles:
            assert host.node is not None
            assert host.node.chain.head.height == 0  # it follows nobody

    world.run(main)


def test_a_forker_gets_rivals_in_and_evidence_is_kept_against_it() -> None:
    keys = demo_keys(2, "validator")
    world = world_of(*keys)

    async def main(world: World) -> None:
        forkers: list[Forker] = []
        false: list[bytes] = []

        def make(host: Host) -> FullNode:
            node = host.make_node()
            random = world.seeded_random(host.name)
            forkers.append(Forker(node, keys[1], random, false.append))
            return node

        good = world.add_host("good", validator=keys[0])
        evil = world.add_host("evil", bootstrap=[good], honest=False, factory=make)
        await world.start()
        await asyncio.sleep(20)
        forker = forkers[0]
        made = forker.rivals(6)
        assert made
        assert len({header.hash for header in made}) == len(made)
        await evil.within(forker.announce(made))
        await asyncio.sleep(3)
        node = good.node
        assert node is not None
        with node.chain.store.read() as txn:
            assert txn.count(SIDE) > 0
        assert node.chain.evidence()
        bad = forker.branch(3, 2, false=True)
        assert [header.hash for header in bad] == false

    world.run(main)
