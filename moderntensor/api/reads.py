"""Reading the store for clients: on worker threads, few at a time, and none of it forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Generic, ParamSpec, TypeVar

from ..network.tasks import TaskSet
from ..runtime import Runtime
from .limits import MEASURED_FOR, READS, READS_WAITING
from .problems import Refusal

__all__ = ["Kept", "Reads"]

P = ParamSpec("P")
T = TypeVar("T")


class Reads:
    """Takes turns with the worker threads, so that the node's own work is not held up."""

    def __init__(self, runtime: Runtime, tasks: TaskSet) -> None:
        self._runtime = runtime
        self._tasks = tasks
        self._turns = asyncio.Semaphore(READS)
        self._waiting = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function` on a worker thread, in turn. What its caller gives up runs to its end and
        keeps its turn until then. Refuses where too many wait."""
        if self._waiting >= READS_WAITING:
            raise Refusal(503, "too many requests read the chain", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        if self._tasks.closed:
            self._turns.release()
            raise _stopping()
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tasks.start(self._do(outcome, partial(function, *args, **kwargs)), "HTTP read")
        return await outcome

    async def _do(self, outcome: asyncio.Future[T], work: Callable[[], T]) -> None:
        try:
            result = await self._runtime.run(work)
        except asyncio.CancelledError:
            if not outcome.done():
                outcome.set_exception(_stopping())
            raise
        except Exception as error:  # it is for the request
            if not outcome.done():
                outcome.set_exception(error)
        else:
            if not outcome.done():
                outcome.set_result(result)
        finally:
            self._turns.release()


class Kept(Generic[T]):
    """What `measure` found on a worker thread, at most a second ago: however many ask, it runs
    once a second, and they do not stand in the queue of reads."""

    def __init__(self, runtime: Runtime, measure: Callable[[], T]) -> None:
        self._runtime = runtime
        self._measure = measure
        self._one = asyncio.Lock()
        self._found: tuple[float, T] | None = None

    async def get(self) -> T:
        """The last measurement or a new one. Raises what `measure` does."""
        async with self._one:
            now = self._runtime.loop_time()
            if self._found is None or now - self._found[0] >= MEASURED_FOR:
                self._found = now, await self._runtime.run(self._measure)
            return self._found[1]


def _stopping() -> Refusal:
    return Refusal(503, "the node is stopping", headers={"Retry-After": "1"})
