"""Whose request is answered next: who was given least of late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from ..runtime import Runtime
from .limits import ASKERS

__all__ = ["ServingTurns"]

HALF_LIFE: Final = 2.0  # seconds in which half of what was given is forgotten
_NEGLIGIBLE: Final = 1e-3  # seconds of work


class _Asker:
    """What one of them was given: seconds of work, decayed until loop time `at`."""

    __slots__ = ("at", "given")

    def __init__(self, at: float, given: float) -> None:
        self.at = at
        self.given = given

    def decayed(self, now: float) -> float:
        return float(self.given * 0.5 ** ((now - self.at) / HALF_LIFE))

    def add(self, now: float, seconds: float) -> None:
        self.given, self.at = self.decayed(now) + seconds, now


class ServingTurns:
    """At most `places` answers are made at a time. Among those who wait, who has cost least of
    late is next: one that asks for less than its share is hardly held up by any number of others
    that ask for all they can get (max-min fairness).
    """

    def __init__(self, places: int, runtime: Runtime) -> None:
        self._free = places
        self._runtime = runtime
        self._askers: dict[str, _Asker] = {}
        # In order of arrival, which decides among equals.
        self._waiting: dict[asyncio.Future[None], _Asker] = {}

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn of `name` and hold a place; the time inside is what it costs."""
        asker = self._asker(name)
        await self._take(asker)
        began = self._runtime.loop_time()
        try:
            yield
        finally:
            now = self._runtime.loop_time()
            asker.add(now, now - began)
            self._release(now)

    def _asker(self, name: str) -> _Asker:
        asker = self._askers.get(name)
        if asker is None:
            now = self._runtime.loop_time()
            if len(self._askers) >= ASKERS:
                self._forget(now)
            # Behind those who are known: else who comes ever again from elsewhere is always next.
            most = max((other.decayed(now) for other in self._waiting.values()), default=0.0)
            asker = self._askers[name] = _Asker(now, most)
        return asker

    def _forget(self, now: float) -> None:
        """Of many, keep those who count: the greater half, if none is negligible."""
        ranked = sorted(self._askers, key=lambda name: self._askers[name].decayed(now))
        gone = [name for name in ranked if self._askers[name].decayed(now) < _NEGLIGIBLE]
        for name in gone or ranked[: len(ranked) // 2]:
            del self._askers[name]

    async def _take(self, asker: _Asker) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = asker
        try:
            await turn
        except BaseException:
            if self._waiting.pop(turn, None) is None and not turn.cancelled():
                self._release(self._runtime.loop_time())  # it was given just when we gave up
            raise

    def _release(self, now: float) -> None:
        while self._waiting:
            turn = min(self._waiting, key=lambda turn: self._waiting[turn].decayed(now))
            del self._waiting[turn]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
