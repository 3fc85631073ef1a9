"""Messages of one peer on their way to the handlers, in order, bounded."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Generic

from ..errors import NetworkError, ProtocolViolationError
from .dispatch import AtOnce, Handler, P
from .limits import INBOX_BYTES, INBOX_MESSAGES
from .messages import Message
from .reading import Reading, Why
from .tasks import TaskSet, ends_us

__all__ = ["Inbox"]

_TURN = 256  # messages handled before other tasks get their turn


class Inbox(Generic[P]):
    """What came from a peer and waits for its handlers.

    When it is full, reading from the peer stops, so that TCP slows it down; but never while it
    owes us a reply: then what does not fit is discarded (news are repeated by others). One without
    `reading` always discards it.
    """

    def __init__(self, peer: P, reading: Reading | None, drained: Callable[[], None]) -> None:
        """`drained()` is called now and then while messages are handled."""
        self._peer = peer
        self._reading = reading
        self._drained = drained
        self._messages: deque[tuple[tuple[Handler[P], ...], Message, int]] = deque()
        self._wake = asyncio.Event()
        self._finished = False
        self._full = False
        self.idle = False  # nothing is handled, and nothing waits
        self.bytes = 0  # of memory, roughly, with the message that is being handled
        self._in_hand = 0  # of that message
        self.discarded = 0

    def __len__(self) -> int:
        return len(self._messages)

    def start(self, tasks: TaskSet) -> None:
        """Begin to call handlers."""
        tasks.start(self._run(), f"inbox of {self._peer.address}")

    def put(self, handlers: tuple[Handler[P], ...], message: Message, size: int) -> None:
        """Queue `message` (`size` bytes of memory, roughly) for its handlers."""
        messages = self._messages
        if len(messages) >= INBOX_MESSAGES or self.bytes - self._in_hand > INBOX_BYTES:
            if self._reading is None or not self._reading.pause(Why.INBOX):
                self.discarded += 1
                return
            self._full = True  # the rest of this turn still comes in
        if not messages:
            self.idle = False
            self._wake.set()
        messages.append((handlers, message, size))
        self.bytes += size

    def attempt(self, at_once: AtOnce[P], message: Message) -> bool:
        """Have a message handled now; False if it has to be `put`. Only while `idle`. Raises
        `ProtocolViolationError`; what else is raised is logged, as of other handlers."""
        try:
            return at_once(self._peer, message)
        except ProtocolViolationError:
            raise
        except Exception as error:
            self._failed(message, error)
            return True

    def finish(self, *, discard: bool) -> None:
        """No more will come. What is here is still handled, unless the peer broke the rules."""
        self._finished = True
        self.idle = False
        if discard:
            self._forget()
        self._wake.set()

    async def _run(self) -> None:
        peer, messages = self._peer, self._messages
        count = 0
        while True:
            while messages:
                handlers, message, self._in_hand = messages.popleft()
                for handler in handlers:
                    try:
                        await handler(peer, message)
                    except (Exception, asyncio.CancelledError) as error:
                        if ends_us(error):
                            raise
                        self._failed(message, error)
                self.bytes -= self._in_hand
                self._in_hand = 0
                count += 1
                if count >= _TURN:
                    count = 0
                    self._drained()
                    await asyncio.sleep(0)
                if self._full and self._half_empty:
                    self._full = False
                    if self._reading is not None:
                        self._reading.resume(Why.INBOX)
            if self._finished:
                return
            self._drained()
            self._wake.clear()
            self.idle = True
            await self._wake.wait()

    def _failed(self, message: Message, error: BaseException) -> None:
        """A handler has raised; called while its exception is being handled."""
        peer = self._peer
        if isinstance(error, ProtocolViolationError):
            peer.breach(error)
            self._forget()
        elif isinstance(error, NetworkError):  # the line failed while it was handled
            peer.log(logging.DEBUG, "%s not handled: %s", message.TYPE.name, error)
        else:  # the handler's fault, not the peer's
            peer.log(logging.ERROR, "a handler of %s failed", message.TYPE.name, exc_info=True)

    def _forget(self) -> None:
        self._messages.clear()
        self.bytes = self._in_hand

    @property
    def _half_empty(self) -> bool:
        waiting = self.bytes - self._in_hand
        return len(self._messages) <= INBOX_MESSAGES // 2 and waiting <= INBOX_BYTES // 2
