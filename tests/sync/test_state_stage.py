"""A state fetched over real sockets: from whom, how much of it, and what comes of lies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import cache
from hashlib import sha256

import pytest
from helpers.state_peers import (
    RECORD,
    ZERO,
    Fetcher,
    Image,
    Lie,
    StateNode,
    accounts_reply,
    fetching,
    state_node,
    state_of,
)
from helpers.sync_nodes import SETTINGS, until

from moderntensor.network.budget import Kind as Held
from moderntensor.network.messages import (
    DisconnectCode,
    Reply,
    Request,
    StateMessage,
    StateNodesMessage,
    Status,
)
from moderntensor.network.serving_queue import refusal
from moderntensor.network.sync import state as stage_module
from moderntensor.network.sync import state_plan
from moderntensor.network.sync.state import SnapshotGone, StateStage
from moderntensor.network.sync.state_plan import WHOLE

ACCOUNTS = 5000
CHUNK = 512  # accounts asked for at once, an eighth of what it is elsewhere


@cache
def image(count: int = ACCOUNTS) -> Image:
    return Image(state_of(count), most=4 * CHUNK)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_plan, "CHUNK_ACCOUNTS", CHUNK)


def newer(share: float, count: int = ACCOUNTS) -> Image:
    """The state 1,024 blocks later, of which so much has changed."""
    changed = {n for n in range(count) if sha256(n.to_bytes(4, "big")).digest()[0] < 256 * share}
    return Image(state_of(count, changed), 2048, most=4 * CHUNK)


# --- honest peers ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 17, 200, ACCOUNTS])
async def test_what_is_fetched_is_the_state_byte_for_byte(count: int) -> None:
    whole = image(count)
    async with fetching() as fetcher, state_node(whole) as server:
        await fetcher.connect(server)
        await fetcher.fetch(whole)
        assert fetcher.holds(whole)
        assert server.accounts == count
        if count:
            assert (fetcher.meter.accounts_done, fetcher.meter.accounts_total) == (count, count)
            assert fetcher.meter.bytes_received > count * RECORD
        assert fetcher.context.budget.report().by_kind[Held.STATE] == 0


async def test_all_peers_share_the_work() -> None:
    whole = image(20_000)
    async with AsyncExitStack() as stack:
        fetcher = await stack.enter_async_context(fetching())
        servers = [await stack.enter_async_context(state_node(whole)) for _ in range(4)]
        await fetcher.connect(*servers)
        await fetcher.fetch(whole)
        assert fetcher.holds(whole)
        assert all(server.accounts for server in servers)
        # A late piece is asked for a second time, which is no work for nothing.
        assert whole.count <= sum(server.accounts for server in servers) <= 2 * whole.count


async def test_a_state_that_one_reply_could_hold_is_asked_for_in_pieces() -> None:
    """On a slow line that reply would come when nobody waits for it any more, from every peer."""
    whole, counts = image(3 * CHUNK), list[int]()

    def note(asked: Request, reply: Reply) -> Reply:
        if isinstance(reply, StateMessage):
            counts.append(reply.count)
        return reply

    async with fetching() as fetcher, state_node(whole, lie=note) as server:
        await fetcher.connect(server)
        await fetcher.fetch(whole)
        assert fetcher.holds(whole)
    assert sum(counts) == whole.count
    assert max(counts) <= CHUNK


async def test_a_peer_that_allows_one_request_at_a_time_is_asked_no_more() -> None:
    whole = image()
    small = SETTINGS.replace(max_inflight=1)
    async with fetching() as fetcher, state_node(whole, settings=small) as server:
        await fetcher.connect(server)
        await fetcher.fetch(whole)
        assert fetcher.holds(whole)


# --- who does not have it --------------------------------------------------------------------


async def test_who_announces_the_snapshot_is_asked_and_nobody_else() -> None:
    whole = image()
    async with fetching() as fetcher, state_node(whole) as one, state_node(whole) as other:
        other.announces = False
        await fetcher.connect(one, other)
        await fetcher.fetch(whole)
        assert fetcher.holds(whole)
        assert (one.accounts, other.asked) == (whole.count, 0)


async def test_who_announces_nothing_may_have_it_all_the_same() -> None:
    whole = image()
    async with fetching() as fetcher, state_node(whole) as server:
        server.announces = False
        await fetcher.connect(server)
        await fetcher.fetch(whole)
        assert fetcher.holds(whole)


@pytest.mark.parametrize("had", [False, True])
async def test_a_snapshot_that_nobody_has_any_more_is_gone(had: bool) -> None:
    whole = image()
    nodes: list[StateNode] = []

    def vanish(_: Request, reply: Reply) -> Reply:
        if sum(node.accounts for node in nodes) > whole.count // 2:
            for node in nodes:
                node.images.clear()
        return reply

    async with fetching() as fetcher, AsyncExitStack() as stack:
        for _ in range(2):
            node = await stack.enter_async_context(state_node(whole, lie=vanish))
            nodes.append(node)
        await fetcher.connect(*nodes)
        if not had:
            for node in nodes:
                node.images.clear()
        with pytest.raises(SnapshotGone) as caught:
            await fetcher.fetch(whole)
        assert caught.value.pivot == whole.pivot
        assert len(fetcher.pool) == 2  # nobody is blamed
        before = fetcher.staging.accounts_done
        assert bool(before) == had

        # What was proved is kept, be it that something before it never came.
        assert before > whole.count // 4 or not had  # and half of it was served
        # Somebody comes who has it: nothing is fetched twice.
        late = await stack.enter_async_context(state_node(whole))
        await fetcher.connect(late)
        await fetcher.fetch(whole)
        assert fetcher.holds(whole)
        assert late.accounts == whole.count - before


async def test_a_peer_that_leaves_half_way_is_made_up_for() -> None:
    whole = image()
    async with (
        fetching() as fetcher,
        state_node(whole) as stays,
        StateNode(whole, lie=None, settings=SETTINGS) as leaves,
    ):
        await fetcher.connect(stays, leaves)
        fetcher.staging.aim(whole.pivot)
        task = asyncio.create_task(StateStage(fetcher.context, fetcher.staging).run())
        await until(lambda: leaves.accounts)
        await leaves.stop()
        await task
        assert fetcher.holds(whole)


# --- lies ------------------------------------------------------------------------------------


def of_accounts(change: Callable[[list[bytes]], list[bytes]]) -> Lie:
    def lie(request: Request, reply: Reply) -> Reply:
        if not isinstance(reply, StateMessage) or reply.count < 2:
            return reply
        records = [reply.accounts[at : at + RECORD] for at in range(4, len(reply.accounts), RECORD)]
        return accounts_reply(request, b"".join(change(records)))

    return lie


def altered(records: list[bytes]) -> list[bytes]:
    return [*records[:-1], records[-1][:35] + b"\xff" + records[-1][36:]]


def of_nodes(request: Request, reply: Reply) -> Reply:
    if not isinstance(reply, StateNodesMessage) or not reply.nodes:
        return reply
    (left, left_count, right, right_count), *others = reply.nodes
    return reply.replace(nodes=((left, left_count + 1, right, right_count - 1), *others))


def too_large(request: Request, reply: Reply) -> Reply:
    if not isinstance(reply, StateMessage):
        return reply
    return StateMessage(request_id=reply.request_id, status=Status.TOO_LARGE)


LIES: dict[str, Lie] = {
    "missing": of_accounts(lambda records: records[1:]),
    "extra": of_accounts(lambda records: [*records, (99).to_bytes(20, "big") + bytes(88)]),
    "altered": of_accounts(altered),
    "unsorted": of_accounts(lambda records: [records[1], records[0], *records[2:]]),
    "none": of_accounts(lambda _: []),
    "nodes": of_nodes,
    "too large": too_large,
}


@pytest.mark.parametrize("name", LIES)
async def test_a_liar_is_convicted_and_the_state_is_right(name: str) -> None:
    whole = image()

    def slow(request: Request, reply: Reply) -> Reply:
        return refusal(request, Status.BUSY, 20) if len(fetcher.pool) > 1 else reply

    async with (
        fetching() as fetcher,
        state_node(whole, lie=LIES[name]) as liar,
        state_node(whole, lie=slow) as honest,
    ):
        await fetcher.connect(liar, honest)
        codes: list[int | None] = []
        liar.on_peer_disconnected.append(lambda peer: codes.append(peer.drop_code))
        await fetcher.fetch(whole)
        assert fetcher.holds(whole)
        (left,) = fetcher.pool
        assert left.peer.address.endswith(f":{honest.listen_port}")
        await until(lambda: codes)
        assert codes == [DisconnectCode.BAD_STATE]


async def test_a_silent_peer_is_overtaken() -> None:
    whole = image()
    async with (
        fetching() as fetcher,
        state_node(whole, lie=lambda *_: None) as silent,
        state_node(whole) as honest,
    ):
        await fetcher.connect(silent, honest)
        async with asyncio.timeout(20):
            await fetcher.fetch(whole)
        assert fetcher.holds(whole)
        assert honest.accounts == whole.count


async def test_a_silent_peer_holds_up_the_rest_for_a_few_times_what_others_need() -> None:
    whole = image()
    patient = SETTINGS.replace(stall_timeout=60.0, stall_timeout_max=60.0, request_timeout=60.0)

    def falls_silent(_: Request, reply: Reply) -> Reply | None:
        return None if isinstance(reply, StateMessage) and reply.count else reply

    async with (
        fetching(settings=patient) as fetcher,
        state_node(whole, lie=falls_silent) as silent,
        state_node(whole) as honest,
    ):
        await fetcher.connect(silent, honest)
        async with asyncio.timeout(20):
            await fetcher.fetch(whole)
        assert fetcher.holds(whole)
        assert honest.accounts == whole.count
        assert len(fetcher.pool) == 2  # nobody's patience ran out
        assert not any(any(source.in_flight) for source in fetcher.pool)


async def test_who_answers_with_nothing_and_then_falls_silent_is_not_waited_for() -> None:
    """Asked for the root's node it sends none; asked for its accounts, then, it never answers."""
    whole = image()
    settings = SETTINGS.replace(stall_timeout=0.2, stall_timeout_max=0.2, request_timeout=60.0)

    def nothing(_: Request, reply: Reply) -> Reply | None:
        return reply.replace(nodes=()) if isinstance(reply, StateNodesMessage) else None

    def second(request: Request, reply: Reply) -> Reply:
        return reply if silent.asked >= 2 else refusal(request, Status.BUSY, 20)

    async with (
        fetching(settings=settings) as fetcher,
        state_node(whole, lie=nothing) as silent,
        state_node(whole, lie=second) as honest,
    ):
        await fetcher.connect(silent, honest)
        async with asyncio.timeout(20):
            await fetcher.fetch(whole)
        assert fetcher.holds(whole)
        assert silent.asked >= 2


# --- a newer pivot ---------------------------------------------------------------------------


def changed_leaves(before: Image, after: Image) -> int:
    """Accounts of the smallest subtrees that are compared, of those that changed."""
    found, places = 0, [(0, ZERO)]
    while places:
        depth, prefix = places.pop()
        key = bytes([depth]) + prefix
        node = after.nodes[key]
        if before.nodes.get(key) == node:
            continue
        size = sum(int.from_bytes(node[at : at + 8], "big") for at in (32, 72))
        if size <= WHOLE:
            found += size
            continue
        middle = int.from_bytes(prefix, "big") | 1 << 255 - depth
        places += (depth + 1, prefix), (depth + 1, middle.to_bytes(32, "big"))
    return found


async def fetch_twice(fetcher: Fetcher, first: Image, second: Image) -> StateNode:
    async with state_node(first) as server:
        await fetcher.connect(server)
        await fetcher.fetch(first)
    async with state_node(second) as server:
        await until(lambda: not len(fetcher.pool))
        await fetcher.connect(server)
        await fetcher.fetch(second)
        assert fetcher.holds(second)
        return server


@pytest.mark.parametrize("share", [0.0, 0.004, 0.01, 0.2])
async def test_of_a_newer_state_nothing_is_fetched_that_did_not_change(share: float) -> None:
    first, second = image(), newer(share)
    async with fetching() as fetcher:
        server = await fetch_twice(fetcher, first, second)
        assert server.accounts == changed_leaves(first, second)


async def test_what_has_changed_as_a_whole_is_asked_for_as_a_whole() -> None:
    first, second = image(), newer(1.0)
    async with fetching() as fetcher:
        server = await fetch_twice(fetcher, first, second)
        assert server.accounts == second.count
        assert server.asked < second.count // CHUNK * 2 + 10  # not one for every 64


# --- ends ------------------------------------------------------------------------------------


async def test_cancelled_at_any_moment_it_goes_on_where_it_was() -> None:
    whole = image()
    async with fetching() as fetcher, state_node(whole) as server:
        await fetcher.connect(server)
        fetcher.staging.aim(whole.pivot)
        for turn in range(30):
            stage = StateStage(fetcher.context, fetcher.staging)
            task = asyncio.create_task(stage.run())
            for _ in range(5 * turn):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert not stage.storing
            assert all(not any(source.in_flight) for source in fetcher.pool)
        await fetcher.fetch(whole)
        assert fetcher.holds(whole)


async def test_many_small_commits_are_as_good_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "COMMIT_ACCOUNTS", 100)
    monkeypatch.setattr(stage_module, "REGION_HOLES", 3)
    first, second = image(3000), newer(0.2, 3000)
    async with fetching() as fetcher:
        await fetch_twice(fetcher, first, second)
