"""One announced block on its way here: whoever tells of it late."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from helpers.clocks import Clocks
from helpers.news import START

from moderntensor.network.gossip import completion as gossip_completion


async def test_who_tells_of_a_block_that_is_being_given_up_is_heard_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gossip_completion, "BLOCK_COMPLETION_TIME", 0.01)
    ending, go_on = asyncio.Event(), asyncio.Event()

    async def slow_to_end(*_: object, **__: object) -> None:
        try:
            await asyncio.sleep(60.0)
        finally:
            ending.set()
            await go_on.wait()

    monkeypatch.setattr(gossip_completion.Completion, "_attempt", slow_to_end)
    first, second = (SimpleNamespace(outbound=False) for _ in range(2))
    host, memory = SimpleNamespace(runtime=Clocks()), SimpleNamespace(hold=lambda size: True)
    completion = gossip_completion.Completion(
        cast(Any, host), cast(Any, memory), *cast(Any, (None, None, first)), bytes(32), START
    )
    completion.told(cast(Any, first), START, None, None)
    run = asyncio.create_task(completion.run())
    await ending.wait()
    completion.told(cast(Any, second), START, None, (bytes(32),))
    go_on.set()
    assert await run is None
    assert [teller.peer for teller in completion.tellers] == [first, second]


async def test_who_tells_of_a_block_when_the_last_attempt_has_failed_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Honest peers tell of it just when a liar has been found out."""
    loop = asyncio.get_running_loop()
    first, second = (SimpleNamespace(outbound=False) for _ in range(2))
    host, memory = SimpleNamespace(runtime=Clocks()), SimpleNamespace(hold=lambda size: True)
    completion = gossip_completion.Completion(
        cast(Any, host), cast(Any, memory), *cast(Any, (None, None, first)), bytes(32), START
    )
    asked: list[object] = []

    def tell_at_the_end() -> None:
        if completion._group is None:
            completion.told(cast(Any, second), START, None, None)
        else:
            loop.call_soon(tell_at_the_end)

    async def attempt(
        self: gossip_completion.Completion, teller: gossip_completion.Teller, *, ask: bool = True
    ) -> None:
        asked.append(teller.peer)
        if teller.peer is first:
            tell_at_the_end()

    monkeypatch.setattr(gossip_completion.Completion, "_attempt", attempt)
    completion.told(cast(Any, first), START, None, None)
    assert await completion.run() is None
    assert asked == [first, second]
