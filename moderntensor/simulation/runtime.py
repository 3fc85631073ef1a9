"""The world as a simulated node sees it: virtual time, seeded chance, work that takes a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from random import Random
from typing import Any, ParamSpec, TypeVar

from ..runtime import Runtime, SignatureMemo
from .loop import VirtualLoop

__all__ = ["Clock", "Delays", "SimRuntime", "seeded"]

P = ParamSpec("P")
T = TypeVar("T")


def seeded(*parts: object) -> Random:
    """Chance that these parts determine: numbers and names."""
    # A text is hashed to a seed, in the same way in every process.
    return Random("/".join(map(str, parts)))  # noqa: S311 - it is to be repeated


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds that a piece of work on a worker thread takes, whatever it is, drawn from `least` to
    `most`; how many run at a time is not modelled."""

    least: float = 100e-6
    most: float = 500e-6


class Clock:
    """The wall clock of a host: `epoch` plus simulated seconds, plus what it is wrong by."""

    __slots__ = ("_drift", "_epoch", "_loop", "_since", "_skew")

    def __init__(self, loop: VirtualLoop, epoch: float) -> None:
        self._loop = loop
        self._epoch = epoch
        self._skew = self._drift = self._since = 0.0

    def time(self) -> float:
        """Unix seconds."""
        return self._epoch + self._loop.time() + self.skew

    @property
    def skew(self) -> float:
        """Seconds ahead now, behind if negative. To set it sets the clock; the drift goes on."""
        return self._skew + self._drift * (self._loop.time() - self._since)

    @skew.setter
    def skew(self, seconds: float) -> None:
        self._skew, self._since = seconds, self._loop.time()

    @property
    def drift(self) -> float:
        """Seconds that it gains in each."""
        return self._drift

    @drift.setter
    def drift(self, rate: float) -> None:
        self.skew = self.skew
        self._drift = rate


class SimRuntime(Runtime):
    """What a `Runtime` is, for one process on a `VirtualLoop`.

    `run`, `run_writer`: the work is done inline, at the beginning or, drawn by lot, at the end of
    the time that it takes. So a process that is killed in between has lost it, or has done it and
    never got to know; and whoever cancels it finds either, as with threads.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        clock: Clock,
        seed: str,
        *,
        delays: Delays,
        lots: Random,
        context: Context,
        signatures: SignatureMemo | None = None,
    ) -> None:
        """`context` is that of the process; `lots` decide on the time that work takes."""
        super().__init__(1)
        self.random = seeded(seed, "random")
        self.signatures = signatures
        self._loop = loop
        self._clock = clock
        self._delays = delays
        self._lots = lots
        self._context = context
        self._entropy = sha256(seed.encode())
        self._drawn = 0
        self._written = 0.0  # when the writer will be free
        self._ended = False

    def wall_time(self) -> float:
        """As `Runtime`, by the clock of the host."""
        return self._clock.time()

    def loop_time(self) -> float:
        """As `Runtime`."""
        return self._loop.time()

    def entropy(self, size: int) -> bytes:
        """As `Runtime`: SHA-256 in counter mode."""
        found = b""
        while len(found) < size:
            self._drawn += 1
            block = self._entropy.copy()
            block.update(self._drawn.to_bytes(8, "big"))
            found += block.digest()
        return found[:size]

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `Runtime`; see above."""
        begin = self._loop.time()
        outcome = _Job(self, partial(function, *args, **kwargs)).between(begin, self._delay(begin))
        found: T = await outcome
        return found

    async def run_bulk(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for which nothing ever waits."""
        return await self.run(function, *args, **kwargs)

    async def run_writer(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `Runtime`, one after the other; see above."""
        begin = max(self._loop.time(), self._written)
        self._written = self._delay(begin)
        found: T = await _Job(self, partial(function, *args, **kwargs)).between(
            begin, self._written
        )
        return found

    async def run_detached(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """There is nothing outside. Raises OSError."""
        raise OSError("nothing outside answers in a simulation")

    def end(self) -> None:
        """The process is gone: nothing of its work is done any more."""
        self._ended = True

    def close(self) -> None:
        """As `Runtime`: there are no threads."""

    def _delay(self, begin: float) -> float:
        least, most = self._delays.least, self._delays.most
        return begin + least + (most - least) * self._lots.random()

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def loop(self) -> VirtualLoop:
        return self._loop

    @property
    def context(self) -> Context:
        return self._context

    def draws_early(self) -> bool:
        """Whether a piece of work is done at the beginning of its time."""
        return self._lots.random() < 0.5


class _Job:
    """One piece of work and who waits for it."""

    __slots__ = ("_done", "_error", "_function", "_future", "_result", "_runtime")

    def __init__(self, runtime: SimRuntime, function: Callable[[], Any]) -> None:
        self._runtime = runtime
        self._function = function
        self._future = runtime.loop.create_future()
        self._result: Any = None
        self._error: Exception | None = None
        self._done = False

    def between(self, begin: float, end: float) -> asyncio.Future[Any]:
        """What it comes to, at `end`."""
        runtime = self._runtime
        loop = runtime.loop
        if runtime.ended:
            return self._future  # which nothing ever completes
        if runtime.draws_early():
            if begin <= loop.time():
                self._work()
            else:
                loop.post(begin, _Job._begin, self)
        loop.post(end, _Job._finish, self)
        return self._future

    def _work(self) -> None:
        self._done = True
        try:
            self._result = self._function()
        except Exception as error:  # it is for those who wait
            self._error = error

    def _begin(self) -> None:
        if not self._runtime.ended and not self._future.cancelled():
            self._runtime.context.run(self._work)

    def _finish(self) -> None:
        if self._runtime.ended or self._future.done():
            return
        if not self._done:
            self._runtime.context.run(self._work)
        if self._error is not None:
            self._future.set_exception(self._error)
        else:
            self._future.set_result(self._result)
