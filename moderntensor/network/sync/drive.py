"""Running pipelines until there is nothing more to get, once there is a peer."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import SyncError
from .blocks import Applied
from .context import SyncContext
from .pipeline import Pipeline
from .status import SyncPhase


class Driver:
    """Brings the headers, or the executed chain, to where the peers are. Used for one sync."""

    def __init__(self, context: SyncContext, applied: Applied) -> None:
        self._context = context
        self._chain = context.chain
        self._pool = context.pool
        self._meter = context.meter
        self._give_up = context.config.sync_give_up
        self._applied = applied
        self._goal = 0  # the best head heard of during this sync

    async def blocks(self, limit: int | None) -> None:
        """Execute all blocks that can be had, or those up to `limit`."""
        while not self._blocks_reached(limit):
            if self._blocks_missing():
                self._meter.phase = SyncPhase.HEADERS
                await Pipeline(self._context, limit, self._applied).run()
            else:
                await self._wait_for_more(self._blocks_missing, self._chain.head.height, limit)

    async def headers(self, limit: int | None) -> None:
        """As `blocks`, the headers alone; none of them is provisional then."""
        chain = self._chain
        while not self._headers_reached(limit) or chain.provisional_height() is not None:
            if self.headers_missing() or chain.provisional_height() is not None:
                self._meter.phase = SyncPhase.HEADERS
                await Pipeline(self._context, limit, None).run()
            else:
                await self._wait_for_more(self.headers_missing, chain.header_head.height, limit)

    def headers_missing(self) -> bool:
        """Whether a peer claims more than we have headers of."""
        return self._pool.highest_claim() > self._chain.header_head.height

    def _headers_reached(self, limit: int | None) -> bool:
        height, claim = self._chain.header_head.height, self._pool.highest_claim()
        self._goal = max(self._goal, claim)
        if limit is not None:
            return height >= limit
        return height >= claim if len(self._pool) else height >= self._goal

    def _blocks_missing(self) -> bool:
        head = self._chain.head.height
        return self._chain.header_head.height > head or self._pool.highest_claim() > head

    def _blocks_reached(self, limit: int | None) -> bool:
        head = self._chain.head.height
        self._goal = max(self._goal, self._pool.highest_claim())
        if limit is not None:
            self._meter.target_height = limit
            return head >= limit
        if self._blocks_missing():
            return False
        # Whoever is there has no more. With nobody there, what was heard of is still missing.
        return len(self._pool) > 0 or head >= self._goal

    async def _wait_for_more(self, ready: Callable[[], bool], at: int, limit: int | None) -> None:
        """Until some peer has more; SyncError if none has for too long."""
        self._meter.phase = SyncPhase.WAITING
        self._meter.waiting = "no peer has more blocks" if len(self._pool) else "all peers are gone"
        left = self._meter.progressed + self._give_up - self._pool.now()
        if left <= 0 or not await self._pool.changed(ready, left):
            raise SyncError(
                self._meter.with_fault(
                    f"{self._meter.waiting}, at block {at} of {limit or self._goal}"
                )
            )
        self._meter.waiting = None


async def first_peer(context: SyncContext, seconds: float) -> None:
    """Until a peer is there; SyncError if none comes within so many seconds."""
    pool, meter = context.pool, context.meter
    if len(pool):
        return
    if not seconds:
        raise SyncError("no peers are connected")
    meter.phase = SyncPhase.WAITING
    meter.waiting = "no peers are connected"
    if not await pool.changed(lambda: len(pool) > 0, seconds):
        raise SyncError(f"no peer connected within {seconds:g} s")
    meter.waiting = None
