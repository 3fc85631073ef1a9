"""What several await at a time."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from moderntensor.awaiting import unharmed


async def test_everyone_gets_what_comes() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    task = asyncio.create_task(work())
    assert await asyncio.gather(*(unharmed(task) for _ in range(3))) == [7, 7, 7]
    assert await unharmed(task) == 7


async def test_who_is_cancelled_does_no_harm() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    waiting = [asyncio.create_task(unharmed(task)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):  # as of the task itself
        await waiting[1]


async def test_what_is_raised_goes_to_those_who_still_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And nobody reports it for those who do not: neither the loop nor the collector."""
    fail = asyncio.Event()

    async def work() -> None:
        await fail.wait()
        raise ArithmeticError

    task = asyncio.create_task(work())
    waiting = [asyncio.create_task(unharmed(task)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    fail.set()
    with pytest.raises(ArithmeticError):
        await waiting[1]
    alone = asyncio.create_task(work())
    gone = asyncio.create_task(unharmed(alone))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone, alone])
    del task, waiting, alone, gone
    gc.collect()
    await asyncio.sleep(0)
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
