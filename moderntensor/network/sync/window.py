"""A moving window of work in order, fetched from many peers at once.

A feeder submits jobs, a consumer takes them in the same order when they are done, and `run()`
in between gives them to peers, asks a second peer where one holds everything up, and takes the
work of those who leave to others.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, Self, TypeVar

from ...runtime import Runtime
from .source import Kind, Misbehaviour, Refused, Source, Unanswered
from .sources import SourcePool

# A job that holds up the window for so many times its usual time, and at least so many seconds, is
# given to a second peer before patience runs out, which is no reproach to the first.
EARLY_TIMES: Final = 8
EARLY_LEAST: Final = 0.5
ATTEMPTS_MOST: Final = 4  # peers at work on one job, each asked because those before hold it up


class Attempt:
    """One peer at work on one job."""

    __slots__ = (
        "_freed",
        "_held",
        "kind",
        "late",
        "moved",
        "passed",
        "patience",
        "read_before",
        "source",
        "task",
    )

    def __init__(
        self,
        source: Source,
        kind: Kind,
        now: float,
        patience: float,
        freed: Callable[[], object],
    ) -> None:
        """`patience`: seconds after which a second peer is asked, however much more this one is
        granted meanwhile. `freed()` is called when the peer owes nothing more."""
        self.source = source
        self.patience = patience
        self._freed = freed
        self.kind = kind
        self.moved = now  # loop time at which it began or last delivered an item
        self.read_before = source.bytes_received
        self.late = False  # a second peer was asked because of this one
        self.passed = False  # a second peer was asked early, and this one may still answer
        self.task: asyncio.Task[None] | None = None
        self._held = True
        source.in_flight[kind] += 1

    @property
    def owes(self) -> bool:
        """Whether the peer has not answered yet. What it has sent is checked to the end, though
        others were quicker: else a liar would only have to be second."""
        return self._held

    def answered(self) -> None:
        """The peer owes nothing more: it is asked for something else while what it sent is being
        checked, however few requests it may have at a time."""
        if self._held:
            self._held = False
            self.source.in_flight[self.kind] -= 1
            self._freed()


class Job(ABC):
    """One unit of work that one request or a few can get."""

    kind: Kind
    reply_bytes = 0  # what one attempt may bring at most
    items = 0  # by which its usual time is known; 0: it has none
    snapshot: tuple[int, bytes] | None = None  # that a peer should announce to be asked

    def __init__(self, height: int) -> None:
        self.height = height  # that a peer must have to be asked
        self.done = False
        self.held_bytes = 0  # fetched and kept until the consumer takes it
        self.refused: set[Source] = set()  # who do not have it
        self.attempts: dict[Source, Attempt] = {}
        self.ends_unit = True  # nothing that was cut off comes after it

    def cut(self, source: Source) -> Self | None:
        """Before it is given to a peer: keep what that is to be asked for at once, and return a job
        for the rest, if others can get it meanwhile."""
        return None

    @abstractmethod
    async def fetch(self, attempt: Attempt) -> None:
        """Ask the attempt's peer, check what comes, keep it, and set `done` when all is there.
        Raises Refused, Unanswered or Misbehaviour; anything else ends the window."""

    def split(self) -> Self | None:
        """Where much has been fetched and more is missing: end with what is there, and return a
        job for the rest."""
        return None


J = TypeVar("J", bound=Job)


class Unobtainable(Exception):  # noqa: N818  (an outcome, no error)
    """Every peer that is there said that it does not have what the window waits for."""

    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__(job)


class Window(Generic[J]):
    """At most `most_jobs` jobs between feeder and consumer, and `most_bytes` in memory, what is on
    its way counted as the most that it can be.

    One feeder, one consumer. The bound on bytes gives way for the first job that is not done and
    for those up to `floor_height`, because without them nothing could ever leave the window.
    """

    def __init__(
        self, pool: SourcePool, runtime: Runtime, kind: Kind, most_jobs: int, most_bytes: int
    ) -> None:
        self._pool = pool
        self._runtime = runtime
        self._kind = kind
        self._most_jobs = most_jobs
        self._most_bytes = most_bytes
        self._jobs: deque[J] = deque()
        self._units = 0  # of them, as they were submitted
        self._passed: dict[Attempt, None] = {}  # whose jobs others have done meanwhile
        self._closed = False
        self._work = asyncio.Event()  # something for `run` to look at
        self._room = asyncio.Event()  # for the feeder
        self._ready = asyncio.Event()  # for the consumer
        self.floor_height = 0

    @property
    def held_bytes(self) -> int:
        """Fetched and kept until the consumer takes it."""
        return sum(job.held_bytes for job in self._jobs)

    # --- the feeder's side ----------------------------------------------------------------

    async def submit(self, job: J) -> None:
        """Add a job behind all others; waits while the window is full."""
        while self._units >= self._most_jobs:
            self._room.clear()
            await self._room.wait()
        self._jobs.append(job)
        self._units += 1
        self._work.set()
        if job.done:
            self._ready.set()

    def close(self) -> None:
        """No more jobs will come."""
        self._closed = True
        self._work.set()
        self._ready.set()

    # --- the consumer's side --------------------------------------------------------------

    async def take(self) -> J | None:
        """The next job in order, once it is done; None after the last one."""
        while True:
            job = self.take_ready()
            if job is not None:
                return job
            if self._closed and not self._jobs:
                return None
            self._ready.clear()
            await self._ready.wait()

    def take_ready(self) -> J | None:
        """The next job in order if it is done already."""
        if not self._jobs or not self._jobs[0].done:
            return None
        job = self._jobs.popleft()
        if job.ends_unit:
            self._units -= 1
            self._room.set()
        self._work.set()
        return job

    def take_done(self) -> list[J]:
        """All jobs that are done, whatever is missing before them: when no more will be."""
        done = [job for job in self._jobs if job.done]
        self._jobs = deque(job for job in self._jobs if not job.done)
        return done

    # --- between them ---------------------------------------------------------------------

    async def run(self) -> None:
        """Fetch until closed and empty. Raises Unobtainable when no peer has the next job."""
        loop = asyncio.get_running_loop()
        self._pool.watch(self._work)
        try:
            async with asyncio.TaskGroup() as group:
                while not (self._closed and not self._jobs):
                    self._work.clear()
                    when = self._assign(group)
                    timer = None if when is None else loop.call_at(when, self._work.set)
                    try:
                        await self._work.wait()
                    finally:
                        if timer is not None:
                            timer.cancel()
                self._forsake()
        finally:
            self._pool.unwatch(self._work)

    def _assign(self, group: asyncio.TaskGroup) -> float | None:
        """Give out what can be given; returns the loop time to look again, if there is one."""
        held = self.held_bytes
        first = True
        again = self._pool.next_rested()
        for job in self._in_order():
            if job.done:
                continue
            if job.attempts:
                held += job.reply_bytes * len(job.attempts)
                if (
                    not first
                    and self._is_held_up(job)
                    and held + job.reply_bytes <= self._most_bytes
                ):
                    self._hedge(group, job)  # it will hold up the window when its turn comes
            else:
                spare = held + job.reply_bytes <= self._most_bytes
                if not (first or spare or job.height <= self.floor_height):
                    break
                source = self._pool.pick(self._kind, job.height, job.refused, job.snapshot)
                if source is not None:
                    held += job.reply_bytes
                    self._follow_up(job, job.cut(source))
                    self._start(group, job, source)
                elif first and len(self._pool) and all(s in job.refused for s in self._pool):
                    raise Unobtainable(job)
                elif not job.refused:
                    break  # nobody has room at all
            if first and job.attempts:
                hedge = self._hedge(group, job)
                again = hedge if again is None or hedge < again else again
            first = False
        return again

    def _in_order(self) -> Iterator[J]:
        """All jobs, those included that are cut off while this goes on."""
        index = 0
        while index < len(self._jobs):
            yield self._jobs[index]
            index += 1

    def _follow_up(self, job: J, rest: J | None) -> None:
        """Put what was cut off from a job behind it."""
        if rest is not None:
            rest.ends_unit, job.ends_unit = job.ends_unit, False
            self._jobs.insert(self._jobs.index(job) + 1, rest)

    def _is_held_up(self, job: J) -> bool:
        """Whether it is with peers alone that have let us wait before, and delivered nothing since:
        patience that one of them has used up is not granted once more for each of its jobs."""
        return all(attempt.source.holds_up[self._kind] for attempt in job.attempts.values())

    def _hedge(self, group: asyncio.TaskGroup, job: J) -> float:
        """Ask one peer more where those at work on a job hold it up for too long. Returns when to
        look again."""
        now = self._runtime.loop_time()
        patience = self._pool.patience
        attempts = tuple(job.attempts.values())
        latest = max(attempt.moved for attempt in attempts)
        due = latest + patience.seconds
        early = min(due, latest + min(attempt.patience for attempt in attempts))
        if len(attempts) == 1 and job.items:
            usual = self._pool.usual_seconds(self._kind, job.items)
            early = min(early, latest + max(EARLY_LEAST, EARLY_TIMES * usual))
        taken = {*job.refused, *job.attempts}
        if now < early:
            if not self._is_held_up(job):
                return early
            taken.update(source for source in self._pool if source.holds_up[self._kind])
        source = None
        if len(attempts) < ATTEMPTS_MOST:
            source = self._pool.pick(self._kind, job.height, taken, job.snapshot)
        if source is not None:
            self._pass_over(attempts, reproach=now >= due)
            self._start(group, job, source)
        return early if source is None and now < early else now + patience.seconds

    def _pass_over(self, attempts: Iterable[Attempt], *, reproach: bool) -> None:
        """Others are asked beside these; `reproach`: as patience with them has run out."""
        late = [attempt for attempt in attempts if reproach and not attempt.late]
        if late:  # once, however many others do its work in parts
            self._pool.patience.ran_out()
        for attempt in attempts:
            attempt.source.holds_up[self._kind] = True
            attempt.passed = attempt.passed or not reproach
        for attempt in late:
            attempt.late = True

    def _forsake(self) -> None:
        """All is done: wait for nobody's late answer."""
        now = self._runtime.loop_time()
        for attempt in tuple(self._passed):
            if now - attempt.moved >= self._pool.patience.seconds:
                self._pool.overdue(attempt.source, self._kind, attempt.moved, attempt.read_before)
            if attempt.task is not None and attempt.owes:
                attempt.task.cancel()

    def _start(self, group: asyncio.TaskGroup, job: J, source: Source) -> None:
        now, patience = self._runtime.loop_time(), self._pool.patience.seconds
        attempt = Attempt(source, self._kind, now, patience, self._work.set)
        job.attempts[source] = attempt
        attempt.task = group.create_task(self._attempt(job, attempt))
        # Not in the task itself, which may be cancelled before it has begun.
        attempt.task.add_done_callback(lambda _: self._ended(job, attempt))

    def _ended(self, job: J, attempt: Attempt) -> None:
        attempt.answered()
        job.attempts.pop(attempt.source, None)
        self._passed.pop(attempt, None)
        self._pool.freed(attempt.source)
        self._work.set()

    async def _attempt(self, job: J, attempt: Attempt) -> None:
        try:
            await job.fetch(attempt)
        except Refused:
            job.refused.add(attempt.source)
        except Unanswered:
            pass  # the pool has taken note
        except Misbehaviour as fault:
            job.refused.add(attempt.source)
            self._pool.convict(attempt.source, fault)
        else:
            self._delivered(job, attempt)

    def _delivered(self, job: J, attempt: Attempt) -> None:
        """A peer delivered all of a job, or some of it."""
        self._pool.progressed()
        others = [other for other in job.attempts.values() if other is not attempt]
        for other in others:
            if other.late and other.owes:
                self._pool.overdue(other.source, self._kind, other.moved, other.read_before)
        if not job.done:
            self._follow_up(job, job.split())
        if not job.done:
            return
        if not others:
            self._pool.patience.served()
        for other in others:
            if other.passed and not other.late:
                self._passed[other] = None  # it is not asked for more until it has answered
            elif other.task is not None and other.owes:
                other.task.cancel()
        if self._jobs and self._jobs[0].done:
            self._ready.set()
