"""Messages of one peer on their way to the handlers, in order, bounded."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Generic

from ..errors import NetworkError, ProtocolViolationError
from ..runtime import Runtime
from .dispatch import Handler, P
from .limits import INBOX_BYTES, INBOX_MESSAGES
from .messages import Message
from .tasks import TaskSet, ends_us

__all__ = ["Inbox"]

_TURN = 256  # messages handled before other tasks get their turn


class Inbox(Generic[P]):
    """What came from a peer and waits for its handlers.

    When it is full, reading from the peer stops, so that TCP slows it down; but never while it
    owes us a reply: then what does not fit is discarded (news are repeated by others).
    """

    def __init__(self, peer: P, runtime: Runtime) -> None:
        self._peer = peer
        self._runtime = runtime
        self._messages: deque[tuple[tuple[Handler[P], ...], Message, int]] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._finished = False
        self.paused = False
        self.resumed_at = 0.0  # loop time
        self.discarded = 0

    def __len__(self) -> int:
        return len(self._messages)

    def start(self, tasks: TaskSet) -> None:
        """Begin to call handlers."""
        tasks.start(self._run(), f"inbox of {self._peer.address}")

    def put(self, handlers: tuple[Handler[P], ...], message: Message, size: int) -> None:
        """Queue `message` (`size` bytes) for its handlers."""
        messages = self._messages
        if len(messages) >= INBOX_MESSAGES or self._bytes > INBOX_BYTES:
            if self._peer.owes_us:
                self.discarded += 1
                return
            if not self.paused:  # the rest of this read still comes in
                self.paused = True
                self._peer.connection.pause_reading()
        if not messages:
            self._wake.set()
        messages.append((handlers, message, size))
        self._bytes += size

    def read_on(self) -> None:
        """Read again: there is room, or something is asked of the peer."""
        if self.paused:
            self.paused = False
            self.resumed_at = self._runtime.loop_time()
            self._peer.connection.resume_reading()

    def finish(self, *, discard: bool) -> None:
        """No more will come. What is here is still handled, unless the peer broke the rules."""
        self._finished = True
        if discard:
            self._messages.clear()
        self._wake.set()

    async def _run(self) -> None:
        peer, messages = self._peer, self._messages
        count = 0
        while True:
            while messages:
                handlers, message, size = messages.popleft()
                self._bytes -= size
                for handler in handlers:
                    try:
                        await handler(peer, message)
                    except (Exception, asyncio.CancelledError) as error:
                        if ends_us(error):
                            raise
                        self._failed(message, error)
                count += 1
                if count >= _TURN:
                    count = 0
                    await asyncio.sleep(0)
                if self.paused and self._half_empty:
                    self.read_on()
            if self._finished:
                return
            self._wake.clear()
            await self._wake.wait()

    def _failed(self, message: Message, error: BaseException) -> None:
        """A handler has raised; called while its exception is being handled."""
        peer = self._peer
        if isinstance(error, ProtocolViolationError):
            peer.breach(error)
            self._messages.clear()
        elif isinstance(error, NetworkError):  # the line failed while it was handled
            peer.log(logging.DEBUG, "%s not handled: %s", message.TYPE.name, error)
        else:  # the handler's fault, not the peer's
            peer.log(logging.ERROR, "a handler of %s failed", message.TYPE.name, exc_info=True)

    @property
    def _half_empty(self) -> bool:
        return len(self._messages) <= INBOX_MESSAGES // 2 and self._bytes <= INBOX_BYTES // 2
