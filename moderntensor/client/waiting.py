"""Asking again whenever a node's chain may have moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final, TypeVar

from ..errors import NodeRefusedError, NodeUnreachableError
from .events import PASSING, EventStream
from .transport import LONGEST_OBEYED

__all__ = ["Waiting"]

ASK_AGAIN: Final = 15.0  # seconds, should the events have left something out
FIRST_PAUSE: Final = 0.5  # seconds after a question that failed; then doubled
LONGEST_PAUSE: Final = 10.0
T = TypeVar("T")


class Waiting:
    """All who wait for something on the chain of one node. They share one stream of events, which
    is open for as long as there are any."""

    def __init__(self, open_stream: Callable[[], EventStream], chance: Random) -> None:
        self._open_stream = open_stream
        self._random = chance
        self._connecting = asyncio.Lock()
        self._stream: EventStream | None = None
        self._moved: asyncio.Task[None] | None = None
        self._count = 0

    async def until(self, look: Callable[[], Awaitable[T | None]]) -> T:
        """What `look` finds, which is asked again for as long as it finds nothing or the node
        cannot answer. Raises what waiting does not heal."""
        pause = 0.0
        async with self._joined() as stream:
            while True:
                moved = self._next_move(stream)  # first, so that none is missed
                patience = ASK_AGAIN
                try:
                    found = await look()
                    if found is not None:
                        return found
                    pause = 0.0
                except NodeUnreachableError:
                    patience = pause = self._longer(pause)
                except NodeRefusedError as error:
                    if error.status not in PASSING:
                        raise
                    pause = self._longer(pause)
                    # Whatever happens meanwhile: the node wants to be left alone for so long.
                    await asyncio.sleep(max(pause, min(error.retry_after or 0.0, LONGEST_OBEYED)))
                    continue
                await asyncio.wait((moved,), timeout=patience * self._random.uniform(0.5, 1.0))
                if moved.done():
                    moved.result()  # raises what ended the stream

    @staticmethod
    def _longer(pause: float) -> float:
        return min(LONGEST_PAUSE, 2 * pause or FIRST_PAUSE)

    def _next_move(self, stream: EventStream) -> asyncio.Task[None]:
        """Done when the chain may have moved; the same for all who ask before."""
        if self._moved is None or self._moved.done():
            self._moved = asyncio.ensure_future(stream.chain_moved())
        return self._moved

    @asynccontextmanager
    async def _joined(self) -> AsyncIterator[EventStream]:
        """The stream, connected; whoever is the last to leave closes it."""
        self._count += 1
        try:
            async with self._connecting:
                if self._stream is None or self._stream.closed:
                    self._stream = self._open_stream()
                    try:
                        await self._stream.connect()
                    except BaseException:
                        self._stream.close()
                        raise
                stream = self._stream
            yield stream
        finally:
            self._count -= 1
            if not self._count:
                await self._end()

    async def _end(self) -> None:
        stream, self._stream = self._stream, None
        moved, self._moved = self._moved, None
        if stream is not None:
            stream.close()
        if moved is not None:
            moved.cancel()
            await asyncio.wait((moved,))
            if not moved.cancelled():
                moved.exception()  # it has been told to those who were there
