"""The other ends of many idle connections with a node: bare sockets that speak just enough."""

from __future__ import annotations

import asyncio
from struct import Struct

from moderntensor.blockchain.block import BlockHeader
from moderntensor.network.messages import (
    HeadersMessage,
    HelloMessage,
    MessageCodec,
    MessageType,
    PingMessage,
    PongMessage,
)
from moderntensor.network.protocol import MAX_ANNOUNCED_HEADERS

from .end import End

_AT_ONCE = 32  # handshakes; a node admits 50
_HEAD = Struct("!IB")
_BUSY_FRAMES = 125  # of announced headers, 256 KiB together
_HEADER = BlockHeader(
    height=1,
    timestamp=1,
    previous_hash=bytes(32),
    state_root=bytes(32),
    validator=bytes(32),
    gas_limit=1,
)


class _Client(asyncio.Protocol):
    """Says HELLO, answers PING."""

    def __init__(self, number: int) -> None:
        self.welcome = asyncio.Event()
        self.transport: asyncio.Transport | None = None
        self._number = number
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        hello = HelloMessage(
            node_id=b"crowd" + self._number.to_bytes(27, "big"), nonce=self._number + 1
        )
        transport.write(MessageCodec.encode(hello))

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        data = self._data + data
        at = 0
        while len(data) - at >= _HEAD.size:
            length, kind = _HEAD.unpack_from(data, at)
            if len(data) - at < 4 + length:
                break
            if kind == MessageType.PING:
                nonce = PingMessage.decode(data[at + 5 : at + 4 + length]).nonce
                self.transport.write(MessageCodec.encode(PongMessage(nonce=nonce)))
            elif kind == MessageType.HELLO:
                self.welcome.set()
            assert kind in (MessageType.PING, MessageType.PONG, MessageType.HELLO), kind
            at += 4 + length
        self._data = data[at:]


class Crowd(End):
    """Clients that ping the node as often as it pings them."""

    def __init__(self, heartbeat: float) -> None:
        super().__init__()
        self._heartbeat = heartbeat
        self._clients: list[_Client] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ping = MessageCodec.encode(PingMessage(nonce=1))

    async def listen(self) -> int:
        raise NotImplementedError

    async def connect(self, port: int, count: int = 1) -> None:
        loop = asyncio.get_running_loop()
        for start in range(0, count, _AT_ONCE):
            some = [_Client(number) for number in range(start, min(start + _AT_ONCE, count))]
            for client in some:
                await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
            for client in some:
                await client.welcome.wait()
            self._clients += some
        self._tasks.append(loop.create_task(self._ping_forever()))

    async def be_busy(self) -> None:
        """Send the node 256 KiB of news on each connection."""
        count = MAX_ANNOUNCED_HEADERS
        headers = count.to_bytes(2, "big") + _HEADER.encode() * count
        frame = MessageCodec.encode(HeadersMessage(request_id=0, headers=headers))
        for client in self._clients:
            assert client.transport is not None
            client.transport.write(frame * _BUSY_FRAMES)
            while client.transport.get_write_buffer_size():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for client in self._clients:
            if client.transport is not None:
                client.transport.abort()

    @property
    def peer_count(self) -> int:
        return len(self._clients)

    async def _ping_forever(self) -> None:
        """Spread over the interval, as the pings of strangers are."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while True:
            for client in self._clients:
                assert client.transport is not None
                client.transport.write(self._ping)
                next_at += self._heartbeat / len(self._clients)
                await asyncio.sleep(next_at - loop.time())
