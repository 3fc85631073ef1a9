"""Who is served next, and BUSY as it is sent to floods."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from moderntensor.network.limits import ASKERS
from moderntensor.network.messages import (
    GetBlockBodiesMessage,
    GetBlocksMessage,
    GetHeadersMessage,
    GetPeersMessage,
    GetStateMessage,
    GetStateNodesMessage,
    GetTransactionsMessage,
    MessageCodec,
    MessageType,
    Request,
    Status,
)
from moderntensor.network.serving_queue import busy_frame, refusal
from moderntensor.network.serving_turns import HALF_LIFE, ServingTurns
from moderntensor.runtime import Runtime


class Timed(Runtime):
    """A clock that the test moves."""

    now = 1000.0

    def loop_time(self) -> float:
        return self.now


async def greedy(turns: ServingTurns, runtime: Timed, name: str, served: list[str]) -> None:
    """Asks again as soon as it was answered; an answer takes 10 ms."""
    while True:
        async with turns.of(name):
            served.append(name)
            await asyncio.sleep(0)
            runtime.now += 0.01


async def test_who_asks_for_little_is_next_among_any_number_who_ask_for_all() -> None:
    runtime = Timed()
    turns = ServingTurns(1, runtime)
    served: list[str] = []
    tasks = [asyncio.ensure_future(greedy(turns, runtime, str(n), served)) for n in range(10)]
    for _ in range(4000):
        await asyncio.sleep(0)
    assert len(served) >= 100
    assert max(Counter(served).values()) - min(Counter(served).values()) <= 2
    waits = []
    for _ in range(20):
        before = len(served)
        async with turns.of("honest"):
            waits.append(len(served) - before)
            runtime.now += 0.001
        for _ in range(40):
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert max(waits[1:]) <= 2  # behind who holds the place, not behind ten others
    assert not turns


async def test_ever_new_names_do_not_pass_by_one_that_is_known() -> None:
    runtime = Timed()
    turns = ServingTurns(1, runtime)
    order: list[str] = []

    async def ask(name: str, seconds: float) -> None:
        async with turns.of(name):
            order.append(name)
            runtime.now += seconds

    await ask("known", 0.5)
    async with turns.of("first"):
        waiting = [asyncio.ensure_future(ask("known", 0.1))]
        await asyncio.sleep(0)
        waiting += [asyncio.ensure_future(ask(f"new {n}", 0.1)) for n in range(5)]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order[:2] == ["known", "known"]


async def test_what_was_given_is_forgotten() -> None:
    runtime = Timed()
    turns = ServingTurns(1, runtime)
    async with turns.of("a"):
        runtime.now += 8.0
    runtime.now += 20 * HALF_LIFE
    order: list[str] = []

    async def ask(name: str) -> None:
        async with turns.of(name):
            order.append(name)

    async with turns.of("b"):
        runtime.now += 1.0
        waiting = [asyncio.ensure_future(ask(name)) for name in ("b", "a")]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order == ["a", "b"]


async def test_cancelled_in_any_state_it_leaves_its_place() -> None:
    turns = ServingTurns(1, Timed())

    async def ask() -> None:
        async with turns.of("x"):
            pass

    async with turns.of("holder"):
        waiting = asyncio.ensure_future(ask())
        await asyncio.sleep(0)
        assert len(turns) == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert len(turns) == 0
        given = asyncio.ensure_future(ask())
        await asyncio.sleep(0)
    given.cancel()  # the place was given to it just now
    await asyncio.gather(given, return_exceptions=True)
    async with asyncio.timeout(5):
        await ask()


async def test_names_are_bounded() -> None:
    runtime = Timed()
    turns = ServingTurns(1, runtime)
    for n in range(ASKERS + 10):
        async with turns.of(str(n)):
            runtime.now += 0.01
    assert len(turns._askers) <= ASKERS


REQUESTS: list[Request] = [
    GetBlocksMessage(start_height=1, end_height=2),
    GetHeadersMessage(),
    GetBlockBodiesMessage(hashes=(bytes(32),)),
    GetTransactionsMessage(hashes=(bytes(32),)),
    GetStateMessage(block_hash=bytes(32)),
    GetStateNodesMessage(block_hash=bytes(32), paths=()),
    GetPeersMessage(),
]


def test_every_request_is_among_them() -> None:
    assert {request.TYPE for request in REQUESTS} == {
        kind for kind in MessageType if kind.name.startswith("GET_")
    }


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.TYPE.name)
def test_busy_in_short_is_busy_in_full(request_: Request) -> None:
    asked = request_.replace(request_id=0xDEADBEEF)
    assert busy_frame(asked, 1234) == MessageCodec.encode(refusal(asked, Status.BUSY, 1234))
