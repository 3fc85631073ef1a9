"""Our `Connection`, the caller framing and sending one message at a time."""

from __future__ import annotations

from moderntensor.backend import framing

from . import ours
from .work import burst

Receiver = ours.Receiver


class Sender(ours.Sender):
    async def send(self, messages: list[bytes], count: int) -> None:
        connection = await self._connected
        at_once = burst(len(messages[0]))
        bursts = [messages[i : i + at_once] for i in range(0, len(messages), at_once)]
        encode_frame, send = framing.encode_frame, connection.send
        for _ in range(count // len(messages)):
            for some in bursts:
                for message in some:
                    send(encode_frame(ours.TYPE, message))
                await connection.drained()
