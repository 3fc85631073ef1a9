"""What the world gives: clocks, randomness, entropy and worker threads, in one injectable place.

Nothing else in the package asks the world for these, so that a simulator can replace them all.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Threads that hang at the same time; twice as many as look up names in a node that is well.
DETACHED_THREADS: Final = 16
# Pieces of bulk work for each worker thread, that which it does included: another is there when
# it has done one, and whatever else is run waits for these at most.
BULK_PER_WORKER: Final = 2


class SignatureMemo(Protocol):
    """What is known of signatures that others have checked. `items` are as for the functions of
    `blockchain.crypto` that take one of these, and so is what comes back."""

    def first_bad(self, items: bytes) -> int | None:
        """As `verify_signatures`."""

    def addresses(self, items: bytes) -> list[bytes | None]:
        """As `recover_addresses`."""


class Runtime:
    """The real world. A simulation passes a subclass that answers differently.

    One object serves one node: `close()` ends its worker threads.
    """

    def __init__(self, workers: int | None = None) -> None:
        """`workers` threads (default: one per CPU) for work that releases the GIL."""
        self.workers = workers or os.cpu_count() or 1
        # Peers see nonces and choices; a Mersenne Twister could be reconstructed from them.
        self.random: random.Random = random.SystemRandom()
        # None: a node believes nobody but itself. Simulated nodes, which run in one process and
        # the same code, may share one, and check what all of them are told once.
        self.signatures: SignatureMemo | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._bulk: asyncio.Semaphore | None = None  # of the loop that used it last
        self._bulk_loop: asyncio.AbstractEventLoop | None = None
        self._detached = threading.BoundedSemaphore(DETACHED_THREADS)

    def wall_time(self) -> float:
        """Seconds since the Unix epoch; may jump. Only for what other nodes see."""
        return time.time()

    def loop_time(self) -> float:
        """Seconds of the running event loop's monotonic clock; for all durations."""
        return asyncio.get_running_loop().time()

    def entropy(self, size: int) -> bytes:
        """`size` bytes fit for keys."""
        return os.urandom(size)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` on a worker thread (signature checks, reading the store)."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="moderntensor-work")
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, partial(function, *args, **kwargs)
        )

    async def run_bulk(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, in turn, for work that comes in hundreds of pieces: what `run` is asked for
        meanwhile does not have to wait for all of them."""
        turns, loop = self._bulk, asyncio.get_running_loop()
        if turns is None or self._bulk_loop is not loop:
            turns = self._bulk = asyncio.Semaphore(BULK_PER_WORKER * self.workers)
            self._bulk_loop = loop
        async with turns:
            if turns is not self._bulk:  # closed meanwhile, which cancels what `run` has queued too
                raise asyncio.CancelledError
            return await self.run(function, *args, **kwargs)

    async def run_bulk_each(self, calls: Iterable[Callable[[], T]]) -> list[T]:
        """`run_bulk` for all of them, outcomes in their order. The first that raises ends the
        others: when this returns or raises, none of them waits for its turn any longer."""
        tasks = [asyncio.ensure_future(self.run_bulk(call)) for call in calls]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def run_writer(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` on the one thread that writes to the store; calls queue in order."""
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="moderntensor-write")
        return await asyncio.get_running_loop().run_in_executor(
            self._writer, partial(function, *args, **kwargs)
        )

    async def run_detached(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function`, which may hang in the system and touches nothing of ours, on a thread
        that nobody waits for: neither who is cancelled here, nor `close`, nor the interpreter's
        end. Raises OSError if `DETACHED_THREADS` of them are busy."""
        if not self._detached.acquire(blocking=False):
            raise BlockingIOError("too many calls of the system hang")
        outcome: Future[T] = Future()
        outcome.set_running_or_notify_cancel()  # nothing cancels a thread

        def work() -> None:
            try:
                outcome.set_result(function(*args, **kwargs))
            except BaseException as error:  # it is for those who wait
                outcome.set_exception(error)
            finally:
                self._detached.release()

        threading.Thread(target=work, name="moderntensor-detached", daemon=True).start()
        return await asyncio.wrap_future(outcome)

    def close(self) -> None:
        """End the worker threads once what they are doing is done. Idempotent."""
        for pool in (self._pool, self._writer):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._writer = self._bulk = self._bulk_loop = None
