"""The plain design: `PlainPeer` at both ends, which drains after every message."""

from __future__ import annotations

import asyncio

from ..plain.peer import PlainNode, PlainPeer
from .work import HOST, Receipt, Tally, unpaced
from .work import Receiver as ReceiverBase
from .work import Sender as SenderBase

KIND = 0x20


class Sender(SenderBase):
    async def listen(self) -> int:
        self._connected: asyncio.Future[PlainPeer] = asyncio.get_running_loop().create_future()

        async def handle(peer: PlainPeer, kind: int, payload: bytes) -> None:
            unpaced(peer.writer.get_extra_info("socket"))
            self._connected.set_result(peer)

        self._node = PlainNode(handle)
        await self._node.start(HOST)
        return self._node.port

    async def send(self, messages: list[bytes], count: int) -> None:
        peer = await self._connected
        for _ in range(count // len(messages)):
            for message in messages:
                await peer.send(KIND, message)


class Receiver(ReceiverBase):
    async def connect(self, port: int) -> None:
        tally = self._tally = Tally()

        async def handle(peer: PlainPeer, kind: int, payload: bytes) -> None:
            tally.size += len(payload)
            tally.count += 1
            if tally.count == tally.edge or tally.kept is not None:
                tally.look([payload])

        self._node = PlainNode(handle)
        peer = await self._node.connect(HOST, port)
        await peer.send(KIND, b"here I am")

    async def receive(self, size: int, count: int, *, keep: bool) -> Receipt:
        return await self._tally.receive(count, keep=keep)
