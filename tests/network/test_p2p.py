"""Nodes with each other: life, peers, hooks, broadcasts; and that nothing is left of them."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from typing import Any

import pytest
from helpers.rawpeer import QUIET, RawPeer, quiet_node, raw_listener, until
from helpers.sockets import open_descriptors

from moderntensor.config import NodeConfig
from moderntensor.errors import ConfigError, ConnectError, NetworkError
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.messages import (
    BlocksMessage,
    DisconnectCode,
    DisconnectMessage,
    GetBlockBodiesMessage,
    GetBlocksMessage,
    GetHeadersMessage,
    GetPeersMessage,
    GetStateMessage,
    GetStateNodesMessage,
    GetTransactionsMessage,
    Message,
    MessageCodec,
    MessageType,
    NewBlockHashesMessage,
    PeersMessage,
    PingMessage,
    PongMessage,
    Request,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.runtime import Runtime

LOOPBACK = "127.0.0.1"


async def read_and_close(raw: RawPeer) -> int | None:
    async with raw:
        return await raw.read_goodbye()


async def meet(one: P2PNode, two: P2PNode) -> tuple[Peer, Peer]:
    """Two nodes, connected; the peer that each sees in the other."""
    seen_by_one = await one.connect_peer(LOOPBACK, two.listen_port)
    await until(lambda: one.node_id in two.table.by_id)
    return seen_by_one, two.table.by_id[one.node_id]


async def test_two_nodes_meet_and_part() -> None:
    async with quiet_node() as one, quiet_node() as two:
        there, here = await meet(one, two)
        assert list(one.peers) == [f"{LOOPBACK}:{two.listen_port}"]
        assert (there.outbound, here.outbound) == (True, False)
        assert here.listen_address == f"{LOOPBACK}:{one.listen_port}"
        assert there.info.user_agent == one.config.user_agent
        await until(lambda: there.latency is not None and here.latency is not None)
        assert not await one.disconnect_peer("127.0.0.1:1")
        assert await two.disconnect_peer(f"{LOOPBACK}:{one.listen_port}")
        await until(lambda: not one.peers and not two.peers)
        assert there.drop_reason == "disconnected by its user"


async def test_nothing_is_left_of_a_node() -> None:
    descriptors = await open_descriptors()
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    for _ in range(2):
        async with quiet_node() as one, quiet_node() as two:
            there, _ = await meet(one, two)
            strangers = [
                asyncio.ensure_future(read_and_close(raw))
                for raw in (await RawPeer.connect(one), await RawPeer.meet(two))
            ]
            stuck = asyncio.Event()

            async def hang(peer: Peer, message: Message, stuck: asyncio.Event = stuck) -> None:
                await one.runtime.run(len, b"")  # so that there are threads to end
                stuck.set()
                await asyncio.Event().wait()

            two.register_handler(MessageType.GET_BLOCKS, hang)
            two.register_handler(MessageType.NEW_BLOCK_HASHES, hang)
            there.send(NewBlockHashesMessage(hashes=()))
            asked = asyncio.ensure_future(
                there.request(GetBlocksMessage(start_height=0, end_height=0))
            )
            await stuck.wait()
            assert set(threading.enumerate()) > threads
        assert (await asyncio.gather(asked, return_exceptions=True))[0].args
        assert await asyncio.gather(*strangers) == [None, DisconnectCode.SHUTTING_DOWN]
        assert asyncio.all_tasks() == tasks
        assert set(threading.enumerate()) == threads
    assert await open_descriptors() == descriptors


async def test_a_node_can_start_again_and_stop_twice() -> None:
    node, other = P2PNode(config=QUIET), P2PNode(config=QUIET)
    for _ in range(2):
        async with node, other:
            await meet(node, other)
    await node.stop()
    with pytest.raises(NetworkError, match="not running"):
        await node.connect_peer(LOOPBACK, 1)


async def test_stop_from_within_a_handler_does_not_wait_for_itself() -> None:
    async with quiet_node() as one, quiet_node() as two:
        there, _ = await meet(one, two)

        async def leave(peer: Peer, message: Message) -> None:
            await two.stop()

        two.register_handler(MessageType.NEW_BLOCK_HASHES, leave)
        there.send(NewBlockHashesMessage(hashes=()))
        await until(lambda: not two.running and not one.peers)


async def test_a_port_in_use_is_one_clear_error() -> None:
    async with quiet_node() as node:
        second = P2PNode(config=QUIET, listen_port=node.listen_port)
        with pytest.raises(NetworkError, match=f"cannot listen on 127.0.0.1:{node.listen_port}"):
            await second.start()
        await second.stop()


async def test_nobody_there_is_one_clear_error() -> None:
    async with quiet_node() as node, quiet_node() as gone:
        port = gone.listen_port
        await gone.stop()
        with pytest.raises(ConnectError, match=rf"127\.0\.0\.1:{port}: .*refused"):
            await node.connect_peer(LOOPBACK, port)
        assert await asyncio.gather(
            *(node.connect_peer(LOOPBACK, port) for _ in range(3)), return_exceptions=True
        )
        assert not len(node.dialer)
        assert not len(node.gate)


async def test_a_dial_that_is_cancelled_leaves_nothing() -> None:
    async def say_nothing(raw: RawPeer) -> None:
        await raw.read_goodbye()

    async with quiet_node() as node, raw_listener(say_nothing) as port:
        dial = asyncio.ensure_future(node.connect_peer(LOOPBACK, port))
        await until(lambda: len(node.gate) == 1)
        dial.cancel()
        await asyncio.wait([dial])
        await until(lambda: not len(node.gate))
        assert not len(node.dialer)


async def test_the_same_address_dialled_twice_at_once_is_one_connection() -> None:
    async with quiet_node() as one, quiet_node() as two:
        peers = await asyncio.gather(
            *(one.connect_peer(LOOPBACK, two.listen_port) for _ in range(3))
        )
        assert len(set(peers)) == 1
        assert len(one.gate) == 1


async def test_a_name_is_resolved_on_our_own_threads() -> None:
    async with quiet_node() as one, quiet_node() as two:
        peer = await one.connect_peer("localhost", two.listen_port)
        assert peer.node_id == two.node_id
        with pytest.raises(ConnectError, match=r"no-such-host\.invalid:1"):
            await one.connect_peer("no-such-host.invalid", 1)


# --- choosing and hearing ----------------------------------------------------------------------


async def test_best_and_random_peers() -> None:
    async with quiet_node() as node:
        assert node.get_best_peer() is None
        assert node.get_random_peer() is None
        raws = [
            await RawPeer.meet(node, node_id=bytes([i]) * 32, best_height=height)
            for i, height in enumerate((5, 9, 7))
        ]
        await until(lambda: len(node.peers) == 3)
        best = node.get_best_peer()
        assert best is not None
        assert best.best_height == 9
        assert {node.get_random_peer() for _ in range(200)} == set(node.peers.values())
        for raw in raws:
            await raw.close()


async def test_hooks_hear_of_comings_and_goings(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[tuple[str, Any]] = []

    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0)
        heard.append(("async", peer))

    def broken(peer: Peer) -> None:
        raise RuntimeError("hook at fault")

    async with quiet_node() as node:
        node.on_peer_connected += [broken, lambda peer: heard.append(("came", peer)), slow]
        node.on_peer_disconnected.append(lambda peer: heard.append(("went", peer)))
        async with await RawPeer.meet(node) as raw:
            await until(lambda: len(heard) == 2)
            peer = node.peers[raw.address]
        await until(lambda: len(heard) == 3)
        assert heard == [("came", peer), ("async", peer), ("went", peer)]
        assert "hook at fault" in caplog.text


async def test_one_line_is_logged_for_a_peer_that_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with quiet_node() as node:
        with caplog.at_level("INFO", logger="moderntensor"):
            async with await RawPeer.meet(node) as raw:
                await raw.read(PingMessage)
                node.peers[raw.address].disconnect(DisconnectCode.BAD_BLOCK, "no\x1b[2Jgood")
                goodbye = await raw.read(DisconnectMessage)
                assert (goodbye.code, goodbye.reason) == (11, "no?[2Jgood")
        lines = [r.getMessage() for r in caplog.records if raw.address in r.getMessage()]
        assert len([line for line in lines if line.startswith("dropped")]) == 1
        assert "no?[2Jgood, code 11" in lines[-1]


# --- without a chain ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        GetBlocksMessage(start_height=0, end_height=5),
        GetHeadersMessage(start_height=0),
        GetHeadersMessage(locator=(b"x" * 32,)),
        GetBlockBodiesMessage(hashes=(b"x" * 32,)),
        GetTransactionsMessage(hashes=(b"x" * 32,)),
        GetStateMessage(block_hash=b"x" * 32),
        GetStateNodesMessage(block_hash=b"x" * 32, paths=((0, bytes(32)),)),
    ],
    ids=lambda m: m.TYPE.name,
)
async def test_what_a_node_without_a_chain_does_not_have(request_: Request) -> None:
    async with quiet_node() as one, quiet_node() as two:
        there, _ = await meet(one, two)
        reply = await there.request(request_)
        assert (reply.status, reply.count) == (Status.NOT_FOUND, 0)


async def test_a_handler_may_answer_in_place_of_the_node() -> None:
    async with quiet_node() as one, quiet_node() as two:
        there, here = await meet(one, two)

        async def answer(peer: Peer, message: GetBlocksMessage) -> BlocksMessage | None:
            assert peer is here
            if message.start_height:
                return None
            return BlocksMessage(request_id=0, blocks=(b"mine",))

        two.register_handler(MessageType.GET_BLOCKS, answer)
        reply = await there.request(GetBlocksMessage(start_height=0, end_height=0))
        assert reply == BlocksMessage(request_id=reply.request_id, blocks=(b"mine",))
        reply = await there.request(GetBlocksMessage(start_height=1, end_height=1))
        assert reply.status == Status.NOT_FOUND


async def test_a_broadcast_reaches_everyone() -> None:
    async with quiet_node() as hub, quiet_node() as one, quiet_node() as two:
        got: list[Message] = []

        async def hear(peer: Peer, message: Message) -> None:
            got.append(message)

        for node in (one, two):
            node.register_handler(MessageType.NEW_BLOCK_HASHES, hear)
            await meet(hub, node)
        news = NewBlockHashesMessage(hashes=((b"h" * 32, 7),))
        assert await hub.broadcast(news) == 2
        await until(lambda: got == [news, news])
        with pytest.raises(TypeError, match="is a request"):
            await hub.broadcast(GetPeersMessage())


async def test_peers_are_told_of_those_that_were_met() -> None:
    async with quiet_node() as hub, quiet_node() as one, quiet_node() as two:
        await meet(one, hub)
        there, _ = await meet(two, hub)
        reply = await there.request(GetPeersMessage(max_peers=10))
        assert isinstance(reply, PeersMessage)
        (record,) = reply.peers
        assert (record.node_id, record.port) == (one.node_id, one.listen_port)
        assert (await there.request(GetPeersMessage(max_peers=0))).count == 0


# --- settings ----------------------------------------------------------------------------------


def test_arguments_count_before_the_configuration() -> None:
    config = NodeConfig(listen_port=1, network_id=2, max_peers=3)
    node = P2PNode(9, config=config, network_id=8)
    assert (node.listen_port, node.config.network_id, node.config.max_peers) == (9, 8, 3)
    identity = NodeIdentity.generate()
    assert P2PNode(identity=identity).node_id == identity.node_id
    assert P2PNode(node_id=b"\x01" * 32).node_id == b"\x01" * 32
    assert P2PNode().node_id != P2PNode().node_id


@pytest.mark.parametrize(
    "arguments",
    [
        {"node_id": b"short"},
        {"bootstrap_nodes": ["nowhere"]},
        {"bootstrap_nodes": ["::1:30303"]},
        {"bootstrap_nodes": ["host:0"]},
        {"listen_port": 70000},
        {"max_peers": 0},
        {"max_peers": 10**23},
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        P2PNode(**arguments)


async def test_a_node_that_does_not_listen_can_dial() -> None:
    async with quiet_node() as one, quiet_node(listen=False) as two:
        there, here = await meet(two, one)
        assert two.listen_port == 0
        assert here.listen_address is None
        assert not there.closed


async def test_a_runtime_that_was_given_stays_open() -> None:
    runtime = Runtime(workers=1)
    async with P2PNode(config=QUIET, runtime=runtime) as node:
        await node.runtime.run(len, b"")
    assert await runtime.run(len, b"abc") == 3
    runtime.close()


async def test_a_failure_of_its_own_surfaces_when_it_stops() -> None:
    node = P2PNode(config=QUIET)

    async def fail() -> None:
        raise ZeroDivisionError("a fault of ours")

    await node.start()
    node.discovery.run = fail  # type: ignore[method-assign]
    task = node.tasks.start(node.discovery.run(), "discovery")
    await asyncio.wait([task])
    with pytest.raises(ZeroDivisionError):
        await node.stop()
    assert not node.running
    async with P2PNode(config=QUIET) as other, await RawPeer.meet(other) as raw:
        raw.send(PingMessage(nonce=3))
        await raw.read(PingMessage)
        assert (await raw.read(PongMessage)).nonce == 3


async def test_all_connections_of_a_node_read_into_one_buffer() -> None:
    got: list[tuple[bytes, int]] = []

    async def handler(peer: Peer, message: NewBlockHashesMessage) -> None:
        got.extend(message.hashes)

    async with quiet_node() as node, AsyncExitStack() as stack:
        node.register_handler(MessageType.NEW_BLOCK_HASHES, handler)
        raws = [
            await stack.enter_async_context(await RawPeer.meet(node, node_id=bytes([i + 1]) * 32))
            for i in range(3)
        ]
        await until(lambda: len(node.peers) == 3)
        buffers = {id(peer.connection.get_buffer(-1)) for peer in node.peers.values()}
        assert len(buffers) == 1
        # Halves of frames that come in between each other stay apart.
        frames = [
            MessageCodec.encode(NewBlockHashesMessage(hashes=((bytes([i]) * 32, i),)))
            for i in range(3)
        ]
        for at in range(0, len(frames[0]), 7):
            for raw, frame in zip(raws, frames, strict=True):
                before = node.peers[raw.address].connection.bytes_received
                raw.write(frame[at : at + 7])
                await until(
                    lambda raw=raw, before=before: (
                        node.peers[raw.address].connection.bytes_received > before
                    )
                )
        await until(lambda: len(got) == 3)
        assert got == [(bytes([i]) * 32, i) for i in range(3)]
