"""Who is called for which message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from .messages import MessageType, Reply, Request

if TYPE_CHECKING:
    from .peer import Peer

__all__ = ["Handler", "Router"]

Handler: TypeAlias = Callable[["Peer", Any], Awaitable[Any]]
"""``async def handler(peer, message)``; for a request it may return the reply."""


class Router:
    """The handlers of one node, its own and its user's, by message type.

    Handlers of one peer's messages are awaited in order of arrival. What a handler raises is
    logged and costs the peer nothing, except `ProtocolViolationError`, which drops it.
    """

    def __init__(self, answer: Callable[[Peer, Request], Awaitable[Reply]]) -> None:
        """`answer` serves the requests for which no handler has a reply."""
        self._answer = answer
        self.handlers: dict[int, tuple[Handler, ...]] = {int(kind): () for kind in MessageType}

    def add(self, kind: MessageType, handler: Handler) -> None:
        """Call `handler` for each message of `kind`, after those that are there already."""
        self.handlers[MessageType(kind)] += (handler,)

    def remove(self, kind: MessageType, handler: Handler) -> None:
        """Undo `add`. Raises ValueError if it is not there."""
        left = list(self.handlers[kind])
        left.remove(handler)
        self.handlers[kind] = tuple(left)

    async def answer(self, peer: Peer, request: Request) -> Reply:
        """The reply to a peer's request: the first handler's that gives one, else the node's."""
        for handler in self.handlers[request.TYPE]:
            reply = await handler(peer, request)
            if reply is not None:
                if not isinstance(reply, Reply) or reply.TYPE != request.REPLY:
                    raise TypeError(
                        f"a handler of {request.TYPE.name} returned {type(reply).__name__}"
                    )
                return reply.replace(request_id=request.request_id)
        return await self._answer(peer, request)
