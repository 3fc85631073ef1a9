"""Whole nodes over the encrypted transport: what is on the wire, whom they admit, what they say to
those who speak something else."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress

import pytest
from helpers.rawpeer import QUIET, hello_message
from helpers.relay import relay_to
from helpers.secure import DIALLER, End
from helpers.sockets import eventually

from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.transaction import Transaction
from moderntensor.errors import ConnectError, HandshakeError
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.messages import (
    DisconnectCode,
    DisconnectMessage,
    HelloMessage,
    Message,
    MessageCodec,
    PingMessage,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.node import FullNode

SECURE = QUIET.replace(transport="secure")
HANDSHAKE_SENT, HANDSHAKE_ANSWERED = 2 + 32 + 2 + 64, 2 + 96


class EncryptedClient:
    """A peer of the encrypted transport that need not be honest above it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.end = End(initiator=True)
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, node: P2PNode) -> EncryptedClient:
        self = cls(*await asyncio.open_connection("127.0.0.1", node.listen_port))
        self.write(self.end.take())
        while not self.end.channel.ready:
            await self.read()
        self.write(self.end.take())
        return self

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def send(self, message: Message) -> None:
        self.write(self.end.seal(MessageCodec.encode(message)))

    async def read(self) -> bool:
        """Some bytes; False at the end."""
        async with asyncio.timeout(10):
            data = await self._reader.read(65536)
        self.end.receive(data)
        return bool(data)

    async def read_to_the_end(self) -> list[bytes]:
        """The payloads of all frames that come."""
        for kind in (0, 3):
            self.end.decoder.set_cap(kind, 2048)
        while await self.read():
            pass
        self._writer.close()
        return [payload for _, payload in self.end.frames]


def records(stream: bytes) -> list[bytes]:
    """The ciphertexts in a stream behind its handshake."""
    found = []
    while stream:
        end = 4 + int.from_bytes(stream[:4], "big")
        assert len(stream) >= end
        found.append(stream[4:end])
        stream = stream[end:]
    return found


async def test_what_a_session_shows_to_who_listens_in() -> None:
    """Real loopback bytes of two full nodes that shake hands, sync and relay a transaction."""
    key = KeyPair.generate()
    config = ChainConfig(chain_id=7, timestamp=1_700_000_000, alloc={key.address: 10**18})
    settings = SECURE.replace(user_agent="a-name-to-look-for/1.0")
    async with (
        FullNode(None, config, settings=settings) as listener,
        relay_to(listener.p2p.listen_port) as relay,
        FullNode(None, config, settings=settings) as dialler,
    ):
        peer = await dialler.p2p.connect_peer("127.0.0.1", relay.port)
        assert peer.connection.remote_key == peer.node_id == listener.p2p.node_id
        (back,) = listener.p2p.peers.values()
        assert back.connection.remote_key == back.node_id == dialler.p2p.node_id
        await eventually(lambda: dialler.mempool is not None and peer.announced)
        transaction = Transaction.create(
            key, chain_id=7, nonce=0, to=b"\x42" * 20, value=1, gas_price=1
        )
        await dialler.p2p.broadcast_transaction(transaction)
        await eventually(lambda: transaction.hash in listener.mempool)
    encoded = transaction.encode()
    telling = {
        "user agent": b"a-name-to-look-for",
        "genesis": config.genesis_hash,
        "dialler's id": dialler.p2p.node_id,
        "listener's id": listener.p2p.node_id,
        "transaction": encoded,
        "its head": encoded[:24],
        "its hash": transaction.hash,
        "recipient": b"\x42" * 20,
    }
    for stream in (relay.sent, relay.answered):
        for what, plain in telling.items():
            assert plain not in stream, what
    sealed = records(relay.sent[HANDSHAKE_SENT:]) + records(relay.answered[HANDSHAKE_ANSWERED:])
    assert sum(map(len, sealed)) > len(encoded)
    blocks = Counter(data[at : at + 16] for data in sealed for at in range(0, len(data) - 15, 16))
    assert max(blocks.values()) == 1


async def test_plaintext_shows_all_of_it() -> None:
    """The check of the test above sees what there is to see."""
    async with P2PNode(config=QUIET) as listener, relay_to(listener.listen_port) as relay:
        async with P2PNode(config=QUIET) as dialler:
            peer = await dialler.connect_peer("127.0.0.1", relay.port)
            assert peer.connection.remote_key is None
        assert dialler.node_id in relay.sent
        assert dialler.config.user_agent.encode() in relay.sent


async def test_another_than_expected_is_refused_before_it_learns_who_asks() -> None:
    async with P2PNode(config=SECURE) as listener, relay_to(listener.listen_port) as relay:
        async with P2PNode(config=SECURE) as dialler:
            with pytest.raises(HandshakeError) as caught:
                await dialler.connect_peer("127.0.0.1", relay.port, node_id=b"\x77" * 32)
            assert caught.value.code == DisconnectCode.IDENTITY
            await eventually(lambda: not len(dialler.gate) and not len(listener.gate))
        assert len(relay.sent) == 2 + 32  # the ephemeral key, and not a byte more
        assert len(relay.answered) == HANDSHAKE_ANSWERED
        assert not listener.peers


async def test_a_node_to_start_from_and_its_id() -> None:
    async with P2PNode(config=SECURE) as listener:
        address = f"127.0.0.1:{listener.listen_port}"
        good = f"{listener.node_id.hex()}@{address}"
        async with P2PNode(config=SECURE, bootstrap_nodes=[good]) as dialler:
            await eventually(lambda: len(dialler.peers) == 1)
        bad = f"{'77' * 32}@{address}"
        async with P2PNode(config=SECURE, bootstrap_nodes=[bad]) as dialler:
            (entry,) = dialler.book._bootstrap.values()
            await eventually(lambda: entry.failures > 0)
            assert not dialler.peers
        await eventually(lambda: not listener.peers)


async def test_a_node_that_meets_itself() -> None:
    async with P2PNode(config=SECURE) as node:
        with pytest.raises(HandshakeError) as caught:
            await node.connect_peer("127.0.0.1", node.listen_port)
        assert caught.value.code == DisconnectCode.SELF
        await eventually(lambda: not len(node.gate))


async def test_a_hello_with_an_id_that_was_not_proved() -> None:
    async with P2PNode(config=SECURE) as node:
        liar = await EncryptedClient.connect(node)
        liar.send(hello_message(node_id=NodeIdentity(b"\x09" * 32).node_id))
        payloads = await liar.read_to_the_end()
        assert HelloMessage.decode(payloads[0]).node_id == node.node_id
        assert DisconnectMessage.decode(payloads[-1]).code == DisconnectCode.IDENTITY
        assert not node.peers


async def test_nothing_but_hello_is_admitted_at_first() -> None:
    async with P2PNode(config=SECURE) as node:
        rude = await EncryptedClient.connect(node)
        rude.send(PingMessage(nonce=1))
        assert await rude.read_to_the_end() == []


async def test_an_honest_one_is_admitted() -> None:
    async with P2PNode(config=SECURE) as node:
        client = await EncryptedClient.connect(node)
        client.send(hello_message(node_id=DIALLER.node_id))
        await eventually(lambda: [p.node_id for p in node.peers.values()] == [DIALLER.node_id])
        client.write(bytes(4))  # no record is so short
        await client.read_to_the_end()
        await eventually(lambda: not node.peers)


async def test_a_byte_that_is_changed_on_the_way() -> None:
    """The stream ends there; what the other side would have made of it is never seen."""

    def bend(way: str, data: bytes, before: int) -> bytes:
        if way == "sent" and before + len(data) > HANDSHAKE_SENT + 300:
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    gone: list[str | None] = []
    async with (
        P2PNode(config=SECURE) as listener,
        relay_to(listener.listen_port, bend) as relay,
        P2PNode(config=SECURE) as dialler,
    ):
        listener.on_peer_disconnected.append(lambda peer: gone.append(peer.drop_reason))
        peer = await dialler.connect_peer("127.0.0.1", relay.port)
        while not peer.closed:
            peer.send(PingMessage(nonce=5))
            await asyncio.sleep(0.01)
        await eventually(lambda: len(gone) == 1)
    assert "authentication failed" in str(gone)


# --- those who speak something else ----------------------------------------------------------


@pytest.mark.parametrize("dialler_is", ["secure", "plaintext"])
async def test_nodes_of_different_transports(
    dialler_is: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A clear error on both sides, and no second try in the other's way."""
    other = {"secure": "plaintext", "plaintext": "secure"}[dialler_is]
    caplog.set_level(logging.INFO)
    async with (
        P2PNode(config=QUIET.replace(transport=other)) as listener,
        P2PNode(config=QUIET.replace(transport=dialler_is)) as dialler,
        relay_to(listener.listen_port) as relay,
    ):
        with pytest.raises(ConnectError) as caught:
            await dialler.connect_peer("127.0.0.1", relay.port)
        await eventually(lambda: not len(listener.gate) and not len(dialler.gate))
        assert relay.answered == b""
    theirs = "plaintext" if dialler_is == "secure" else "the encrypted transport"
    assert f"it may speak {theirs}" in str(caught.value)
    lines = [r.getMessage() for r in caplog.records if "no handshake with" in r.getMessage()]
    (line,) = lines
    ours = "the encrypted transport" if dialler_is == "secure" else "plaintext"
    assert f"the other side speaks {ours}" in line


@pytest.mark.parametrize(
    ("first", "kind"), [(b"GET / HTTP/1.1\r\n\r\n", "HTTP"), (b"\x16\x03\x01\x02\x00\x01", "TLS")]
)
@pytest.mark.parametrize("transport", ["secure", "plaintext"])
async def test_clients_that_came_by_mistake(
    transport: str, first: bytes, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with P2PNode(config=QUIET.replace(transport=transport)) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.listen_port)
        writer.write(first)
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await eventually(lambda: not len(node.gate))
    assert any(f"the other side speaks {kind}" in r.getMessage() for r in caplog.records)


async def test_a_server_that_is_none_of_ours() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, P2PNode(config=SECURE) as node:
        with pytest.raises(ConnectError, match="the other side speaks HTTP"):
            await node.connect_peer("127.0.0.1", server.sockets[0].getsockname()[1])


async def test_strangers_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with P2PNode(config=SECURE) as node:
        for _ in range(12):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.listen_port)
            writer.write(bytes(40))
            await asyncio.wait([asyncio.ensure_future(reader.read())], timeout=10)
            writer.close()
        await eventually(lambda: not len(node.gate))
    told = [r for r in caplog.records if "no handshake with" in r.getMessage()]
    assert 1 <= len(told) <= 6


@pytest.mark.parametrize("stage", range(3))
async def test_a_slow_handshake_has_one_deadline_for_all_its_messages(stage: int) -> None:
    """However it is trickled, before any key, after message 1, or after the whole of Noise."""
    async with P2PNode(config=SECURE.replace(handshake_timeout=0.4)) as node:
        if stage == 2:
            client = await EncryptedClient.connect(node)
            reader, writer = client._reader, client._writer
            rest = client.end.seal(MessageCodec.encode(hello_message()))[:50]
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", node.listen_port)
            end = End(initiator=True)
            rest = end.take()
            if stage == 1:
                writer.write(rest)
                await reader.readexactly(HANDSHAKE_ANSWERED)
                rest = b"\x00\x40" + bytes(40)
        ended = asyncio.ensure_future(reader.read())
        for byte in rest:
            if ended.done():
                break
            writer.write(bytes([byte]))
            await asyncio.wait([ended], timeout=0.02)
        await asyncio.wait([ended], timeout=10)
        assert ended.done()
        assert ended.exception() is None or isinstance(ended.exception(), ConnectionResetError)
        writer.close()
        await eventually(lambda: not len(node.gate))
        assert not node.peers


def test_a_bare_id_proves_nothing() -> None:
    """So that such a node speaks plaintext, whatever its settings say."""
    assert P2PNode(node_id=b"\x01" * 32).config.transport == "plaintext"
    assert P2PNode().config.transport == "secure"
    assert P2PNode(identity=NodeIdentity(b"\x01" * 32)).config.transport == "secure"
    assert P2PNode(config=QUIET).config.transport == "plaintext"
