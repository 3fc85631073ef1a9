"""A peer made of a bare socket, which can do what no honest node would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, TypeVar

from moderntensor.config import NodeConfig
from moderntensor.network.messages import (
    DisconnectMessage,
    HelloMessage,
    Message,
    MessageCodec,
)
from moderntensor.network.p2p import P2PNode

M = TypeVar("M", bound=Message)

# One node on loopback that minds its own business, and whose frames a bare socket can read.
QUIET = NodeConfig(
    transport="plaintext",
    listen_host="127.0.0.1",
    listen_port=0,
    discovery=False,
    ping_interval=60.0,
    ping_timeout=60.0,
)
WAIT = 10.0  # seconds until a test that waits for the other side fails


class RawPeer:
    """Sends any bytes, reads frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.node_hello: HelloMessage | None = None

    @classmethod
    async def connect(cls, node: P2PNode) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", node.listen_port))

    @classmethod
    async def meet(cls, node: P2PNode, *, source: str = "127.0.0.1", **hello: Any) -> Self:
        """Connect from the local address `source`, and shake hands."""
        peer = cls(
            *await asyncio.open_connection("127.0.0.1", node.listen_port, local_addr=(source, 0))
        )
        peer.send(hello_message(**hello))
        peer.node_hello = await peer.read(HelloMessage)
        return peer

    @property
    def address(self) -> str:
        """What the node calls it."""
        host, port = self.writer.get_extra_info("sockname")
        return f"{host}:{port}"

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def send(self, *messages: Message) -> None:
        self.writer.write(b"".join(MessageCodec.encode(message) for message in messages))

    async def read_any(self) -> Message | None:
        """The next message; None at the end of the stream."""
        async with asyncio.timeout(WAIT):
            try:
                head = await self.reader.readexactly(4)
                return MessageCodec.decode(
                    head + await self.reader.readexactly(int.from_bytes(head, "big"))
                )
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                assert not getattr(error, "partial", b"")
                return None

    async def read(self, kind: type[M]) -> M:
        message = await self.read_any()
        assert isinstance(message, kind), message
        return message

    async def read_goodbye(self) -> int | None:
        """Read to the end: the code of the DISCONNECT that came last, None without one."""
        last: Message | None = None
        while (message := await self.read_any()) is not None:
            last = message
        return last.code if isinstance(last, DisconnectMessage) else None

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def hello_message(**changes: Any) -> HelloMessage:
    """A HELLO that a node without a chain welcomes."""
    fields: dict[str, Any] = {"node_id": b"\x55" * 32, "nonce": 12345, "user_agent": "raw"}
    return HelloMessage(**{**fields, **changes})


@asynccontextmanager
async def quiet_node(**changes: Any) -> AsyncIterator[P2PNode]:
    """A running node on loopback; `changes` of `QUIET`."""
    async with P2PNode(config=QUIET.replace(**changes)) as node:
        yield node


@asynccontextmanager
async def raw_listener(
    behaviour: Callable[[RawPeer], Awaitable[None]],
) -> AsyncIterator[int]:
    """A port on which everyone who connects meets `behaviour`; its errors fail the test."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(peer: RawPeer) -> None:
        async with peer:
            await behaviour(peer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.get_running_loop().create_task(serve(RawPeer(reader, writer))))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            if not task.done():
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
        for result in results:
            if isinstance(result, Exception):
                raise result


async def until(condition: Callable[[], Any], seconds: float = WAIT) -> None:
    """Wait for a condition; TimeoutError, failing the test, if it never comes."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  conditions on foreign objects
            await asyncio.sleep(0.005)
