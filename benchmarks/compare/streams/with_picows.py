"""picows: callbacks for frames, `send` that writes at once, waiting only while told to pause."""

from __future__ import annotations

import asyncio

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

from .work import HOST, Receipt, Tally, burst, listener
from .work import Receiver as ReceiverBase
from .work import Sender as SenderBase

READ_BUFFER = 256 * 1024  # as large as ours


class _Sending(WSListener):
    def __init__(self) -> None:
        self.connected: asyncio.Future[WSTransport] = asyncio.get_running_loop().create_future()
        self.writable = asyncio.Event()
        self.writable.set()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.connected.set_result(transport)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()


class _Counting(WSListener):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        tally = self._tally
        payload = frame.get_payload_as_bytes()
        tally.size += len(payload)
        tally.count += 1
        if tally.count == tally.edge or tally.kept is not None:
            tally.look([payload])


class Sender(SenderBase):
    async def listen(self) -> int:
        self._listener = _Sending()
        self._server = await ws_create_server(lambda _: self._listener, sock=listener())
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def send(self, messages: list[bytes], count: int) -> None:
        send, writable = (await self._listener.connected).send, self._listener.writable
        at_once = burst(len(messages[0]))
        bursts = [messages[i : i + at_once] for i in range(0, len(messages), at_once)]
        binary = WSMsgType.BINARY
        for _ in range(count // len(messages)):
            for some in bursts:
                for message in some:
                    send(binary, message)
                if not writable.is_set():
                    await writable.wait()


class Receiver(ReceiverBase):
    async def connect(self, port: int) -> None:
        self._tally = Tally()
        self._kept_alive = await ws_connect(
            lambda: _Counting(self._tally),
            f"ws://{HOST}:{port}/",
            read_buffer_init_size=READ_BUFFER,
        )

    async def receive(self, size: int, count: int, *, keep: bool) -> Receipt:
        return await self._tally.receive(count, keep=keep)
