"""Fast sync over real sockets among peers that lie, stall and go: it ends with the right state, and
each liar is convicted by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from adversity.own_tree import OwnTree, halves
from helpers.fast_nodes import (
    PIVOT,
    Place,
    Served,
    StateNode,
    config,
    gone,
    grown,
    is_under,
    own_tree,
    same_state,
    state_node,
    strangers,
)
from helpers.sync_nodes import SETTINGS, connect, extend, new_validator, syncing, until

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.snapshots import SnapshotKeeper
from moderntensor.blockchain.staging import Hole, StateStaging
from moderntensor.blockchain.state_tree import FilledState
from moderntensor.network.messages import (
    DisconnectCode,
    GetStateMessage,
    MessageType,
    Reply,
    Request,
    StateMessage,
    StateNodesMessage,
    Status,
)
from moderntensor.network.peer import Peer

pytestmark = pytest.mark.long

RECORD = 108
GIVEN = 3  # chunks of a snapshot that goes
WHOLE = 64  # accounts of a subtree that is fetched whole though some of it may be here

Source = tuple[Blockchain, SnapshotKeeper]
Change = Callable[[Request, Reply], Reply]


@pytest.fixture(scope="module")
def source() -> Source:
    return grown()


# --- lies ------------------------------------------------------------------------------------


def on_records(change: Callable[[list[bytes]], list[bytes]]) -> Change:
    """Changes the accounts of a chunk."""

    def changed(_: Request, reply: Reply) -> Reply:
        assert isinstance(reply, StateMessage)
        data = reply.accounts[4:]
        records = change([data[at : at + RECORD] for at in range(0, len(data), RECORD)])
        if reply.status != Status.OK:
            return reply
        return reply.replace(accounts=len(records).to_bytes(4, "big") + b"".join(records))

    return changed


missing = on_records(lambda rows: rows[:-1])
extra = on_records(lambda rows: [*rows, strangers()[0] + rows[0][20:]] if rows else rows)
altered = on_records(lambda rows: [*rows[:-1], rows[-1][:43] + b"\x77" + rows[-1][44:]])
reordered = on_records(lambda rows: [*rows[1:], *rows[:1]])
half = on_records(lambda rows: rows[: len(rows) // 2])


def false_node(_: Request, reply: Reply) -> Reply:
    assert isinstance(reply, StateNodesMessage)
    return reply.replace(nodes=tuple((right, c, left, d) for left, d, right, c in reply.nodes))


LIES: dict[str, tuple[MessageType, Change]] = {
    "missing": (MessageType.GET_STATE, missing),
    "extra": (MessageType.GET_STATE, extra),
    "altered": (MessageType.GET_STATE, altered),
    "reordered": (MessageType.GET_STATE, reordered),
    "half a chunk": (MessageType.GET_STATE, half),
    "false nodes": (MessageType.GET_STATE_NODES, false_node),
}


class Cast:
    """Who takes part: those who lie, and those who wait until they have."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.heard: dict[str, DisconnectCode | None] = {}  # how the node parted from the liars
        self.told: dict[str, int] = {}
        self.busy_with: MessageType | None = None

    def lies(self, node: StateNode, name: str) -> None:
        """From now on `node` lies."""
        kind, change = LIES[name]

        async def handler(peer: Peer, request: Request) -> Reply:
            self.told[name] = self.told.get(name, 0) + 1
            return change(request, await node.server.answer(peer, request))

        node.answer_with(kind, handler)
        node.on_peer_disconnected.append(lambda peer: self.heard.setdefault(name, peer.drop_code))

    def waits(self, node: StateNode, kind: MessageType, liars: set[str]) -> None:
        """`node` is busy with requests of a kind until each of these is gone: so each of them is
        asked before, whoever is quicker."""

        async def handler(peer: Peer, request: Request) -> Reply:
            # What the root is answered with is no lie in any case: the state is too large.
            root = isinstance(request, GetStateMessage) and request.depth == 0
            if root or liars <= self.heard.keys():
                return await node.answer_state(peer, request)
            reply = StateMessage if kind == MessageType.GET_STATE else StateNodesMessage
            return reply(request_id=request.request_id, status=Status.BUSY, retry_ms=20)

        node.answer_with(kind, handler)


@pytest.mark.parametrize(
    "names",
    [("missing", "extra", "altered", "reordered"), ("half a chunk", "false nodes")],
    ids=["accounts", "more"],
)
async def test_each_liar_is_convicted_by_name_and_the_state_is_right(
    source: Source, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """Of six peers four lie; where two of them lie in what they say, one never answers and one
    leaves."""
    caplog.set_level("INFO", "moderntensor")
    cast = Cast(source)
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(state_node(*source)) for _ in range(6)]
        *others, one, two = nodes
        for name, liar in zip(names, others, strict=False):
            cast.lies(liar, name)
        idle = others[len(names) :]
        kinds = {
            kind: {name for name in names if LIES[name][0] == kind} for kind, _ in LIES.values()
        }
        for kind, liars in kinds.items():
            for name, liar in zip(names, others, strict=False):
                if name not in liars:
                    cast.waits(liar, kind, liars)
            for honest in (one, two):
                cast.waits(honest, kind, liars)
        if idle:
            cast.waits(idle[0], MessageType.GET_STATE_NODES, kinds[MessageType.GET_STATE_NODES])
            cast.waits(idle[1], MessageType.GET_STATE_NODES, kinds[MessageType.GET_STATE_NODES])
            stalls_and_leaves(*idle)
        sync = await stack.enter_async_context(syncing(new_validator(config())))
        await connect(sync, *nodes)
        await sync.fast_sync()
        assert sync.chain.head == source[0].head
        assert sync.chain.earliest_height == PIVOT + 1
        assert same_state(sync.chain, source[0])
        await until(lambda: cast.heard.keys() == set(names))
        assert set(cast.heard.values()) == {DisconnectCode.BAD_STATE}
        ids = {peer.node_id for peer in sync.node.peers.values()}
        assert {one.node_id, two.node_id} <= ids
        for liar in others[: len(names)]:
            assert liar.node_id not in ids
            port = f":{liar.listen_port}"
            assert any(port in line and "state" in line for line in caplog.messages), port


def stalls_and_leaves(stalls: StateNode, leaves: StateNode) -> None:
    """One never answers, the other closes in place of its first answer."""

    async def never(_: Peer, __: Request) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    async def leave(peer: Peer, request: Request) -> Reply:
        peer.disconnect(DisconnectCode.SHUTTING_DOWN, "gone for good")
        return gone(request)

    stalls.answer_with(MessageType.GET_STATE, never)
    leaves.answer_with(MessageType.GET_STATE, leave)


# --- a snapshot that goes ----------------------------------------------------------------------


class Spy:
    """Which subtrees a staging was given, by the pivot at that time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.filled: dict[int, list[Place]] = {}
        fill = StateStaging.fill

        def spied(staging: StateStaging, chunks: Any) -> None:
            fill(staging, chunks)
            self.note(staging, chunks)

        monkeypatch.setattr(StateStaging, "fill", spied)

    def note(self, staging: StateStaging, chunks: list[tuple[Hole, FilledState]]) -> None:
        pivot = staging.pivot
        assert pivot is not None
        places = [(hole.depth, hole.prefix) for hole, _ in chunks]
        self.filled.setdefault(pivot.height, []).extend(places)


def has_changed_all_over(place: Place, old: OwnTree, new: OwnTree) -> bool:
    """Whether all of a subtree is to be fetched: each part of more than `WHOLE` accounts differs
    from what it was."""
    if old.subtree(*place) == new.subtree(*place):
        return False
    if new.subtree(*place)[1] <= WHOLE:
        return True
    parts = [part for part in halves(*place) if new.subtree(*part)[1]]
    return all(has_changed_all_over(part, old, new) for part in parts)


async def test_a_snapshot_goes_everywhere_and_what_did_not_change_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spy = Spy(monkeypatch)
    chain, keeper = grown()
    first = chain.hash_at(PIVOT)
    assert first is not None
    old = own_tree(chain)
    served = Served()
    moved = asyncio.Event()
    settings = SETTINGS.replace(sync_requests_per_peer=1)
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(state_node(chain, keeper, served)) for _ in range(3)
        ]
        sync = await stack.enter_async_context(syncing(new_validator(config()), settings=settings))

        vanished = asyncio.Event()
        for node in nodes:
            node.brake = lambda: None if len(served.chunks) < GIVEN else vanished

        async def vanish() -> None:
            """Once some of it is stored: on all peers at once, while the chain grows."""
            await until(lambda: PIVOT in spy.filled)
            for node in nodes:
                node.hidden.add(first)
            vanished.set()
            extend(chain, 2, transfers=5)
            extend(chain, PIVOT // 2 - chain.head.height % (PIVOT // 2))
            assert keeper.make(lambda: False)
            extend(chain, 68)
            moved.set()

        await connect(sync, *nodes)
        async with asyncio.TaskGroup() as group:
            group.create_task(vanish())
            await sync.fast_sync()
            assert moved.is_set()
        assert sync.chain.head == chain.head
        assert same_state(sync.chain, chain)
        pivot = sync.chain.earliest_height - 1
        assert pivot > PIVOT
        new = own_tree(chain)
        second = chain.hash_at(pivot)
        assert second is not None
        kept = spy.filled[PIVOT]
        for block_hash, place, _ in served.chunks:
            if block_hash == second and is_under(place, kept):
                assert has_changed_all_over(place, old, new), "fetched again"
        twice = served.accounts - len(new.rows)
        assert twice < len(new.rows) / 2
