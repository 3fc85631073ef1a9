"""Rows 44 to 46: who serves a false state, or one no more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import cache

import pytest

from . import state_scene, wire
from .conftest import BYTE_BUDGET, Live, Row
from .hostile import WAIT, until
from .own_tree import OwnTree, key_of, record
from .server import MOST_ACCOUNTS, Serving, StateServer, serving
from .state_scene import FIRST, FULL_HEIGHT, HEIGHT, SECOND, tip

pytestmark = pytest.mark.long

Place = tuple[int, bytes]
Lie = Callable[[OwnTree, Place], list[bytes]]
HONEST = b"honest/1"  # its answers are waited for when time is moved on
WHOLE = 64  # accounts of a subtree that is fetched whole when one of them has changed


class Liar(StateServer):
    """Alters what a certain kind of request gets, and tells the truth about the rest."""

    def __init__(self, kind: int, lie: Lie) -> None:
        super().__init__(HEIGHT, FIRST)
        self.kind, self.lie, self.told = kind, lie, 0

    def state_reply(self, asked: wire.Asked, tree: OwnTree) -> bytes:
        place = asked.places[0]
        if self.kind != wire.GET_STATE or len(tree.records(*place)) > MOST_ACCOUNTS:
            return super().state_reply(asked, tree)
        self.told += 1
        return wire.state(asked.request_id, self.lie(tree, place))

    def nodes_reply(self, asked: wire.Asked, tree: OwnTree) -> bytes:
        if self.kind != wire.GET_STATE_NODES:
            return super().nodes_reply(asked, tree)
        self.told += 1
        nodes = [node for place in asked.places for node in self.lie(tree, place)]
        return wire.state_nodes(asked.request_id, nodes)


class Patient(StateServer):
    """Honest, and busy with requests of one kind until the liars are gone."""

    def __init__(self, kind: int, *arguments: int) -> None:
        super().__init__(*arguments)
        self.kind = kind
        self.free = threading.Event()

    def __call__(self, asked: wire.Asked) -> bytes | None:
        if asked.kind == self.kind and not self.free.is_set():
            kind = wire.REQUESTS[asked.kind]
            return wire.empty_reply(kind, asked.request_id, wire.BUSY, retry_ms=50)
        return super().__call__(asked)


# --- lies ------------------------------------------------------------------------------------


def missing(tree: OwnTree, place: Place) -> list[bytes]:
    return tree.records(*place)[1:]


def extra(tree: OwnTree, place: Place) -> list[bytes]:
    """One more account, at its place."""
    depth, prefix = place
    shift, under, n = 256 - depth, int.from_bytes(prefix, "big"), 0
    while int.from_bytes(key_of(n.to_bytes(20, "big")), "big") >> shift != under >> shift:
        n += 1
    return sorted([*tree.records(*place), record(n.to_bytes(20, "big"), 0, 1)], key=key_of)


def altered(tree: OwnTree, place: Place) -> list[bytes]:
    first, *others = tree.records(*place)
    return [record(first[:20], 0, 10**18), *others]


def unsorted(tree: OwnTree, place: Place) -> list[bytes]:
    first, second, *others = tree.records(*place)
    return [second, first, *others]


def twice(tree: OwnTree, place: Place) -> list[bytes]:
    first, _, *others = tree.records(*place)
    return [first, first, *others]


def from_elsewhere(tree: OwnTree, place: Place) -> list[bytes]:
    """True accounts, of another subtree."""
    depth, prefix = place
    other = int.from_bytes(prefix, "big") ^ 1 << 256 - depth
    return tree.records(depth, other.to_bytes(32, "big"))


def with_code(tree: OwnTree, place: Place) -> list[bytes]:
    first, *others = tree.records(*place)
    return [first[:-1] + b"\1", *others]


def nothing(tree: OwnTree, place: Place) -> list[bytes]:
    return []


@cache
def richer() -> OwnTree:
    """The same accounts, each with a little more."""
    state = state_scene.maker().states[tip(FIRST)]
    return OwnTree({address: (nonce, balance + 1) for address, (nonce, balance) in state.items()})


def of_another_state(tree: OwnTree, place: Place) -> list[bytes]:
    return richer().records(*place)


CHUNKS: dict[str, Lie] = {
    lie.__name__: lie
    for lie in (
        *(missing, extra, altered, unsorted, twice, from_elsewhere, with_code, nothing),
        of_another_state,
    )
}


def false_hash(tree: OwnTree, place: Place) -> list[bytes]:
    node = tree.node(*place) or bytes(80)
    return [bytes([node[0] ^ 1]) + node[1:]]


def false_count(tree: OwnTree, place: Place) -> list[bytes]:
    """One account moves from the left to the right: the sum is right."""
    node = tree.node(*place) or bytes(80)
    left, right = (int.from_bytes(node[at : at + 8], "big") for at in (32, 72))
    counts = (left - 1).to_bytes(8, "big"), (right + 1).to_bytes(8, "big")
    return [node[:32] + counts[0] + node[40:72] + counts[1]]


def swapped(tree: OwnTree, place: Place) -> list[bytes]:
    node = tree.node(*place) or bytes(80)
    return [node[40:] + node[:40]]


def node_of_another_state(tree: OwnTree, place: Place) -> list[bytes]:
    return [richer().node(*place) or bytes(80)]


def endless_counts(tree: OwnTree, place: Place) -> list[bytes]:
    """Whose sum is no count any more."""
    return [(b"\1" * 32 + b"\xff" * 8) * 2]


def half_empty(tree: OwnTree, place: Place) -> list[bytes]:
    """A count without a hash."""
    return [bytes(32) + b"\0" * 7 + b"\5" + b"\7" * 32 + b"\0" * 7 + b"\2"]


NODES: dict[str, Lie] = {
    lie.__name__: lie
    for lie in (
        *(false_hash, false_count, swapped, node_of_another_state, endless_counts, half_empty),
    )
}


# --- scenes ----------------------------------------------------------------------------------


@pytest.fixture
def fresh(another_live: Callable[..., Live]) -> Live:
    """A node with the genesis block, that is to fetch a state."""
    return another_live(blocks=[], with_state=True, fast_sync=True)


def synced(node: Live, height: int) -> bool:
    return bool(node.state()["hash"] == tip(height).hex())


def fetched(node: Live, height: int) -> None:
    """Wait until the node has the chain, and the state to it."""
    until(lambda: synced(node, height), 40)
    assert node.ask("stored_state") == state_scene.tree_at(height).digest


def convicted(row: Row, node: Live, kind: int, lies: dict[str, Lie]) -> None:
    """Each is told why it goes and is not let in again; the state comes from the honest one, who
    stays."""
    memory = node.memory()
    honest = Patient(kind, HEIGHT, FIRST)
    liars = {name: Liar(kind, lie) for name, lie in lies.items()}
    with ExitStack() as stack:
        dealt: dict[str, Serving] = {
            name: stack.enter_context(serving(node.target, liar)) for name, liar in liars.items()
        }
        served = stack.enter_context(serving(node.target, honest))
        for name, one in dealt.items():
            assert one.code() == wire.BAD_STATE, (name, one.goodbye)
            assert node.banned(one.peer.host), name
        row.undisturbed()
        honest.free.set()
        fetched(node, HEIGHT)
        assert not served.ended.is_set()
        assert all(liar.told for liar in liars.values())
        assert node.budget() < BYTE_BUDGET
    row.measure(liars=len(lies), fetching_node_grown=max(0, node.memory() - memory))


def test_row_44_state_chunks_that_lie(row: Row, fresh: Live) -> None:
    """Missing, extra, altered, unsorted, doubled, foreign, impossible, no accounts at all."""
    convicted(row, fresh, wire.GET_STATE, CHUNKS)


def test_row_44_more_chunk_than_a_message_holds(row: Row, fresh: Live) -> None:
    """Refused at its header; and a chunk that breaks off within a record."""

    class TooMuch(StateServer):
        def state_reply(self, asked: wire.Asked, tree: OwnTree) -> bytes:
            return (2 * wire.MIB + 2).to_bytes(4, "big") + bytes([wire.STATE])

    class HalfRecord(StateServer):
        def state_reply(self, asked: wire.Asked, tree: OwnTree) -> bytes:
            whole = wire.state(asked.request_id, tree.rows[:40])
            return (len(whole) - 4 - 50).to_bytes(4, "big") + whole[4:-50]

    for server in (TooMuch(HEIGHT, FIRST), HalfRecord(HEIGHT, FIRST)):
        with serving(fresh.target, server) as served:
            assert served.code() == wire.PROTOCOL_ERROR
    fresh.advance(30)
    with serving(fresh.target, StateServer(HEIGHT, FIRST)):
        fetched(fresh, HEIGHT)
    row.undisturbed()


def test_row_45_nodes_that_do_not_hash_to_their_parent(row: Row, fresh: Live) -> None:
    convicted(row, fresh, wire.GET_STATE_NODES, NODES)


def test_row_45_more_nodes_than_asked(row: Row, fresh: Live) -> None:
    """True ones, too: what was not asked for is no answer."""

    class Generous(StateServer):
        def nodes_reply(self, asked: wire.Asked, tree: OwnTree) -> bytes:
            nodes = [tree.node(*place) or bytes(80) for place in asked.places]
            return wire.state_nodes(asked.request_id, [*nodes, nodes[0]])

    with serving(fresh.target, Generous(HEIGHT, FIRST)) as served:
        assert served.code() == wire.PROTOCOL_ERROR
    fresh.advance(30)
    with serving(fresh.target, StateServer(HEIGHT, FIRST)):
        fetched(fresh, HEIGHT)
    row.undisturbed()


# --- a snapshot that goes ----------------------------------------------------------------------


class Forgetful(StateServer):
    """After some chunks of its first snapshot it gives no more of them; when the test says so, that
    is gone, and there may be more blocks and a newer one."""

    def __init__(self, chunks: int, then: tuple[int, ...] = ()) -> None:
        super().__init__(HEIGHT, FIRST)
        self.left, self.then = chunks, then
        self.waiting, self.gone = threading.Event(), threading.Event()

    def state_reply(self, asked: wire.Asked, tree: OwnTree) -> bytes:
        reply = super().state_reply(asked, tree)
        if asked.block_hash != tip(FIRST) or reply[9] != wire.OK:
            return reply
        self.left -= 1
        if self.left >= 0:
            return reply
        self.served.remove((asked.kind, asked.places[0]))
        self.waiting.set()
        self.gone.wait(WAIT)
        return self.missing(asked)

    def forget(self) -> None:
        newer = StateServer(FULL_HEIGHT if self.then else HEIGHT, *self.then)
        self.blocks, self.headers, self.heights = newer.blocks, newer.headers, newer.heights
        self.bodies, self.trees = newer.bodies, newer.trees
        self.gone.set()


def chunks(server: StateServer) -> list[Place]:
    """The subtrees that it gave, one after the other."""
    return [place for kind, place in server.served if kind == wire.GET_STATE]


def accounts_at(places: Iterable[Place], tree: OwnTree) -> int:
    """How many accounts a reply has for each of them, all together."""
    counts = [len(tree.records(*place)) for place in places]
    return sum(count for count in counts if count <= MOST_ACCOUNTS)


def accounts_in(server: StateServer, tree: OwnTree) -> int:
    """How many accounts it gave."""
    return accounts_at(chunks(server), tree)


def half_way(node: Live, servers: list[Forgetful]) -> int:
    """Wait until the node has stored some accounts and gets no more; how many."""

    def stored() -> int:
        done: int = node.state()["accounts_done"]
        return done if all(server.waiting.is_set() for server in servers) else 0

    until(stored)
    return stored()


def test_row_46_a_snapshot_goes_and_a_newer_one_comes(row: Row, fresh: Live) -> None:
    """Half-way, from all: the node goes on with the newer one, and what did not change between
    the two is not fetched again."""
    servers = [Forgetful(1, (SECOND,)) for _ in range(2)]
    tree = state_scene.tree_at(SECOND)
    with ExitStack() as stack:
        served = [
            stack.enter_context(serving(fresh.target, server, user_agent=HONEST))
            for server in servers
        ]
        done = half_way(fresh, servers)
        row.undisturbed()
        before = [len(chunks(server)) for server in servers]
        in_vain = sum(accounts_in(server, state_scene.tree_at(FIRST)) for server in servers) - done
        for one, server in zip(served, servers, strict=True):
            server.forget()
            one.peer.claim = server.claim
        fresh.advance(30)
        fetched(fresh, FULL_HEIGHT)
        assert not any(one.ended.is_set() for one in served)
    # What is on its way while time is moved on looks late, and is asked of the other as well.
    pairs = zip(before, servers, strict=True)
    after = {place for count, server in pairs for place in chunks(server)[count:]}
    given = done + in_vain + accounts_at(after, tree)
    # An account that changes costs its subtree of `WHOLE` accounts. To begin again would cost half
    # of them more.
    changed = len(set(tree.rows) - set(state_scene.tree_at(FIRST).rows))
    assert given <= len(tree.rows) + in_vain + changed * WHOLE
    row.measure(accounts=len(tree.rows), accounts_given=given)


def test_row_46_a_snapshot_goes_and_none_comes(row: Row, fresh: Live) -> None:
    """The blocks are still there: the node executes them."""
    server = Forgetful(1)
    with serving(fresh.target, server, user_agent=HONEST) as served:
        half_way(fresh, [server])
        server.forget()
        until(lambda: fresh.ask("advance", seconds=20) and synced(fresh, HEIGHT), 40)
        fetched(fresh, HEIGHT)
        row.undisturbed()
        assert not served.ended.is_set()
    assert not fresh.banned(served.peer.host)


def test_row_46_who_served_it_leaves(row: Row, fresh: Live) -> None:
    """The node waits, and goes on with whoever has the same: nothing is fetched twice."""
    first, second = Forgetful(1), StateServer(HEIGHT, FIRST)
    tree = state_scene.tree_at(FIRST)
    with serving(fresh.target, first) as served:
        done = half_way(fresh, [first])
        assert done == accounts_in(first, tree)
        first.trees = {}
        served.peer.reset()
        first.gone.set()
    until(lambda: not fresh.peers())
    fresh.advance(30)
    with serving(fresh.target, second):
        fetched(fresh, HEIGHT)
    row.undisturbed()
    assert accounts_in(second, tree) == len(tree.rows) - done


def test_row_46_promises_of_snapshots(row: Row, fresh: Live) -> None:
    """One peer announces a newer snapshot than anybody has, of a true block: the node finds out,
    and takes the one that is there."""
    boaster, honest = StateServer(FULL_HEIGHT), StateServer(FULL_HEIGHT, FIRST)
    claims = [(SECOND, tip(SECOND))]
    with ExitStack() as stack:
        boasts = stack.enter_context(serving(fresh.target, boaster))
        boasts.peer.snapshots = lambda: claims
        stack.enter_context(serving(fresh.target, honest))
        until(lambda: synced(fresh, FULL_HEIGHT), 40)
        fetched(fresh, FULL_HEIGHT)
        assert accounts_in(honest, state_scene.tree_at(FIRST)) > 0
    row.undisturbed()
