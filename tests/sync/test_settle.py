"""Work that is let end although its caller is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from moderntensor.errors import ModernTensorError, StaleBodiesError, StorageError
from moderntensor.network.sync.settle import settled


@pytest.mark.parametrize(
    ("error", "loud"),
    [
        (StorageError("the disk is full"), True),
        (RuntimeError("no rule foresees it"), True),
        (StaleBodiesError("the pending headers are others by now"), False),
    ],
)
async def test_a_failure_after_its_caller_was_cancelled_is_logged(
    caplog: pytest.LogCaptureFixture, error: ModernTensorError | RuntimeError, loud: bool
) -> None:
    """A verdict that concerns nobody any more is no failure of the node."""
    begun, may_fail = asyncio.Event(), asyncio.Event()

    async def commit() -> None:
        begun.set()
        await may_fail.wait()
        raise error

    caller = asyncio.ensure_future(settled(commit()))
    await begun.wait()
    caller.cancel()
    may_fail.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (str(error) in caplog.text) is loud


async def test_who_is_cancelled_twice_waits_all_the_same() -> None:
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def commit() -> None:
        begun.set()
        await may_end.wait()
        ended.set()

    caller = asyncio.ensure_future(settled(commit()))
    await begun.wait()
    for _ in range(2):
        caller.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not caller.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
