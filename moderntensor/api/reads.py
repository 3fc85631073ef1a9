"""Reading the store for clients: on worker threads, few at a time, and none of it forgotten."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, ParamSpec, TypeVar

from ..network.tasks import TaskSet
from ..runtime import Runtime
from .limits import READS, READS_WAITING
from .problems import Refusal
from .shares import who_yields

__all__ = ["Kept", "Reads"]

P = ParamSpec("P")
T = TypeVar("T")


class Reads:
    """Takes turns with the worker threads, so that the node's own work is not held up. Clients that
    wait get their turns one after the other, however much one of them asks for."""

    def __init__(self, runtime: Runtime, tasks: TaskSet) -> None:
        self._runtime = runtime
        self._tasks = tasks
        self.turns = max(1, min(READS, runtime.workers - 1))
        """At a time: one thread at least is the node's, where it has several."""
        self._free = self.turns
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}  # whose turn is next, first
        self.waiting = 0
        """How many wait for a turn."""

    async def run(
        self, client: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`function` on a worker thread, once it is `client`'s turn. Who is cancelled waits no
        longer; what has begun runs to its end and keeps its turn until then. Refuses where too
        many wait."""
        await self._turn(client)
        if self._tasks.closed:
            self._pass_on()
            raise _stopping()
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        task = self._tasks.start(self._do(outcome, partial(function, *args, **kwargs)), "HTTP read")
        task.add_done_callback(lambda _: self._done(outcome))
        return await outcome

    async def _turn(self, client: str) -> None:
        if self._free:
            self._free -= 1
            return
        if self.waiting >= READS_WAITING:
            self._make_room(client)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(turn)
        self.waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(client, turn)
            elif turn.exception() is None:
                self._pass_on()  # it had just been given
            raise

    def _make_room(self, client: str) -> None:
        most = who_yields((who for who, queue in self._queues.items() for _ in queue), client)
        if most is None:
            raise _too_many()
        last = self._queues[most][-1]
        self._leave(most, last)
        if not last.done():
            last.set_exception(_too_many())

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(client)
        if queue is not None and turn in queue:
            queue.remove(turn)
            self.waiting -= 1
            if not queue:
                del self._queues[client]

    def _pass_on(self) -> None:
        """The turn goes to the next client, which then goes behind all others that wait."""
        while self._queues:
            client, queue = next(iter(self._queues.items()))
            del self._queues[client]
            turn = queue.popleft()
            self.waiting -= 1
            if queue:
                self._queues[client] = queue
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def _do(self, outcome: asyncio.Future[T], work: Callable[[], T]) -> None:
        try:
            result = await self._runtime.run(work)
        except Exception as error:  # it is for the request
            if not outcome.done():
                outcome.set_exception(error)
        else:
            if not outcome.done():
                outcome.set_result(result)

    def _done(self, outcome: asyncio.Future[T]) -> None:
        """Even where it was ended before it began."""
        if not outcome.done():
            outcome.set_exception(_stopping())
        self._pass_on()


class Kept(Generic[T]):
    """What `measure` found at most `seconds` ago. One measurement is under way at a time, however
    many ask for it and whoever of them leaves, and they do not stand in the queue of reads."""

    def __init__(
        self,
        runtime: Runtime,
        tasks: TaskSet,
        measure: Callable[[], Awaitable[T]],
        seconds: float,
    ) -> None:
        self._runtime = runtime
        self._tasks = tasks
        self._measure = measure
        self._seconds = seconds
        self._found: tuple[float, T] | None = None
        self._asking: dict[asyncio.Future[T], None] = {}
        self._under_way = False

    async def get(self) -> T:
        """The last measurement, that which is under way, or a new one. Raises what it does."""
        if self._found is not None:
            at, found = self._found
            if self._runtime.loop_time() - at < self._seconds:
                return found
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._under_way:
            if self._tasks.closed:
                raise _stopping()
            self._under_way = True
            task = self._tasks.start(self._do(), "HTTP measurement")
            task.add_done_callback(self._done)
        self._asking[outcome] = None
        try:
            return await outcome
        finally:
            self._asking.pop(outcome, None)

    async def _do(self) -> None:
        began = self._runtime.loop_time()
        try:
            found = await self._measure()
        except Exception as error:  # it is for the requests
            for asking in self._left():
                asking.set_exception(error)
        else:
            self._found = began, found
            for asking in self._left():
                asking.set_result(found)
        finally:
            self._under_way = False

    def _done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # perhaps before it began
            self._under_way = False
            for asking in self._left():
                asking.set_exception(_stopping())

    def _left(self) -> list[asyncio.Future[T]]:
        return [asking for asking in self._asking if not asking.done()]


def _too_many() -> Refusal:
    return Refusal(503, "too many requests read the chain", headers={"Retry-After": "1"})


def _stopping() -> Refusal:
    return Refusal(503, "the node is stopping", headers={"Retry-After": "1"})
