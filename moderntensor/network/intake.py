"""What comes from one peer: counted, decoded, and given to where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, Protocol

from ..backend import framing
from ..errors import (
    DecodeError,
    PeerBusyError,
    PeerDisconnectedError,
    ProtocolViolationError,
)
from ..runtime import Runtime
from ..wire import MESSAGES
from .connection import Connection
from .dispatch import Router
from .inbox import Inbox
from .limits import FRAMES_PER_TURN, OBJECT_BYTES, OBJECT_FACTOR
from .messages import (
    DisconnectCode,
    DisconnectMessage,
    Message,
    MessageCodec,
    MessageType,
    PingMessage,
    PongMessage,
    Request,
)
from .offences import Offence
from .peer_extensions import PeerExtensions
from .protocol import FIRST_EXTENSION_TYPE
from .rates import PeerRates
from .reading import Reading
from .requests import RequestTable
from .serving_queue import ServingQueue
from .traffic import FRAME_HEADER, Traffic

__all__ = ["Intake"]

_KINDS: Final = {int(kind): kind for kind in MessageType}
# Straight to the layout where no rule spans fields. That a payload is within its cap the frame
# decoder has seen to.
_DECODERS: Final[dict[int, Callable[[bytes], Any]]] = {
    int(kind): MESSAGES[kind].LAYOUT.unpack
    if MESSAGES[kind].fault is Message.fault
    else partial(MessageCodec.decode_payload, kind)
    for kind in MessageType
}
_NEWS: Final = {
    int(kind): _DECODERS[kind]
    for kind in (MessageType.NEW_TRANSACTION, MessageType.NEW_BLOCK, MessageType.NEW_BLOCK_HASHES)
}
_type_of = attrgetter("type")


def _runs(frames: list[framing.Frame]) -> Iterable[tuple[int, Iterable[framing.Frame]]]:
    """Frames that follow one another, by type; most come alone."""
    if len(frames) == 1:
        return ((frames[0].type, frames),)
    return groupby(frames, _type_of)


class Sender(Protocol):
    """Whose messages they are."""

    connection: Connection

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent to it any more."""

    def on_ping(self, nonce: int) -> None:
        """It asks whether we are there."""

    def on_pong(self, pong: PongMessage) -> None:
        """It says that it is there."""

    def on_goodbye(self, message: DisconnectMessage) -> None:
        """It leaves."""

    def on_read(self) -> None:
        """All that came at once has been looked at."""

    def punish(self, offence: Offence, detail: str = "") -> None:
        """It did something wrong."""

    def breach(self, error: ProtocolViolationError) -> None:
        """It broke a rule: tell it which, and part."""


class Intake:
    """Judges frames by their type: requests to the queue that answers them, replies to whoever
    asked, news to the inbox, each within the rates of a peer."""

    def __init__(
        self,
        peer: Sender,
        router: Router[Any],
        rates: PeerRates,
        requests: RequestTable,
        serving: ServingQueue[Any],
        inbox: Inbox[Any],
        reading: Reading,
        runtime: Runtime,
        traffic: Traffic,
        extensions: PeerExtensions | None,
    ) -> None:
        self._peer = peer
        self._extensions = extensions
        self._handlers = router.handlers
        self._at_once = router.at_once
        self._rates = rates
        self._requests = requests
        self._serving = serving
        self._inbox = inbox
        self._reading = reading
        self._runtime = runtime
        self._traffic = traffic
        self._received = traffic.received
        self._decoder = peer.connection.decoder
        self._now = runtime.loop_time()
        self._decoder.frames_left = FRAMES_PER_TURN

    def on_frames(self, frames: list[framing.Frame]) -> None:
        """Called by the connection with what one read completed, or the first of it."""
        self._decoder.frames_left = FRAMES_PER_TURN
        self._now = self._runtime.loop_time()
        peer, received = self._peer, self._received
        try:
            for kind, run in _runs(frames):
                decode = _NEWS.get(kind)
                if decode is not None:  # what may come in floods
                    self._take_news(kind, decode, run)
                else:
                    take = _TAKERS[kind]
                    for frame in run:
                        received.messages[kind] += 1
                        received.bytes[kind] += FRAME_HEADER + len(frame.payload)
                        take(self, frame)
                if peer.closed:
                    return
        except ProtocolViolationError as error:
            peer.breach(error)
        except DecodeError as error:
            peer.punish(Offence.MALFORMED, str(error))
        except PeerDisconnectedError as error:  # it said goodbye, or we closed it meanwhile
            peer.connection.close(error)
        except PeerBusyError as error:
            peer.punish(Offence.NOT_READING, str(error))
        else:
            self._reading.next_turn()
            peer.on_read()

    def _take_news(
        self, kind: int, decode: Callable[[bytes], Message], run: Iterable[framing.Frame]
    ) -> None:
        if self._rates.wait(kind, self._now):
            sizes = [len(frame.payload) for frame in run]
            self._received.add(kind, len(sizes), sum(sizes))
            self._refuse(kind, len(sizes))
            return
        handlers, inbox = self._handlers[kind], self._inbox
        at_once = self._at_once.get(kind)
        count = size = 0
        try:
            for frame in run:
                payload = frame.payload
                count += 1
                size += len(payload)
                message = decode(payload)
                if at_once is not None and inbox.idle and inbox.attempt(at_once, message):
                    if self._peer.closed:  # dropped for that: what came along is not looked at
                        return
                    continue
                if handlers:
                    inbox.put(handlers, message, OBJECT_BYTES + OBJECT_FACTOR * len(payload))
        finally:
            self._received.add(kind, count, size)
        self._rates.spend(kind, self._now, count, size)

    def _refuse(self, kind: int, count: int = 1) -> None:
        """So many messages are over the rate."""
        self._traffic.refused[kind] += count
        offence = self._rates.exceeded(kind, count)
        if offence is not None:
            self._peer.punish(offence, f"{_KINDS[kind].name} over its rate")

    def _put(self, kind: int, message: Message, size: int) -> None:
        handlers = self._handlers[kind]
        if handlers:
            self._inbox.put(handlers, message, OBJECT_BYTES + OBJECT_FACTOR * size)

    # --- the connection --------------------------------------------------------------------

    def _on_second_hello(self, frame: framing.Frame) -> None:
        raise ProtocolViolationError(
            DisconnectCode.PROTOCOL_ERROR, "a second HELLO", Offence.UNEXPECTED_MESSAGE
        )

    def _on_disconnect(self, frame: framing.Frame) -> None:
        message = DisconnectMessage.decode(frame.payload)
        self._peer.on_goodbye(message)
        raise PeerDisconnectedError(message.reason)

    def _on_ping(self, frame: framing.Frame) -> None:
        ping = PingMessage.decode(frame.payload)
        if self._rates.wait(MessageType.PING, self._now):
            self._refuse(MessageType.PING)
            return
        self._rates.spend(MessageType.PING, self._now, 1, len(frame.payload))
        self._peer.on_ping(ping.nonce)

    def _on_pong(self, frame: framing.Frame) -> None:
        self._peer.on_pong(PongMessage.decode(frame.payload))

    # --- requests and replies --------------------------------------------------------------

    def _on_request(self, frame: framing.Frame) -> None:
        kind, size = frame.type, len(frame.payload)
        message = _DECODERS[kind](frame.payload)
        assert isinstance(message, Request)  # noqa: S101 - by its type
        seconds = self._rates.wait(kind, self._now)
        if seconds:
            self._refuse(kind)
            if not self._peer.closed:
                self._serving.refuse(message, seconds)
        else:
            self._rates.spend(kind, self._now, 1, size)
            self._serving.put(message, OBJECT_BYTES + OBJECT_FACTOR * size)

    def _on_headers(self, frame: framing.Frame) -> None:
        if any(frame.payload[:4]):
            self._on_reply(frame)
            return
        kind, size = frame.type, len(frame.payload)
        message = _DECODERS[kind](frame.payload)  # announced headers
        if self._rates.wait(kind, self._now):
            self._refuse(kind)
            return
        self._rates.spend(kind, self._now, 1, size)
        self._put(kind, message, size)

    def _on_reply(self, frame: framing.Frame) -> None:
        reply = self._requests.deliver(_KINDS[frame.type], frame.payload)
        if reply is not None:
            self._put(frame.type, reply, len(frame.payload))

    def _on_extension(self, frame: framing.Frame) -> None:
        assert self._extensions is not None  # noqa: S101 - or the decoder would not admit it
        self._extensions.take(frame, self._now)


_TAKERS: Final[dict[int, Callable[[Intake, framing.Frame], None]]] = {
    **{
        int(kind): Intake._on_request if kind.name.startswith("GET_") else Intake._on_reply
        for kind in MessageType
    },
    int(MessageType.HELLO): Intake._on_second_hello,
    int(MessageType.PING): Intake._on_ping,
    int(MessageType.PONG): Intake._on_pong,
    int(MessageType.DISCONNECT): Intake._on_disconnect,
    int(MessageType.HEADERS): Intake._on_headers,
    **dict.fromkeys(range(FIRST_EXTENSION_TYPE, 0x100), Intake._on_extension),
}
