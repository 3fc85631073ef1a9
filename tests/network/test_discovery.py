"""Finding peers: asking, telling, dialling towards a target, and not being fooled."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from helpers.rawpeer import QUIET, RawPeer, hello_message, quiet_node, raw_listener, until

from moderntensor.network import discovery
from moderntensor.network.addresses import to_wire
from moderntensor.network.messages import (
    DisconnectCode,
    GetPeersMessage,
    HelloMessage,
    PeerRecord,
    PeersMessage,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.refusals import Refusals

LOOPBACK = "127.0.0.1"
EAGER = QUIET.replace(discovery=True, discovery_interval=0.2, redial_interval=0.2)


async def test_twenty_nodes_that_know_one_find_each_other() -> None:
    config = EAGER.replace(target_outbound=4)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(P2PNode(config=config))
        bootstrap = [f"{LOOPBACK}:{first.listen_port}"]
        nodes = [
            await stack.enter_async_context(P2PNode(bootstrap_nodes=bootstrap, config=config))
            for _ in range(19)
        ]

        def satisfied(nodes: list[P2PNode]) -> bool:
            """Who was dialled by nearly everyone may find nobody left to dial."""
            return all(
                node.table.outbound == 4 or len(node.table) == len(nodes) - 1 for node in nodes
            )

        await until(lambda: satisfied([first, *nodes]), 30.0)
        # They need the one that they knew no longer.
        await first.stop()
        await until(lambda: satisfied(nodes), 30.0)
        reached, ids = {nodes[0].node_id}, {node.node_id: node for node in nodes}
        frontier = [nodes[0]]
        while frontier:
            fresh = frontier.pop().table.by_id.keys() - reached
            reached |= fresh
            frontier += [ids[node_id] for node_id in fresh]
        assert reached == ids.keys()


async def test_a_bootstrap_node_that_comes_late_or_again_is_found() -> None:
    async with quiet_node() as placeholder:
        port = placeholder.listen_port
    config = QUIET.replace(bootstrap_redial=0.05, bootstrap_redial_max=0.1)
    async with P2PNode(bootstrap_nodes=[f"{LOOPBACK}:{port}"], config=config) as node:
        for _ in range(2):
            async with P2PNode(listen_port=port, config=QUIET) as bootstrap:
                await until(lambda b=bootstrap: b.node_id in node.table.by_id)
            await until(lambda: not node.peers)


async def test_no_more_than_the_target_is_dialled() -> None:
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(quiet_node()) for _ in range(4)]
        addresses = [f"{LOOPBACK}:{other.listen_port}" for other in others]
        node = P2PNode(bootstrap_nodes=addresses, config=QUIET.replace(target_outbound=2))
        await stack.enter_async_context(node)
        await until(lambda: node.table.outbound == 2)
        node.discovery.wake()
        await asyncio.sleep(0.1)
        assert node.table.outbound == 2
        # A lost one is replaced.
        await node.disconnect_peer(next(iter(node.peers)))
        assert node.table.outbound == 1
        await until(lambda: node.table.outbound == 2)


async def test_a_book_is_not_gone_through_at_once_while_nobody_can_be_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discovery, "_DIALS_PER_SECOND", 1e-6)
    config = EAGER.replace(connect_timeout=0.01, redial_interval=0.01, bootstrap_redial=0.01)
    async with quiet_node() as nobody:
        port = nobody.listen_port
    async with P2PNode(bootstrap_nodes=[f"{LOOPBACK}:{port}"], config=config) as node:
        for number in range(2, 100):
            node.book.learn(f"127.0.0.{number}", port, b"x" * 32, 0, LOOPBACK)
        bootstrap = node.book.get(LOOPBACK, port)

        def dials() -> int:
            entries = (node.book.get(f"127.0.0.{number}", port) for number in range(2, 100))
            return sum(entry.failures for entry in entries if entry is not None)

        await until(lambda: dials() == discovery._DIALS_BURST)
        assert bootstrap is not None
        before = bootstrap.failures
        await until(lambda: bootstrap.failures >= before + 2)  # those wait for nothing but theirs
        assert dials() == discovery._DIALS_BURST


async def test_an_address_is_not_dialled_again_within_its_interval() -> None:
    visits = 0

    async def leave_at_once(raw: RawPeer) -> None:
        nonlocal visits
        visits += 1

    async with (
        quiet_node(discovery=True, redial_interval=3600.0) as node,
        raw_listener(leave_at_once) as port,
    ):
        assert node.book.learn(LOOPBACK, port, b"x" * 32, 0, LOOPBACK)
        node.discovery.wake()
        await until(lambda: visits == 1 and not len(node.dialer))
        node.discovery.wake()
        await asyncio.sleep(0.1)
        assert visits == 1


async def test_a_peer_that_broke_the_rules_is_not_dialled_for_a_while() -> None:
    visits = 0

    async def be_a_peer(raw: RawPeer) -> None:
        nonlocal visits
        visits += 1
        await raw.read(HelloMessage)
        raw.send(hello_message(listen_port=1))
        await raw.read_goodbye()

    config = QUIET.replace(bootstrap_redial=0.01, bootstrap_redial_max=0.01)
    async with raw_listener(be_a_peer) as port:
        async with P2PNode(bootstrap_nodes=[f"{LOOPBACK}:{port}"], config=config) as node:
            await until(lambda: node.peers)
            peer = next(iter(node.peers.values()))
            peer.disconnect(DisconnectCode.BAD_HEADER, "a lie")
            await until(lambda: not len(node.gate))
            await asyncio.sleep(0.1)
            assert visits == 1
        quick = config.replace(refusal_time=0.05)
        async with P2PNode(bootstrap_nodes=[f"{LOOPBACK}:{port}"], config=quick) as node:
            await until(lambda: node.peers)
            next(iter(node.peers.values())).disconnect(DisconnectCode.BAD_HEADER, "a lie")
            await until(lambda: visits == 3)  # once it is over


async def test_more_addresses_than_asked_for_are_a_breach() -> None:
    async with quiet_node(discovery=True) as node, await RawPeer.meet(node) as raw:
        request = None
        while not isinstance(request, GetPeersMessage):
            request = await raw.read_any()
        record = PeerRecord(node_id=b"x" * 32, ip=to_wire("9.9.9.9"), port=1, last_seen=0)
        raw.send(
            PeersMessage(request_id=request.request_id, peers=(record,) * (request.max_peers + 1))
        )
        assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR
        assert not len(node.book)


TOLD = [
    (b"a" * 32, "8.8.8.8", 30303, True),
    (b"a" * 32, "8.8.8.8", 30303, True),
    (b"b" * 32, "8.8.4.4", 0, False),
    (b"c" * 32, "0.0.0.0", 1, False),  # noqa: S104
    (b"c" * 32, "224.0.0.1", 1, False),
    (b"c" * 32, "240.0.0.1", 1, False),
    (b"c" * 32, "2001:4860:4860::8888", 30303, True),
    (b"d" * 32, LOOPBACK, 5, True),
]


async def test_what_is_told_is_filtered() -> None:
    node_settings = {"discovery": True, "target_outbound": 0}
    async with quiet_node(**node_settings) as node, await RawPeer.meet(node) as raw:
        request = None
        while not isinstance(request, GetPeersMessage):
            request = await raw.read_any()
        told = [(i, h, p) for i, h, p, _ in TOLD] + [(node.node_id, "8.8.4.4", 1)]
        records = (
            PeerRecord(node_id=i, ip=to_wire(h), port=p, last_seen=2**64 - 1) for i, h, p in told
        )
        raw.send(PeersMessage(request_id=request.request_id, peers=tuple(records)))
        await until(lambda: len(node.book))
        assert len(node.book) == 3
        for key in [(host, port) for _, host, port, good in TOLD if good]:
            entry = node.book.get(*key)
            assert entry is not None
            assert entry.last_seen <= node.runtime.wall_time()
        raw.send(GetPeersMessage(request_id=1))
        assert (await raw.read(PeersMessage)).peers == ()  # hearsay is not passed on


def test_refusals_end_and_are_bounded() -> None:
    refusals = Refusals(limit=3)
    refusals.refuse("a", 0.0, 10.0)
    assert refusals.remaining("a", 4.0) == 6.0
    refusals.refuse("a", 4.0, 1.0)  # does not shorten
    assert refusals.remaining("a", 4.0) == 6.0
    assert refusals.remaining("a", 10.0) == 0.0
    for number in range(10):
        refusals.refuse(str(number), 0.0, 100.0 + number)
    assert len(refusals) == 3
    assert refusals.remaining("9", 0.0) == 109.0
    assert refusals.remaining("0", 0.0) == 0.0
