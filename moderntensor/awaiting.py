"""Awaiting what others await too."""

from __future__ import annotations

import asyncio
from typing import TypeVar

__all__ = ["unharmed"]

T = TypeVar("T")


async def unharmed(future: asyncio.Future[T]) -> T:
    """Await a task or future that goes on when who awaits it here is cancelled.

    Unlike `asyncio.shield`, which from Python 3.14 on has the loop report what is raised after
    that: whoever needs it awaits it elsewhere, or asks the future.
    """
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        future.add_done_callback(_retrieve)
        raise
    return future.result()


def _retrieve(future: asyncio.Future[T]) -> None:
    """Else it would be reported as never retrieved."""
    if not future.cancelled():
        future.exception()
