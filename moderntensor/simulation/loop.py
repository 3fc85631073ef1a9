"""An event loop whose time is virtual: it jumps to the next timer when nothing is ready.

It runs what asyncio programs of one thread are made of (tasks, futures, timers, streams of a
`SimNetwork`) in an order that depends on nothing but the program. What would reach outside
(sockets, threads, processes, signals) raises NotImplementedError.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from ..errors import DeadlockError, LivelockError

if TYPE_CHECKING:
    from .network import SimNetwork

__all__ = ["MAX_TURNS", "VirtualLoop"]

# Callbacks at one moment of virtual time; a thousand nodes that start together need some 100,000.
MAX_TURNS: Final = 5_000_000
# How often `wind_up` cancels what does not end.
_CANCEL_ROUNDS: Final = 100
# Cancelled timers stay where they are until they are so many, and as many as the others.
_COMPACT_FROM: Final = 512
# What is due later than the current slot (1/16 s) waits in the list of its own slot, which is
# sorted when its time has come: a heap of all would be deep, and timers are cancelled before that.
_SLOTS: Final = 16  # a second
_LAST_SLOT: Final = 2**53

# When, running number, function, argument. For a timer the function is None and the argument its
# handle; the rest is called as it is, outside any context, with no handle and not to be cancelled.
_Event = tuple[float, int, Callable[[Any], None] | None, Any]


class _Task(asyncio.Task[Any]):
    """Hashed by a running number: asyncio keeps tasks in sets, and addresses differ per run."""

    def __init__(self, coroutine: Any, *, number: int, **options: Any) -> None:
        self.number = number
        self.context = options.pop("context", None) or copy_context()
        """In which it runs (`get_context` of Python 3.12 on)."""
        super().__init__(coroutine, context=self.context, **options)

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    """Hashed by a running number from its first hashing on."""

    __slots__ = ("number",)
    number: int

    def __hash__(self) -> int:
        try:
            return self.number
        except AttributeError:
            loop = cast(VirtualLoop, self.get_loop())
            self.number = next(loop.future_numbers)
            return self.number


class _Handle(asyncio.Handle):
    """As its base, made in half the time."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class _Timer(asyncio.TimerHandle):
    """As its base, made in half the time."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = True


class VirtualLoop(asyncio.BaseEventLoop):
    """One thread, virtual seconds that begin at 0.0, everything of equal time in the order in
    which it was asked for.

    What takes no virtual time is free: a computation, however long, and any number of turns.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_debug(False)
        # Of callbacks that raised and of tasks whose exception nobody looked at: what asyncio
        # only logs, as text.
        self.failures: list[str] = []
        self.network: SimNetwork | None = None  # set by the network itself
        self.events = 0  # timers and segments so far
        self.now = 0.0  # as `time()`, for those who ask often
        self._numbers = count()
        self._task_numbers = count(1)
        self.future_numbers = count(1)
        self._soon: deque[asyncio.Handle] = deque()
        self._heap: list[_Event] = []  # what is due before `_edge`
        self._edge = 1 / _SLOTS
        self._slots: dict[int, list[_Event]] = {}  # the rest, by when * _SLOTS
        self._slot_numbers: list[int] = []  # a heap of the keys
        self._cancelled_timers = 0
        self._compact_at = _COMPACT_FROM
        self._stopping = False  # of the base class, which `stop` sets
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._collect)

    # --- time and callbacks ----------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.now

    def post(self, when: float, function: Callable[[Any], None], argument: object) -> None:
        """Call `function(argument)` at `when`, or as soon as that is past: a timer that cannot be
        cancelled and costs no object. It must not raise and belongs to no context."""
        if when < self._edge:
            heappush(self._heap, (when, next(self._numbers), function, argument))
        else:
            self._put_off((when, next(self._numbers), function, argument))

    def _put_off(self, event: _Event) -> None:
        number = int(min(event[0] * _SLOTS, _LAST_SLOT))
        slot = self._slots.get(number)
        if slot is None:
            self._slots[number] = [event]
            heappush(self._slot_numbers, number)
        else:
            slot.append(event)

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """As in asyncio."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        handle = _Handle(callback, args, self, context)
        self._soon.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """There is one thread."""
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As in asyncio."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        handle = _Timer(when, callback, args, self, context)
        if when < self._edge:
            heappush(self._heap, (when, next(self._numbers), None, handle))
        else:
            self._put_off((when, next(self._numbers), None, handle))
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """As in asyncio."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by the handle, also after it has fired: `asyncio.sleep` cancels its own."""
        if not handle._scheduled:  # type: ignore[attr-defined]
            return
        self._cancelled_timers += 1
        if self._cancelled_timers > self._compact_at:
            left = 0
            for events in (self._heap, *self._slots.values()):
                events[:] = _without_cancelled(events)
                left += len(events)
            heapify(self._heap)
            self._cancelled_timers, self._compact_at = 0, max(_COMPACT_FROM, left)

    def _run_once(self) -> None:  # noqa: PLR0912  # calls would cost a tenth of a simulation
        """Called by `run_forever` of the base class: run until somebody calls `stop`."""
        soon, heap = self._soon, self._heap
        turns = 0
        while True:
            if not soon and not self._stopping and self._moved():
                turns = 0
            # What is due joins the callbacks of this turn, as in asyncio.
            now = self.now
            while heap and heap[0][0] <= now:
                _, _, function, argument = heappop(heap)
                if function is not None:
                    self.events += 1
                    function(argument)
                    turns += 1
                    if turns > MAX_TURNS:
                        break
                elif argument._cancelled:
                    self._cancelled_timers -= 1
                else:
                    self.events += 1
                    argument._scheduled = False
                    soon.append(argument)
            turn = len(soon)
            turns += turn
            if turns > MAX_TURNS:
                what = soon[0] if soon else "segments"
                raise LivelockError(f"{turns} callbacks at {self.now:.6f} s: {what!r}")
            for _ in range(turn):
                handle: Any = soon.popleft()
                if not handle._cancelled:
                    try:  # as its `_run` does
                        handle._context.run(handle._callback, *handle._args)
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as error:
                        self._raised(handle, error)
            if self._stopping:
                return

    def _raised(self, handle: asyncio.Handle, error: BaseException) -> None:
        self.call_exception_handler(
            {"message": f"Exception in callback {handle!r}", "exception": error, "handle": handle}
        )

    def _moved(self) -> bool:
        """Go to the next moment at which something happens; whether it is another one. Raises
        `DeadlockError` if there is none."""
        heap = self._heap
        while heap and heap[0][2] is None and heap[0][3].cancelled():
            heappop(heap)
            self._cancelled_timers -= 1
        while not heap:
            if not self._slot_numbers:
                waiting = "\n".join(self.waiting()) or "no task"
                raise DeadlockError(f"nothing will ever happen any more; what waits:\n{waiting}")
            number = heappop(self._slot_numbers)
            self._edge = (number + 1) / _SLOTS if number < _LAST_SLOT else inf
            events = self._slots.pop(number)
            heap[:] = _without_cancelled(events)
            self._cancelled_timers -= len(events) - len(heap)
            heapify(heap)
        before, self.now = self.now, max(self.now, heap[0][0])
        return self.now > before

    # --- tasks -----------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        """As in asyncio."""
        return _Future(loop=self)

    def _make_task(self, _: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> _Task:
        return _Task(coroutine, number=next(self._task_numbers), loop=self, **options)

    def unfinished(self) -> list[_Task]:
        """All tasks but the current one that have not ended, oldest first."""
        current = asyncio.current_task(self)
        tasks = [task for task in asyncio.all_tasks(self) if isinstance(task, _Task)]
        return sorted((t for t in tasks if t is not current), key=lambda task: task.number)

    def drop(self, of: Callable[[Context], bool]) -> list[str]:
        """Cancel the callbacks and timers of contexts that `of` names; which those were. No task
        may be theirs."""
        handles: list[asyncio.Handle] = [*self._soon]
        for events in (self._heap, *self._slots.values()):
            handles += (event[3] for event in events if event[2] is None)
        found = []
        for handle in handles:
            if not handle.cancelled() and of(handle._context):  # type: ignore[attr-defined]
                found.append(repr(handle))
                handle.cancel()
        return found

    def waiting(self) -> list[str]:
        """The tasks that have not ended, oldest first: each its name and where it waits."""
        return [_place(task) for task in self.unfinished()]

    def wind_up(self) -> list[str]:
        """Cancel what has not ended and run until it has; what that was, as `waiting` tells it.

        Call it while the loop does not run. Raises `LivelockError` for a task that will not end.
        """
        left = self.waiting()
        for _ in range(_CANCEL_ROUNDS):
            tasks = self.unfinished()
            if not tasks:
                return left
            for task in tasks:
                task.cancel()
            self.run_until_complete(asyncio.wait(tasks, timeout=1.0))
        raise LivelockError("tasks do not end:\n" + "\n".join(self.waiting()))

    def _collect(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        text = str(context.get("message", "failure"))
        self.failures.append(f"{self.now:.6f} s: {text}: {error!r}" if error else text)

    def close(self) -> None:
        """As in asyncio. What was scheduled is dropped."""
        super().close()
        self._soon.clear()
        self._heap.clear()
        self._slots.clear()
        self._slot_numbers.clear()

    # --- the network, and what is outside ---------------------------------------------------

    def _attached(self) -> SimNetwork:
        if self.network is None:
            raise OSError("this loop has no network")
        return self.network

    async def create_server(  # type: ignore[override]
        self, factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """A listener of the current process in the simulated network; see `SimNetwork.listen`."""
        return await self._attached().listen(factory, host, port, **options)

    async def create_connection(  # type: ignore[override]
        self, factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        """A connection through the simulated network; see `SimNetwork.connect`."""
        return await self._attached().connect(factory, host, port, **options)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        """There are no threads."""
        raise NotImplementedError("a simulation has no threads: use Runtime.run")


def _without_cancelled(events: list[_Event]) -> list[_Event]:
    return [event for event in events if event[2] is not None or not event[3].cancelled()]


def _place(task: asyncio.Task[Any]) -> str:
    stack = task.get_stack(limit=1)
    if not stack:
        return task.get_name()
    frame = stack[-1]
    return f"{task.get_name()} at {frame.f_code.co_filename}:{frame.f_lineno}"
