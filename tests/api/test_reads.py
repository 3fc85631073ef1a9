"""Reads of the chain while the server comes to its end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from moderntensor.api.limits import READS
from moderntensor.api.problems import Refusal
from moderntensor.api.reads import Reads
from moderntensor.network.tasks import TaskSet
from moderntensor.runtime import Runtime


def no_failure(name: str, error: BaseException) -> None:
    raise AssertionError(name) from error


async def test_who_asks_when_it_has_ended_is_told_so() -> None:
    runtime = Runtime()
    tasks = TaskSet(no_failure)
    reads = Reads(runtime, tasks)
    await tasks.close()
    for _ in range(2 * READS):  # each gives its turn back
        async with asyncio.timeout(5):
            with pytest.raises(Refusal, match="stopping") as caught:
                await reads.run(int)
        assert caught.value.status == 503
    runtime.close()


async def test_who_waits_when_it_ends_is_told_so() -> None:
    runtime = Runtime()
    tasks = TaskSet(no_failure)
    reads = Reads(runtime, tasks)
    begun, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        may_end.wait(10)

    asking = asyncio.ensure_future(reads.run(slow))
    await asyncio.to_thread(begun.wait, 10)
    closing = asyncio.ensure_future(tasks.close())
    with pytest.raises(Refusal, match="stopping"):
        await asking
    may_end.set()
    await closing
    runtime.close()
