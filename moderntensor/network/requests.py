"""What one side has asked of one peer: ids, slots, the caps of replies, late replies."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

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
    IDLE_CAPS,
    DisconnectCode,
    MessageCodec,
    MessageType,
    Reply,
    Request,
    reply_cap,
)

__all__ = ["RequestTable"]

_MAX_ID = 0xFFFF_FFFF

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

    request: Request
    reply_type: MessageType
    cap: int
    future: asyncio.Future[Reply]
    late_until: float = 0.0


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
    ) -> None:
        self._decoder = decoder
        self._send = send
        self._runtime = runtime
        self._max_inflight = max_inflight
        self._max_per_type = max_per_type
        self._next_id = runtime.random.randint(1, _MAX_ID)
        self._asked: dict[int, _Asked] = {}
        self._late: dict[int, _Asked] = {}  # in the order in which they expire
        self._slots: dict[int, int] = {}  # taken, by request type
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
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
        try:
            async with asyncio.timeout(timeout):
                await self._take_slot(message.TYPE)
                try:
                    return await self._exchange(message, message.REPLY)
                finally:
                    self._free_slot(message.TYPE)
        except TimeoutError:
            self.timeouts += 1
            raise RequestTimeoutError(
                f"no answer to {message.TYPE.name} within {timeout:g} s"
            ) from None

    async def _exchange(self, message: Request, reply_type: MessageType) -> Reply:
        if self._closed is not None:
            raise PeerDisconnectedError(self._closed)
        self.expire()
        if len(self._late) >= LATE_REPLIES:
            raise PeerBusyError(f"{len(self._late)} requests have timed out lately")
        request_id = self._new_id()
        message = message.replace(request_id=request_id)
        frame = MessageCodec.encode(message)
        asked = _Asked(
            message, reply_type, reply_cap(message), asyncio.get_running_loop().create_future()
        )
        self._asked[request_id] = asked
        self._set_cap(reply_type)
        try:
            self._send(frame)
        except BaseException:
            del self._asked[request_id]
            self._set_cap(reply_type)
            raise
        try:
            return await asked.future
        finally:
            if self._asked.pop(request_id, None) is not None and self._closed is None:
                # Timed out or given up: the reply may still come.
                asked.late_until = self._runtime.loop_time() + LATE_REPLY_TIME
                self._late[request_id] = asked

    def _new_id(self) -> int:
        while True:
            request_id = self._next_id
            self._next_id = request_id % _MAX_ID + 1
            if request_id not in self._asked and request_id not in self._late:
                return request_id

    # --- slots -----------------------------------------------------------------------------

    def _has_room(self, request_type: int) -> bool:
        return (
            self._taken < self._max_inflight
            and self._slots.get(request_type, 0) < self._max_per_type
        )

    def _occupy(self, request_type: int) -> None:
        self._taken += 1
        self._slots[request_type] = self._slots.get(request_type, 0) + 1

    async def _take_slot(self, request_type: int) -> None:
        if self._has_room(request_type):
            self._occupy(request_type)
            return
        if len(self._waiting) >= WAITING_REQUESTS:
            raise PeerBusyError(f"{WAITING_REQUESTS} requests already wait for this peer")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (request_type, turn)
        self._waiting.append(entry)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._free_slot(request_type)  # it was given just when we stopped waiting
            raise
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def _free_slot(self, request_type: int) -> None:
        self._taken -= 1
        self._slots[request_type] -= 1
        for entry in self._waiting:
            waiting_type, turn = entry
            if not turn.done() and self._has_room(waiting_type):
                self._occupy(waiting_type)
                self._waiting.remove(entry)
                turn.set_result(None)
                return

    # --- replies ---------------------------------------------------------------------------

    def deliver(self, reply_type: MessageType, payload: bytes) -> Reply | None:
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
                )
            del self._late[request_id]
            self._set_cap(reply_type)
            self.late_replies += 1
            return None
        if asked.reply_type != reply_type:
            raise ProtocolViolationError(
                DisconnectCode.PROTOCOL_ERROR,
                f"{reply_type.name} answers {type(asked.request).__name__}",
            )
        reply = cast(Reply, MessageCodec.decode_payload(reply_type, payload))
        most = _ITEMS.get(asked.request.TYPE)
        if most is not None and reply.count > most(asked.request):
            raise ProtocolViolationError(
                DisconnectCode.PROTOCOL_ERROR,
                f"{reply_type.name} holds {reply.count} items, {most(asked.request)} were asked",
            )
        del self._asked[request_id]
        self._set_cap(reply_type)
        if not asked.future.done():
            asked.future.set_result(reply)
        return reply

    def _set_cap(self, reply_type: MessageType) -> None:
        """As much as the largest reply that may still come; both tables are small."""
        cap = IDLE_CAPS[reply_type]
        for table in (self._asked, self._late):
            for asked in table.values():
                if asked.reply_type is reply_type and asked.cap > cap:
                    cap = asked.cap
        self._decoder.set_cap(reply_type, cap)

    def expire(self) -> None:
        """Forget late requests whose time is over; called now and then."""
        now = self._runtime.loop_time()
        while self._late:
            request_id, oldest = next(iter(self._late.items()))
            if oldest.late_until > now:
                return
            del self._late[request_id]
            self._set_cap(oldest.reply_type)

    def close(self, reason: str) -> None:
        """The peer is gone: whoever waits gets `PeerDisconnectedError(reason)`. Idempotent."""
        if self._closed is not None:
            return
        self._closed = reason
        waiting = [asked.future for asked in self._asked.values()]
        waiting += [turn for _, turn in self._waiting]  # type: ignore[misc]
        self._asked.clear()
        self._late.clear()
        self._waiting.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(PeerDisconnectedError(reason))
