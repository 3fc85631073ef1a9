"""The state stage: all accounts of one block, proved piece by piece, from all peers at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Final, TypeVar

from ...blockchain.staging import Hole, Pivot, StateStaging
from ...blockchain.state_tree import FilledState
from ...errors import StorageError
from ..budget import Kind as Held
from ..protocol import MAX_STATE_NODES
from .context import SyncContext
from .settle import leaves, settled
from .source import Kind, Source
from .state_jobs import AccountsJob, NodesJob, RootJob, Wanted
from .state_plan import chunk_accounts, is_deep, merged, shares
from .window import Job, Unobtainable, Window

log = logging.getLogger(__name__)

REGION_HOLES: Final = 4096  # looked at together: 200,000 accounts if nearly all have changed
COMMIT_ACCOUNTS: Final = 65_536  # of a commit, and one chunk more: 7 MB on the way to the disk
JOBS: Final = 128  # subtrees on their way at once, as far as memory allows
NODE_JOBS: Final = 64

J = TypeVar("J", bound=Job)
T = TypeVar("T")


class SnapshotGone(Exception):  # noqa: N818  (an outcome, no error)
    """Everyone who is there said that they do not have the state of the pivot."""

    def __init__(self, pivot: Pivot, refused: Collection[Source]) -> None:
        self.pivot = pivot
        self.refused = frozenset(refused)  # who said so
        super().__init__(pivot)


class StateStage:
    """Fetches what `staging` lacks. Whoever begins again, after whatever end, goes on with what
    was committed: the store knows what is missing."""

    def __init__(self, context: SyncContext, staging: StateStaging) -> None:
        self._pool = context.pool
        self._runtime = context.runtime
        self._meter = context.meter
        self._budget = context.budget
        self._workers = context.config.sync_requests_per_peer
        self._staging = staging
        # Bodies are fetched when the state is there. Half is on its way or waits, half is stored.
        self._most_bytes = context.budget.caps[Held.BODIES] // 2
        self._window: Window[AccountsJob] | None = None
        self._storing_bytes = 0
        self._writes = 0

    async def run(self) -> None:
        """Ends when the state is complete. Raises SnapshotGone, StorageError from the store, and
        whatever is wrong with this code. Nothing is left running, however it ends."""
        pivot = self._staging.pivot
        if pivot is None:
            raise ValueError("no state is aimed at")
        wanted = Wanted(self._pool, self._runtime, pivot)
        with self._budget.watching(Held.STATE, self._held_bytes):
            before: list[Hole] = []
            while holes := await self._holes(1, None):
                if holes == before:
                    raise StorageError(f"hole {holes[0].prefix.hex()} of the state does not close")
                before = holes
                try:
                    await _alone(self._pass(wanted), wanted)
                except SnapshotGone:
                    await self._keep_rest()
                    raise

    @property
    def storing(self) -> bool:
        """Whether a commit is under way: the machine is at work, however long that takes."""
        return self._writes > 0

    def _held_bytes(self) -> int:
        held = 0 if self._window is None else self._window.held_bytes
        return held + self._storing_bytes

    async def _pass(self, wanted: Wanted) -> None:
        """All holes once, in the order of keys."""
        window: Window[AccountsJob] = Window(
            self._pool, self._runtime, Kind.STATE, JOBS, self._most_bytes
        )
        self._window = window
        async with asyncio.TaskGroup() as group:
            stages = window.run(), self._feed(wanted, window), self._store(window)
            # Waited for in here: where a group's end is waited for, what one task raises leaves
            # its parent looking as if it had been cancelled (before Python 3.13).
            await asyncio.wait([group.create_task(stage) for stage in stages])

    async def _keep_rest(self) -> None:
        """What has arrived is proved, and may be part of a newer state as well."""
        if self._window is not None:
            jobs = self._window.take_done()
            await self._fill([(job.hole, job.state) for job in jobs if job.state is not None])

    # --- what to fetch --------------------------------------------------------------------

    async def _feed(self, wanted: Wanted, window: Window[AccountsJob]) -> None:
        """Give out subtrees, descending to smaller ones ahead of those that are under way."""
        after: Hole | None = None
        while True:
            chunk = self._chunk()
            holes = await self._holes(REGION_HOLES, after)
            deep = [hole for hole in holes if is_deep(hole, chunk)]
            if holes and not holes[0].count:
                await self._fetch_root(wanted, holes[0])
            elif deep:
                await self._descend(wanted, deep)
            elif holes:
                for hole in merged(holes, chunk):
                    await window.submit(AccountsJob(wanted, hole))
                    after = hole
                    if self._chunk() >= 2 * chunk:
                        break  # what is left of them makes larger pieces
            else:
                break
        window.close()

    def _chunk(self) -> int:
        paces = [source.capacity for source in self._pool]
        return chunk_accounts(
            (pace[Kind.STATE].rate for pace in paces), (pace[Kind.HEADERS].rate for pace in paces)
        )

    async def _holes(self, most: int, after: Hole | None) -> list[Hole]:
        return await self._runtime.run(self._staging.holes, most, after)

    async def _fetch_root(self, wanted: Wanted, hole: Hole) -> None:
        job = RootJob(wanted, hole)
        await self._fetch(Kind.STATE, [job])
        if job.state is not None:
            await self._fill([(hole, job.state)])
        else:
            await self._put_nodes(job.found)

    async def _descend(self, wanted: Wanted, holes: Sequence[Hole]) -> None:
        """One level down from each of the holes."""
        jobs = [
            NodesJob(wanted, part)
            for part in shares(holes, len(self._pool) * self._workers, MAX_STATE_NODES)
        ]
        await self._fetch(Kind.NODES, jobs)
        await self._put_nodes([found for job in jobs for found in job.found])

    async def _fetch(self, kind: Kind, jobs: Sequence[J]) -> None:
        """Do these jobs, in whatever order."""
        window: Window[J] = Window(
            self._pool, self._runtime, kind, max(NODE_JOBS, len(jobs)), self._most_bytes
        )

        async def take() -> None:
            for job in jobs:
                await window.submit(job)
            window.close()
            while await window.take() is not None:
                pass

        async with asyncio.TaskGroup() as group:
            group.create_task(window.run())
            group.create_task(take())

    # --- storing --------------------------------------------------------------------------

    async def _put_nodes(self, found: Sequence[tuple[Hole, bytes]]) -> None:
        await self._write(self._staging.descend, found)

    async def _store(self, window: Window[AccountsJob]) -> None:
        """Commit what is ready; while that runs, more becomes ready."""
        while (job := await window.take()) is not None:
            jobs, accounts = [job], job.hole.count
            while accounts < COMMIT_ACCOUNTS and (more := window.take_ready()) is not None:
                jobs.append(more)
                accounts += more.hole.count
            self._storing_bytes = sum(part.held_bytes for part in jobs)
            await self._fill([(part.hole, part.state) for part in jobs if part.state is not None])
            self._storing_bytes = 0

    async def _fill(self, chunks: Sequence[tuple[Hole, FilledState]]) -> None:
        await self._write(self._staging.fill, chunks)

    async def _write(self, change: Callable[[T], None], what: T) -> None:
        """One commit, and what is there then."""
        self._writes += 1
        try:
            done, total = await settled(self._runtime.run_writer(self._commit, change, what))
        finally:
            self._writes -= 1
        self._meter.state_progress(done, total)

    def _commit(self, change: Callable[[T], None], what: T) -> tuple[int, int | None]:
        change(what)
        return self._staging.accounts_done, self._staging.accounts_total


async def _alone(work: Coroutine[None, None, None], wanted: Wanted) -> None:
    """Await the stage's tasks, and raise what came of them as one exception."""
    try:
        await work
    except BaseExceptionGroup as caught:
        outcomes = list(leaves(caught))
    else:
        return
    faults = [outcome for outcome in outcomes if not isinstance(outcome, Unobtainable)]
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # What ended by itself in the same moment must not hide it.
        for fault in faults:
            log.error("failed while it was cancelled: %s", fault, exc_info=fault)
        raise asyncio.CancelledError
    if not faults:
        raise SnapshotGone(wanted.pivot, wanted.refused) from None
    for other in faults[1:]:  # one can be raised, none is to be lost
        faults[0].add_note(f"at the same time: {other!r}")
    raise faults[0]
