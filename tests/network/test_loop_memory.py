"""The memory that connections of one loop take turns in."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from moderntensor.network.loop_memory import LoopMemory, loop_memory


async def the_loops() -> LoopMemory:
    assert loop_memory() is loop_memory()
    return loop_memory()


def test_each_loop_has_its_own_and_only_while_it_is_there() -> None:
    with asyncio.Runner() as first, asyncio.Runner() as second:
        mine, others = first.run(the_loops()), second.run(the_loops())
        assert mine is not others
        assert first.run(the_loops()) is mine
        gone = weakref.ref(first.get_loop())
    del first
    gc.collect()
    assert gone() is None
    with pytest.raises(RuntimeError):
        loop_memory()
