"""The loop with virtual time: jumps, order, ends, and what it refuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from moderntensor.errors import DeadlockError, LivelockError
from moderntensor.simulation import loop as module
from moderntensor.simulation.loop import VirtualLoop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    if not loop.is_closed():
        loop.wind_up()
        loop.close()


def test_time_begins_at_zero_and_jumps_to_the_next_timer(loop: VirtualLoop) -> None:
    async def main() -> float:
        assert loop.time() == 0.0
        await asyncio.sleep(3600 * 24 * 365)
        return loop.time()

    assert loop.run_until_complete(main()) == 3600 * 24 * 365


def test_timers_of_one_moment_fire_in_the_order_in_which_they_were_set(loop: VirtualLoop) -> None:
    fired: list[int] = []

    async def main() -> None:
        for number in (1, 2, 3):
            loop.call_at(5.0, fired.append, number)
        loop.call_at(4.0, fired.append, 0)
        loop.post(5.0, fired.append, 4)
        await asyncio.sleep(6)

    loop.run_until_complete(main())
    assert sorted(fired) == [0, 1, 2, 3, 4]
    assert [number for number in fired if number in (1, 2, 3)] == [1, 2, 3]
    assert fired[0] == 0


def test_a_timer_in_the_past_does_not_turn_time_back(loop: VirtualLoop) -> None:
    seen: list[float] = []

    async def main() -> None:
        await asyncio.sleep(10)
        loop.call_at(3.0, lambda: seen.append(loop.time()))
        await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    assert seen == [10.0]


def test_a_turn_runs_what_was_ready_and_what_is_due_but_nothing_that_they_add(
    loop: VirtualLoop,
) -> None:
    """A program that never rests does not keep timers from firing."""
    seen: list[str] = []

    def busy() -> None:
        if "timer" not in seen:
            loop.call_soon(busy)

    async def main() -> None:
        loop.call_later(0, seen.append, "timer")
        busy()
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    assert seen == ["timer"]


def test_cancelled_timers_neither_fire_nor_hold_time_up_nor_pile_up(loop: VirtualLoop) -> None:
    async def main() -> int:
        loop.call_later(1, pytest.fail).cancel()
        for _ in range(20_000):
            loop.call_later(1000, pytest.fail).cancel()
        kept = len(loop._heap) + sum(map(len, loop._slots.values()))
        await asyncio.sleep(2)
        assert loop.time() == 2
        return kept

    assert loop.run_until_complete(main()) < 2000


def test_timers_that_have_fired_are_not_counted_as_cancelled(loop: VirtualLoop) -> None:
    """`asyncio.sleep` cancels its own when it is over."""

    async def main() -> int:
        for _ in range(10):
            await asyncio.sleep(1)
        return loop._cancelled_timers

    assert loop.run_until_complete(main()) == 0


def test_timers_fire_in_the_order_of_their_times_however_far_off(loop: VirtualLoop) -> None:
    """Also where slots begin, and where there are none any more."""
    times = [0.0, 0.0625, 0.06249, 1e9, 0.125, 3600.0, 0.0, 1e17, 59.999, 1e9, 1e300]
    fired: list[tuple[float, int]] = []

    async def main() -> None:
        done = loop.create_future()

        def fire(when: float, number: int) -> None:
            assert loop.time() == when
            fired.append((when, number))
            if number == 4:  # one slot later, in this one, and at once
                for at in (0.1875, 0.13, 0.125):
                    loop.call_at(at, fire, at, 100)
            if len(fired) == len(times) + 3:
                done.set_result(None)

        for number, when in enumerate(times):
            loop.call_at(when, fire, when, number)
        await done

    loop.run_until_complete(main())
    assert fired == sorted(
        [*zip(times, range(11), strict=True), (0.1875, 100), (0.13, 100), (0.125, 100)]
    )


def test_what_a_callback_raises_is_told_and_the_rest_goes_on(loop: VirtualLoop) -> None:
    async def main() -> None:
        loop.call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    (failure,) = loop.failures
    assert "Exception in callback" in failure
    assert "ZeroDivisionError" in failure


def test_asyncio_tools_work_on_it(loop: VirtualLoop) -> None:
    async def main() -> list[Any]:
        seen: list[Any] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        seen.append(loop.time())
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def fill() -> None:
            for number in range(3):
                await queue.put(number)

        async with asyncio.TaskGroup() as group:
            group.create_task(fill())
            seen += [await queue.get() for _ in range(3)]
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(asyncio.sleep(n)) for n in (1, 2, 3)], timeout=2.5
        )
        seen.append((len(done), len(pending), loop.time()))
        return seen

    assert loop.run_until_complete(main()) == [5, 0, 1, 2, (2, 1, 7.5)]


def test_sets_of_tasks_and_futures_have_one_order_wherever_they_lie_in_memory() -> None:
    def order() -> list[int]:
        loop = VirtualLoop()
        keep: list[Any] = []

        async def main() -> list[int]:
            tasks = {}
            futures = {}
            for number in range(50):
                keep.append([bytearray(number * 37 + id(keep) % 1000), object()])
                tasks[asyncio.ensure_future(asyncio.sleep(1))] = number
                futures[loop.create_future()] = number
            return [tasks[t] for t in set(tasks)] + [futures[f] for f in set(futures)]

        try:
            return loop.run_until_complete(main())
        finally:
            loop.wind_up()
            loop.close()

    first = order()
    litter = [object() for _ in range(1234)]
    assert order() == first
    del litter


def test_a_deadlock_is_an_error_that_names_who_waits(loop: VirtualLoop) -> None:
    async def forever() -> None:
        await loop.create_future()

    async def main() -> None:
        await asyncio.create_task(forever(), name="the one who waits")

    with pytest.raises(DeadlockError, match=r"the one who waits at .*test_loop\.py"):
        loop.run_until_complete(main())


def test_time_that_stands_still_is_an_error(
    loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TURNS", 1000)

    def again() -> None:
        loop.call_soon(again)

    async def main() -> None:
        again()
        await asyncio.sleep(1)

    with pytest.raises(LivelockError, match="1001 callbacks at 0"):
        loop.run_until_complete(main())


def test_segments_that_answer_each_other_at_one_moment_are_an_error(
    loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TURNS", 1000)

    def again(times: Any) -> None:
        if times:
            loop.post(loop.time(), again, times - 1)

    async def main() -> None:
        loop.post(3.0, again, 1500)
        await asyncio.sleep(5)

    with pytest.raises(LivelockError, match="1001 callbacks at 3"):
        loop.run_until_complete(main())


def test_what_asyncio_only_logs_is_collected(loop: VirtualLoop, caplog: Any) -> None:
    async def main() -> None:
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    with caplog.at_level(logging.DEBUG, "asyncio"):
        loop.run_until_complete(main())
    assert len(loop.failures) == 1
    assert "ZeroDivisionError" in loop.failures[0]


def test_wind_up_ends_what_is_left_and_names_it(loop: VirtualLoop) -> None:
    ended: list[str] = []

    async def stubborn() -> None:
        for _ in range(3):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                ended.append("refused")

    async def meek() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.01)
            ended.append("meek")

    async def main() -> None:
        loop.keep = [  # type: ignore[attr-defined]
            asyncio.create_task(stubborn(), name="stubborn"),
            asyncio.create_task(meek(), name="meek"),
        ]
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    left = loop.wind_up()
    assert [text.split(" at ")[0] for text in left] == ["stubborn", "meek"]
    assert ended.count("refused") == 3
    assert ended.count("meek") == 1
    assert loop.waiting() == []


def test_nothing_reaches_outside(loop: VirtualLoop) -> None:
    async def main() -> None:
        with pytest.raises(NotImplementedError):
            await asyncio.to_thread(print)
        with pytest.raises(NotImplementedError):
            await loop.getaddrinfo("localhost", 1)
        with pytest.raises(NotImplementedError):
            loop.add_reader(0, print)
        with pytest.raises(OSError, match="no network"):
            await asyncio.open_connection("127.0.0.1", 1)

    loop.run_until_complete(main())


def test_a_closed_loop_takes_nothing(loop: VirtualLoop) -> None:
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1, print)
