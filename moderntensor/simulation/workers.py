"""Processes that do one call each at a time, where the loss of one costs one call alone.

`concurrent.futures.ProcessPoolExecutor` can neither say which of its calls took a worker down (all
that are pending fail together), nor end a call that takes too long.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MAX_PROCESSES: Final = 256
START_SECONDS: Final = 120.0
"""How long a process may take to begin with a call; that does not count as part of it."""
END_SECONDS: Final = 5.0
"""How long a process that has nothing to do may take to end before it is killed."""


class WorkerLost(Exception):  # noqa: N818  (an outcome, no error)
    """A call came to no end: its process died, or was killed for taking too long."""


class _Call(NamedTuple):
    future: Future[Any]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


class Workers(Executor):
    """`processes` of them, started with the first calls that need them, by ``spawn``.

    A call that takes more than `limit` seconds has its process killed. Its future, like that of a
    call whose process dies by itself, raises WorkerLost; the next call gets a new process.
    Functions, arguments and results are pickled.
    """

    def __init__(self, processes: int, *, limit: float | None = None) -> None:
        if not 1 <= processes <= MAX_PROCESSES:
            raise ValueError(f"{processes} processes: from 1 to {MAX_PROCESSES}")
        self._limit = limit
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._killed = threading.Event()
        self._closed = False
        self._idle = processes
        self._processes = processes
        self._lanes: list[threading.Thread] = []
        self._running: set[_Process] = set()
        self._lock = threading.Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """RuntimeError after `shutdown`."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._calls.put(_Call(future, fn, args, kwargs))
            if len(self._lanes) < self._processes:
                lane = threading.Thread(target=self._serve, name="simulation worker", daemon=True)
                self._lanes.append(lane)
                lane.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No further calls. Those that were accepted are done first, unless they are cancelled."""
        with self._lock:
            self._closed = True
            if cancel_futures:
                while not self._calls.empty():
                    if (call := self._calls.get()) is not None:
                        call.future.cancel()
            for _ in self._lanes:
                self._calls.put(None)
        if wait:
            for lane in self._lanes:
                lane.join()

    def kill(self) -> None:
        """End all processes now, whatever they do: their calls raise WorkerLost."""
        self._killed.set()
        self.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for process in self._running:
                process.kill()
        self.shutdown(wait=True)

    def _serve(self) -> None:
        """One process's calls, one after the other."""
        process: _Process | None = None
        try:
            while (call := self._calls.get()) is not None:
                if not call.future.set_running_or_notify_cancel():
                    continue
                if process is None:
                    process = _Process()
                    with self._lock:
                        self._running.add(process)
                if self._killed.is_set():  # perhaps before the process was among those to kill
                    process.kill()
                lost = process.do(call, self._limit)
                if lost:
                    self._forget(process)
                    process = None
        finally:
            if process is not None:
                process.end()
                self._forget(process)

    def _forget(self, process: _Process) -> None:
        with self._lock:
            self._running.discard(process)


class _Process:
    """One process and the pipe to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()  # so that the pipe ends with the process

    def do(self, call: _Call, limit: float | None) -> bool:
        """Do `call`, set its future; whether the process was lost over it."""
        try:
            self._pipe.send((call.function, call.arguments, call.keywords))
            if wait([self._pipe], timeout=START_SECONDS):
                self._pipe.recv()  # it has the call, and has imported what that needs
            ready = wait([self._pipe], timeout=limit)
            done, result = self._pipe.recv() if ready else (False, None)
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            call.future.set_exception(WorkerLost(f"its process died ({how})"))
            self._pipe.close()
            return True
        except Exception as error:  # what cannot be pickled raises anything
            call.future.set_exception(error)
            return False
        if not ready:
            self.kill()
            self._process.join()
            self._pipe.close()
            call.future.set_exception(WorkerLost(f"not at its end after {limit:g} s"))
            return True
        if done:
            call.future.set_result(result)
        else:
            call.future.set_exception(result)
        return False

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Let it end by itself, which it does when there are no more calls."""
        self._pipe.close()
        self._process.join(END_SECONDS)
        if self._process.exitcode is None:
            self.kill()
            self._process.join()


def _work(pipe: Connection) -> None:
    """What a process does: calls, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: who started us acts
    logging.disable(logging.WARNING)  # nodes among faults complain much; errors are looked at
    while True:
        try:
            function, arguments, keywords = pipe.recv()
        except EOFError:
            return
        pipe.send(None)
        try:
            answer = True, function(*arguments, **keywords)
        except Exception as error:  # the caller gets it
            answer = False, error
        pipe.send(answer)
