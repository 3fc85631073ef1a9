"""Work that is let end although its caller is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from moderntensor.errors import StorageError
from moderntensor.network.sync.settle import settled


async def test_a_failure_after_its_caller_was_cancelled_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, may_fail = asyncio.Event(), asyncio.Event()

    async def commit() -> None:
        begun.set()
        await may_fail.wait()
        raise StorageError("the disk is full")

    caller = asyncio.ensure_future(settled(commit()))
    await begun.wait()
    caller.cancel()
    may_fail.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert "the disk is full" in caplog.text
