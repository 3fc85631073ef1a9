"""Whether a peer is read from, and why it is not."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Protocol

from ..runtime import Runtime
from .connection import Connection

__all__ = ["Reading", "Why"]


class Why(IntEnum):
    """Reasons to leave what a peer sends in the kernel, so that TCP slows it down; bits of a sum.
    They are looked at with every message, and a Flag would cost more than the look."""

    INBOX = 1
    """Its messages wait for their handlers."""
    BUDGET = 2
    """It holds more than its share of the byte budget."""


class Debtor(Protocol):
    """Who is read from."""

    connection: Connection

    @property
    def owes_us(self) -> bool:
        """Whether a reply of it is outstanding."""


class Reading:
    """Pauses and resumes reading, but never pauses while the peer owes us a reply: two nodes that
    both did would wait for each other."""

    __slots__ = ("_loop", "_peer", "_runtime", "_why", "resumed_at")

    def __init__(self, peer: Debtor, runtime: Runtime) -> None:
        """Must be called while the loop runs."""
        self._peer = peer
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._why = 0
        self.resumed_at = 0.0  # loop time

    @property
    def paused(self) -> bool:
        """Whether it is not read from."""
        return bool(self._why)

    def pause(self, why: int) -> bool:
        """Stop for this reason; False if the peer owes us a reply. Idempotent."""
        if self._peer.owes_us:
            return False
        if not self._why:
            self._peer.connection.pause_reading()
        self._why |= why
        return True

    def resume(self, why: int) -> None:
        """This reason is gone. Idempotent."""
        if self._why & why:
            self._why &= ~why
            if not self._why:
                self._go_on()

    def resume_for_reply(self) -> None:
        """Something is asked of the peer: no reason counts."""
        if self._why:
            self._why = 0
            self._go_on()

    def _go_on(self) -> None:
        self.resumed_at = self._runtime.loop_time()
        self._peer.connection.resume_reading()
        self.next_turn()

    def next_turn(self) -> None:
        """If the decoder has paused, since one read held more frames than a turn of the loop may
        take, let it go on in the next turn."""
        if self._peer.connection.decoder.paused:
            self._loop.call_soon(self._decode_on)

    def _decode_on(self) -> None:
        if not self._why:
            self._peer.connection.resume()
