"""Bodies below those that a fast sync left out, fetched in the background, newest first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from ...backend import headers as engine
from ...blockchain.prepared import PreparedBody
from ..budget import Kind as Held
from .blocks import BodiesJob, Pending, runs_of, slices
from .context import SyncContext
from .settle import leaves, settled
from .source import Kind, Source
from .window import Unobtainable, Window

log = logging.getLogger(__name__)

JOBS: Final = 4  # requests at a time, to all peers together
BODIES_PER_JOB: Final = 64
BLOCKS_AHEAD: Final = 1024  # headers read from the store at a time
# A block that is followed waits for one such commit at most: some 20 ms.
COMMIT_TRANSACTIONS: Final = 500
# Seconds of rest for each second of work, so that others have the larger part of a core.
REST_SHARE: Final = 1.0
RETRY_SECONDS: Final = 60.0  # until peers that did not have the bodies are asked again


class _Overtaken(Exception):  # noqa: N818  (an outcome, no error)
    """Another state was adopted: what is missing begins elsewhere now."""


class Backfill:
    """Fetches the bodies of the blocks below `chain.earliest_height`, down to the genesis.

    What is stored lowers that height in the same commit, so that whoever is killed goes on where
    he was. It gives way to all else: few requests at a time, small commits with rests between,
    and nothing is begun while another holds `writing`, as a sync and a block that is imported do.
    Peers that have no such bodies are not blamed, and asked again after a while; one that sends
    a false body is.

    Lives on the event loop, between `start()` and `stop()`; the peers are those of the context's
    pool, which must be attached for anything to be fetched.
    """

    def __init__(self, context: SyncContext, writing: asyncio.Lock) -> None:
        self._chain = context.chain
        self._pool = context.pool
        self._runtime = context.runtime
        self._budget = context.budget
        self._per_job = min(BODIES_PER_JOB, context.config.blocks_per_request)
        self._writing = writing
        self._window: Window[BodiesJob] | None = None
        self._storing_bytes = 0  # taken from the window and not stored yet
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether there is more to fetch, and somebody at it."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin, unless it is running or nothing is missing."""
        if self.running or self._chain.earliest_height == 0:
            return
        self._task = asyncio.create_task(self._run(), name="sync-backfill")
        self._task.add_done_callback(_log_failure)

    async def wait(self) -> None:
        """Until all is there, or `stop`. Raises what else ended it: InvalidBlockError where a
        block that the chain's validators signed breaks a rule, StorageError from the store."""
        if self._task is not None:
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    async def stop(self) -> None:
        """Nothing runs any more; a commit that was begun is whole. Idempotent."""
        task = self._task
        if task is not None:
            task.cancel()
            await settled(_ended(task))

    # --- the task -------------------------------------------------------------------------

    async def _run(self) -> None:
        log.info("fetching the bodies of the blocks below %d", self._chain.earliest_height)
        with self._budget.watching(Held.OLD_BODIES, self._held_bytes):
            while self._chain.earliest_height > 0:
                try:
                    missing = await self._fetch()
                except _Overtaken:
                    continue  # from there on
                if missing is not None:
                    await self._wait_for_others(*missing)
        log.info("the bodies of all blocks are here, down to the genesis")

    def _held_bytes(self) -> int:
        return self._storing_bytes + (self._window.held_bytes if self._window is not None else 0)

    async def _fetch(self) -> tuple[int, set[Source]] | None:
        """Fetch and store all that can be had, down from the newest; returns the height of the
        first block whose body nobody has, if there is such, and who said so."""
        window = self._window = Window[BodiesJob](
            self._pool, self._runtime, Kind.BODIES, JOBS, self._budget.caps[Held.OLD_BODIES]
        )
        missing: tuple[int, set[Source]] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(self._feed(window))
                group.create_task(self._store(window))
                try:
                    await window.run()
                except* Unobtainable as caught:
                    for outcome in leaves(caught):
                        if isinstance(outcome, Unobtainable) and isinstance(outcome.job, BodiesJob):
                            # What came before it is still stored.
                            missing = outcome.job.missing_height, outcome.job.refused
                            outcome.job.cut_short()
                    feeding.cancel()
                    window.close()
                _raise_if_cancelled()  # which that outcome would hide
        except BaseExceptionGroup as caught:
            _raise_if_cancelled()
            raise next(leaves(caught)) from caught
        finally:
            self._window, self._storing_bytes = None, 0
        return missing

    # --- from the headers to the window -----------------------------------------------------

    async def _feed(self, window: Window[BodiesJob]) -> None:
        """Turn the blocks without bodies into jobs, from the newest down."""
        stop = self._chain.earliest_height
        while stop > 0:
            start = max(0, stop - BLOCKS_AHEAD)
            for part in runs_of(await self._runtime.run(self._blocks, start, stop), self._per_job):
                job = BodiesJob(self._pool, self._runtime, part)
                job.refused |= {
                    source for source in self._pool if source.peer.earliest_height > job.first
                }
                async with self._writing:
                    pass  # nothing is begun while a sync runs
                await window.submit(job)
            stop = start
        window.close()

    def _blocks(self, start: int, stop: int) -> list[Pending]:
        batch = engine.HeaderBatch(self._chain.headers_range(start, stop - start))
        return [(start + i, batch.hash(i), batch.txs_root(i)) for i in reversed(range(len(batch)))]

    # --- from the window to the store -------------------------------------------------------

    async def _store(self, window: Window[BodiesJob]) -> None:
        while (job := await window.take()) is not None:
            self._storing_bytes = job.held_bytes
            await self._commit(job.first, job.bodies)
            self._storing_bytes = 0
            if job.is_cut_short:
                return

    async def _commit(self, top: int, bodies: Sequence[PreparedBody]) -> None:
        """Store the bodies of the blocks from height `top` down."""
        for part in slices(bodies, COMMIT_TRANSACTIONS):
            async with self._writing:
                if top + 1 != self._chain.earliest_height:
                    raise _Overtaken
                began = self._runtime.loop_time()
                first = top - len(part) + 1
                await settled(
                    self._runtime.run_writer(self._chain.add_old_bodies, first, part[::-1])
                )
                spent = self._runtime.loop_time() - began
            top = first - 1
            await asyncio.sleep(spent * REST_SHARE)

    # --- where nobody has what is missing ---------------------------------------------------

    async def _wait_for_others(self, height: int, refused: set[Source]) -> None:
        """Until a peer comes that may have what is missing, or one may have got it meanwhile."""
        asked = {source for source in refused if source.peer.earliest_height <= height}

        def another() -> bool:
            return any(
                source.peer.earliest_height <= height and source not in asked
                for source in self._pool
            )

        log.info("no peer has the body of block %d, waiting for one that does", height)
        await self._pool.changed(another, RETRY_SECONDS)


def _raise_if_cancelled() -> None:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("fetching old bodies has ended: %s", error, exc_info=error)
