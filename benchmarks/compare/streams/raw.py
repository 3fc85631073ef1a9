"""The ceiling: bare sockets that block, chunks of 1 MiB built beforehand, no messages at all."""

from __future__ import annotations

import socket
import time

from .work import HOST, Receipt, listener
from .work import Receiver as ReceiverBase
from .work import Sender as SenderBase

CHUNK = 1024 * 1024


class Sender(SenderBase):
    async def listen(self) -> int:
        self._server = listener()
        self._socket: socket.socket | None = None
        port: int = self._server.getsockname()[1]
        return port

    async def send(self, messages: list[bytes], count: int) -> None:
        if self._socket is None:
            self._socket = self._server.accept()[0]
        left = count * len(messages[0])
        some = b"".join(messages)
        chunk = memoryview((some * (CHUNK // len(some) + 1))[:CHUNK])
        while left:
            self._socket.sendall(chunk[:left])
            left -= min(left, CHUNK)


class Receiver(ReceiverBase):
    async def connect(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port))
        self._buffer = bytearray(CHUNK)

    async def receive(self, size: int, count: int, *, keep: bool) -> Receipt:
        receive, buffer = self._socket.recv_into, self._buffer
        left = size * count - receive(buffer)
        began = time.perf_counter()
        while left:
            got = receive(buffer, min(left, CHUNK))
            if not got:
                raise ConnectionError("the sender has gone")
            left -= got
        return Receipt(count, size * count, 1, time.perf_counter() - began)
