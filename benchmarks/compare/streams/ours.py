"""Our `Connection`: messages are framed one by one, those of a burst sent together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from moderntensor.backend import framing
from moderntensor.network.channel import Channel
from moderntensor.network.connection import Connection

from .work import HOST, Receipt, Tally, burst, listener
from .work import Receiver as ReceiverBase
from .work import Sender as SenderBase

TYPE = 0x20
LARGE = 16 * 1024  # from here on a connection takes the payload as it is


def connection(
    tally: Tally | None, channel: Callable[[framing.FrameDecoder], Channel] | None = None
) -> Connection:
    """In plaintext unless a channel is given."""

    def on_frames(frames: list[framing.Frame]) -> None:
        assert tally is not None
        size = 0
        for frame in frames:
            size += len(frame.payload)
        tally.size += size
        tally.count += len(frames)
        if tally.count >= tally.edge or tally.kept is not None:
            tally.look([frame.payload for frame in frames] if tally.kept is not None else [])

    def on_closed(reason: BaseException | None) -> None:
        if reason is not None:
            raise reason

    decoder = framing.FrameDecoder({TYPE: framing.MAX_PAYLOAD})
    return Connection(
        decoder,
        on_frames=on_frames,
        on_closed=on_closed,
        channel=None if channel is None else channel(decoder),
    )


class Sender(SenderBase):
    def connection(self) -> Connection:
        return connection(None)

    async def listen(self) -> int:
        self._connected: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

        def accepted() -> Connection:
            made = self.connection()
            self._connected.set_result(made)
            return made

        self._server = await asyncio.get_running_loop().create_server(accepted, sock=listener())
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def send(self, messages: list[bytes], count: int) -> None:
        connection = await self._connected
        at_once = burst(len(messages[0]))
        bursts = [messages[i : i + at_once] for i in range(0, len(messages), at_once)]
        encode_frame = framing.encode_frame
        large = len(messages[0]) >= LARGE
        for _ in range(count // len(messages)):
            for some in bursts:
                if large:
                    for message in some:
                        connection.send_payload(TYPE, message)
                else:
                    connection.send_many([encode_frame(TYPE, message) for message in some])
                await connection.drained()


class Receiver(ReceiverBase):
    def connection(self, tally: Tally) -> Connection:
        return connection(tally)

    async def connect(self, port: int) -> None:
        self._tally = Tally()
        await asyncio.get_running_loop().create_connection(
            lambda: self.connection(self._tally), HOST, port
        )

    async def receive(self, size: int, count: int, *, keep: bool) -> Receipt:
        return await self._tally.receive(count, keep=keep)
