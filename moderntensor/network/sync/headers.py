"""The header stage: from the fork to the best claimed head, checked and stored as pending.

One peer, the leader, answers a locator (so the fork is known; of several who are asked one after
the other it is the first that answers) and a skeleton: every n-th header up to its head. The ranges
between are then asked of all peers, each pinned to the skeleton's hash at its end. A hash fixes
everything below it, so that it is always clear who was false: a range that breaks a rule or does
not end in its pin convicts its supplier, who said that the pin is on its chain; a good range that
does not begin where the skeleton says convicts the leader.

Where the leader claims to have a checkpoint, signatures up to there are not checked: the
checkpoint's hash covers them. Until the candidate has reached it they are provisional, and the
body stage does not see them. If the leader's chain ends before, they are checked after all. The
block of `assume_valid` is as good as a checkpoint for that, and pins nothing: where the candidate
turns out to have another one, signatures are checked as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final, cast

from ...backend import headers as engine
from ...errors import FinalityError, HeaderChainError, InvalidBlockError, UnknownParentError
from ..budget import Kind as Held
from ..messages import GetHeadersMessage, HeadersMessage, Status
from ..offences import Offence
from .context import SyncContext
from .header_checks import FutureHeaders, HeaderChecker, SkeletonFalse, bad_signature, covered_to
from .leaders import OUTCOMES, first_answer, judge
from .segments import SegmentJob
from .settle import settled
from .source import Claim, Kind, Misbehaviour, Refused, Source
from .window import Unobtainable, Window

HeaderBatch = engine.HeaderBatch
Anchor = engine.Anchor

SKELETON_HEADERS: Final = 256  # pins asked for at once: 49,152 headers ahead, 75 KB
SEGMENTS_AHEAD: Final = 48  # ranges between fetching and storing: 9,216 headers, 2.7 MB, or long
# ones under a checkpoint, up to their share of the byte budget (8 MiB)
KNOWN_BATCHES: Final = 16  # looked through for the first new header after a sparse locator's fork
# A commit costs one disk sync, however many headers it holds, and each of them a page of the index
# by hash, unless others of the commit lie there too.
HEADERS_PER_COMMIT: Final = 8192
COMMIT_SECONDS: Final = 0.4  # bodies of what is checked can be asked for that much later


class Refork(Exception):  # noqa: N818  (an outcome, no error)
    """The best chain leaves the pending one: what is in flight belongs to the old one."""


class HeaderStage:
    """Follows the best claim until no peer claims more, or up to `limit`.

    `grown` is set whenever pending headers were added and when the stage ends; `complete` tells
    the two apart.
    """

    def __init__(self, context: SyncContext, limit: int | None) -> None:
        self._chain = context.chain
        self._pool = context.pool
        self._runtime = context.runtime
        self._meter = context.meter
        self._budget = context.budget
        self._joining_bytes = 0  # taken from the window, not stored yet
        self._limit = limit
        self._per_request = context.config.headers_per_request
        self._per_trusted = context.config.trusted_headers_per_request
        self._trusted_to = 0  # the block that covers what comes from the leader, its height
        self._checker = HeaderChecker(context.chain, context.runtime)
        self.grown = asyncio.Event()
        self.complete = False
        self._suppliers: dict[Source, int] = {}  # → the highest header that it vouched for

    async def run(self) -> None:
        """Raises Refork where the best chain is not the one whose bodies are being fetched."""
        while True:
            height = self._chain.header_head.height
            if self._reached() or self._pool.highest_claim() <= height:
                if await self._confirm():
                    break
                continue
            target = self._pool.next_claim(height)
            if target is None:
                self._meter.waiting = "those who have more are busy"
                await self._pool.changed(self._news)
                self._meter.waiting = None
                continue
            self._meter.target_height = max(self._meter.current_height, self._end_of(target))
            if await self._covers(target):
                await self._follow(target)
        self.complete = True
        self.grown.set()

    def _news(self) -> bool:
        """Somebody may be asked now, or nobody has more any longer."""
        height = self._chain.header_head.height
        return self._pool.best_claim(height) is not None or self._pool.highest_claim() <= height

    def vouchers(self, height: int) -> list[Source]:
        """Who supplied headers up to `height` or above."""
        return [source for source, highest in self._suppliers.items() if highest >= height]

    def _end_of(self, target: Claim) -> int:
        """How far to follow a claim. Each block has a slot of its own, so that no chain can be
        higher than the slots that have passed since its genesis, whatever is claimed."""
        rules = self._chain.config.rules
        most = max(0, self._chain.config.slot_of(self._checker.now + rules.max_drift))
        return min(target.height, most, target.height if self._limit is None else self._limit)

    async def _confirm(self) -> bool:
        """Check the signatures of what is provisional, since no checkpoint will be reached.
        False where one is bad: who vouched for it is convicted, and it is forgotten."""
        while True:
            batch = await self._runtime.run(self._chain.provisional_headers, HEADERS_PER_COMMIT)
            if not len(batch):
                return True
            bad = await self._checker.first_bad(batch)
            if bad != 0:
                good = batch if bad is None else batch[:bad]
                await settled(self._runtime.run_writer(self._chain.confirm_headers, good))
                self._meter.touch()
                self.grown.set()
            if bad is not None:
                height = batch.height(bad)
                for source in self.vouchers(height):
                    self._pool.convict(source, bad_signature(height))
                await settled(self._runtime.run_writer(self._chain.drop_pending, height))
                return False

    async def _covers(self, target: Claim) -> bool:
        """Whether this chain leads to what covers all that is provisional; else that is checked."""
        self._trusted_to = covered_to(self._chain, self._end_of(target))
        provisional = self._chain.provisional_height()
        if provisional is not None and provisional > self._trusted_to:
            await self._confirm()
            return False
        return True

    def _reached(self) -> bool:
        return self._limit is not None and self._chain.header_head.height >= self._limit

    async def _follow(self, target: Claim) -> None:
        """One locator answer of a leader, then everything up to the last pin."""
        locator = await self._runtime.run(self._chain.locator, "pending")
        request = GetHeadersMessage(max_headers=self._per_request, locator=locator)
        height = self._chain.header_head.height
        led = await first_answer(
            self._pool,
            target,
            height,
            lambda source: self._ask(source, request),
            self._per_request,
        )
        if led is None:
            return
        target, reply = led
        if not await self._covers(target):
            return
        try:
            anchor = await self._lead(target, locator, reply)
            if anchor is not None:
                await self._fill(target, anchor)
        except OUTCOMES as fault:
            judge(self._pool, target, fault, self._chain.header_head.height)
        else:
            target.source.owed_height = 0

    async def _ask(self, leader: Source, request: GetHeadersMessage) -> HeadersMessage:
        """A request of the leader; it may hold us up for as long as one peer may. Refused if the
        answer is empty."""
        began = self._pool.now()
        reply = await self._pool.ask(leader, request, HeadersMessage, self._pool.patience.seconds)
        if not reply.count:
            raise Refused
        self._pool.patience.served()
        self._pool.measured(
            leader, Kind.HEADERS, reply.count, len(reply.headers), self._pool.now() - began
        )
        return reply

    async def _lead(
        self, target: Claim, locator: Collection[bytes], reply: HeadersMessage
    ) -> Anchor | None:
        """The first headers after the fork, stored. Returns their last one, or None where the
        leader's chain goes no further."""
        leader = target.source
        batch = HeaderBatch(reply.headers)
        if batch.previous_hash(0) not in locator:
            raise Misbehaviour(Offence.BAD_HEADER, "headers on none that we asked about")
        # "Up to my head".
        whole = reply.status == Status.OK and len(batch) < self._per_request
        fork, checked = await self._attached(batch, target, whole)
        ahead = len(checked) < len(batch)
        if self._limit is not None:
            checked = checked[: max(0, self._limit + 1 - batch.height(0))]
        if not len(checked):
            raise FutureHeaders
        fork, checked = await self._first_new(target, fork, checked)
        if fork.hash != self._chain.header_head.hash:
            await self._leave_pending(leader, fork)
        collected = [checked]
        while collected[-1].height(-1) <= self._chain.head.height:
            # A competing branch counts once it is longer; it is no deeper than may be undone.
            if self._is_overtaken(target):
                return None
            collected.append(await self._more(leader, target, collected[-1]))
        if not await self._store(collected, leader) and fork.hash != checked.hash(-1):
            if self._is_overtaken(target):
                return None
            raise Refused  # it shows less than it claims
        if ahead:
            raise FutureHeaders
        if whole:
            return None
        return _last(collected[-1])

    async def _first_new(
        self, target: Claim, fork: Anchor, checked: HeaderBatch
    ) -> tuple[Anchor, HeaderBatch]:
        """Go up the leader's chain to the first batch with something new, as locators have gaps:
        only what is new makes us leave what we have."""
        for _ in range(KNOWN_BATCHES):
            if fork.hash != checked.hash(-1):
                break
            checked = await self._more(target.source, target, checked)
            fork, checked = await self._checker.attached(checked, self._trusted_to)
        if fork.hash == checked.hash(-1) and fork.height <= self._chain.head.height:
            raise Refused  # no branch that may be followed begins so far down
        return fork, checked

    def _is_overtaken(self, target: Claim) -> bool:
        """Whether a block of our own has moved the head so far meanwhile: nobody's fault."""
        return self._chain.head.height >= target.height

    async def _attached(
        self, batch: HeaderBatch, target: Claim, whole: bool
    ) -> tuple[Anchor, HeaderBatch]:
        """Where the leader's answer begins, as `HeaderChecker.attached`; `whole`: it is all that
        the leader has, and an honest head never gets lower."""
        last = batch.height(-1)
        shows_less = whole and last < target.height
        try:
            found = await self._checker.attached(batch, self._trusted_to)
        except FutureHeaders:
            if not shows_less:
                raise
        if shows_less:  # said last, or it would cover up worse
            raise Misbehaviour(Offence.SHOWS_LESS, f"claims block {target.height}, has {last}")
        return found

    async def _more(self, leader: Source, target: Claim, before: HeaderBatch) -> HeaderBatch:
        """The headers of the leader's chain right after `before`."""
        anchor = _last(before)
        count = min(self._per_request, target.height - anchor.height)
        if count <= 0:
            raise Refused
        request = GetHeadersMessage(start_height=anchor.height + 1, max_headers=count)
        reply = await self._ask(leader, request)
        end_hash = HeaderBatch(reply.headers).hash(-1)
        try:
            return await self._checker.segment(
                reply.headers[2:], anchor, end_hash, self._trusted_to
            )
        except SkeletonFalse:
            raise Refused from None  # its chain has changed meanwhile

    async def _leave_pending(self, leader: Source, fork: Anchor) -> None:
        """The best chain leaves the candidate at `fork`: forget the candidate above it."""
        span = self._chain.candidate_span()
        if span is not None:
            leader.owed_height = self._chain.header_head.height + 1
            above = fork.height + 1 if fork.height > self._chain.head.height else span[0]
            await settled(self._runtime.run_writer(self._chain.drop_pending, above))
            raise Refork

    async def _fill(self, target: Claim, anchor: Anchor) -> None:
        """Skeleton from the leader, ranges from everyone, stored in order."""
        leader = target.source
        stride, end = self._per_trusted, self._trusted_to
        if end - anchor.height < stride:
            stride, end = self._per_request, self._end_of(target)
        count = min(SKELETON_HEADERS, (end - anchor.height) // stride)
        if count <= 0:
            return
        request = GetHeadersMessage(
            start_height=anchor.height + stride, max_headers=count, stride=stride
        )
        skeleton = HeaderBatch((await self._ask(leader, request)).headers)
        for i in range(len(skeleton)):
            height = anchor.height + (i + 1) * stride
            if skeleton.height(i) != height:
                raise Misbehaviour(
                    Offence.BAD_HEADER, f"header {skeleton.height(i)} in the place of {height}"
                )
        await self._checker.pins(skeleton, self._trusted_to)
        window: Window[SegmentJob] = Window(
            self._pool, self._runtime, Kind.HEADERS, SEGMENTS_AHEAD, self._budget.caps[Held.HEADERS]
        )
        fault: BaseException | None = None
        try:
            with self._budget.watching(
                Held.HEADERS, lambda: window.held_bytes + self._joining_bytes
            ):
                async with asyncio.TaskGroup() as group:
                    group.create_task(window.run())
                    group.create_task(self._feed(window, skeleton, anchor, stride))
                    group.create_task(self._join(window))
        except* SkeletonFalse as caught:
            # Between its two answers the leader may have changed its chain, within one not.
            fault = Refused()
            start = cast(SkeletonFalse, _first(caught)).start
            if start != anchor.height:
                fault = Misbehaviour(
                    Offence.BAD_HEADER, f"its skeleton is not one chain above header {start}"
                )
        except* Unobtainable:
            fault = Refused()  # the leader was asked too: it no longer has what it showed
        except* (FutureHeaders, FinalityError, Misbehaviour) as caught:
            fault = _first(caught)
        if fault is not None:
            raise fault

    async def _feed(
        self, window: Window[SegmentJob], skeleton: HeaderBatch, anchor: Anchor, stride: int
    ) -> None:
        for i in range(len(skeleton)):
            job = SegmentJob(
                self._pool, self._checker, anchor, stride, skeleton.hash(i), self._trusted_to
            )
            await window.submit(job)
            anchor = _last(skeleton[i : i + 1])
        window.close()

    async def _join(self, window: Window[SegmentJob]) -> None:
        """Store what is ready, as much in one commit as comes within a moment."""
        while (job := await window.take()) is not None:
            batches: list[HeaderBatch] = []
            suppliers: list[Source] = []
            size = 0
            due = self._pool.now() + COMMIT_SECONDS
            while job is not None and job.batch is not None and job.supplier is not None:
                batches.append(job.batch)
                suppliers.append(job.supplier)
                size += len(job.batch)
                self._joining_bytes += job.held_bytes
                job = None
                if size < HEADERS_PER_COMMIT:
                    try:
                        async with asyncio.timeout_at(due):
                            job = await window.take()
                    except TimeoutError:
                        pass
                    except asyncio.CancelledError:
                        # A later range failed. What came before it is good all the same.
                        await self._store(batches, *suppliers)
                        raise
            await self._store(batches, *suppliers)
            self._joining_bytes = 0

    async def _store(self, batches: list[HeaderBatch], *suppliers: Source) -> int:
        """How many were new. Raises Refork where what they stand on is gone, Misbehaviour where
        one is known to be invalid, FinalityError."""
        batch = batches[0]
        if len(batches) > 1:
            data = b"".join(part.encode()[2:] for part in batches)
            batch = HeaderBatch.from_concatenated(data)
        try:
            stored = await settled(
                self._runtime.run_writer(
                    self._chain.add_headers,
                    batch,
                    signatures_checked=True,
                    trusted_to=self._trusted_to,
                )
            )
        except UnknownParentError as error:
            raise Refork from error  # a block of our own has moved the head meanwhile
        except InvalidBlockError as error:
            fault = Misbehaviour(Offence.INVALID_CHAIN, str(error))
            for source in suppliers:
                self._pool.convict(source, fault)
            raise fault from error
        except HeaderChainError as error:
            if error.rule != "future":
                raise
            raise FutureHeaders from error  # our clock was set back
        height = batch.height(-1)
        for source in suppliers:
            self._suppliers[source] = max(height, self._suppliers.get(source, 0))
        if stored:
            self._meter.headers_stored(stored, height)
            for source in suppliers:
                self._pool.useful(source, Kind.HEADERS)
            self.grown.set()
        return stored


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _last(batch: HeaderBatch) -> Anchor:
    """What the next header stands on."""
    return Anchor(batch.hash(-1), batch.height(-1), batch.timestamp(-1))
