"""Two small extensions, and a client of either transport that need not be honest about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from helpers.rawpeer import QUIET, WAIT, RawPeer, hello_message
from helpers.secure import DIALLER, End
from moderntensor.backend import framing
from moderntensor.network.extensions import Extension, RequestId, StatusCode, extension_message
from moderntensor.network.messages import (
    DisconnectMessage,
    HelloMessage,
    Message,
    MessageCodec,
    MessageType,
    Reply,
    Request,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.rates import Rate
from moderntensor.wire import bytes32, list16, str8, str16, u8, u16

KIB = 1024
RECORD = 60 * KIB  # of what is encrypted at a time
SAY, GET_LOG, LOG = 0x80, 0x81, 0x82
# Bursts that a test can exceed.
SAY_RATE = Rate(1, 64, 64 * KIB, 64 * KIB)
LOG_RATE = Rate(1, 64, 64 * KIB, 64 * KIB)


@extension_message(SAY, cap=KIB, rate=SAY_RATE)
class Say(Message):
    """A line in a room."""

    room: str8
    text: str16


@extension_message(LOG, cap=4 * KIB)
class Log(Reply):
    """What was said."""

    request_id: RequestId
    status: StatusCode = Status.OK
    retry_ms: u16 = 0
    lines: list16[str16] = ()


@extension_message(GET_LOG, cap=256, reply=Log, rate=LOG_RATE)
class GetLog(Request):
    """Ask for what was said in a room."""

    request_id: RequestId = 0
    room: str8


@extension_message(SAY, cap=8)
class Roll(Message):
    """Of another extension, of the same type byte."""

    dice: u8


@extension_message(0xA0, cap=2 * KIB * KIB)
class Blob(Message):
    """Something large."""

    data: bytes32


@extension_message(0xA1, cap=KIB)
class Told(Reply):
    """Thanks."""

    request_id: RequestId
    status: StatusCode = Status.OK
    retry_ms: u16 = 0


@extension_message(0xA2, cap=2 * KIB * KIB, reply=Told)
class Ask(Request):
    """A large question."""

    request_id: RequestId = 0
    data: bytes32


CHAT = Extension("chat/1", [Say, GetLog, Log], handler_timeout=5.0)
DICE = Extension("dice/1", [Roll])
BLOBS = Extension("blobs/1", [Blob, Told, Ask], handler_timeout=60.0)


@asynccontextmanager
async def node_with(
    *extensions: Extension, secure: bool = False, **changes: Any
) -> AsyncIterator[P2PNode]:
    """A running node on loopback."""
    settings = QUIET.replace(transport="secure" if secure else "plaintext", **changes)
    async with P2PNode(config=settings, extensions=extensions) as node:
        yield node


class Client:
    """Sends any frame, in records where there are such; reads (type, payload)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._raw = RawPeer(reader, writer)
        self._end: End | None = None
        self.hello: HelloMessage | None = None  # the node's

    @classmethod
    async def meet(
        cls,
        node: P2PNode,
        *,
        secure: bool = False,
        speaks: tuple[str, ...] = ("chat/1",),
        number: int = 0x55,
    ) -> Client:
        """Connect and shake hands, with these capabilities; those in plaintext by `number`."""
        self = cls(*await asyncio.open_connection("127.0.0.1", node.listen_port))
        if secure:
            self._end = end = End(initiator=True)
            for kind in (*MessageType, *range(0x80, 0x100)):
                end.decoder.set_cap(kind, 1 << 20)
            self._raw.write(end.take())
            while not end.channel.ready:
                await self._receive()
            self._raw.write(end.take())
        ours = DIALLER.node_id if secure else bytes([number]) * 32
        self.send(hello_message(node_id=ours, capabilities=speaks))
        kind, payload = await self.read() or (-1, b"")
        assert kind == MessageType.HELLO
        self.hello = HelloMessage.decode(payload)
        return self

    @property
    def address(self) -> str:
        """What the node calls it."""
        return self._raw.address

    def write(self, data: bytes) -> None:
        """Any bytes of the stream of frames."""
        if self._end is None:
            self._raw.write(data)
            return
        for start in range(0, len(data), RECORD):
            self._raw.write(self._end.seal(data[start : start + RECORD]))

    def send(self, *messages: Message) -> None:
        """Messages as they should be."""
        self.write(b"".join(map(MessageCodec.encode, messages)))

    def send_frame(self, kind: int, payload: bytes) -> None:
        """A frame of any type and content."""
        self.write(framing.encode_frame(kind, payload))

    async def _receive(self) -> bool:
        assert self._end is not None
        data = await self._raw.reader.read(65536)
        self._end.receive(data)
        return bool(data)

    async def read(self) -> tuple[int, bytes] | None:
        """The next frame; None at the end of the stream."""
        async with asyncio.timeout(WAIT):
            if self._end is not None:
                while not self._end.frames:
                    if not await self._receive():
                        return None
                return self._end.frames.pop(0)
            try:
                head = await self._raw.reader.readexactly(5)
                size = int.from_bytes(head[:4], "big") - 1
                return head[4], await self._raw.reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError):
                return None

    async def read_kind(self, kind: int) -> bytes:
        """The payload of the next frame of a type; others are passed over."""
        while (frame := await self.read()) is not None:
            if frame[0] == kind:
                return frame[1]
        raise AssertionError("the stream has ended")

    async def goodbye(self) -> int | None:
        """Read to the end: the code of the last DISCONNECT, None without one."""
        code = None
        while (frame := await self.read()) is not None:
            if frame[0] == MessageType.DISCONNECT:
                code = DisconnectMessage.decode(frame[1]).code
        return code

    async def close(self) -> None:
        """Close the socket."""
        await self._raw.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
