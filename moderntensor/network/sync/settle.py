"""Work on another thread cannot be cancelled: wait for it, so that nothing is left running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from ...awaiting import unharmed
from ...errors import ModernTensorError, StorageError

log = logging.getLogger(__name__)

T = TypeVar("T")


async def settled(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; if cancelled meanwhile, let it end first and only then be cancelled.

    For commits: whoever cancels a sync finds the store at rest when the cancellation returns. What
    they raise then is logged, as an error unless it is a verdict on what peers sent or on what has
    changed meanwhile: with its caller gone that concerns nobody.
    """
    task = asyncio.ensure_future(work)
    try:
        return await unharmed(task)
    except asyncio.CancelledError:
        while not task.done():  # however often we are cancelled
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            verdict = isinstance(error, ModernTensorError) and not isinstance(error, StorageError)
            log.log(
                logging.DEBUG if verdict else logging.ERROR,
                "failed after its caller was cancelled: %s",
                error,
                exc_info=error,
            )
        raise


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in a group and in those within it: a task group wraps what its tasks raise,
    each layer once more."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
