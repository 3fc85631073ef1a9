"""Dials, handlers and the node itself ended at awkward moments: nothing hangs, nothing is left."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from helpers.rawpeer import QUIET, RawPeer, quiet_node, raw_listener, until
from helpers.sockets import open_descriptors
from helpers.sync_nodes import extend, grown

from moderntensor.blockchain.chain_types import HeadChanged
from moderntensor.blockchain.mempool import Mempool
from moderntensor.errors import ConfigError, ConnectError, HandshakeError, ProtocolViolationError
from moderntensor.network import dialer
from moderntensor.network.limits import BUSY_BURST, CLOSING_CONNECTIONS
from moderntensor.network.messages import (
    BlocksMessage,
    DisconnectCode,
    GetBlocksMessage,
    GetPeersMessage,
    MessageCodec,
    MessageType,
    NewBlockHashesMessage,
    PeersMessage,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer

LOOPBACK = "127.0.0.1"


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port where no TCP connection comes about: its queue is full."""
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(server.getsockname())
        try:
            yield server.getsockname()[1]
        finally:
            for filler in fillers:
                filler.close()


async def leave_when_told(raw: RawPeer) -> None:
    await raw.read_goodbye()
    await raw.close()


# --- dialling ----------------------------------------------------------------------------------


async def test_stopping_ends_the_dials_of_its_user() -> None:
    with deaf_port() as port:
        async with quiet_node(connect_timeout=3600.0, listen=False) as node:
            dial = asyncio.ensure_future(node.connect_peer(LOOPBACK, port))
            await until(lambda: len(node.gate) == 1)
            unborn = asyncio.ensure_future(node.connect_peer("127.0.0.2", port))
            await asyncio.sleep(0)
            assert len(node.dialer) == 2
        with pytest.raises(ConnectError, match="ended"):
            await dial
        with pytest.raises(ConnectError, match="ended"):
            await unborn
        assert not len(node.dialer)


async def test_stopping_ends_who_waits_to_dial_another_node_at_the_same_address() -> None:
    with deaf_port() as port:
        async with quiet_node(connect_timeout=3600.0, listen=False) as node:
            dials = [
                asyncio.ensure_future(node.connect_peer(LOOPBACK, port, node_id=node_id))
                for node_id in (None, b"x" * 32)
            ]
            await until(lambda: len(node.gate) == 1)
        for dial in dials:
            with pytest.raises(ConnectError, match="ended"):
                await dial


async def test_a_dial_goes_on_for_others_when_one_gives_up() -> None:
    async with quiet_node() as one, quiet_node() as two:
        first, second = (
            asyncio.ensure_future(one.connect_peer(LOOPBACK, two.listen_port)) for _ in range(2)
        )
        await asyncio.sleep(0)
        assert len(one.dialer) == 1
        first.cancel()
        assert (await second).node_id == two.node_id
        assert first.cancelled()


async def test_whoever_fails_to_dial_together_learns_why() -> None:
    async with quiet_node() as one, quiet_node(network_id=9) as two:
        errors = await asyncio.gather(
            *(one.connect_peer(LOOPBACK, two.listen_port) for _ in range(3)),
            return_exceptions=True,
        )
        codes = {error.code for error in errors if isinstance(error, HandshakeError)}
        assert (len(errors), codes) == (3, {DisconnectCode.WRONG_NETWORK})


async def test_nobody_else_stands_in_for_an_expected_id() -> None:
    async with quiet_node() as one, quiet_node() as two:
        await one.connect_peer(LOOPBACK, two.listen_port)
        with pytest.raises(HandshakeError) as error:
            await one.connect_peer(LOOPBACK, two.listen_port, node_id=b"x" * 32)
        assert error.value.code == DisconnectCode.IDENTITY
        both = await asyncio.gather(
            one.connect_peer("127.0.0.3", 1),
            one.connect_peer("127.0.0.3", 1, node_id=b"x" * 32),
            return_exceptions=True,
        )
        assert all(isinstance(outcome, ConnectError) for outcome in both)


@pytest.mark.parametrize("name", ["a..b", "l" * 64 + ".example", ".", "\0"])
async def test_what_is_no_host_name_is_one_clear_error(name: str) -> None:
    async with quiet_node() as node:
        with pytest.raises(ConnectError):
            await node.connect_peer(name, 1)


async def test_a_bootstrap_name_of_our_own_is_dialled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[str] = []

    async def resolve(_: object, host: str, port: int) -> list[str]:
        dialled.append(host)
        return [LOOPBACK]

    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr(dialer, "resolve", resolve)
    config = QUIET.replace(listen_port=port)
    async with P2PNode(bootstrap_nodes=[f"our.example:{port}"], config=config) as node:
        await until(lambda: not len(node.book))
        assert dialled == ["our.example"]
        assert ("our.example", port) not in node.book


# --- starting and stopping ---------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(6))
async def test_a_start_that_is_cancelled_leaves_nothing(turns: int) -> None:
    descriptors = await open_descriptors()
    node = P2PNode(config=QUIET)
    starting = asyncio.ensure_future(node.start())
    for _ in range(turns):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    await node.stop()
    assert not node.running
    assert await open_descriptors() == descriptors


@pytest.mark.parametrize("turns", [1, 2, 4, 6, 8])
async def test_a_stop_that_is_cancelled_can_be_completed(turns: int) -> None:
    tasks = asyncio.all_tasks()
    node = P2PNode(config=QUIET)
    await node.start()
    port = node.listen_port
    leaving = asyncio.ensure_future(leave_when_told(await RawPeer.meet(node)))
    stopping = asyncio.ensure_future(node.stop())
    for _ in range(turns):
        await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.wait([stopping])
    await node.stop()
    assert not len(node.gate)
    assert not node.peers
    await leaving
    assert asyncio.all_tasks() == tasks
    with pytest.raises(OSError):
        await asyncio.open_connection(LOOPBACK, port)


async def test_stopping_twice_at_once_ends_when_it_has_ended() -> None:
    async with quiet_node() as node:
        leaving = asyncio.ensure_future(leave_when_told(await RawPeer.meet(node)))
        stops = [asyncio.ensure_future(node.stop()) for _ in range(2)]
        await asyncio.wait(stops, return_when=asyncio.FIRST_COMPLETED)
        assert not len(node.gate)
        assert not len(node.tasks)
        await asyncio.gather(*stops, leaving)


# --- what is not ours --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["HELLO", "PING", "PONG", "DISCONNECT"])
async def test_what_concerns_the_connection_alone_takes_no_handler(kind: str) -> None:
    async def never(peer: Peer, message: Any) -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match=kind):
        P2PNode(config=QUIET).register_handler(MessageType[kind], never)


async def test_a_handler_that_is_cancelled_from_within_has_failed_and_no_more() -> None:
    async def cancelled(peer: Peer, message: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    heard = []

    async def hear(peer: Peer, message: Any) -> None:
        heard.append(message)

    async with quiet_node() as node:
        node.register_handler(MessageType.NEW_BLOCK_HASHES, cancelled)
        node.register_handler(MessageType.NEW_BLOCK_HASHES, hear)
        node.register_handler(MessageType.GET_BLOCKS, cancelled)
        async with await RawPeer.meet(node) as raw:
            raw.send(
                NewBlockHashesMessage(hashes=()),
                GetBlocksMessage(request_id=1, start_height=0, end_height=0),
                GetPeersMessage(request_id=2),
                NewBlockHashesMessage(hashes=()),
            )
            await raw.read_any()  # PING
            assert (await raw.read(BlocksMessage)).status == Status.BUSY
            assert (await raw.read(PeersMessage)).request_id == 2
            await until(lambda: len(heard) == 2)


async def test_a_breach_of_a_code_that_does_not_exist_is_a_protocol_error() -> None:
    async def complain(peer: Peer, message: Any) -> None:
        raise ProtocolViolationError(99, "no such code")

    async with quiet_node() as node:
        node.register_handler(MessageType.NEW_BLOCK_HASHES, complain)
        async with await RawPeer.meet(node) as raw:
            raw.send(NewBlockHashesMessage(hashes=()))
            assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR


async def test_a_callback_may_drop_who_is_being_dropped_and_may_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(peer: Peer) -> None:
        raise RuntimeError("of the callback")

    async with quiet_node() as node:
        node.on_peer_disconnected += [lambda peer: peer.disconnect(DisconnectCode.USELESS), fail]
        async with await RawPeer.meet(node) as raw:
            raw.write(bytes(4))
            assert await raw.read_goodbye() == DisconnectCode.PROTOCOL_ERROR
        await until(lambda: "of the callback" in caplog.text)
    assert "Fatal error" not in caplog.text


# --- floods ------------------------------------------------------------------------------------


async def test_asking_on_and_on_over_the_limits_ends_even_if_the_answers_are_read() -> None:
    async with quiet_node(max_inflight=1) as node, await RawPeer.meet(node) as raw:
        request = MessageCodec.encode(GetPeersMessage(request_id=1))

        async def flood() -> None:
            with suppress(ConnectionError):
                for _ in range(10 * int(BUSY_BURST) // 100):
                    raw.write(request * 100)
                    await raw.writer.drain()

        flooding = asyncio.ensure_future(flood())
        assert await raw.read_goodbye() == DisconnectCode.LIMITS
        await flooding


async def test_dropped_peers_that_hold_on_to_their_sockets_are_bounded() -> None:
    async with quiet_node() as node:
        raws = []
        for number in range(CLOSING_CONNECTIONS + 30):
            raw = await RawPeer.meet(node, node_id=number.to_bytes(32, "big"))
            raw.write(bytes(4))
            raws.append(raw)
            await until(lambda: not node.peers)
            assert len(node.gate) <= CLOSING_CONNECTIONS + 2
        for raw in raws:
            await raw.close()


@pytest.mark.parametrize("turns", range(5))
async def test_a_socket_accepted_while_stopping_is_closed(turns: int) -> None:
    node = P2PNode(config=QUIET)
    await node.start()
    with socket.create_connection((LOOPBACK, node.listen_port)) as dialler:
        for _ in range(turns):
            await asyncio.sleep(0)
        await node.stop()
        gc.collect()  # what nobody closed would warn here, and warnings are errors
        dialler.settimeout(5)
        with suppress(ConnectionResetError):
            assert dialler.recv(1) == b""


async def test_a_silent_listener_keeps_no_stopping_node_waiting() -> None:
    async def say_nothing(raw: RawPeer) -> None:
        await raw.read_goodbye()

    async with raw_listener(say_nothing) as port:
        async with quiet_node(handshake_timeout=3600.0) as node:
            dial = asyncio.ensure_future(node.connect_peer(LOOPBACK, port))
            await until(lambda: len(node.gate) == 1)
        with pytest.raises(ConnectError):
            await dial


async def test_an_error_when_a_peer_ends_keeps_no_node_from_stopping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[BaseException | None] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: heard.append(context.get("exception"))
    )

    def fail(_: Peer, __: BaseException | None) -> None:
        raise LookupError("a fault of ours")

    async with quiet_node() as node, await RawPeer.meet(node) as raw:
        await until(lambda: len(node.peers) == 1)
        monkeypatch.setattr(Peer, "on_closed", fail)
        await raw.close()
        await until(lambda: not len(node.gate))
    assert [type(error) for error in heard] == [LookupError]


# --- the chain ---------------------------------------------------------------------------------


async def test_an_attached_pool_follows_the_chain_that_it_is_attached_with() -> None:
    node, chain = P2PNode(config=QUIET), grown(2)
    pool = Mempool(chain)
    heard: list[HeadChanged] = []
    pool.on_head_changed = heard.append  # type: ignore[method-assign,assignment]
    node.attach_chain(chain, pool)
    extend(chain, 1)
    assert [event.head for event in heard] == [chain.head]
    node.attach_chain(chain)
    extend(chain, 1)
    assert len(heard) == 1


async def test_a_chain_attached_later_is_the_one_whose_news_are_told() -> None:
    node = P2PNode(config=QUIET)
    before, after = grown(2), grown(2)
    node.attach_chain(before)
    async with node, await RawPeer.meet(node, best_height=2) as raw:
        node.attach_chain(after)
        await until(lambda: len(after._listeners) > len(before._listeners))
        extend(after, 1)
        while not isinstance(message := await raw.read_any(), type(None)):
            if message.TYPE == MessageType.NEW_BLOCK:
                break
        assert message is not None
