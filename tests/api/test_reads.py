"""Reads of the chain: in turns, shared, given up, and while the server comes to its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from helpers.sync_nodes import until

from moderntensor.api.problems import Refusal
from moderntensor.api.reads import Kept, Reads
from moderntensor.api.shares import who_yields
from moderntensor.network.tasks import TaskSet
from moderntensor.runtime import Runtime


def no_failure(name: str, error: BaseException) -> None:
    raise AssertionError(name) from error


@asynccontextmanager
async def made() -> AsyncIterator[tuple[Reads, TaskSet, Runtime]]:
    runtime, tasks = Runtime(4), TaskSet(no_failure)
    try:
        yield Reads(runtime, tasks), tasks, runtime
    finally:
        await tasks.close()
        runtime.close()


@asynccontextmanager
async def held(reads: Reads) -> AsyncIterator[threading.Event]:
    """All turns are taken until the event is set."""
    may_end = threading.Event()
    holding = [
        asyncio.ensure_future(reads.run("held", may_end.wait, 20)) for _ in range(reads.turns)
    ]
    await until(lambda: reads._free == 0)
    try:
        yield may_end
    finally:
        may_end.set()
        await asyncio.gather(*holding)


async def test_who_asks_when_it_has_ended_is_told_so() -> None:
    async with made() as (reads, tasks, _):
        await tasks.close()
        for _ in range(2 * reads.turns):  # each gives its turn back
            async with asyncio.timeout(5):
                with pytest.raises(Refusal, match="stopping") as caught:
                    await reads.run("a", int)
            assert caught.value.status == 503


async def test_who_waits_when_it_ends_is_told_so() -> None:
    async with made() as (reads, tasks, _):
        begun, may_end = threading.Event(), threading.Event()

        def slow() -> None:
            begun.set()
            may_end.wait(10)

        asking = [asyncio.ensure_future(reads.run("a", slow)) for _ in range(reads.turns + 3)]
        await asyncio.to_thread(begun.wait, 10)
        closing = asyncio.ensure_future(tasks.close())
        for each in asking:
            with pytest.raises(Refusal, match="stopping"):
                await each
        may_end.set()
        await closing


async def test_a_client_that_asks_for_much_does_not_keep_the_others_waiting() -> None:
    async with made() as (reads, _, _):
        order: list[str] = []
        async with held(reads) as may_end:
            asked = [
                asyncio.ensure_future(reads.run(name[0], order.append, name))
                for name in ("a1", "a2", "a3", "b1", "c1", "c2")
            ]
            await until(lambda: reads.waiting == 6)
            may_end.set()
            await asyncio.gather(*asked)
        places = {name: place for place, name in enumerate(order)}
        # Two run at a time, so that neighbours may change places.
        assert max(places["b1"], places["c1"]) < places["a3"]
        assert reads.waiting == 0


async def test_who_leaves_waits_no_longer_and_no_turn_is_lost() -> None:
    async with made() as (reads, _, _):
        async with held(reads) as may_end:
            leaving = [asyncio.ensure_future(reads.run("a", int)) for _ in range(5)]
            staying = asyncio.ensure_future(reads.run("a", int))
            await until(lambda: reads.waiting == 6)
            for each in leaving:
                each.cancel()
            await until(lambda: reads.waiting == 1)
            may_end.set()
            assert await staying == 0
        # One that is given its turn and is cancelled at the same moment gives it on.
        await until(lambda: reads._free == reads.turns)
        for _ in range(reads.turns):
            await reads._turn("held")
        given, after = (asyncio.ensure_future(reads.run("a", int)) for _ in range(2))
        await until(lambda: reads.waiting == 2)
        reads._pass_on()
        given.cancel()
        assert await after == 0
        assert given.cancelled()


async def test_where_all_places_are_taken_who_has_most_gives_one_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moderntensor.api.reads.READS_WAITING", 4)
    async with made() as (reads, _, _), held(reads) as may_end:
        greedy = [asyncio.ensure_future(reads.run("a", int)) for _ in range(4)]
        await until(lambda: reads.waiting == 4)
        with pytest.raises(Refusal, match="too many"):
            await reads.run("a", int)
        modest = asyncio.ensure_future(reads.run("b", int))
        with pytest.raises(Refusal, match="too many"):
            await greedy[-1]
        assert reads.waiting == 4
        may_end.set()
        assert await asyncio.gather(*greedy[:-1], modest) == [0, 0, 0, 0]


def test_two_who_come_back_again_and_again_do_not_drive_each_other_out() -> None:
    assert who_yields("aaab", "b") == "a"
    assert who_yields("aab", "b") is None
    assert who_yields("aaaa", "a") is None
    assert who_yields("ab", "c") is None
    assert who_yields("", "a") is None


async def test_one_measurement_serves_all_who_ask_meanwhile() -> None:
    async with made() as (_, tasks, runtime):
        begun: list[asyncio.Event] = []

        async def measure() -> int:
            begun.append(asyncio.Event())
            await begun[-1].wait()
            return len(begun)

        kept = Kept(runtime, tasks, measure, 0.0)
        asking = [asyncio.ensure_future(kept.get()) for _ in range(3)]
        await until(lambda: bool(begun))
        asking[0].cancel()  # it began the measurement, which goes on without it
        late = asyncio.ensure_future(kept.get())
        await asyncio.sleep(0)
        begun[0].set()
        assert await asyncio.gather(*asking[1:], late) == [1, 1, 1]
        again = asyncio.ensure_future(kept.get())
        await until(lambda: len(begun) == 2)
        begun[1].set()
        assert await again == 2


async def test_a_measurement_that_fails_is_made_again() -> None:
    async with made() as (_, tasks, runtime):
        made_before: list[None] = []

        async def measure() -> int:
            made_before.append(None)
            if len(made_before) == 1:
                raise OSError("the disk is away")
            return len(made_before)

        kept = Kept(runtime, tasks, measure, 1000.0)
        failed = await asyncio.gather(kept.get(), kept.get(), return_exceptions=True)
        assert [str(error) for error in failed] == ["the disk is away"] * 2
        assert [await kept.get(), await kept.get()] == [2, 2]  # kept, this time


async def test_who_waits_for_a_measurement_at_the_end_is_told_so() -> None:
    async with made() as (_, tasks, runtime):

        async def measure() -> None:
            await asyncio.Event().wait()

        kept = Kept(runtime, tasks, measure, 0.0)
        asking = asyncio.ensure_future(kept.get())
        await asyncio.sleep(0)
        await tasks.close()
        for each in (asking, kept.get()):
            with pytest.raises(Refusal, match="stopping"):
                await each
