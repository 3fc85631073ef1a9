"""The body stage and the apply stage: pending headers become executed blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence, Sized
from functools import partial
from typing import Final, TypeVar

from ...blockchain.block import EMPTY_BODY, ZERO_HASH
from ...blockchain.chain_types import AppliedBatch
from ...blockchain.prepared import PreparedBody, prepare_bodies, prepare_body
from ...errors import InvalidBlockError, StaleBodiesError
from ...runtime import Runtime
from ..budget import Kind as Held
from ..messages import BlockBodiesMessage, GetBlockBodiesMessage
from ..offences import Offence
from ..protocol import SOFT_REPLY_LIMIT
from .context import SyncContext
from .headers import HeaderStage
from .settle import settled
from .source import Kind, Misbehaviour, Refused, Source
from .sources import SourcePool
from .window import Attempt, Job, Window

# Bodies are shared out evenly among the workers, since each call waits for the GIL a few times;
# between about 500 transfers, 25 ms, and what a stop would wait for.
PREPARE_BYTES: Final = 64 * 1024
PREPARE_BYTES_MOST: Final = 1024 * 1024
HASHES_AHEAD: Final = 1024  # pending headers read from the store at a time
BLOCKS_PER_JOB: Final = 512  # with their empty ones, which need no request
APPLY_BYTES: Final = 8 * 1024 * 1024  # memory of bodies per commit: some 14,000 transactions
JOB_BYTES: Final = 8 * 1024 * 1024  # memory of a job's bodies from which on the rest is another job
TRANSACTION_BYTES: Final = 450  # memory of a decoded transaction, beside its encoding

B = TypeVar("B", bound=Sized)  # a body: its bytes, or prepared

Pending = tuple[int, bytes, bytes]  # height, hash, txs_root
Applied = Callable[[int, AppliedBatch], Awaitable[None]]  # first height, what was done


class ChainRejected(Exception):  # noqa: N818  (an outcome, no error)
    """A block that its headers' suppliers vouched for breaks a rule."""

    def __init__(self, error: InvalidBlockError) -> None:
        self.error = error
        super().__init__(error)


class BodiesJob(Job):
    """The bodies of some blocks in a row, up or down the chain, the empty ones among them filled
    in already."""

    kind = Kind.BODIES
    reply_bytes = SOFT_REPLY_LIMIT

    def __init__(self, pool: SourcePool, runtime: Runtime, blocks: Sequence[Pending]) -> None:
        super().__init__(max(blocks[0][0], blocks[-1][0]))
        self._pool = pool
        self._runtime = runtime
        self._blocks = blocks
        self.first = blocks[0][0]
        self.hashes = [block_hash for _, block_hash, _ in blocks]
        empty = prepare_body(EMPTY_BODY)
        self.bodies = [empty] * len(blocks)
        self._missing = [
            (i, block_hash, root)
            for i, (_, block_hash, root) in enumerate(blocks)
            if root != ZERO_HASH
        ]
        self._next = 0  # of the missing ones
        self.is_cut_short = False
        self.done = not self._missing

    @property
    def missing_height(self) -> int:
        """The height of the first block whose body is not there yet. For jobs that are not done."""
        return self._blocks[self._missing[self._next][0]][0]

    async def fetch(self, attempt: Attempt) -> None:
        """As many as the peer's pace allows, in one request; another attempt gets the rest."""
        source, start, blocks = attempt.source, self._next, self._blocks
        left = len(self._missing) - start
        wanted = self._missing[start : start + self._pool.size(source, Kind.BODIES, left)]
        request = GetBlockBodiesMessage(hashes=tuple(block_hash for _, block_hash, _ in wanted))
        reply = await self._pool.ask(source, request, BlockBodiesMessage)
        attempt.answered()
        if not reply.bodies:
            raise Refused
        arrived = self._pool.now()
        prepared = await self._prepare(reply.bodies)
        for body, (i, _, root) in zip(prepared, wanted, strict=False):
            if body.root != root:
                raise Misbehaviour(
                    Offence.BAD_BODY,
                    f"the body of block {blocks[i][0]} does not match its txs_root",
                )
        size = sum(map(len, reply.bodies))
        self._pool.delivered(source, Kind.BODIES, len(prepared), size, arrived - attempt.moved)
        attempt.moved = self._pool.now()
        if self._next != start or self.done:
            return  # a second peer was quicker
        for body, (i, _, _) in zip(prepared, wanted, strict=False):
            self.bodies[i] = body
        self._next += len(prepared)
        self.held_bytes += size + TRANSACTION_BYTES * sum(map(len, prepared))
        self.done = self._next == len(self._missing)

    def cut(self, source: Source) -> BodiesJob | None:
        """What one request gets is a job of its own, so that the window fills from its beginning,
        however small the requests and however large the blocks."""
        index = self._next + self._pool.size(source, Kind.BODIES, len(self._missing) - self._next)
        return self._cut_off(index) if index < len(self._missing) else None

    def split(self) -> BodiesJob | None:
        """Blocks may be large: no job holds much more than `JOB_BYTES`."""
        if self.done or self.held_bytes < JOB_BYTES:
            return None
        rest = self._cut_off(self._next)
        self.done = True
        return rest

    def _cut_off(self, index: int) -> BodiesJob:
        """A job for what begins with the missing body of this index."""
        cut = self._missing[index][0]
        rest = BodiesJob(self._pool, self._runtime, self._blocks[cut:])
        rest.refused |= self.refused
        self._blocks = self._blocks[:cut]
        del self.hashes[cut:], self.bodies[cut:], self._missing[index:]
        return rest

    def cut_short(self) -> None:
        """End with what is there, which may be nothing: the rest is not to be had."""
        if not self.done:
            self._cut_off(self._next)
            self.done = self.is_cut_short = True

    async def _prepare(self, bodies: Sequence[bytes]) -> list[PreparedBody]:
        """Hash, decode and recover senders in worker threads."""
        share = sum(map(len, bodies)) // self._runtime.workers + 1
        size = min(max(share, PREPARE_BYTES), PREPARE_BYTES_MOST)
        parts = await self._runtime.run_bulk_each(
            partial(prepare_bodies, part, self._runtime.signatures) for part in slices(bodies, size)
        )
        return [body for part in parts for body in part]


def runs_of(blocks: Sequence[Pending], most: int) -> Iterator[Sequence[Pending]]:
    """Runs with at most `most` bodies to fetch each."""
    start, wanted = 0, 0
    for i, (_, _, root) in enumerate(blocks):
        wanted += root != ZERO_HASH
        if wanted >= most or i + 1 - start >= BLOCKS_PER_JOB:
            yield blocks[start : i + 1]
            start, wanted = i + 1, 0
    if start < len(blocks):
        yield blocks[start:]


def slices(bodies: Sequence[B], size: int) -> Iterator[Sequence[B]]:
    """Runs with a length of at least `size` each, but for the last: of bytes or transactions."""
    start, held = 0, 0
    for i, body in enumerate(bodies):
        held += len(body)
        if held >= size:
            yield bodies[start : i + 1]
            start, held = i + 1, 0
    if start < len(bodies):
        yield bodies[start:]


class BlockStage:
    """Fetches and applies what is pending, while the header stage adds to it.

    `applied(first, batch)` is awaited after each commit.
    """

    def __init__(
        self, context: SyncContext, headers: HeaderStage, limit: int | None, applied: Applied
    ) -> None:
        config = context.config
        self._chain = context.chain
        self._pool = context.pool
        self._runtime = context.runtime
        self._headers = headers
        self._limit = limit
        self._applied = applied
        self._batch_blocks = config.apply_batch_blocks
        self._per_request = config.blocks_per_request
        self.applying = False
        jobs = max(2, config.sync_window_blocks // config.blocks_per_request)
        self._budget = context.budget
        self._window: Window[BodiesJob] = Window(
            context.pool, context.runtime, Kind.BODIES, jobs, self._budget.caps[Held.BODIES]
        )
        self._applying_bytes = 0

    async def run(self) -> None:
        """Ends when the header stage has and everything up to it is applied. Raises
        ChainRejected, and what `Window.run` raises."""
        with self._budget.watching(Held.BODIES, self._held_bytes):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._window.run())
                group.create_task(self._feed())
                group.create_task(self._apply())

    def _held_bytes(self) -> int:
        return self._window.held_bytes + self._applying_bytes

    # --- bodies ---------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Turn pending headers into jobs as they come."""
        height: int | None = None
        while True:
            complete = self._headers.complete
            self._headers.grown.clear()
            if height is None:
                span = await self._runtime.run(self._chain.pending_span)
                height = span[0] if span else None
            if height is not None:
                height = await self._submit_from(height)
            if complete:
                break
            await self._headers.grown.wait()
        self._window.close()

    async def _submit_from(self, height: int) -> int:
        """Submit all that is pending from `height` on; returns the height to go on from."""
        while True:
            count = HASHES_AHEAD
            if self._limit is not None:
                count = min(count, self._limit - height + 1)
            if count <= 0:
                return height
            blocks = await self._runtime.run(self._chain.pending_hashes, height, count)
            if not blocks:
                return height
            head = self._chain.head.height
            if height <= head:
                # A competing branch replaces the head in one commit, which needs all of these.
                self._window.floor_height = head + 1
            for part in runs_of(blocks, self._per_request):
                await self._window.submit(BodiesJob(self._pool, self._runtime, part))
            height = blocks[-1][0] + 1

    # --- apply ----------------------------------------------------------------------------

    async def _apply(self) -> None:
        """Execute and commit what is ready; while that runs, more becomes ready."""
        while (job := await self._window.take()) is not None:
            jobs, head = [job], self._chain.head.height
            while True:
                last = jobs[-1].first + len(jobs[-1].bodies) - 1
                more: BodiesJob | None = None
                if last <= head:
                    # A competing branch counts once it reaches beyond the head.
                    more = await self._window.take()
                elif (
                    last - job.first + 1 < self._batch_blocks
                    and sum(part.held_bytes for part in jobs) < APPLY_BYTES
                ):
                    more = self._window.take_ready()
                if more is None:
                    break
                jobs.append(more)
            if last <= head:
                raise StaleBodiesError(f"the pending headers end at {last}, below the head")
            self._applying_bytes = sum(part.held_bytes for part in jobs)
            await self._commit(
                job.first,
                [body for part in jobs for body in part.bodies],
                [block_hash for part in jobs for block_hash in part.hashes],
            )
            self._applying_bytes = 0

    async def _commit(self, first: int, bodies: list[PreparedBody], hashes: list[bytes]) -> None:
        before = self._chain.head
        self.applying = True  # and telling of it, which may take its time as well
        try:
            batch = await settled(
                self._runtime.run_writer(self._chain.apply_bodies, first, bodies, hashes=hashes)
            )
            await self._applied(first, batch)
        except InvalidBlockError as error:
            # The good blocks before it are committed, if they make a longer chain.
            after = self._chain.head
            if after.hash != before.hash:
                good = after.height - first + 1
                count = sum(map(len, bodies[:good]))
                reverted = max(0, before.height - first + 1)
                await self._applied(first, AppliedBatch(good, count, after, reverted))
            raise ChainRejected(error) from error
        finally:
            self.applying = False
