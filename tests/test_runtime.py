"""Worker threads: what comes in hundreds of pieces, and what is asked for meanwhile."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from functools import partial

import pytest

from moderntensor.runtime import BULK_PER_WORKER, Runtime


async def test_bulk_work_keeps_nothing_else_waiting() -> None:
    runtime, done, begin = Runtime(1), list[int | str](), threading.Event()

    def piece(number: int) -> None:
        begin.wait()
        done.append(number)

    try:
        bulk = [asyncio.ensure_future(runtime.run_bulk(piece, number)) for number in range(50)]
        await asyncio.sleep(0)
        asked = asyncio.ensure_future(runtime.run(done.append, "asked"))
        await asyncio.sleep(0)
        begin.set()
        await asyncio.gather(*bulk, asked)
    finally:
        begin.set()
        runtime.close()
    assert done.index("asked") == BULK_PER_WORKER
    assert [number for number in done if number != "asked"] == list(range(50))


async def test_bulk_work_that_is_given_up_leaves_its_turn() -> None:
    runtime, done, begin = Runtime(1), list[int](), threading.Event()

    def piece(number: int) -> None:
        begin.wait()
        done.append(number)

    try:
        bulk = [asyncio.ensure_future(runtime.run_bulk(piece, number)) for number in range(50)]
        await asyncio.sleep(0)
        for given_up in bulk[1:-1]:
            given_up.cancel()
        await asyncio.sleep(0)
        begin.set()
        await bulk[-1]
    finally:
        begin.set()
        runtime.close()
    assert done == [0, 49]


async def test_bulk_work_ends_with_its_runtime() -> None:
    """What waited for its turn is cancelled, and makes no worker threads anew."""
    runtime, begin = Runtime(1), threading.Event()
    bulk = [asyncio.ensure_future(runtime.run_bulk(begin.wait)) for _ in range(10)]
    await asyncio.sleep(0)
    threading.Timer(0.05, begin.set).start()
    runtime.close()
    for piece in bulk:
        with suppress(asyncio.CancelledError):
            await piece
    assert sum(piece.cancelled() for piece in bulk) == 9
    assert runtime._pool is None


async def test_pieces_that_belong_together_end_together() -> None:
    """At the first that fails, and when they are given up: nothing waits for a turn afterwards."""
    runtime, begin, done = Runtime(1), threading.Event(), list[int]()

    def piece(number: int) -> int:
        begin.wait()
        done.append(number)
        if number == 1:
            raise ArithmeticError("of ours")
        return number

    calls = [partial(piece, number) for number in range(50)]
    try:
        given_up = asyncio.ensure_future(runtime.run_bulk_each(calls))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert len(asyncio.all_tasks()) == 1
        begin.set()
        await runtime.run(done.clear)
        with pytest.raises(ArithmeticError, match="of ours"):
            await runtime.run_bulk_each(calls)
        assert len(asyncio.all_tasks()) == 1
        await runtime.run(lambda: None)
        assert done[:2] == [0, 1]
        assert len(done) < 2 + 2 * BULK_PER_WORKER
        assert await runtime.run_bulk_each(calls[5:]) == list(range(5, 50))
    finally:
        begin.set()
        runtime.close()


def test_a_runtime_serves_one_loop_after_the_other() -> None:
    runtime, done = Runtime(1), list[int]()

    async def fill() -> None:
        await asyncio.gather(*(runtime.run_bulk(done.append, number) for number in range(10)))

    try:
        for _ in range(2):
            asyncio.run(fill())
    finally:
        runtime.close()
    assert len(done) == 20
