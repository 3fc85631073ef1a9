"""Row 47 as far as states go: who asks for them as nobody honest would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from . import state_scene, wire
from .conftest import BYTE_BUDGET, MEMORY_SLACK, Live, Row
from .hostile import Hostile, until
from .own_tree import OwnTree, halves, key_of
from .server import StateServer, serving
from .state_scene import FIRST, FULL_HEIGHT, HEIGHT, INTERVAL, SECOND, tip
from .test_traffic import flood

pytestmark = pytest.mark.long

Place = tuple[int, bytes]
MOST_PATHS = 1024  # docs/protocol.md: of one GET_STATE_NODES
KEPT = HEIGHT - HEIGHT % INTERVAL  # height of the newest snapshot of a node with `HEIGHT` blocks
LEASE = 600.0  # seconds: who is served from a snapshot that is to go keeps it no longer


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A node with two snapshots."""
    blocks = state_scene.chain()[:HEIGHT]
    node = Live(tmp_path_factory.mktemp("keeper"), blocks=blocks, with_state=True)
    try:
        made(node, KEPT)
        yield node
    finally:
        node.stop()


def test_row_47_states_that_are_not_there(row: Row, keeper: Live) -> None:
    """Of blocks without a snapshot, of no block at all: PRUNED or NOT_FOUND, without blame."""
    with Hostile.meet(keeper.target) as peer:
        for number, name in enumerate((tip(1), tip(FULL_HEIGHT), b"\x47" * 32), 1):
            for ask, kind in (
                (wire.get_state(number, name), wire.STATE),
                (wire.get_state_nodes(number, name), wire.STATE_NODES),
            ):
                peer.send(ask)
                reply = peer.reply(kind)
                assert reply.status in (wire.PRUNED, wire.NOT_FOUND), reply
                assert not any(reply.items)
        assert peer.answers()
    row.undisturbed()


def test_row_47_paths_that_lead_nowhere(row: Row, keeper: Live) -> None:
    """Whole states that no reply holds, places below the last account, a thousand times the same
    node: answered for what they are; places that cannot be are no requests."""
    name, tree = tip(KEPT), state_scene.tree_at(KEPT)
    deep = 250, key_of(tree.rows[0])[:31] + b"\0"
    nowhere = 40, b"\xff" * 5 + bytes(27)
    with Hostile.meet(keeper.target) as peer:
        peer.send(wire.get_state(1, name))
        whole = peer.reply(wire.STATE)
        assert whole.status == wire.OK
        assert whole.items[4:] == b"".join(tree.rows)
        peer.send(wire.get_state(2, name, nowhere))
        assert peer.reply(wire.STATE).items == bytes(4)
        peer.send(wire.get_state_nodes(3, name, [wire.ROOT] * MOST_PATHS))
        assert peer.reply(wire.STATE_NODES).items[2:] == tree.node(*wire.ROOT) * MOST_PATHS
        peer.send(wire.get_state_nodes(4, name, [wire.ROOT, deep, wire.ROOT]))
        reply = peer.reply(wire.STATE_NODES)
        assert (reply.status, reply.count) == (wire.PARTIAL, 1)
        peer.send(wire.get_state_nodes(5, name, [deep]))
        assert peer.reply(wire.STATE_NODES).status == wire.NOT_FOUND
        assert peer.answers()
    beyond_depth = 3, b"\1" * 32
    for ask in (
        wire.get_state(1, name, beyond_depth),
        wire.get_state_nodes(1, name, [beyond_depth]),
    ):
        with Hostile.meet(keeper.target) as peer:
            peer.send(ask)
            assert peer.code() == wire.PROTOCOL_ERROR
    row.undisturbed()


@pytest.mark.long
def test_row_47_floods_of_what_costs_most(row: Row, keeper: Live) -> None:
    """The largest chunks, and nodes that are to be computed, as fast as they can be asked for, by
    four: memory stays, somebody else is answered meanwhile."""
    name, tree = tip(KEPT), state_scene.tree_at(KEPT)
    small = [place for place in small_places(tree) if tree.node(*place) is not None][:MOST_PATHS]
    memory, descriptors = keeper.memory(), keeper.descriptors()
    requests = [wire.get_state(9, name), wire.get_state_nodes(9, name, small)]
    with ExitStack() as stack:
        peers = [stack.enter_context(Hostile.meet(keeper.target)) for _ in range(4)]
        threads = [
            threading.Thread(target=flood, args=(peer, requests[n % 2]), daemon=True)
            for n, peer in enumerate(peers)
        ]
        for thread in threads:
            thread.start()
        with Hostile.meet(keeper.target) as honest:
            for number in range(1, 6):
                honest.send(wire.get_state(number, name, halves(*wire.ROOT)[number % 2]))
                assert honest.reply(wire.STATE).status == wire.OK
        peak = keeper.memory()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        for peer in peers:
            assert peer.goodbye is not None
            assert peer.goodbye.code == wire.LIMITS
        assert keeper.budget() < BYTE_BUDGET
        assert peak - memory < BYTE_BUDGET + MEMORY_SLACK
    until(lambda: keeper.descriptors() <= descriptors)
    row.measure(served_meanwhile=5, keeper_memory_peak_over=max(0, peak - memory))
    row.undisturbed()


def made(node: Live, height: int) -> None:
    """Wait until the node has the snapshot of a block."""
    until(lambda: node.log(f"made the snapshot of block {height}:"))


def small_places(tree: OwnTree) -> list[Place]:
    """Subtrees of so few accounts that their nodes are computed when they are asked for."""
    places, found = [wire.ROOT], []
    while places and len(found) < 2 * MOST_PATHS:
        place = places.pop()
        count = tree.subtree(*place)[1]
        if 2 <= count <= 40:
            found.append(place)
        elif count > 40:
            places += halves(*place)
    return found


@pytest.mark.long
def test_row_47_a_snapshot_cannot_be_pinned(row: Row, another_live: Callable[..., Live]) -> None:
    """Somebody asks for it again and again while newer ones come: after ten minutes it is gone."""
    node = another_live(with_state=True, blocks=state_scene.chain()[:FIRST])
    made(node, FIRST)
    asked = 0
    with Hostile.meet(node.target) as pins:

        def served() -> bool:
            nonlocal asked
            asked += 1
            pins.send(wire.get_state(asked, tip(FIRST), halves(*wire.ROOT)[0]))
            return pins.reply(wire.STATE).status == wire.OK

        for height in (SECOND, FULL_HEIGHT):
            with serving(node.target, StateServer(height)):
                made(node, height - height % INTERVAL)
            assert served()
        for _ in range(int(LEASE // 20) + 2):
            if not served():
                break
            node.advance(20)
        assert not served()
        assert pins.answers()
    row.measure(lease_seconds=LEASE)
    row.undisturbed()
