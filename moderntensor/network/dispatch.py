"""Who is called for which message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from ..errors import ConfigError, ProtocolViolationError
from .connection import Connection
from .extensions import NO_EXTENSIONS, ExtensionSet
from .messages import Message, MessageCodec, MessageType, Request
from .offences import Offence

__all__ = ["AtOnce", "Correspondent", "Handler", "Router"]


class Correspondent(Protocol):
    """What handling and serving need of the peer whose messages they are."""

    address: str
    connection: Connection

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent to it any more."""

    @property
    def owes_us(self) -> bool:
        """Whether a reply of it is outstanding."""

    def send(self, message: Message) -> None:
        """Queue a message that is not a request."""

    def send_frame(self, frame: bytes, *, now: bool = False) -> None:
        """Queue an encoded frame; `now`: nothing follows, let it leave."""

    def settle(self) -> None:
        """What is held for it has changed by much."""

    def punish(self, offence: Offence, detail: str = "") -> None:
        """It did something wrong."""

    def breach(self, error: ProtocolViolationError) -> None:
        """It broke a rule: tell it which, and part."""

    def log(self, level: int, text: str, *args: object, exc_info: bool = False) -> None:
        """Log a line about it, unless there were too many of late."""


P = TypeVar("P", bound=Correspondent)

Handler: TypeAlias = Callable[[P, Any], Awaitable[Any]]
"""``async def handler(peer, message)``; for a request it may return the reply."""

AtOnce: TypeAlias = Callable[[P, Any], bool]
"""``handler(peer, message)`` that waits for nothing; False leaves the message to the other."""

_OUR_OWN = frozenset(
    {MessageType.HELLO, MessageType.PING, MessageType.PONG, MessageType.DISCONNECT}
)


class Router(Generic[P]):
    """The handlers of one node, its own and its user's, by message type.

    Handlers of one peer's messages are awaited in order of arrival. What a handler raises is
    logged and costs the peer nothing, except `ProtocolViolationError`, which drops it.
    """

    def __init__(
        self,
        answer: Callable[[P, Request], Awaitable[bytes]],
        extensions: ExtensionSet = NO_EXTENSIONS,
    ) -> None:
        """`answer` gives the encoded reply to requests for which no handler has one."""
        self._answer = answer
        self.extensions = extensions
        kinds = (*MessageType, *extensions.messages)
        self.handlers: dict[int, tuple[Handler[P], ...]] = {int(kind): () for kind in kinds}
        # Asked first, where nothing of the peer waits and no other handler is there.
        self.at_once: dict[int, AtOnce[P]] = {}
        self._at_once: dict[Handler[P], AtOnce[P]] = {}

    def add(self, kind: int, handler: Handler[P], *, at_once: AtOnce[P] | None = None) -> None:
        """Call `handler` for each message of `kind`, after those that are there already. What
        `at_once` can do without waiting costs no turn of the loop.

        Raises `ConfigError` for a type that is no business of handlers, and for what cannot be
        called.
        """
        if not callable(handler):
            raise ConfigError(f"{handler!r} cannot be called: it is no handler")
        if kind not in self.handlers:
            raise ConfigError(f"type 0x{kind:02x} belongs to no message and no extension here")
        if kind in _OUR_OWN:
            name = MessageType(kind).name
            raise ConfigError(f"{name} concerns the connection alone: it has no handlers")
        if at_once is not None:
            self._at_once[handler] = at_once
        self._set(kind, (*self.handlers[kind], handler))

    def remove(self, kind: int, handler: Handler[P]) -> None:
        """Undo `add`. Raises ValueError if it is not there."""
        left = list(self.handlers[kind])
        left.remove(handler)
        self._set(kind, tuple(left))

    def _set(self, kind: int, handlers: tuple[Handler[P], ...]) -> None:
        self.handlers[kind] = handlers
        self.at_once.pop(kind, None)
        if len(handlers) == 1 and (at_once := self._at_once.get(handlers[0])) is not None:
            self.at_once[kind] = at_once

    async def answer(self, peer: P, request: Request) -> bytes:
        """The reply to a peer's request, encoded: the first handler's that gives one, else the
        node's."""
        for handler in self.handlers[request.TYPE]:
            reply = await handler(peer, request)
            if reply is not None:
                if not isinstance(reply, request.reply_class()):
                    raise TypeError(
                        f"a handler of {request.TYPE.name} returned {type(reply).__name__}"
                    )
                if reply.request_id != request.request_id:
                    reply = reply.replace(request_id=request.request_id)
                return MessageCodec.encode(reply)
        return await self._answer(peer, request)
