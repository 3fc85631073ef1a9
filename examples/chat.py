"""Chat over a node's connections: rooms, lines that everybody passes on, history by request.

Without arguments it shows four nodes in a line, of which the last one has never heard of chat:
``python examples/chat.py``. With a name it talks, in as many terminals as you like:

    python examples/chat.py --name alice --port 4000
    python examples/chat.py --name bob --peer 127.0.0.1:4000 --room tea

Who wrote a line is what the line says: names are not signed here.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

from moderntensor import NodeConfig, P2PNode, Peer
from moderntensor.errors import CapabilityError, NetworkError
from moderntensor.network.extensions import (
    Extension,
    Message,
    Rate,
    Reply,
    Request,
    RequestId,
    Status,
    StatusCode,
    extension_message,
)
from moderntensor.wire import Bytes16, Max, Record, U, bytes16, list16, record, str8, u16, u64

KEPT = 200  # lines of a room; also the most that one reply may hold
ROOMS = 64  # a stranger can invent rooms, so that their number has an end
SEEN = 4096  # ids of lines that were passed on

Text = Annotated[bytes16, Max(1000)]  # UTF-8; the str types of the wire are ASCII


@record
class Line(Record):
    """What somebody said, as it travels and as it is kept."""

    id: Bytes16  # random: the same line comes from several sides
    room: str8
    author: str8
    at: u64  # Unix seconds
    text: Text


# A type byte from 0x80 on, the most bytes that it may have, and how many a peer may send: here five
# a second and forty at once, 64 KiB/s and 256 KiB at once.
@extension_message(0x80, cap=2048, rate=Rate(5, 40, 64 * 1024, 256 * 1024))
class Say(Message):
    """A new line, for everybody to hear and to pass on."""

    line: Line

    def fault(self) -> str | None:
        """A rule that the layout cannot know. Whoever breaks it is dropped."""
        try:
            self.line.text.decode()
        except UnicodeDecodeError:
            return "text is not UTF-8"
        return None


@extension_message(0x82, cap=512 * 1024)
class History(Reply):
    """The last lines of a room. Replies begin with these three fields; all others have defaults."""

    request_id: RequestId
    status: StatusCode = Status.OK
    retry_ms: u16 = 0
    lines: Annotated[list16[Line], Max(KEPT)] = ()


@extension_message(0x81, cap=300, reply=History)
class GetHistory(Request):
    """Ask for the last lines of a room."""

    request_id: RequestId = 0
    room: str8
    most: Annotated[int, U(2, lo=1, hi=KEPT)] = KEPT


CHAT = Extension("chat/1", [Say, History, GetHistory])


class Chat:
    """The chat of one node."""

    def __init__(self, node: P2PNode, name: str, show: Callable[[Line], None]) -> None:
        self._node = node
        self._name = name
        self._show = show
        self._rooms: dict[str, deque[Line]] = {}
        self._seen: dict[bytes, None] = {}
        node.register_handler(Say.TYPE, self._on_say)
        node.register_handler(GetHistory.TYPE, self._on_get_history)

    async def say(self, room: str, text: str) -> int:
        """Say something; to how many peers it went."""
        line = Line(
            id=secrets.token_bytes(16),
            room=room,
            author=self._name,
            at=int(time.time()),
            text=text.encode(),
        )
        self._keep(line)
        return await self._node.broadcast(Say(line=line))  # to those who have chat/1, no others

    async def catch_up(self, room: str) -> int:
        """Ask all who have the extension what was said before; how many lines were new."""
        new = 0
        for peer in self._node.peers_with(CHAT.name):
            try:
                reply = await peer.request(GetHistory(room=room), timeout=5)
            except NetworkError as error:  # it left, or did not answer: others may know
                print(f"no history from {peer}: {error}", file=sys.stderr)
                continue
            if isinstance(reply, History) and reply.status == Status.OK:
                new += sum(self._keep(line) for line in reply.lines if line.room == room)
        return new

    async def _on_say(self, peer: Peer, message: Say) -> None:
        if self._keep(message.line):
            await self._node.broadcast(message)  # those who know it will not pass it on again

    async def _on_get_history(self, peer: Peer, request: GetHistory) -> History | None:
        lines = list(self._rooms.get(request.room, ()))
        if not lines:
            return None  # the node answers NOT_FOUND
        return History(request_id=request.request_id, lines=tuple(lines[-request.most :]))

    def _keep(self, line: Line) -> bool:
        """Keep and show a line; False if it was known, or of one room too many."""
        if line.id in self._seen:
            return False
        if line.room not in self._rooms and len(self._rooms) >= ROOMS:
            return False
        self._seen[line.id] = None
        if len(self._seen) > SEEN:
            del self._seen[next(iter(self._seen))]
        self._rooms.setdefault(line.room, deque(maxlen=KEPT)).append(line)
        self._show(line)
        return True


# --- four nodes in a line ------------------------------------------------------------------


async def demonstrate() -> None:
    """alice - bob - carol - dave; dave's node has no chat."""
    local = NodeConfig(listen_host="127.0.0.1", listen_port=0, discovery=False)
    heard: asyncio.Queue[str] = asyncio.Queue()

    def listener(name: str) -> Callable[[Line], None]:
        return lambda line: heard.put_nowait(f"{name}: <{line.author}> {line.text.decode()}")

    async def hear(count: int) -> None:
        for text in sorted([await asyncio.wait_for(heard.get(), 10) for _ in range(count)]):
            print(f"  {text}")

    async with (
        P2PNode(config=local, extensions=[CHAT]) as a,
        P2PNode(config=local, extensions=[CHAT]) as b,
        P2PNode(config=local, extensions=[CHAT]) as c,
        P2PNode(config=local) as d,
    ):
        alice, bob = Chat(a, "alice", listener("alice")), Chat(b, "bob", listener("bob"))
        await a.connect_peer("127.0.0.1", b.listen_port)
        print("alice and bob talk")
        await alice.say("tea", "is there any tea?")
        await hear(2)
        await bob.say("tea", "ja, Grüntee ☕")
        await hear(2)

        carol = Chat(c, "carol", listener("carol"))
        await c.connect_peer("127.0.0.1", b.listen_port)
        print(f"carol comes later and learns of {await carol.catch_up('tea')} lines")
        await hear(2)
        print(f"nobody has been in room coffee: {await carol.catch_up('coffee')} lines")

        stranger = await c.connect_peer("127.0.0.1", d.listen_port)
        told = await carol.say("tea", "one for me")
        print(f"carol tells {told} of {len(c.peers)} peers, and alice hears it by way of bob")
        await hear(3)
        try:
            await stranger.request(GetHistory(room="tea"))
        except CapabilityError as error:
            print(f"dave cannot be asked: {str(error).partition('> ')[2]}")


# --- for real ------------------------------------------------------------------------------


def shown(line: Line) -> str:
    """What a stranger wrote, fit for a terminal: it may hold what moves cursors and sets colours,
    or, in a history, no UTF-8."""
    text = line.text.decode(errors="replace")
    return f"<{line.author}> " + "".join(c if c.isprintable() else "?" for c in text)


def typed() -> asyncio.Queue[str]:
    """Lines as they are typed, and at the end an empty one. A thread of its own reads them: those
    of asyncio are waited for at the end, which Ctrl-C would do until the next line."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with os.fdopen(sys.stdin.fileno(), errors="replace", closefd=False) as keyboard:
            for text in iter(keyboard.readline, ""):
                loop.call_soon_threadsafe(lines.put_nowait, text)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    return lines


async def talk(name: str, room: str, port: int, peers: list[str]) -> None:
    """Show the room, and say what is typed, line by line, until the input ends."""
    config = NodeConfig(listen_host="127.0.0.1", listen_port=port)
    async with P2PNode(bootstrap_nodes=peers, config=config, extensions=[CHAT]) as node:
        chat = Chat(node, name, lambda line: print(shown(line)))
        print(f"in {room!r} on port {node.listen_port}; end with Ctrl-D")
        for address in peers:
            host, _, number = address.rpartition(":")
            await node.connect_peer(host, int(number))
        await chat.catch_up(room)
        lines = typed()
        while text := await lines.get():
            if not await chat.say(room, text.strip()[:250]):
                print("(nobody is here)")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Chat over a node's connections.")
    parser.add_argument("--name", help="who talks; without it, a demonstration")
    parser.add_argument("--room", default="tea")
    parser.add_argument("--port", type=int, default=0, help="to listen on; 0: any")
    parser.add_argument("--peer", action="append", default=[], help="host:port, several if need be")
    options = parser.parse_args()
    if options.name is None:
        asyncio.run(demonstrate())
        return
    with suppress(KeyboardInterrupt):
        asyncio.run(talk(options.name, options.room, options.port, options.peer))


if __name__ == "__main__":
    main()
