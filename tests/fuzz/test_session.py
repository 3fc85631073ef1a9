"""A live session with a node, driven by Hypothesis: said is anything, in any order, cut anywhere.

Whatever a peer does, the node answers rightly, says that it is busy, parts with a reason or without
a word; nothing of it fails, nothing is left over, and afterwards it serves the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from helpers.message_vectors import VECTORS
from helpers.sync_nodes import grown
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fuzz.line import Line
from moderntensor.blockchain.chain import Blockchain
from moderntensor.config import NodeConfig
from moderntensor.errors import DecodeError, ModernTensorError
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.messages import (
    DisconnectCode,
    DisconnectMessage,
    GetBlocksMessage,
    GetHeadersMessage,
    GetPeersMessage,
    GetTransactionsMessage,
    HeadersMessage,
    HelloMessage,
    Message,
    MessageCodec,
    PingMessage,
    PongMessage,
    Reply,
    Request,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.wire import MESSAGES

T = TypeVar("T")
PATIENCE = 10.0  # seconds until a node that does not answer has failed
DESCRIPTORS = Path("/proc/self/fd")
FRAMES = [vector.frame for vector in VECTORS if len(vector.frame) < 4000]
CONFIG = NodeConfig(
    listen_host="127.0.0.1", listen_port=0, discovery=False, ping_interval=0.05, ping_timeout=5.0
)
HELLO: dict[str, Any] = {"node_id": bytes(32), "nonce": 1, "user_agent": "fuzz"}


def _frame(number: int) -> bytes:
    return FRAMES[number]


FRAME = st.integers(0, len(FRAMES) - 1).map(_frame)
CUTS = st.lists(st.integers(0, 4000), max_size=3)
REQUESTS = st.sampled_from(
    [
        GetHeadersMessage(start_height=1, max_headers=5),
        GetHeadersMessage(start_height=3, max_headers=2048, stride=65535),
        GetBlocksMessage(start_height=0, end_height=2**64 - 1, max_blocks=512),
        GetBlocksMessage(start_height=9, end_height=1),
        GetTransactionsMessage(hashes=(b"\x01" * 32,)),
        GetPeersMessage(max_peers=65535),
    ]
)


@lru_cache(1)
def chain() -> Blockchain:
    """One chain for all examples: nobody can change it."""
    return grown(6, transfers=2)


class Complaints(logging.Handler):
    """What the node calls an error of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.getMessage()} {record.exc_info}")


class Session(RuleBasedStateMachine):
    """One node and one peer of it that stops at nothing."""

    transport = "plaintext"

    def __init__(self) -> None:
        super().__init__()
        chain()
        self.descriptors = self._descriptors()
        self.runner = asyncio.Runner()
        self.complaints = Complaints()
        logging.getLogger("moderntensor").addHandler(self.complaints)
        self.line: Line | None = None
        self.all_lines: list[Line] = []
        self.requests: list[asyncio.Task[Reply]] = []
        self.run(self._start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def _start(self) -> None:
        def complain(_: object, context: dict[str, Any]) -> None:
            self.complaints.texts.append(str(context))

        asyncio.get_running_loop().set_exception_handler(complain)
        self.identity = NodeIdentity(b"\x21" * 32)
        self.node = P2PNode(
            config=CONFIG.replace(transport=self.transport), identity=NodeIdentity(b"\x20" * 32)
        )
        self.node.attach_chain(chain())
        await self.node.start()

    def _descriptors(self) -> int:
        return sum(1 for _ in DESCRIPTORS.iterdir()) if DESCRIPTORS.exists() else 0

    # --- what the peer does ------------------------------------------------------------------

    async def _connect(self, identity: NodeIdentity) -> Line:
        line = await Line.open(
            self.node.listen_port, identity if self.transport == "secure" else None
        )
        self.all_lines.append(line)
        async with asyncio.timeout(PATIENCE):
            while not (line.channel.ready or line.closed):  # noqa: ASYNC110 - it may close
                await asyncio.sleep(0.001)
        return line

    def _new_line(self) -> None:
        self.expected: Counter[tuple[int, int]] = Counter()  # replies by type and id
        self.owed: list[Request] = []  # that the node has asked and not been answered
        self.pings: set[int] = set()
        self.greeted = self.over = False
        self.readable = True  # all that was said are frames, whole ones
        self.line = self.run(self._connect(self.identity))

    def _talking(self) -> Line:
        """The line, which the node may have closed: then a new one, on which HELLO was said. No
        rule depends on whether there is one, so that chance alone decides what is done."""
        if self.line is None:
            self._new_line()
            self._say(self._hello())
        assert self.line is not None
        return self.line

    @rule(abruptly=st.booleans())
    def come_without_a_word(self, abruptly: bool) -> None:
        self.hang_up(abruptly)
        self._new_line()

    def _hello(self, **changes: Any) -> bytes:
        proved = {"node_id": self.identity.node_id} if self.transport == "secure" else {}
        genesis = chain().config.genesis_hash
        fields = {
            **HELLO,
            "nonce": len(self.all_lines),
            "genesis_hash": genesis,
            **proved,
            **changes,
        }
        return MessageCodec.encode(HelloMessage(**fields))

    def _say(self, frames: bytes, cuts: list[int] | None = None) -> None:
        """Send what may be frames, and remember which answers that may bring."""
        line = self._talking()
        at = 0
        while self.readable and at < len(frames):
            size = 4 + int.from_bytes(frames[at : at + 4], "big")
            try:
                message = MessageCodec.decode(frames[at : at + size])
            except DecodeError:
                self.readable = False
                break
            if isinstance(message, Request):
                self.expected[int(message.REPLY or 0), message.request_id] += 1
            elif isinstance(message, PingMessage):
                self.pings.add(message.nonce)
            at += size
        self.run(line.say(frames, cuts or ()))

    @rule(
        changes=st.sampled_from(
            [{}, {}, {"network_id": 2}, {"genesis_hash": b"\x09" * 32}, {"protocol_version": 9},
             {"node_id": b"\x77" * 32}, {"best_height": 2**64 - 1}, {"listen_port": 9999}]
        ),
        cuts=CUTS,
    )  # fmt: skip
    def greet(self, changes: dict[str, Any], cuts: list[int]) -> None:
        self._say(self._hello(**changes), cuts)

    @rule(asked=st.lists(REQUESTS, min_size=1, max_size=12), first=st.integers(1, 5), cuts=CUTS)
    def ask(self, asked: list[Request], first: int, cuts: list[int]) -> None:
        numbered = [r.replace(request_id=first + n) for n, r in enumerate(asked)]
        self._say(b"".join(map(MessageCodec.encode, numbered)), cuts)

    @rule(frames=st.lists(FRAME, min_size=1, max_size=3), cuts=CUTS)
    def say_something_known(self, frames: list[bytes], cuts: list[int]) -> None:
        self._say(b"".join(frames), cuts)

    @rule(frame=FRAME, at=st.integers(0, 4000), byte=st.integers(0, 255), cuts=CUTS)
    def say_something_changed(self, frame: bytes, at: int, byte: int, cuts: list[int]) -> None:
        place = at % len(frame)
        self._say(frame[:place] + bytes([byte]) + frame[place + 1 :], cuts)

    @rule(frame=FRAME, size=st.integers(0, 4000))
    def say_half(self, frame: bytes, size: int) -> None:
        self._talking()
        self.readable = False
        self._say(frame[: size % len(frame)])

    @rule(data=st.binary(max_size=60))
    def write_anything(self, data: bytes) -> None:
        line = self._talking()
        self.readable = False
        self.run(line.write(data))

    @rule(wanted=REQUESTS, seconds=st.sampled_from([0.0, 0.01, 5.0]))
    def be_asked(self, wanted: Request, seconds: float) -> None:
        self._talking()
        for peer in self.node.peers.values():
            task = self.runner.get_loop().create_task(peer.request(wanted, timeout=seconds))
            self.requests.append(task)

    @rule(
        how=st.sampled_from(["rightly", "busy", "other id", "as another", "twice", "too much"]),
        which=st.integers(0, 20),
    )
    def answer(self, how: str, which: int) -> None:
        self._talking()
        if not self.owed:
            return
        request = self.owed.pop(which % len(self.owed))
        kind = MESSAGES[int(request.REPLY or 0)]
        number = request.request_id
        right = kind(request_id=number, status=Status.NOT_FOUND)
        match how:
            case "rightly":
                said = [right]
            case "busy":
                said = [kind(request_id=number, status=Status.BUSY, retry_ms=5)]
            case "other id":
                said = [kind(request_id=number ^ 0x40, status=Status.NOT_FOUND)]
            case "as another":
                others = [m for m in MESSAGES.values() if issubclass(m, Reply) and m is not kind]
                said = [others[which % len(others)](request_id=number, status=Status.NOT_FOUND)]
            case "twice":
                said = [right, right]
            case _:
                headers = chain_headers()
                said = [HeadersMessage(request_id=number, headers=headers), right]
        self._say(b"".join(map(MessageCodec.encode, said)))

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.02]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(abruptly=st.booleans())
    def hang_up(self, abruptly: bool) -> None:
        if self.line is not None:
            self.line.hang_up(abruptly=abruptly)
            self.line = None

    # --- what the node may do ----------------------------------------------------------------

    @invariant()
    def the_node_keeps_to_the_protocol(self) -> None:
        self.run(self._turns())
        assert not self.complaints.texts
        if self.line is not None:
            self._judge(self.line)
            if self.line.closed:
                self.line.hang_up(abruptly=True)
                self.line = None

    async def _turns(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    def _judge(self, line: Line) -> None:
        for frame in line.frames:
            message: Message = MessageCodec.decode_payload(frame.type, frame.payload)
            assert not self.over, "something after DISCONNECT"
            if isinstance(message, HelloMessage):
                assert not self.greeted, "a second HELLO"
                self.greeted = True
                continue
            if isinstance(message, DisconnectMessage):
                assert message.code in set(DisconnectCode)
                self.over = True
                continue
            assert self.greeted, f"{message} before HELLO"
            if isinstance(message, PongMessage):
                assert not self.readable or message.nonce in self.pings
            elif isinstance(message, Reply) and message.request_id:
                key = (int(message.TYPE), message.request_id)
                assert not self.readable or self.expected[key] > 0, f"nobody asked for {message}"
                self.expected[key] -= 1
            elif isinstance(message, Request):
                self.owed.append(message)
        line.frames.clear()

    def teardown(self) -> None:
        try:
            self.run(self._end())
            assert not self.complaints.texts
        finally:
            logging.getLogger("moderntensor").removeHandler(self.complaints)
            self.run(self._leave())
            self.runner.close()
        assert self._descriptors() == self.descriptors, "descriptors are left over"

    async def _end(self) -> None:
        if self.line is not None:
            await self._await_answers(self.line)
            self.line.hang_up(abruptly=False)
        await self._honest_session()
        for outcome in await asyncio.gather(*self.requests, return_exceptions=True):
            assert isinstance(outcome, (Reply, ModernTensorError)), repr(outcome)
        await self.node.stop()
        await self._turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left over"

    async def _leave(self) -> None:
        """Close what an example that failed has left."""
        for line in self.all_lines:
            line.hang_up(abruptly=True)
        await self.node.stop()
        await self._turns()

    async def _await_answers(self, line: Line) -> None:
        """What was asked in frames that can be read is answered, unless the node has parted."""
        async with asyncio.timeout(PATIENCE):
            while self.readable and self.greeted and +self.expected:
                await asyncio.sleep(0.001)
                self._judge(line)
                if line.closed or self.over:
                    break

    async def _honest_session(self) -> None:
        """Somebody else comes, says and asks what is usual, and is served."""
        identity = NodeIdentity(b"\x22" * 32)
        line = await self._connect(identity)
        hello = HelloMessage(node_id=identity.node_id, nonce=99, listen_port=4444)
        asked = GetHeadersMessage(request_id=7, start_height=1, max_headers=3)
        said = (hello, PingMessage(nonce=5), asked)
        await line.say(b"".join(map(MessageCodec.encode, said)))
        found: dict[type[Message], Message] = {}
        async with asyncio.timeout(PATIENCE):
            while not {PongMessage, HeadersMessage} <= set(found):
                assert not line.closed, f"an honest peer is turned away: {found}"
                await asyncio.sleep(0.001)
                for frame in line.frames:
                    message = MessageCodec.decode_payload(frame.type, frame.payload)
                    found[type(message)] = message
                line.frames.clear()
        pong, headers = found[PongMessage], found[HeadersMessage]
        assert isinstance(pong, PongMessage)
        assert isinstance(headers, HeadersMessage)
        assert (pong.nonce, pong.best_height) == (5, 6)
        assert (headers.status, headers.count) == (Status.OK, 3)
        line.hang_up(abruptly=False)


class SecureSession(Session):
    """The same within the encrypted transport."""

    transport = "secure"


def chain_headers() -> bytes:
    """All headers of the chain, as HEADERS carries them."""
    return chain().headers_range(1, 6)


def campaign(machine: type[Session], examples: int, steps: int) -> Any:
    case = machine.TestCase
    case.settings = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True
    )
    return case


TestSession = campaign(Session, 15, 15)
TestSecureSession = campaign(SecureSession, 12, 15)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [Session, SecureSession])
def test_many_sessions(machine: type[Session]) -> None:
    case = type(f"Long{machine.__name__}", (machine,), {}).TestCase
    case.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
    case("runTest").runTest()
