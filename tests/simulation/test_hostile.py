"""Hostile nodes do their evil, and a seed of each scenario with them holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.lookup import HeaderBatch
from moderntensor.blockchain.tables import SIDE, TABLES
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
    StateMessage,
    StateNodesMessage,
    Status,
)
from moderntensor.node import FullNode
from moderntensor.simulation.adversaries import (
    BODY_LIES,
    HEADER_LIES,
    STATE_LIES,
    Coalition,
    Forker,
    Liar,
    Loner,
    busy,
    false_replies,
    invented,
    never,
    slow,
    turn,
)
from moderntensor.simulation.host import Host
from moderntensor.simulation.scenario import run_scenario
from moderntensor.simulation.world import EPOCH, World
from moderntensor.storage import MemoryStore

SMALL: dict[str, dict[str, Any]] = {
    "sync_hostile": {"blocks": 300},
    "fast_hostile": {"blocks": 200, "accounts": 1000, "interval": 128},
    "eclipse": {"honest": 4, "hostile": 10, "validators": 3},
    "forks": {"seconds": 20.0, "most": 8},
}
HEADERS = GetHeadersMessage(request_id=1, start_height=0, max_headers=8)


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_holds(name: str) -> None:
    result = run_scenario(name, 1, **SMALL[name])
    assert result.violations == []
    assert len(set(result.heights.values())) == 1


def test_a_seed_where_anybody_may_sign_holds() -> None:
    assert run_scenario("forks", 0, **SMALL["forks"]).violations == []


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


@pytest.mark.parametrize("name", ["altered", "missing"])
def test_a_liar_changes_accounts(name: str) -> None:
    records = (2).to_bytes(4, "big") + bytes(108) + b"\1" * 108
    reply = StateMessage(request_id=1, accounts=records)
    false = STATE_LIES[name](reply)
    assert isinstance(false, StateMessage)
    assert (false.count, false.accounts != records) == (2 if name == "altered" else 1, True)
    assert STATE_LIES[name](reply.replace(status=Status.NOT_FOUND, accounts=bytes(4))) is None


def test_a_liar_swaps_the_halves_of_nodes() -> None:
    node = (b"\1" * 32, 1, b"\2" * 32, 2)
    false = STATE_LIES["nodes"](StateNodesMessage(request_id=1, nodes=(node,)))
    assert isinstance(false, StateNodesMessage)
    assert false.nodes == ((b"\2" * 32, 2, b"\1" * 32, 1),)


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


def test_who_is_restarted_at_once_keeps_a_place_for_its_peers_of_before() -> None:
    # They turn away who has dialled them within the last half minute; others are at hand.
    world = world_of()
    world.settings = NodeConfig(transport="plaintext", target_outbound=1, discovery_interval=5.0)

    async def main(world: World) -> None:
        good = world.add_host("good")
        victim = world.add_host("victim", bootstrap=[good])
        hostiles: list[Host] = []

        def make(host: Host) -> FullNode:
            return Loner(host, [victim], hostiles, world.seeded_random(host.name))

        hostiles += [world.add_host(f"h{i}", honest=False, factory=make) for i in range(3)]
        await world.start([good, victim])
        await asyncio.sleep(1)
        await world.start(hostiles)
        await asyncio.sleep(10)
        await victim.crash()
        victim.bootstrap = []
        await victim.restart()
        await asyncio.sleep(60)
        assert victim.node is not None
        dialled = [peer for peer in victim.node.p2p.peers.values() if peer.outbound]
        assert [peer.node_id for peer in dialled] == [good.node_id]

    world.run(main)


def test_boasts_and_invented_addresses_are_told() -> None:
    world = world_of()

    async def main(world: World) -> None:
        victim = world.add_host("victim")
        nowhere = invented(world.random, 30)
        assert len({record.ip for record in nowhere}) == 30

        def make(host: Host) -> FullNode:
            random = world.seeded_random(host.name)
            return Loner(host, [victim], [], random, invented=nowhere, boasts=True)

        world.add_host("boaster", honest=False, factory=make)
        await world.start()
        await asyncio.sleep(3)
        assert victim.node is not None
        peer = next(iter(victim.node.p2p.peers.values()))
        assert peer.best_height >= 500
        reply = await victim.within(peer.request(GetPeersMessage(request_id=7, max_peers=50)))
        assert isinstance(reply, PeersMessage)
        assert {record.node_id for record in reply.peers} == {each.node_id for each in nowhere}

    world.run(main)


def test_a_turncoat_serves_until_it_turns() -> None:
    key = demo_keys(1, "validator")[0]
    world = world_of(key)

    async def main(world: World) -> None:
        source = world.add_host("source", validator=key)
        coat = world.add_host("coat", bootstrap=[source], honest=False)
        victim = world.add_host("victim", bootstrap=[coat])
        await world.start()
        await asyncio.sleep(10)
        assert coat.node is not None and victim.node is not None
        before = victim.node.chain.head.height
        assert before >= 2
        turn(coat.node)
        await asyncio.sleep(10)
        assert victim.node.chain.head.height <= before + 1  # one may have been on its way

    world.run(main)


def test_a_coalition_saves_its_slots_for_long_branches() -> None:
    keys = demo_keys(2, "validator")
    chain = Blockchain(MemoryStore(TABLES), demo_config(demo_keys(2), keys, timestamp=int(EPOCH)))
    false: list[bytes] = []
    coalition = Coalition(lambda: chain, keys[1:], Random(1), false.append)
    now = EPOCH + 40
    first, second = coalition.branch(now, 0, 5), coalition.branch(now, 0, 9)
    assert [len(first), len(second)] == [5, 9]
    assert coalition.equivocations == 5  # of the heights that it had signed before
    assert coalition.line(second[-1]) == second
    chain.check_headers(HeaderBatch.join([header.encode() for header in second]), int(now))
    assert not false
    bad = coalition.branch(now, 0, 4, false_at=2)
    assert [header.hash for header in bad[2:]] == false
    assert len(coalition.branch(now, 0, 1000)) == 20  # every other slot of forty is theirs


def test_a_hidden_branch_is_followed_and_evidence_is_kept() -> None:
    keys = demo_keys(2, "validator")
    config = demo_config(demo_keys(2), keys, timestamp=int(EPOCH) - 80, block_time=2)
    settings = NodeConfig(discovery=False, transport="plaintext")
    world = World(3, config=config, settings=settings)

    async def main(world: World) -> None:
        good = world.add_host("good", validator=keys[0])
        forkers: list[Forker] = []

        def watched() -> Blockchain:
            assert good.node is not None
            return good.node.chain

        coalition = Coalition(watched, keys[1:], world.random, lambda _: None)

        def make(host: Host) -> FullNode:
            node = host.make_node()
            forkers.append(Forker(node, coalition))
            return node

        evil = world.add_host("evil", bootstrap=[good], honest=False, factory=make)
        await world.start()
        await asyncio.sleep(13)
        chain = watched()
        head = chain.head
        assert head.height >= 3
        made = coalition.branch(world.wall_time(), head.height, head.height + 4)
        assert await evil.within(forkers[0].announce(made[-1:])) == 1
        await asyncio.sleep(1.5)
        assert chain.height_of(head.hash) is None
        assert chain.height_of(made[-1].hash) == made[-1].height
        assert made[-1].hash in {tip for tip, _ in forkers[0].served}
        rival = coalition.branch(world.wall_time(), chain.head.height - made[-1].height + 1, 1)
        await evil.within(forkers[0].announce(rival))
        await asyncio.sleep(1.5)
        with chain.store.read() as txn:
            assert txn.count(SIDE) > 0
        assert chain.evidence()

    world.run(main)


def test_a_liar_notes_when_it_lied() -> None:
    world = world_of(demo_keys(1, "validator")[0])
    liars: list[Liar] = []

    async def main(world: World) -> None:
        reply = await asked(
            lambda node: liars.append(false_replies(node.p2p, HEADER_LIES["height"], after=1)),
            HEADERS,
            world,
        )
        assert isinstance(reply, HeadersMessage)

    world.run(main)
    assert all(0 < time < 60 for times in liars[0].told.values() for time in times)
