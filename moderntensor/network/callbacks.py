"""Telling a node's user what happens, whatever its callbacks do."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any

from .peer import Peer
from .tasks import TaskSet

__all__ = ["tell"]

logger = logging.getLogger(__name__)


def tell(callbacks: Iterable[Callable[[Peer], Any]], peer: Peer, tasks: TaskSet | None) -> None:
    """Call each with `peer`; coroutines run as `tasks`, or not at all without any. What a
    callback raises is logged."""
    for callback in tuple(callbacks):
        try:
            result = callback(peer)
        except Exception:
            logger.exception("a callback failed for %s", peer)
            continue
        if inspect.isawaitable(result):
            if tasks is not None:
                tasks.start(_finish(result, peer), f"callback for {peer.address}")
            elif inspect.iscoroutine(result):
                result.close()


async def _finish(result: Any, peer: Peer) -> None:
    try:
        await result
    except Exception:
        logger.exception("a callback failed for %s", peer)
