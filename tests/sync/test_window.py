"""The moving window, apart from any network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from helpers.sources import StandInPeer, pool_of

from moderntensor.network.messages import DisconnectCode
from moderntensor.network.offences import Offence
from moderntensor.network.sync.pace import Patience
from moderntensor.network.sync.source import Kind, Misbehaviour, Refused, Source, Unanswered
from moderntensor.network.sync.sources import SourcePool
from moderntensor.network.sync.window import Attempt, Job, Unobtainable, Window
from moderntensor.runtime import Runtime


class Numbered(Job):
    """Delivers its number; how is said by `script`, called with (job, source)."""

    kind = Kind.BODIES

    def __init__(self, number: int, script: Callable[[Numbered, Source], str]) -> None:
        super().__init__(number)
        self.script = script

    async def fetch(self, attempt: Attempt) -> None:
        outcome = self.script(self, attempt.source)
        if outcome == "refuse":
            raise Refused
        if outcome == "fail":
            raise Unanswered
        if outcome == "lie":
            raise Misbehaviour(Offence.BAD_BODY, "a lie")
        if outcome == "hang":
            await asyncio.Event().wait()
        if outcome == "part":
            attempt.source.delivered_at[Kind.BODIES] = asyncio.get_running_loop().time()
            return
        attempt.source.delivered_at[Kind.BODIES] = asyncio.get_running_loop().time()
        self.held_bytes = 10
        self.done = True


async def drain(
    pool: SourcePool, jobs: int, script: Callable[[Numbered, Source], str], **bounds: int
) -> list[int]:
    window: Window[Numbered] = Window(
        pool, Runtime(1), Kind.BODIES, bounds.get("most_jobs", 8), bounds.get("most_bytes", 10**9)
    )
    taken: list[int] = []

    async def feed() -> None:
        for number in range(jobs):
            await window.submit(Numbered(number, script))
        window.close()

    async def take() -> None:
        while (job := await window.take()) is not None:
            taken.append(job.height)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(window.run())
        group.create_task(feed())
        group.create_task(take())
    return taken


async def test_a_peer_is_asked_again_while_what_it_sent_is_being_checked() -> None:
    """One request at a time, as of a peer that nobody knows yet: or it would idle meanwhile."""
    asked: list[int] = []

    class Checked(Numbered):
        async def fetch(self, attempt: Attempt) -> None:
            asked.append(self.height)
            assert attempt.source.in_flight == [0, 1, 0, 0]
            attempt.answered()
            if len(asked) == 3:
                checked.set()
            await checked.wait()
            self.done = True

    checked = asyncio.Event()
    pool = pool_of(StandInPeer("a"), stall_timeout=60.0, stall_timeout_max=60.0)
    window: Window[Checked] = Window(pool, Runtime(1), Kind.BODIES, 8, 10**9)
    for number in range(3):
        await window.submit(Checked(number, lambda job, source: ""))
    window.close()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(window.run())
        assert [await window.take() is not None for _ in range(4)] == [True, True, True, False]
    assert asked == [0, 1, 2]


async def test_jobs_leave_in_the_order_in_which_they_came() -> None:
    pool = pool_of(StandInPeer("a"), StandInPeer("poor"))
    turns = iter(["ok", "fail", "fail", "ok", "refuse"] * 100)

    def script(job: Numbered, source: Source) -> str:
        turn = next(turns)
        return "fail" if turn == "refuse" and source.peer.address != "poor" else turn

    assert await drain(pool, 50, script) == list(range(50))


async def test_the_peers_limit_and_the_window_are_kept() -> None:
    peers = StandInPeer("a"), StandInPeer("b")
    pool = pool_of(*peers)
    started: list[int] = []

    def script(job: Numbered, source: Source) -> str:
        started.append(job.height)
        assert all(s.in_flight[Kind.BODIES] <= 4 for s in pool)
        assert sum(s.in_flight[Kind.BODIES] for s in pool) <= 6
        return "ok"

    assert await drain(pool, 60, script, most_jobs=6) == list(range(60))
    assert sorted(started) == list(range(60))
    assert all(not any(s.in_flight) for s in pool)


async def test_memory_is_bounded_but_the_first_job_always_runs() -> None:
    pool = pool_of(StandInPeer("a"))
    assert await drain(pool, 20, lambda job, source: "ok", most_bytes=1) == list(range(20))


async def test_a_peer_that_hangs_is_overtaken_and_dropped() -> None:
    quick, hanging = StandInPeer("quick"), StandInPeer("hanging")
    pool = pool_of(quick, hanging)

    def script(job: Numbered, source: Source) -> str:
        return "hang" if source.peer is hanging else "ok"  # type: ignore[comparison-overlap]

    assert await drain(pool, 20, script) == list(range(20))
    assert (quick.code, hanging.code) == (None, DisconnectCode.TIMEOUT)


async def test_the_last_job_is_overtaken_too() -> None:
    """Nothing else happens then that would make the window look again."""
    quick, hanging = StandInPeer("quick", height=1), StandInPeer("hanging")
    pool = pool_of(quick, hanging)

    def script(job: Numbered, source: Source) -> str:
        return "hang" if source.peer is hanging else "ok"  # type: ignore[comparison-overlap]

    window: Window[Numbered] = Window(pool, Runtime(1), Kind.BODIES, 8, 10**9)
    job = Numbered(50, script)  # which only the hanging one claims to have
    await window.submit(job)
    window.close()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(window.run())
        assert await window.take() is job
    assert hanging.code is DisconnectCode.TIMEOUT


async def test_patience_runs_out_once_for_a_peer_however_small_the_parts_of_others() -> None:
    quick, hanging = StandInPeer("quick"), StandInPeer("hanging")
    pool = pool_of(quick, hanging, stall_timeout_max=10.0)
    parts: dict[int, int] = {}

    def script(job: Numbered, source: Source) -> str:
        if source.peer is hanging:  # type: ignore[comparison-overlap]
            return "hang"
        parts[job.height] = parts.get(job.height, 0) + 1
        return "ok" if parts[job.height] == 8 else "part"

    assert await drain(pool, 3, script) == list(range(3))
    assert hanging.code is DisconnectCode.TIMEOUT
    assert pool.patience.seconds <= 2**3 * 0.02  # once for each of the jobs that it held


async def test_patience_runs_out_once_for_a_peer_however_many_jobs_it_holds_up() -> None:
    """It serves something else meanwhile, so that it is not dropped for it."""
    quick, hanging = StandInPeer("quick", height=1), StandInPeer("hanging")
    pool = pool_of(quick, hanging, stall_timeout_max=10.0)
    of_hanging = next(source for source in pool if source.peer is hanging)  # type: ignore[comparison-overlap]
    of_hanging.capacity[Kind.BODIES].delivered(1000, 1.0)  # known: several requests at a time
    held: list[int] = []

    def script(job: Numbered, source: Source) -> str:
        if source is of_hanging:
            held.append(job.height)
            return "hang"
        of_hanging.delivered_at[Kind.BODIES] = float("inf")
        return "ok"

    ran_out: list[float] = []

    class Counted(Patience):
        def ran_out(self) -> None:
            ran_out.append(self.seconds)
            super().ran_out()

    pool.patience = Counted(0.02, 10.0)
    window: Window[Numbered] = Window(pool, Runtime(1), Kind.BODIES, 8, 10**9)
    for number in range(50, 54):
        await window.submit(Numbered(number, script))
    window.close()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(window.run())
        taken = [job.height for _ in range(4) if (job := await window.take()) is not None]
    assert taken == [50, 51, 52, 53]
    assert len(held) >= 3
    assert len(ran_out) == 1


async def test_an_attempt_that_never_began_gives_its_slot_back() -> None:
    pool = pool_of(StandInPeer("a"), StandInPeer("b"))
    window: Window[Numbered] = Window(pool, Runtime(1), Kind.BODIES, 8, 10**9)
    await window.submit(Numbered(1, lambda job, source: "hang"))
    run = asyncio.ensure_future(window.run())
    await asyncio.sleep(0)  # it has created the attempt's task, which has not begun
    assert sum(source.in_flight[Kind.BODIES] for source in pool) == 1
    run.cancel()
    await asyncio.wait([run])
    assert sum(source.in_flight[Kind.BODIES] for source in pool) == 0


async def test_a_liar_is_parted_from_and_its_work_given_to_others() -> None:
    honest, liar = StandInPeer("honest"), StandInPeer("liar")
    pool = pool_of(honest, liar)

    def script(job: Numbered, source: Source) -> str:
        return "lie" if source.peer is liar else "ok"  # type: ignore[comparison-overlap]

    assert await drain(pool, 20, script) == list(range(20))
    assert (honest.code, liar.code) == (None, DisconnectCode.BAD_BLOCK)


@pytest.mark.parametrize("passed_over", [False, True])
async def test_a_lie_is_looked_at_to_the_end_though_another_was_quicker(passed_over: bool) -> None:
    """Be it that the job is done meanwhile, or the whole window: a liar need only be second."""
    honest, liar = StandInPeer("honest"), StandInPeer("liar", height=1000)
    pool = pool_of(honest, liar, stall_timeout=60.0 if passed_over else 0.02)
    done = asyncio.Event()

    class Checked(Numbered):
        items = 1

        async def fetch(self, attempt: Attempt) -> None:
            attempt.answered()
            if attempt.source.peer is liar:  # type: ignore[comparison-overlap]
                await done.wait()
                await asyncio.sleep(0.01)  # a check in a thread takes its time
                raise Misbehaviour(Offence.BAD_BODY, "a lie")
            self.done = True
            done.set()

    for source in pool:
        if passed_over and source.peer is honest:  # type: ignore[comparison-overlap]
            source.capacity[Kind.BODIES].delivered(1000, 1.0)  # so the liar is early overtaken
    window: Window[Checked] = Window(pool, Runtime(1), Kind.BODIES, 8, 10**9)
    await window.submit(Checked(500, lambda job, source: ""))  # which only the liar claims
    window.close()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(window.run())
        assert await window.take() is not None
    assert (honest.code, liar.code) == (None, DisconnectCode.BAD_BLOCK)


async def test_who_answered_late_and_is_being_checked_owes_nothing() -> None:
    """It is not dropped as silent because another's answer was checked before."""
    quick, slow = StandInPeer("quick"), StandInPeer("slow", height=1000)
    pool = pool_of(quick, slow)
    hedged = asyncio.Event()
    answered = asyncio.Event()

    class Checked(Numbered):
        async def fetch(self, attempt: Attempt) -> None:
            if attempt.source.peer is slow:  # type: ignore[comparison-overlap]
                await hedged.wait()
                attempt.answered()
                answered.set()
                await asyncio.sleep(0.01)  # a check in a thread takes its time
                return
            hedged.set()
            await answered.wait()
            attempt.answered()
            attempt.source.delivered_at[Kind.BODIES] = asyncio.get_running_loop().time()
            self.done = True

    window: Window[Checked] = Window(pool, Runtime(1), Kind.BODIES, 8, 10**9)
    await window.submit(Checked(500, lambda job, source: ""))  # which only the slow one claims
    window.close()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(window.run())
        assert await window.take() is not None
    assert (quick.code, slow.code) == (None, None)


async def test_what_every_peer_refuses_cannot_be_had() -> None:
    pool = pool_of(StandInPeer("a"), StandInPeer("b"))
    with pytest.raises(ExceptionGroup) as caught:
        await drain(pool, 5, lambda job, source: "refuse" if job.height == 3 else "ok")
    assert caught.group_contains(Unobtainable)


class Cut(Numbered):
    """Four items, as many of them in one request as the source's pace allows."""

    def __init__(
        self, number: int, script: Callable[[Numbered, Source], str], items: int = 4
    ) -> None:
        super().__init__(number, script)
        self.left = items

    def cut(self, source: Source) -> Cut | None:
        size = source.size(Kind.BODIES, self.left)
        if size >= self.left:
            return None
        rest = Cut(self.height, self.script, self.left - size)
        self.left = size
        return rest


async def test_jobs_cut_to_the_pace_of_peers_fill_the_window_in_order() -> None:
    peers = [StandInPeer(name) for name in "abcd"]
    pool = pool_of(*peers)
    for source in pool:
        source.capacity[Kind.BODIES].delivered(2, 1.0)  # two items a request
    begun: list[int] = []

    def script(job: Numbered, source: Source) -> str:
        begun.append(job.height)
        return "ok"

    window: Window[Numbered] = Window(pool, Runtime(1), Kind.BODIES, 2, 10**9)

    async def feed() -> None:
        for number in range(6):
            await window.submit(Cut(number, script))
            assert len(window._jobs) <= 2 * 2  # pieces do not make the window narrower, nor wider
        window.close()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(window.run())
        group.create_task(feed())
        taken = []
        while (job := await window.take()) is not None:
            taken.append(job.height)
    assert taken == begun == [number for number in range(6) for _ in range(2)]
