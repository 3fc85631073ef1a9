"""A bare line to a node, plaintext or encrypted, on which anything can be said."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

from moderntensor.backend import framing
from moderntensor.network.channel import Channel, PlaintextChannel
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.messages import CAPS
from moderntensor.network.secure import SecureChannel, Workspace


class Line(asyncio.Protocol):
    """Keeps the frames that came; knows whether the other side is still there."""

    def __init__(self, identity: NodeIdentity | None) -> None:
        decoder = framing.FrameDecoder(CAPS)
        shared = memoryview(bytearray(65536))
        self.channel: Channel = PlaintextChannel(decoder, shared)
        if identity is not None:
            self.channel = SecureChannel(
                decoder, identity, initiator=True, entropy=lambda size: b"\x07" * size,
                shared=shared, workspace=Workspace(),
            )  # fmt: skip
        self.frames: list[framing.Frame] = []
        self.closed = False
        self._transport: Any = None

    @classmethod
    async def open(cls, port: int, identity: NodeIdentity | None) -> Line:
        """Connect to a node on this machine."""
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(lambda: cls(identity), "127.0.0.1", port)
        return line

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        # Pieces leave as they are written.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.channel.start(transport.write)

    def data_received(self, data: bytes) -> None:
        while data:
            room = self.channel.get_buffer(-1)
            size = min(len(room), len(data))
            room[:size], data = data[:size], data[size:]
            self.frames += self.channel.received(size)
        fault = self.channel.error or self.channel.decoder.error
        assert fault is None, f"the node said what nobody can read: {fault}"

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True

    async def say(self, data: bytes, cuts: Sequence[int] = ()) -> None:
        """Send frames, or what is none, cut at these places."""
        if data and self.channel.ready:
            data = b"".join(bytes(part) for part in self.channel.seal([data]))
        await self.write(data, cuts)

    async def write(self, data: bytes, cuts: Sequence[int] = ()) -> None:
        """Send bytes as they are, cut at these places."""
        at = 0
        for end in (*sorted(cut % (len(data) + 1) for cut in cuts), len(data)):
            if not self.closed and data[at:end]:
                self._transport.write(data[at:end])
                await asyncio.sleep(0)
            at = end

    def hang_up(self, *, abruptly: bool) -> None:
        """Close, or reset."""
        if abruptly:
            self._transport.abort()
        else:
            self._transport.close()
