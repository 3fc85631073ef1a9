"""One run of all stages at once, towards the best claimed head."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from ...errors import StaleBodiesError, SyncError
from ..offences import Offence
from .blocks import Applied, BlockStage, BodiesJob, ChainRejected
from .context import SyncContext
from .headers import HeaderStage, Refork
from .settle import leaves, settled
from .status import SyncPhase
from .window import Unobtainable

log = logging.getLogger(__name__)


class Pipeline:
    """Headers, bodies and execution until no peer claims more than we have, or up to `limit`.

    Used once. `run()` returns when all that could be had is applied, and also when the ground
    moved (the best chain forked away, a block was invalid, bodies are nowhere to be had): whoever
    runs it looks at the claims again and runs the next one.
    """

    def __init__(self, context: SyncContext, limit: int | None, applied: Applied | None) -> None:
        """`applied(first, batch)` is awaited after each commit of blocks; None: headers only."""
        self._chain = context.chain
        self._pool = context.pool
        self._runtime = context.runtime
        self._meter = context.meter
        self._give_up = context.config.sync_give_up
        self._headers = HeaderStage(context, limit)
        self._blocks = (
            None if applied is None else BlockStage(context, self._headers, limit, applied)
        )

    async def run(self) -> None:
        """Raises SyncError when nothing moved for too long, StorageError from the store, and
        whatever is wrong with this code."""
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                stages = [group.create_task(self._run_headers())]
                if self._blocks is not None:
                    stages.append(group.create_task(self._blocks.run()))
                await asyncio.wait(stages)
                watch.cancel()
        except BaseExceptionGroup as caught:
            outcomes = list(leaves(caught))
        else:
            return
        expected = (Refork, Unobtainable, ChainRejected, StaleBodiesError)
        faults = [outcome for outcome in outcomes if not isinstance(outcome, expected)]
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # A stage that ended by itself in the same moment would hide it: a task group raises
            # what its tasks raised, and our caller would go on.
            for fault in faults:
                log.error("failed while it was cancelled: %s", fault, exc_info=fault)
            raise asyncio.CancelledError
        if faults:
            for other in faults[1:]:  # one can be raised, none is to be lost
                faults[0].add_note(f"at the same time: {other!r}")
            raise faults[0]
        for outcome in outcomes:
            if isinstance(outcome, ChainRejected):
                self._blame(outcome)
            elif isinstance(outcome, Unobtainable):
                await self._forget(outcome)

    async def _run_headers(self) -> None:
        await self._headers.run()
        if self._meter.phase is SyncPhase.HEADERS:
            self._meter.phase = SyncPhase.BLOCKS

    async def _watch(self) -> None:
        """End the run when neither header nor body nor block came for too long."""
        changed = asyncio.Event()
        self._pool.watch(changed)
        try:
            while True:
                left = self._meter.progressed + self._give_up - self._runtime.loop_time()
                if self._blocks is not None and self._blocks.applying:
                    left = self._give_up  # the machine is slow, which is nobody's silence
                if left <= 0:
                    peers = len(self._pool)
                    why = self._meter.why_waiting(peers) or f"{peers} peers serve nothing"
                    raise SyncError(
                        self._meter.with_fault(
                            f"no progress for {self._give_up:g} s at block "
                            f"{self._chain.head.height} of {self._meter.target_height}: {why}"
                        )
                    )
                changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await changed.wait()
        finally:
            self._pool.unwatch(changed)

    async def _forget(self, unobtainable: Unobtainable) -> None:
        """Nobody has the next bodies: those headers lead nowhere, whoever gave them."""
        job = unobtainable.job
        if not isinstance(job, BodiesJob):
            return
        height = job.missing_height
        for source in self._headers.vouchers(height):
            self._pool.broke_claim(source)
        await settled(self._runtime.run_writer(self._chain.drop_pending, height))

    def _blame(self, rejected: ChainRejected) -> None:
        """Nobody can have executed an invalid block: who vouched for it is false."""
        for source in self._headers.vouchers(rejected.error.height):
            self._pool.part(source, Offence.INVALID_CHAIN, str(rejected.error))
