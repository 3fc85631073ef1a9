"""Interrupts of a simulation: between two callbacks, never within a node."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from types import FrameType

from .loop import VirtualLoop

__all__ = ["between_callbacks"]


@contextmanager
def between_callbacks(loop: VirtualLoop) -> Iterator[None]:
    """What SIGINT and SIGTERM raise comes out of the loop: a node that it hit would take it for a
    failure of its own, and log that. A second one comes at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are none of its business
        return
    asked: list[int] = []
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {int(number): handler for number, handler in found.items() if callable(handler)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def put_off(number: int, _: FrameType | None) -> None:
        put_back()
        asked.append(number)
        loop.call_soon(act, context=Context())  # no host's, so that no crash takes it along

    def act() -> None:
        while asked:
            number = asked.pop()
            before[number](number, None)

    for number in before:
        signal.signal(number, put_off)
    try:
        yield
    finally:
        put_back()
        act()  # if the loop had ended before it could
