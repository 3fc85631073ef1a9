"""Who gets in: places, eviction, attempts, and what becomes of two connections with one node."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from helpers.rawpeer import QUIET, RawPeer, hello_message, quiet_node, raw_listener, until

from moderntensor.errors import ConnectError, HandshakeError
from moderntensor.network import heartbeat
from moderntensor.network.limits import PENDING_HANDSHAKES, RETRY_AFTER_MAX
from moderntensor.network.messages import (
    DisconnectCode,
    DisconnectMessage,
    HelloMessage,
    MessageCodec,
    PingMessage,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer

LOOPBACK = "127.0.0.1"
# So that each address of this machine is a stranger of its own, in the netgroup of its second
# number.
STRICT = {"exempt_local": False}


async def come(node: P2PNode, host: str) -> RawPeer:
    """Open a connection to `node` from an address of this machine."""
    return RawPeer(*await asyncio.open_connection(LOOPBACK, node.listen_port, local_addr=(host, 0)))


async def meet(node: P2PNode, host: str) -> RawPeer:
    """And shake hands, under an id that goes with the address."""
    raw = await come(node, host)
    raw.send(hello_message(node_id=host.encode().ljust(32, b"\0")))
    await raw.read(HelloMessage)
    return raw


def hosts(node: P2PNode) -> set[str]:
    return {peer.host_address for peer in node.table}


# --- places ------------------------------------------------------------------------------------


async def test_those_who_dial_us_never_fill_the_places_of_those_whom_we_dial() -> None:
    async with quiet_node(max_peers=4, target_outbound=2) as node, AsyncExitStack() as stack:
        raws = [await stack.enter_async_context(await meet(node, f"127.0.0.{i}")) for i in range(3)]
        assert await raws[2].read_goodbye() == DisconnectCode.TOO_MANY_PEERS
        for _ in range(2):
            other = await stack.enter_async_context(quiet_node())
            await node.connect_peer(LOOPBACK, other.listen_port)
        info = node.info
        assert (info.inbound, info.inbound_limit) == (2, 2)
        assert (info.outbound, info.target_outbound, info.max_peers) == (2, 2, 4)
        assert (info.pending, info.dialling, info.extra) == (0, 0, 0)
        assert (await stack.enter_async_context(quiet_node())).info.sockets == 0


async def test_a_newcomer_takes_the_place_of_a_party_that_holds_many() -> None:
    settings = {**STRICT, "max_peers": 16, "max_inbound": 12, "redial_interval": 7.0}
    async with quiet_node(**settings) as node, AsyncExitStack() as stack:

        async def enter(host: str) -> RawPeer:
            return await stack.enter_async_context(await meet(node, host))

        party = [await enter(f"127.66.0.{number}") for number in range(1, 13)]
        await until(lambda: len(node.peers) == 12)
        newcomer = await enter("127.7.0.1")
        await until(lambda: "127.7.0.1" in hosts(node))
        assert len(node.peers) == 12
        goodbye = None
        while not isinstance(goodbye, DisconnectMessage):  # the youngest of them
            goodbye = await party[-1].read_any()
        assert (goodbye.code, goodbye.retry_after) == (DisconnectCode.EVICTED, 7)
        # However often they come again, they take places from each other.
        for number in range(100, 120):
            await enter(f"127.66.1.{number}")
            await until(lambda number=number: f"127.66.1.{number}" in hosts(node))
        assert "127.7.0.1" in hosts(node)
        assert not newcomer.reader.at_eof()
        assert node.info.inbound == 12


async def test_local_peers_are_not_evicted_unless_they_count_as_strangers() -> None:
    async with (
        quiet_node(max_peers=4, max_inbound=1) as node,
        await meet(node, "127.1.0.1") as first,
        await meet(node, "127.2.0.1") as second,
    ):
        assert await second.read_goodbye() == DisconnectCode.TOO_MANY_PEERS
        assert hosts(node) == {"127.1.0.1"}
        assert not first.reader.at_eof()


# --- attempts ----------------------------------------------------------------------------------


async def test_a_host_may_come_once_in_an_interval() -> None:
    async with quiet_node(**STRICT, redial_interval=3600.0) as node:
        async with await meet(node, "127.5.0.1"):
            pass
        async with await come(node, "127.5.0.1") as again:
            again.send(hello_message())
            assert await again.read_any() is None  # without a word
        async with await meet(node, "127.5.0.2"):
            await until(lambda: hosts(node) == {"127.5.0.2"})
    async with quiet_node(**STRICT, redial_interval=0.01) as node:
        for _ in range(3):
            async with await meet(node, "127.5.0.1"):
                await asyncio.sleep(0.02)


async def test_no_one_party_can_hold_all_handshakes() -> None:
    async with quiet_node(**STRICT) as node, AsyncExitStack() as stack:
        slow = await stack.enter_async_context(await come(node, "127.7.0.1"))
        await until(lambda: node.info.pending == 1)
        for number in range(PENDING_HANDSHAKES + 10):
            await stack.enter_async_context(await come(node, f"127.66.1.{number + 1}"))
        await until(lambda: node.info.pending == PENDING_HANDSHAKES)
        slow.send(hello_message())  # the oldest, and still there
        await slow.read(HelloMessage)
        await until(lambda: hosts(node) == {"127.7.0.1"})


@pytest.mark.parametrize("told", [5, 2**32 - 1])
async def test_who_is_told_to_stay_away_does_so_within_reason(told: int) -> None:
    visits = 0

    async def turn_away(raw: RawPeer) -> None:
        nonlocal visits
        visits += 1
        await raw.read(HelloMessage)
        full = DisconnectMessage(
            code=DisconnectCode.TOO_MANY_PEERS, reason="full", retry_after=told
        )
        raw.write(MessageCodec.encode(hello_message()) + MessageCodec.encode(full))
        await raw.read_goodbye()

    config = QUIET.replace(bootstrap_redial=0.01, bootstrap_redial_max=0.01)
    async with (
        raw_listener(turn_away) as port,
        P2PNode(bootstrap_nodes=[f"{LOOPBACK}:{port}"], config=config) as node,
    ):
        await until(lambda: visits == 1 and not len(node.gate))
        await asyncio.sleep(0.1)
        assert visits == 1
        entry = node.book.get(LOOPBACK, port)
        assert entry is not None
        away = entry.next_dial - node.runtime.loop_time()
        assert min(told, RETRY_AFTER_MAX) - 5 < away <= min(told, RETRY_AFTER_MAX)


async def test_a_socket_that_meets_itself_is_nobody() -> None:
    """TCP connects a socket to itself if it dials the port that it dials from."""
    async with quiet_node() as node:
        with socket.create_server((LOOPBACK, 0)) as taken:
            port = taken.getsockname()[1]
        loop = asyncio.get_running_loop()
        handshake = node.gate.dial(None)
        await loop.create_connection(
            lambda: handshake.connection, LOOPBACK, port, local_addr=(LOOPBACK, port)
        )
        await until(lambda: handshake.done)
        assert "nobody is there" in str(handshake.error)
        assert node.book.learn(LOOPBACK, port, b"x" * 32, 0, LOOPBACK)  # not taken for our own


# --- feelers -----------------------------------------------------------------------------------


async def test_a_feeler_finds_out_who_is_there_and_takes_no_place() -> None:
    came: list[Peer] = []
    async with quiet_node() as one, quiet_node() as two, quiet_node(network_id=9) as foreign:
        one.on_peer_connected.append(came.append)
        two.on_peer_connected.append(came.append)
        assert await one.dialer.feel(LOOPBACK, two.listen_port) == two.node_id
        await until(lambda: not len(one.gate) and not len(two.gate))
        assert not [peer for peer in came if peer.outbound]
        assert not one.peers
        assert all(peer.drop_code == DisconnectCode.SHUTTING_DOWN for peer in came)
        with pytest.raises(HandshakeError, match="network"):
            await one.dialer.feel(LOOPBACK, foreign.listen_port)
        with pytest.raises(HandshakeError, match="itself"):
            await one.dialer.feel(LOOPBACK, one.listen_port)
        port = foreign.listen_port
        await foreign.stop()
        with pytest.raises(ConnectError, match="refused"):
            await one.dialer.feel(LOOPBACK, port)


# --- two connections with one node -------------------------------------------------------------


async def agree(one: P2PNode, two: P2PNode) -> None:
    """Wait until two nodes have one connection, and the same."""

    def agreed() -> bool:
        if not (len(one.gate) == len(two.gate) == len(one.table) == len(two.table) == 1):
            return False
        (here,), (there,) = one.table, two.table
        ends = (here.connection.local_address, here.connection.remote_address)
        return ends == (there.connection.remote_address, there.connection.local_address)

    await until(agreed)


@pytest.mark.parametrize("transport", ["plaintext", "secure"])
async def test_nodes_that_dial_each_other_at_one_instant_end_with_one_connection(
    transport: str,
) -> None:
    for _ in range(12):
        async with quiet_node(transport=transport) as one, quiet_node(transport=transport) as two:
            await asyncio.gather(
                one.connect_peer(LOOPBACK, two.listen_port),
                two.connect_peer(LOOPBACK, one.listen_port),
                return_exceptions=True,
            )
            await agree(one, two)


@pytest.mark.parametrize("transport", ["plaintext", "secure"])
async def test_a_node_dialled_under_several_addresses_at_one_instant_is_one_peer(
    transport: str,
) -> None:
    for _ in range(12):
        async with (
            quiet_node(transport=transport, listen_host="0.0.0.0") as one,  # noqa: S104
            quiet_node(transport=transport, listen_host="0.0.0.0") as two,  # noqa: S104
        ):
            await asyncio.gather(
                *(two.connect_peer(f"127.0.0.{i}", one.listen_port) for i in range(1, 5)),
                *(one.connect_peer(f"127.0.0.{i}", two.listen_port) for i in range(1, 3)),
                return_exceptions=True,
            )
            await agree(one, two)


@pytest.mark.parametrize("dialler", ["one", "two"])
async def test_another_address_of_a_peer_does_not_cost_us_the_connection(dialler: str) -> None:
    """It may lead through somebody who wants to have it in his hands."""
    settings: dict[str, Any] = {"transport": "secure", "listen_host": "0.0.0.0"}  # noqa: S104
    for _ in range(4):  # whose id is the lower one is left to chance
        async with quiet_node(**settings) as one, quiet_node(**settings) as two:
            if dialler == "one":
                await one.connect_peer(LOOPBACK, two.listen_port)
            else:
                await two.connect_peer(LOOPBACK, one.listen_port)
            await until(lambda: one.peers and two.peers)
            (before,), (there,) = one.table, two.table
            assert await one.dialer.feel("127.0.0.2", two.listen_port) == two.node_id
            assert await one.connect_peer("127.0.0.3", two.listen_port) is before
            await until(lambda: len(one.gate) == len(two.gate) == 1)
            assert (list(one.table), list(two.table)) == ([before], [there])


@asynccontextmanager
async def silent_line(node: P2PNode) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port that leads to `node` until the event is set: then nothing passes any more and
    nobody is told."""
    cut = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not cut.is_set():
                writer.write(data)
        await asyncio.Event().wait()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(LOOPBACK, node.listen_port)
        writers.extend((writer, back))
        tasks.append(asyncio.ensure_future(pump(reader, back)))
        tasks.append(asyncio.ensure_future(pump(there, writer)))

    tasks: list[asyncio.Future[None]] = []
    server = await asyncio.start_server(accept, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1], cut
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


@pytest.mark.parametrize("who_dialled_first", ["lower", "higher"])
@pytest.mark.parametrize("who_forgets", ["lower", "higher"])
async def test_a_dead_connection_does_not_keep_its_node_out(
    monkeypatch: pytest.MonkeyPatch, who_dialled_first: str, who_forgets: str
) -> None:
    """One side has lost its end, the other has heard nothing of it and holds on to its own."""
    monkeypatch.setattr(heartbeat, "PROBE_TIMEOUT", 0.05)
    settings: dict[str, Any] = {"transport": "secure", "ping_interval": 0.02}
    async with quiet_node(**settings) as one, quiet_node(**settings) as two:
        low, high = sorted((one, two), key=lambda node: node.node_id)
        dialler, listener = (low, high) if who_dialled_first == "lower" else (high, low)
        forgetful, faithful = (low, high) if who_forgets == "lower" else (high, low)
        async with silent_line(listener) as (port, cut):
            await dialler.connect_peer(LOOPBACK, port)
            await until(lambda: low.peers and high.peers)
            cut.set()
            (lost,) = forgetful.table
            lost.connection.abort()
            await until(lambda: not forgetful.peers)
            (left,) = faithful.table
            left.connection.close_timeout = 0.05  # nobody will close its other end
            while not forgetful.peers:
                try:
                    await forgetful.connect_peer(LOOPBACK, faithful.listen_port)
                except (HandshakeError, ConnectError):
                    await asyncio.sleep(0.02)
            await until(lambda: len(faithful.table) == 1)
            await agree(low, high)
            (peer,) = forgetful.table
            nonce = peer.connection.frames_received
            peer.send(PingMessage(nonce=nonce))  # it lives
            await until(lambda: peer.connection.frames_received > nonce)
