"""One run of all stages, cancelled in the moment in which a stage ends by itself."""

from __future__ import annotations

import asyncio

import pytest
from helpers.sync_nodes import syncing

from moderntensor.network.sync.headers import Refork
from moderntensor.network.sync.pipeline import Pipeline


@pytest.mark.parametrize("outcome", [Refork(), RuntimeError("a fault of ours")])
async def test_a_cancellation_is_not_lost_in_what_a_stage_raises(outcome: Exception) -> None:
    """Whoever stops a sync waits for its end; swallowed, it would wait for a sync that goes on."""
    async with syncing() as sync:
        pipeline = Pipeline(sync.context, None, None)

        async def headers() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise outcome

        pipeline._headers.run = headers  # type: ignore[method-assign]
        running = asyncio.ensure_future(pipeline.run())
        await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running], timeout=5)
        assert running.cancelled()
