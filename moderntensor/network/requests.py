"""What one side has asked of one peer: ids, slots, the caps of replies, late replies."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, TypeAlias

from ..backend import framing
from ..errors import (
    PeerBusyError,
    PeerDisconnectedError,
    ProtocolViolationError,
    RequestTimeoutError,
)
from ..runtime import Runtime
from .limits import LATE_REPLIES, LATE_REPLY_TIME, WAITING_REQUESTS
from .messages import (
    DisconnectCode,
    MessageCodec,
    MessageType,
    Reply,
    Request,
    reply_cap,
)
from .offences import Offence
from .protocol import TypeByte
from .reply_caps import ReplyCaps
from .traffic import Traffic

__all__ = ["RequestTable"]

_MAX_ID = 0xFFFF_FFFF
ReplyClass: TypeAlias = type[Reply]

# How many items the reply may hold at most, by the request; STATE is bounded by its type alone.
_ITEMS: dict[int, Callable[[Any], int]] = {
    MessageType.GET_BLOCKS: lambda asked: int(asked.max_blocks),
    MessageType.GET_HEADERS: lambda asked: int(asked.max_headers),
    MessageType.GET_BLOCK_BODIES: lambda asked: len(asked.hashes),
    MessageType.GET_TRANSACTIONS: lambda asked: len(asked.hashes),
    MessageType.GET_STATE_NODES: lambda asked: len(asked.paths),
    MessageType.GET_PEERS: lambda asked: int(asked.max_peers),
}


@dataclass(slots=True, eq=False)
class _Asked:
    """A request that waits for its reply, or whose reply would be late."""

    request_id: int
    type: TypeByte
    most: int | None  # items that the reply may hold
    reply_type: TypeByte
    reply_class: ReplyClass
    cap: int
    future: asyncio.Future[Reply]
    asked_at: float  # loop time
    deadline: float  # loop time
    late_until: float = 0.0


@dataclass(slots=True, eq=False)
class _Turn:
    """A request that waits for a free slot."""

    request_type: int
    future: asyncio.Future[None]
    deadline: float  # loop time


class RequestTable:
    """The requests in flight with one peer.

    It keeps to the limits of the peer's HELLO, and opens the decoder's cap of a reply type only
    while such a reply may come.
    """

    def __init__(
        self,
        decoder: framing.FrameDecoder,
        send: Callable[[bytes], None],
        runtime: Runtime,
        *,
        max_inflight: int,
        max_per_type: int,
        traffic: Traffic,
    ) -> None:
        """Must be called while the loop runs."""
        self._send = send
        self._runtime = runtime
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._max_inflight = max_inflight
        self._max_per_type = max_per_type
        self._next_id = runtime.random.randint(1, _MAX_ID)
        self._caps = ReplyCaps(decoder)
        self._asked: dict[int, _Asked] = {}
        self._late: dict[int, _Asked] = {}  # in the order in which they expire
        self._slots: dict[int, int] = {}  # taken, by request type
        self._taken = 0
        self._waiting: deque[_Turn] = deque()
        # One timer for all: requests are many, those that time out are few.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._closed: str | None = None
        self.timeouts = 0
        self.late_replies = 0

    @property
    def in_flight(self) -> int:
        """Requests whose reply is outstanding."""
        return len(self._asked)

    async def request(self, message: Request, timeout: float) -> Reply:  # noqa: ASYNC109
        """Send `message` under an id of its own and return its reply.

        `timeout` seconds cover the wait for a free slot and for the reply. Raises
        `RequestTimeoutError`, `PeerBusyError` when too much waits already, and
        `PeerDisconnectedError`. BUSY, NOT_FOUND and the like are replies, not errors.
        """
        if not isinstance(message, Request) or message.REPLY is None:
            raise TypeError(f"{type(message).__name__} is no request")
        kind = message.TYPE
        if not (self._max_inflight and self._max_per_type):
            raise PeerBusyError("the peer allows no requests")
        now = self._loop.time()
        deadline = now + timeout
        try:
            if self._has_room(kind):
                self._occupy(kind)
            else:
                await self._wait_for_slot(kind, deadline)
                now = self._loop.time()
            try:
                asked = self._ask(message, message.REPLY, now, deadline)
                try:
                    return await asked.future
                finally:
                    if asked.request_id in self._asked:
                        self._give_up(asked)
            finally:
                self._free_slot(kind)
        except TimeoutError:
            self.timeouts += 1
            self._traffic.timeouts[kind] += 1
            raise RequestTimeoutError(f"no answer to {kind.name} within {timeout:g} s") from None

    def _ask(self, message: Request, reply_type: TypeByte, now: float, deadline: float) -> _Asked:
        if self._closed is not None:
            raise PeerDisconnectedError(self._closed)
        if self._late:
            self.expire()
            if len(self._late) >= LATE_REPLIES:
                raise PeerBusyError(f"{len(self._late)} requests have timed out lately")
        request_id = self._new_id()
        message = message.replace(request_id=request_id)
        frame = MessageCodec.encode(message)
        cap = reply_cap(message)
        items = _ITEMS.get(message.TYPE)
        asked = _Asked(
            request_id,
            message.TYPE,
            None if items is None else items(message),
            reply_type,
            message.reply_class(),
            cap,
            self._loop.create_future(),
            now,
            deadline,
        )
        self._asked[request_id] = asked
        self._caps.open(reply_type, cap)
        try:
            self._send(frame)
        except BaseException:
            if request_id in self._asked:
                self._forget(self._asked, asked)
            raise
        self._watch(deadline)
        return asked

    def _give_up(self, asked: _Asked) -> None:
        """Timed out or cancelled: the reply may still come."""
        del self._asked[asked.request_id]
        asked.late_until = self._runtime.loop_time() + LATE_REPLY_TIME
        self._late[asked.request_id] = asked

    def _forget(self, table: dict[int, _Asked], asked: _Asked) -> None:
        del table[asked.request_id]
        self._caps.close(asked.reply_type, asked.cap)

    def _new_id(self) -> int:
        while True:
            request_id = self._next_id
            self._next_id = request_id % _MAX_ID + 1
            if request_id not in self._asked and request_id not in self._late:
                return request_id

    # --- deadlines -------------------------------------------------------------------------

    def _watch(self, deadline: float) -> None:
        """See to it that the timer runs out no later than `deadline`."""
        if deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        """Fail what is overdue, and set the timer for the next, if anything waits."""
        self._timer, self._timer_at = None, inf
        now = self._loop.time()
        earliest = inf
        for waiting in self._everyone():
            if waiting.future.done():
                continue
            if waiting.deadline <= now:
                _fail(waiting.future, TimeoutError())
            else:
                earliest = min(earliest, waiting.deadline)
        if earliest < inf:
            self._watch(earliest)

    def _everyone(self) -> list[_Asked | _Turn]:
        return [*self._asked.values(), *self._waiting]

    # --- slots -----------------------------------------------------------------------------

    def _has_room(self, request_type: int) -> bool:
        return (
            self._taken < self._max_inflight
            and self._slots.get(request_type, 0) < self._max_per_type
        )

    def _occupy(self, request_type: int) -> None:
        self._taken += 1
        self._slots[request_type] = self._slots.get(request_type, 0) + 1

    async def _wait_for_slot(self, request_type: int, deadline: float) -> None:
        if len(self._waiting) >= WAITING_REQUESTS:
            raise PeerBusyError(f"{WAITING_REQUESTS} requests already wait for this peer")
        turn = _Turn(request_type, self._loop.create_future(), deadline)
        self._waiting.append(turn)
        self._watch(deadline)
        try:
            await turn.future
        except BaseException:
            future = turn.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self._free_slot(request_type)  # it was given just when we stopped waiting
            raise
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def _free_slot(self, request_type: int) -> None:
        self._taken -= 1
        self._slots[request_type] -= 1
        for turn in self._waiting:
            if not turn.future.done() and self._has_room(turn.request_type):
                self._occupy(turn.request_type)
                self._waiting.remove(turn)
                turn.future.set_result(None)
                return

    # --- replies ---------------------------------------------------------------------------

    def deliver(self, reply_type: TypeByte, payload: bytes) -> Reply | None:
        """A reply has come: hand it to whoever asked, and return it; None if it came too late.

        Raises `ProtocolViolationError` or `DecodeError` for one that nobody asked for, of another
        type, malformed, or with more than was asked.
        """
        request_id = int.from_bytes(payload[:4], "big")
        asked = self._asked.get(request_id)
        if asked is None:
            late = self._late.get(request_id)
            if late is None or late.reply_type != reply_type:
                raise ProtocolViolationError(
                    DisconnectCode.PROTOCOL_ERROR,
                    f"{reply_type.name} {request_id} was not asked for",
                    Offence.UNASKED_REPLY,
                )
            self._forget(self._late, late)
            self.late_replies += 1
            self._traffic.late_replies += 1
            return None
        if asked.reply_type != reply_type:
            raise ProtocolViolationError(
                DisconnectCode.PROTOCOL_ERROR,
                f"{reply_type.name} answers {asked.type.name}",
                Offence.WRONG_REPLY,
            )
        reply = MessageCodec.decode_as(asked.reply_class, payload)
        if asked.most is not None and reply.count > asked.most:
            raise ProtocolViolationError(
                DisconnectCode.PROTOCOL_ERROR,
                f"{reply_type.name} holds {reply.count} items, {asked.most} were asked",
                Offence.WRONG_REPLY,
            )
        self._forget(self._asked, asked)
        self._traffic.requests.observe(asked.type, self._loop.time() - asked.asked_at)
        if not asked.future.done():
            asked.future.set_result(reply)
        return reply

    def expire(self) -> None:
        """Forget late requests whose time is over; called now and then."""
        if not self._late:
            return
        now = self._runtime.loop_time()
        while self._late:
            oldest = next(iter(self._late.values()))
            if oldest.late_until > now:
                return
            self._forget(self._late, oldest)

    def close(self, reason: str) -> None:
        """The peer is gone: whoever waits gets `PeerDisconnectedError(reason)`. Idempotent."""
        if self._closed is not None:
            return
        self._closed = reason
        waiting = self._everyone()
        self._asked.clear()
        self._late.clear()
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for one in waiting:
            if not one.future.done():
                _fail(one.future, PeerDisconnectedError(reason))


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    future.set_exception(error)
    future.exception()  # seen, also if whoever waits for it is cancelled before it can look
