"""Tasks that belong to someone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["TaskSet", "ends_us"]


def ends_us(error: BaseException) -> bool:
    """Whether an exception out of someone else's code means that the running task shall end.

    A CancelledError may also come from a future of theirs that was cancelled: a failure of theirs.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


class TaskSet:
    """Owns tasks: holds them while they run, hands their failures on, ends them in `close`.

    `on_failure(name, error)` is called, from the loop, for each task that ended by an exception.
    """

    def __init__(self, on_failure: Callable[[str, BaseException], None]) -> None:
        self._on_failure = on_failure
        self._tasks: dict[asyncio.Task[None], None] = {}  # in the order of their starts
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def closed(self) -> bool:
        """Whether no task can start any more."""
        return self._closed

    def start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `coroutine` as a task of this set. Raises RuntimeError after `close`."""
        if self._closed:
            coroutine.close()
            raise RuntimeError(f"cannot start {name}: its owner is closed")
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._on_failure(task.get_name(), error)

    async def close(self) -> None:
        """Cancel all tasks and wait until they have ended; no new one can start. Idempotent.

        The calling task is spared if it is one of them: it ends by itself.
        """
        self._closed = True
        current = asyncio.current_task()
        while others := [task for task in self._tasks if task is not current]:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
