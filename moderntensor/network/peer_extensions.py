"""What passes between us and one peer of the extensions that both have.

Each has queues, limits and requests of its own: whatever its handlers do, the node's own traffic
and that of other extensions goes on. So nothing of an extension is a reason not to read from the
peer: what it has no room for is discarded, or answered BUSY.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

from ..backend import framing
from ..errors import CapabilityError, ConfigError, DecodeError
from .budget import EXTENSION_BASE, GRAIN, PEER_BASE, Account, Kind
from .dispatch import Correspondent, Handler
from .extensions import Extension, ExtensionSet
from .inbox import Inbox
from .limits import OBJECT_BYTES, OBJECT_FACTOR
from .messages import Message, MessageCodec, Reply, Request
from .peer_host import PeerHost
from .rates import PeerRates, retry_ms
from .requests import RequestTable
from .serving_queue import ServingQueue, busy_template, fill
from .tasks import TaskSet

__all__ = ["PeerExtensions", "missing"]

Handlers: TypeAlias = "tuple[Handler[Sharer], ...]"

# Of what a peer may send of a type: what two nodes measure is never quite the same.
_OUR_PART: Final = 0.9
_ID_SIZE: Final = 4  # bytes of a request's id, its first field


class Sharer(Correspondent, Protocol):
    """A peer, of which more has to be known than for handling and serving."""

    max_inflight: int
    max_per_type: int


class _Lane:
    """One extension with one peer: its messages, in order, one at a time."""

    def __init__(
        self,
        peer: Sharer,
        host: PeerHost,
        extension: Extension,
        send: Callable[[bytes], None],
        account: Account,
    ) -> None:
        self.extension = extension
        self._peer = peer
        self._router = host.router
        self._traffic = host.traffic
        self._slow = False  # something was discarded since its handlers last were idle
        self._busy = {
            int(cls.TYPE): busy_template(cls.reply_class())
            for cls in extension.messages
            if issubclass(cls, Request)
        }
        self._bounded: dict[int, tuple[Handlers, Handlers]] = {}  # as they are, and in time
        self.requests = RequestTable(
            peer.connection.decoder,
            send,
            host.runtime,
            max_inflight=peer.max_inflight,
            max_per_type=peer.max_per_type,
            traffic=host.traffic,
        )
        self.inbox: Inbox[Sharer] = Inbox(peer, None, peer.settle)
        self.serving: ServingQueue[Sharer] = ServingQueue(
            peer, account, self, host.config, host.runtime, host.traffic
        )

    async def answer(self, peer: Sharer, request: Request) -> bytes:
        """The reply to a peer's request, encoded."""
        reply: bytes = await self._in_time(self._router.answer, peer, request)
        return reply

    @property
    def held(self) -> int:
        """Of memory that messages and requests take which wait, roughly."""
        return self.inbox.bytes + self.serving.bytes

    def put(self, message: Message, size: int, *, room: bool) -> None:
        """Queue a message, `size` bytes of payload, for its handlers, if there are any, and `room`
        for it."""
        handlers = self._router.handlers[message.TYPE]
        if not handlers:
            return
        known, bounded = self._bounded.get(message.TYPE, ((), ()))
        if known is not handlers:
            bounded = tuple(partial(self._in_time, handler) for handler in handlers)
            self._bounded[message.TYPE] = handlers, bounded
        inbox = self.inbox
        before = inbox.discarded
        if room:
            inbox.put(bounded, message, OBJECT_BYTES + OBJECT_FACTOR * size)
        else:
            inbox.discarded += 1
        if inbox.discarded > before:
            self._traffic.refused[message.TYPE] += 1
            if not self._slow:
                self._slow = True
                text = "handlers of %s are slow: what they have no room for is discarded"
                self._peer.log(logging.WARNING, text, self.extension.name)
        elif len(inbox) == 1:
            self._slow = False

    def refuse(self, kind: int, payload: bytes, seconds: float) -> None:
        """Answer BUSY to a request of which no more is read than its id."""
        request_id = int.from_bytes(payload[:_ID_SIZE], "big")
        if len(payload) < _ID_SIZE or not request_id:
            raise DecodeError(f"{self._router.extensions.messages[kind].__name__}.request_id: none")
        if not self._peer.closed:
            self.serving.refuse_with(kind, fill(self._busy[kind], request_id, retry_ms(seconds)))

    async def _in_time(self, handler: Handler[Sharer], peer: Sharer, message: Message) -> Any:
        seconds = self.extension.handler_timeout
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await handler(peer, message)
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(f"took longer than {seconds:g} s, and was cancelled") from None
            raise


def missing(ours: ExtensionSet, message: Message, peer: str) -> CapabilityError:
    """Why a peer cannot be sent a message. Raises `ConfigError` if it is we who do not know it."""
    owner = ours.owners.get(type(message))
    if owner is None:
        raise ConfigError(f"{type(message).__name__} belongs to no extension of this node")
    return CapabilityError(f"{peer} does not have the extension {owner.name!r}")


class PeerExtensions:
    """The extensions that one peer shares with us."""

    def __init__(
        self,
        peer: Sharer,
        host: PeerHost,
        shared: Sequence[Extension],
        send: Callable[[bytes], None],
        account: Account,
    ) -> None:
        """Admits their messages from now on; `send` queues the frame of a request."""
        ours = host.router.extensions
        self._peer = peer
        self._traffic = host.traffic
        self._runtime = host.runtime
        now = host.runtime.loop_time()
        self._received = PeerRates(host.config.rate_limits, now, ours.rates, ours.total)
        self._sent = PeerRates(_OUR_PART, now, ours.rates, ours.total)
        self._lanes = [_Lane(peer, host, extension, send, account) for extension in shared]
        self._account = account
        self._lane_of: dict[type[Message], _Lane] = {}
        self._classes: dict[int, type[Message]] = {}
        decoder = peer.connection.decoder
        for lane in self._lanes:
            for cls in lane.extension.messages:
                self._lane_of[cls] = lane
                self._classes[cls.TYPE] = cls
                decoder.set_cap(cls.TYPE, 0 if issubclass(cls, Reply) else cls.CAP)

    # --- in --------------------------------------------------------------------------------

    def take(self, frame: framing.Frame, now: float) -> None:
        """A frame of one of their types, at loop time `now`. Raises as a message of ours does."""
        kind, payload = frame.type, frame.payload
        cls, size = self._classes[kind], len(payload)
        lane = self._lane_of[cls]
        if issubclass(cls, Reply):
            reply = lane.requests.deliver(cls.TYPE, payload)
            if reply is not None:
                lane.put(reply, size, room=self._room_in(lane))
        elif issubclass(cls, Request):
            seconds = self._over(kind, now, size)
            if seconds or not self._room_in(lane):
                lane.refuse(kind, payload, seconds)
            else:
                request = MessageCodec.decode_as(cls, payload)
                lane.serving.put(request, OBJECT_BYTES + OBJECT_FACTOR * size)
        elif not self._over(kind, now, size):
            lane.put(MessageCodec.decode_as(cls, payload), size, room=self._room_in(lane))
        if lane.held >= GRAIN:
            self._peer.settle()

    def _room_in(self, lane: _Lane) -> bool:
        """Whether another message of that extension may wait: one at least, whatever the others
        have."""
        return lane.held <= GRAIN or (self._account.spare and self.held <= self._account.allowance)

    def _over(self, kind: int, now: float, size: int) -> float:
        """Count a message; seconds to wait if it is over its rate, and 0 if it is not."""
        seconds = self._received.wait(kind, now)
        if not seconds:
            self._received.spend(kind, now, 1, size)
            return 0.0
        self._traffic.refused[kind] += 1
        offence = self._received.exceeded(kind, 1)
        if offence is not None:
            self._peer.punish(offence, f"{self._classes[kind].TYPE.name} over its rate")
        return seconds

    # --- out -------------------------------------------------------------------------------

    def table_for(self, request: Request) -> RequestTable:
        """Where requests of this class, which it `knows`, are made."""
        return self._lane_of[type(request)].requests

    def knows(self, message: Message) -> bool:
        """Whether the peer takes messages of this class."""
        return type(message) in self._lane_of

    def pace(self, message: Message, size: int) -> float:
        """Count a notice of `size` bytes that is to be sent; seconds to wait if it would be over
        the rate that it is declared with, and 0 if it is not."""
        kind = message.TYPE
        if isinstance(message, Reply):
            return 0.0
        now = self._runtime.loop_time()
        seconds = self._sent.wait(kind, now)
        if not seconds:
            self._sent.spend(kind, now, 1, size)
        return seconds

    # --- upkeep ----------------------------------------------------------------------------

    def start(self, tasks: TaskSet) -> None:
        """Begin to handle and to answer."""
        for lane in self._lanes:
            lane.inbox.start(tasks)
            lane.serving.start(tasks)
        self._account.hold(Kind.PEERS, PEER_BASE + EXTENSION_BASE * len(self._lanes))

    def expire(self) -> None:
        """Forget late requests whose time is over; called now and then."""
        for lane in self._lanes:
            lane.requests.expire()

    def close(self, reason: str, *, discard: bool) -> None:
        """The peer is gone; `discard` what of it was not handled yet."""
        for lane in self._lanes:
            lane.requests.close(reason)
            lane.serving.close()
            lane.inbox.finish(discard=discard)

    # --- what it holds and did -------------------------------------------------------------

    @property
    def names(self) -> frozenset[str]:
        """Of the extensions that it shares."""
        return frozenset(lane.extension.name for lane in self._lanes)

    @property
    def in_flight(self) -> int:
        """Requests of ours whose reply is outstanding."""
        return sum(lane.requests.in_flight for lane in self._lanes)

    @property
    def timeouts(self) -> int:
        """Requests of ours without a reply in time."""
        return sum(lane.requests.timeouts for lane in self._lanes)

    @property
    def held(self) -> int:
        """Of memory that messages and requests take which wait, roughly."""
        return sum(lane.held for lane in self._lanes)

    @property
    def messages_waiting(self) -> int:
        """Of its messages, that wait for their handlers."""
        return sum(len(lane.inbox) for lane in self._lanes)

    @property
    def requests_waiting(self) -> int:
        """Of its requests, that wait for their answers."""
        return sum(len(lane.serving) for lane in self._lanes)

    @property
    def refused(self) -> int:
        """Of its messages, over a rate or what may wait."""
        return self._received.refused + sum(lane.inbox.discarded for lane in self._lanes)

    @property
    def busy_replies(self) -> int:
        """Of its requests, answered BUSY."""
        return sum(lane.serving.busy_replies for lane in self._lanes)
