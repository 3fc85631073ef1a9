"""One peer's requests on their way to being answered: bounded, in order, one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from struct import Struct
from typing import Any, Final, Generic, Protocol, TypeVar

from ..config import NodeConfig
from ..errors import NetworkError, ProtocolViolationError
from ..runtime import Runtime
from ..wire import MESSAGES
from .budget import GRAIN, Account
from .connection import WRITE_HIGH
from .dispatch import Correspondent, P
from .limits import (
    BUSY_BURST,
    BUSY_EXCESS,
    BUSY_PER_SECOND,
    RETRY_BUSY_MS,
    UNREAD_BUSY_REPLIES,
    WRITE_TOGETHER,
)
from .messages import DisconnectCode, MessageCodec, MessageType, Reply, Request, Status
from .offences import Offence
from .rates import TokenBucket, retry_ms
from .tasks import TaskSet, ends_us
from .traffic import Traffic

__all__ = ["Answerer", "ServingQueue", "busy_frame", "busy_template", "fill", "refusal"]

P_contra = TypeVar("P_contra", bound=Correspondent, contravariant=True)


def refusal(request: Request, status: Status, retry_ms: int = 0) -> Reply:
    """The reply to `request` that holds nothing but a status."""
    reply: Any = request.reply_class()
    empty: Reply = reply(request_id=request.request_id, status=status, retry_ms=retry_ms)
    return empty


_FIELDS: Final = Struct(">IBH")  # request_id, status, retry_ms, behind the header of the frame
_HEADER: Final = 5


def busy_template(reply: type[Any]) -> bytes:
    """A frame of this class of replies that says BUSY, to be filled in."""
    return MessageCodec.encode(reply(request_id=1, status=Status.BUSY))


def fill(template: bytes, request_id: int, retry_ms: int) -> bytes:
    """BUSY to this request. All replies begin with the same fields, so that one of floods costs no
    more than this."""
    fields = _FIELDS.pack(request_id, Status.BUSY, retry_ms)
    return template[:_HEADER] + fields + template[_HEADER + _FIELDS.size :]


def _template(kind: MessageType) -> bytes:
    reply = MESSAGES[kind].REPLY
    assert reply is not None  # noqa: S101 - of a request
    return busy_template(MESSAGES[reply])


_BUSY: Final = {int(kind): _template(kind) for kind in MessageType if kind.name.startswith("GET_")}


def busy_frame(request: Request, retry_ms: int) -> bytes:
    """The reply BUSY to `request`, encoded."""
    template = _BUSY.get(request.TYPE)
    if template is None:
        return MessageCodec.encode(refusal(request, Status.BUSY, retry_ms))
    return fill(template, request.request_id, retry_ms)


class Answerer(Protocol[P_contra]):
    """Who has the replies."""

    async def answer(self, peer: P_contra, request: Request) -> bytes:
        """The reply to a peer's request, encoded."""


class ServingQueue(Generic[P]):
    """What a peer has asked.

    More than our HELLO allows, or than its share of the byte budget has room for, is answered BUSY
    at once; who goes on nevertheless is punished. A reply counts as in flight until most of what
    was sent has left, so a peer that does not read is soon told BUSY, and dropped when it does not
    even read that.
    """

    def __init__(
        self,
        peer: P,
        account: Account,
        answerer: Answerer[P],
        config: NodeConfig,
        runtime: Runtime,
        traffic: Traffic,
    ) -> None:
        self._peer = peer
        self._account = account
        self._runtime = runtime
        self._traffic = traffic
        self._excess = TokenBucket(BUSY_PER_SECOND, BUSY_BURST, runtime.loop_time())
        self._beyond = 0  # requests over that since the last offence
        self._answerer = answerer
        self._max_inflight = config.max_inflight
        self._max_per_type = config.max_per_type
        self._queue: deque[tuple[Request, int]] = deque()
        self._in_flight: dict[int, int] = {}
        self._total = 0
        self._unread = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.bytes = 0  # of memory that the requests take, roughly
        self.busy_replies = 0

    def __len__(self) -> int:
        return len(self._queue)

    def start(self, tasks: TaskSet) -> None:
        """Begin to answer."""
        self._task = tasks.start(self._run(), f"serving {self._peer.address}")

    def close(self) -> None:
        """Answer no more."""
        self._queue.clear()
        self.bytes = 0
        if self._task is not None:
            self._task.cancel()

    def put(self, request: Request, size: int) -> None:
        """Queue a request of `size` bytes in memory, or answer BUSY. Raises
        `ProtocolViolationError` for a peer that asks on and on and reads nothing."""
        kind = request.TYPE
        of_this_type = self._in_flight.get(kind, 0)
        if self._total >= self._max_inflight or of_this_type >= self._max_per_type:
            self.refuse(request)
            self._count_excess()
            return
        self._total += 1
        self._in_flight[kind] = of_this_type + 1
        self._queue.append((request, size))
        self.bytes += size
        self._wake.set()

    def _count_excess(self) -> None:
        """BUSY was the answer since HELLO does not allow so many: once or twice is an accident."""
        if self._excess.take(self._runtime.loop_time()):
            return
        self._beyond += 1
        if self._beyond >= BUSY_EXCESS:
            self._beyond = 0
            self._peer.punish(Offence.REQUEST_FLOOD, "asks far more than HELLO allows")

    def refuse(self, request: Request, seconds: float = 0.0) -> None:
        """Answer BUSY: ask again in `seconds`, or a little later. Raises as `put`."""
        self.refuse_with(request.TYPE, busy_frame(request, retry_ms(seconds)))

    def refuse_with(self, kind: int, frame: bytes) -> None:
        """Answer a request of this type with BUSY in this frame. Raises as `put`."""
        self.busy_replies += 1
        self._traffic.busy_replies[kind] += 1
        if self._peer.connection.write_buffer_size <= WRITE_HIGH:
            self._unread = 0
        else:
            self._unread += 1
            if self._unread > UNREAD_BUSY_REPLIES:
                raise ProtocolViolationError(
                    DisconnectCode.LIMITS,
                    "asks on and on without reading the answers",
                    Offence.UNREAD_REQUESTS,
                )
        self._peer.send_frame(frame)

    async def _run(self) -> None:
        peer = self._peer
        time, answers = asyncio.get_running_loop().time, self._traffic.answers
        while True:
            self._wake.clear()
            unsent = 0
            while self._queue:
                request, size = self._queue.popleft()
                try:
                    if self._account.over:
                        self.refuse(request)
                        continue
                    began = time()
                    reply = await self._reply_to(request)
                    answers.observe(request.TYPE, time() - began)
                    unsent = (unsent + 1) % WRITE_TOGETHER
                    peer.send_frame(reply, now=unsent == 0 or not self._queue)
                    if len(reply) >= GRAIN:
                        self._peer.settle()
                    if peer.connection.write_buffer_size > WRITE_HIGH:
                        await peer.connection.drained()
                        self._peer.settle()
                except ProtocolViolationError as error:
                    peer.breach(error)
                except NetworkError as error:
                    peer.log(logging.DEBUG, "%s not answered: %s", request.TYPE.name, error)
                    if peer.closed:
                        return
                finally:
                    self.bytes = max(0, self.bytes - size)
                    self._total -= 1
                    self._in_flight[request.TYPE] -= 1
            await self._wake.wait()

    async def _reply_to(self, request: Request) -> bytes:
        try:
            return await self._answerer.answer(self._peer, request)
        except ProtocolViolationError:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if ends_us(error):
                raise
            # Our own fault (a store that fails, a user's handler).
            self._peer.log(
                logging.ERROR, "%s could not be answered", request.TYPE.name, exc_info=True
            )
            return MessageCodec.encode(refusal(request, Status.BUSY, 4 * RETRY_BUSY_MS))
