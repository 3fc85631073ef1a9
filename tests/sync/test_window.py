"""The moving window and what is known of peers, apart from any network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from moderntensor.config import NodeConfig
from moderntensor.network.messages import DisconnectCode
from moderntensor.network.offences import Offence
from moderntensor.network.sync.pace import Capacity, Patience
from moderntensor.network.sync.source import Kind, Misbehaviour, Refused, Source, Unanswered
from moderntensor.network.sync.sources import SourcePool
from moderntensor.network.sync.status import RATE_SPAN, Meter, Rate, SyncPhase, SyncStatus
from moderntensor.network.sync.window import Attempt, Job, Unobtainable, Window
from moderntensor.runtime import Runtime


class StandInPeer:
    """As much of a peer as the pool looks at."""

    def __init__(self, name: str, height: int = 100) -> None:
        self.address = name
        self.best_height = height
        self.best_hash = name.encode().ljust(32, b"\0")
        self.max_inflight, self.max_per_type = 16, 8
        self.min_latency: float | None = None
        self.connection = SimpleNamespace(bytes_received=0)
        self.outbound = False
        self.connected_at = 0.0
        self.code: DisconnectCode | None = None

    def punish(self, offence: Offence, detail: str) -> None:
        if offence.drops:
            self.code = offence.code


class StandInNode:
    """As much of a node as the pool looks at."""

    def __init__(self, *peers: StandInPeer) -> None:
        self.peers = {peer.address: peer for peer in peers}
        self.on_peer_connected: list[Callable[[StandInPeer], None]] = []
        self.on_peer_disconnected: list[Callable[[StandInPeer], None]] = []


def pool_of(*peers: StandInPeer, **changes: float) -> SourcePool:
    runtime = Runtime(1)
    config = NodeConfig(stall_timeout=0.02, stall_timeout_max=0.08).replace(**changes)
    node = StandInNode(*peers)
    pool = SourcePool(node, runtime, config, Meter(runtime, 0))  # type: ignore[arg-type]
    pool.attach()
    return pool


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


async def test_claims_rests_and_dismissals_decide_whom_to_follow() -> None:
    low, high = StandInPeer("low", 50), StandInPeer("high", 90)
    pool = pool_of(low, high, follow_interval=0.05)
    claim = pool.best_claim(0)
    assert claim is not None
    assert (claim.height, claim.hash, claim.source.peer) == (90, high.best_hash, high)
    assert pool.best_claim(90) is None
    pool.dismiss(claim.source)
    second = pool.best_claim(0)
    assert second is not None
    assert (second.height, pool.highest_claim()) == (50, 90)  # it may be tried again
    pool.dismiss(claim.source, hopeless=True)
    assert pool.highest_claim() == 50
    pool.rest(second.source, 0.05)
    assert pool.best_claim(0) is None
    assert pool.highest_claim() == 50  # it only rests
    assert await pool.changed(lambda: pool.best_claim(60) is not None, 5)


async def test_a_peer_that_keeps_none_of_its_claims_is_useless() -> None:
    peer = StandInPeer("boaster")
    pool = pool_of(peer)
    source = next(iter(pool))
    for _ in range(2):
        pool.broke_claim(source)
    assert peer.code is None
    pool.broke_claim(source)
    assert peer.code is DisconnectCode.USELESS
    assert len(pool) == 0


def test_a_request_grows_and_shrinks_with_what_a_peer_delivers() -> None:
    capacity = Capacity()
    assert capacity.size(192) == 192  # unknown: all that is allowed
    for _ in range(20):
        capacity.delivered(40, 1.0)
    assert 38 <= capacity.size(192) <= 42
    capacity.failed()
    assert 19 <= capacity.size(192) <= 21
    for _ in range(9):
        capacity.failed()
    assert capacity.size(192) == 1
    for _ in range(20):
        capacity.delivered(192, 0.001)
    assert capacity.size(192) == 192


def test_what_may_be_large_begins_small_and_grows_in_a_few_requests() -> None:
    capacity = Capacity(first=4)
    assert (capacity.size(128), capacity.requests(4)) == (4, 1)
    asked = []
    while (size := capacity.size(128)) < 128:
        asked.append(size)
        capacity.delivered(size, 0.01)
    assert asked == [4, 16, 64]
    assert capacity.requests(4) == 4


def test_what_is_small_is_not_asked_for_by_ones() -> None:
    """However long a single item took: that was the distance."""
    capacity = Capacity(least=64)
    capacity.delivered(1, 1.2)
    assert capacity.size(1024) == 64
    assert capacity.size(43) == 43
    capacity.delivered(64, 1.25)
    for _ in range(20):
        capacity.delivered(capacity.size(1024), 1.25)
    assert 64 <= capacity.size(1024) < 80  # and no more than it delivers in time


def test_fewer_requests_are_under_way_where_one_item_takes_long() -> None:
    capacity = Capacity(first=4)
    for _ in range(20):
        capacity.delivered(1, 1.4)
    assert (capacity.size(128), capacity.requests(4)) == (1, 2)
    for _ in range(20):
        capacity.delivered(1, 5.0)
    assert (capacity.size(128), capacity.requests(4)) == (1, 1)


def test_neither_distance_nor_a_small_request_makes_a_peer_slow() -> None:
    capacity, latency = Capacity(), 2.0
    for _ in range(20):
        items = capacity.size(128, latency)
        capacity.delivered(items, latency + items / 100)
    assert capacity.size(128, latency) > 90  # of a hundred in the target's second
    for _ in range(3):
        capacity.delivered(1, latency)  # what was left
    assert capacity.size(128, latency) > 80
    assert capacity.size(128, 3600.0) <= 128  # and no PONG makes a request endless


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


async def test_a_peer_whose_bytes_come_all_the_time_is_slow_and_not_silent() -> None:
    quick, slow = StandInPeer("quick"), StandInPeer("slow")
    pool = pool_of(quick, slow, request_timeout=0.02)
    mine, other = (next(s for s in pool if s.peer is peer) for peer in (slow, quick))
    began = pool.now()
    other.useful(Kind.BODIES, began + 1e-6)
    slow.connection.bytes_received = 10**6
    pool.overdue(mine, Kind.BODIES, began, 0)
    pool.part_from_silent()
    assert slow.code is None
    await asyncio.sleep(0.05)
    slow.connection.bytes_received += 10**6
    pool.overdue(mine, Kind.BODIES, pool.now(), 10**6)
    assert slow.code is DisconnectCode.TIMEOUT  # nothing came of it for two requests' time


def test_patience_doubles_within_bounds_and_comes_back() -> None:
    patience = Patience(2.0, 64.0)
    waits = []
    for _ in range(7):
        waits.append(patience.seconds)
        patience.ran_out()
    assert waits == [2, 4, 8, 16, 32, 64, 64]
    for _ in range(50):
        patience.served()
    assert patience.seconds == 2.0


def test_a_rate_forgets() -> None:
    rate = Rate(100.0)
    for i in range(50):
        rate.add(10, 100.0 + i / 10)
    assert rate.value(105.0) == pytest.approx(100, rel=0.05)
    assert rate.value(105.0 + 2 * RATE_SPAN) == 0


def status(**changes: object) -> SyncStatus:
    fields: dict[str, object] = {
        "phase": SyncPhase.BLOCKS,
        "start_height": 100,
        "header_height": 400,
        "current_height": 200,
        "target_height": 500,
        "headers_per_second": 0.0,
        "blocks_per_second": 50.0,
        "transactions_per_second": 0.0,
        "bytes_received": 0,
        "peers": 1,
        "waiting": None,
    }
    return SyncStatus(**(fields | changes))  # type: ignore[arg-type]


def test_status_counts_the_time_to_go() -> None:
    assert (status().progress, status().eta_seconds) == (0.25, 6.0)
    assert status(blocks_per_second=0.0).eta_seconds is None
    done = status(current_height=500)
    assert (done.progress, done.eta_seconds) == (1.0, 0.0)
    assert status(start_height=500, current_height=500).progress == 1.0


async def test_ever_new_claims_of_what_cannot_be_followed_bind_nobody() -> None:
    dreamer, honest = StandInPeer("dreamer", 90), StandInPeer("honest", 50)
    pool = pool_of(dreamer, honest, follow_interval=0.05)
    claim = pool.best_claim(0)
    assert claim is not None
    pool.dismiss(claim.source, hopeless=True)
    dreamer.best_height, dreamer.best_hash = 91, b"\1" * 32
    second = pool.best_claim(0)
    assert second is not None
    assert (second.source.peer, pool.highest_claim()) == (honest, 50)
    assert await pool.changed(lambda: pool.highest_claim() == 91, 5)  # looked at again later


async def test_who_has_been_there_longest_leads_every_second_time() -> None:
    """Ever new strangers claim more than anybody: the honest peer is heard all the same."""
    honest = StandInPeer("honest", 50)
    honest.connected_at = -100.0
    pool = pool_of(honest, StandInPeer("liar 1", 10**9), StandInPeer("liar 2", 10**9))
    leaders = []
    for _ in range(4):
        claim = pool.next_claim(7)
        assert claim is not None
        leaders.append(claim.source.peer is honest)
    assert leaders == [False, True, False, True]
    claim = pool.next_claim(8)  # the last one led somewhere
    assert claim is not None
    assert claim.source.peer is not honest


async def test_who_has_delivered_is_not_left_idle_for_who_only_claims() -> None:
    honest = StandInPeer("honest", 50)
    pool = pool_of(*(StandInPeer(f"liar {n}", 10**9) for n in range(5)), honest)
    source = next(source for source in pool if source.peer is honest)
    pool.delivered(source, Kind.HEADERS, 10, 1000, 5.0)
    assert pool.pick(Kind.BODIES, 40, ()) is source
    source.in_flight[Kind.BODIES] += 1
    assert pool.pick(Kind.BODIES, 40, ()) is not source  # the others get their chance


async def test_headers_served_do_not_excuse_bodies_withheld() -> None:
    miser, honest = StandInPeer("miser"), StandInPeer("honest")
    pool = pool_of(miser, honest)
    asked = pool.now()
    sources = {source.peer.address: source for source in pool}
    await asyncio.sleep(0.001)
    pool.delivered(sources["honest"], Kind.BODIES, 1, 100, 0.1)
    pool.delivered(sources["miser"], Kind.HEADERS, 1, 100, 0.1)
    pool.overdue(sources["miser"], Kind.BODIES, asked, 0)
    assert (honest.code, miser.code) == (None, DisconnectCode.TIMEOUT)
