"""The other ends of a broadcast: connections that read, count bytes and do nothing else."""

from __future__ import annotations

import asyncio
import time
from hashlib import sha256
from typing import Any

from moderntensor.network.messages import (
    HelloMessage,
    MessageCodec,
    MessageType,
    PingMessage,
    PongMessage,
)

from .end import End

_BUFFER = memoryview(bytearray(256 * 1024))  # of all: each read is done with at once


class _Reader(asyncio.BufferedProtocol):
    """Hands what it reads to its owner."""

    def __init__(self, owner: Readers) -> None:
        self._owner = owner
        self.digest = sha256()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self._owner.collected is not None:
            self.digest.update(_BUFFER[:nbytes])
        self._owner.count_bytes(nbytes)


class Readers(End):
    """Many peers of one node: after the handshake, if there is one, they say no more."""

    def __init__(self, *, hello: bool) -> None:
        super().__init__()
        self._hello = hello
        self._readers: list[_Reader] = []
        self._writers: list[asyncio.StreamWriter] = []  # they close what they hold when they go

    async def listen(self) -> int:
        raise NotImplementedError

    async def connect(self, port: int, count: int = 1) -> None:
        for number in range(count):
            stream, writer = await asyncio.open_connection("127.0.0.1", port)
            if self._hello:
                await _shake_hands(stream, writer, number)
            reader = _Reader(self)
            writer.transport.set_protocol(reader)
            self._readers.append(reader)
            self._writers.append(writer)

    async def stop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    @property
    def peer_count(self) -> int:
        return len(self._readers)

    async def expect(self, count: int, collect: bool = False) -> None:
        """So many bytes will come from now on, of all connections together."""
        await super().expect(count, collect)
        for reader in self._readers:
            reader.digest = sha256()

    async def contents(self) -> list[Any]:
        """The SHA-256 of what has come on each connection."""
        return [reader.digest.hexdigest() for reader in self._readers]

    def count_bytes(self, nbytes: int) -> None:
        """So many have come."""
        self._got += nbytes
        if self._got == self._wanted:
            self._at = time.monotonic()
            self._complete.set()


async def _shake_hands(
    stream: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
) -> None:
    """HELLO, and an answer to the first PING; the next comes long after."""
    hello = HelloMessage(node_id=b"reads" + number.to_bytes(27, "big"), nonce=number + 1)
    writer.write(MessageCodec.encode(hello))
    while True:
        size = await stream.readexactly(4)
        frame = await stream.readexactly(int.from_bytes(size, "big"))
        if frame[0] == MessageType.PING:
            nonce = PingMessage.decode(frame[1:]).nonce
            writer.write(MessageCodec.encode(PongMessage(nonce=nonce)))
            return
