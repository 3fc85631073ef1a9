"""A state on its way here: the other state slot, filled from holes, piece by proved piece.

A hole is a subtree whose proved hash and count are known and whose content is not, or not wholly,
there. The tables are the journal: whatever a process was killed at, what was committed stays, and
the holes say what is missing. The invariant is that below every stored node the content is what
the node says, except below holes. So a newer version of the whole state is one more hole, at the
root, on top of all others: who descends from it compares each new node with the old one at its
place, and what is equal is kept, with the holes in it.

What comes in has been verified by who brings it: nothing is hashed again here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ..backend import merkle
from ..errors import StaleStateError, StorageError
from ..storage import ReadTransaction, Store, WriteTransaction
from . import tables
from .state_slots import StateSlot, clear_unused, staging
from .state_tree import NODE_LIMIT, FilledState, split_node, state_root

HOLES_AT_ONCE: Final = 1024  # read of the table in one go
ZERO: Final = bytes(32)


Item = tuple[bytes, bytes]


class Hole(NamedTuple):
    """A subtree that is to be fetched: the first `depth` bits of `prefix`, the rest zero.

    `count` 0 means unknown, of the root alone. `known`: an older version of its node is here, so
    that descending will find what is unchanged.
    """

    depth: int
    prefix: bytes
    hash: bytes
    count: int  # type: ignore[assignment]  # hides that of tuples, which nobody wants here
    known: bool


class Pivot(NamedTuple):
    """The block whose state is fetched."""

    height: int
    block_hash: bytes
    state_root: bytes


class StateStaging:
    """The state being fetched in `store`, going on with what is there. Safe on any thread:
    writers take turns. Pieces that come too late, for a hole that is no more, are passed over."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._missing: int | None = None  # accounts in all holes; None: to be counted
        with store.read() as txn:
            self._pivot = _read_pivot(txn)

    @property
    def pivot(self) -> Pivot | None:
        """Whose state this is to be; None while there is nothing."""
        return self._pivot

    @property
    def complete(self) -> bool:
        """Whether all of the pivot's state is here."""
        with self._store.read() as txn:
            return self._pivot is not None and txn.first(tables.HOLES) is None

    @property
    def accounts_total(self) -> int | None:
        """How many accounts the state has; None until the root's node is known."""
        with self._store.read() as txn:
            return _total(txn)

    @property
    def accounts_done(self) -> int:
        """How many of them are here; 0 until the root's node is known."""
        with self._lock, self._store.read() as txn:
            total = _total(txn)
            if total is None:
                return 0
            if self._missing is None:
                self._missing = _missing_in(txn, 0, ZERO)
            return total - self._missing

    def holes(self, limit: int, after: Hole | None = None) -> list[Hole]:
        """Up to `limit` holes that lie in no other, in the order of keys; `after` one of them."""
        start = b"" if after is None else tables.subtree_end(after.depth, after.prefix)
        found: list[Hole] = []
        if start is None or limit <= 0:
            return found
        with self._store.read() as txn:
            nodes = staging(txn).nodes
            for depth, prefix, digest, count in _topmost(txn, start, None, limit):
                known = txn.get(nodes, tables.node_key(depth, prefix)) is not None
                found.append(Hole(depth, prefix, digest, count, known))
                if len(found) == limit:
                    break
        return found

    # --- changing it ------------------------------------------------------------------------

    def aim(self, pivot: Pivot) -> None:
        """Fetch the state of this block from now on, keeping all that is here."""
        with self._lock:
            if pivot == self._pivot:
                return
            if self._pivot is None or pivot.state_root == ZERO:
                self.discard()
            with self._store.write() as txn:
                place = tables.block_key(pivot.height, pivot.block_hash)
                txn.put(tables.META, tables.META_STAGING, place + pivot.state_root)
                _open_root(txn, pivot.state_root)
            self._pivot, self._missing = pivot, None

    def descend(self, found: Sequence[tuple[Hole, bytes]]) -> None:
        """Put nodes (80 bytes, verified) where holes are: what is missing then are those of
        their halves that changed. A hole of 16 accounts or fewer stays: it can only be filled."""
        with self._lock:
            if self._pivot is None:
                return
            with self._store.write() as txn:
                slot, missing = staging(txn), self._missing
                for hole, node in found:
                    if not _is_hole(txn, hole):
                        continue
                    counted = missing is not None and hole.count and not _is_covered(txn, hole)
                    _descend(txn, slot, hole, node)
                    if not hole.count:
                        missing = None
                    elif counted and missing is not None:
                        missing += _missing_in(txn, hole.depth, hole.prefix) - hole.count
            self._missing = missing

    def fill(self, chunks: Sequence[tuple[Hole, FilledState]]) -> None:
        """Put whole subtrees, verified, in place of all that is there: fastest in the order of
        keys. Also where both halves of a stored node are holes, if they are fetched as one.

        ValueError where a state is not the hole's.
        """
        for hole, state in chunks:
            if state.hash != hole.hash or hole.count not in (0, state.count):
                raise ValueError(f"not the state of hole {hole.prefix.hex()}/{hole.depth}")
        with self._lock:
            if self._pivot is None:
                return
            with self._store.write() as txn:
                writer, missing = _Writer(txn), self._missing
                for hole, state in chunks:
                    if not writer.expects(hole):
                        continue
                    if not hole.count:
                        missing = None
                    elif missing is not None and not _is_covered(txn, hole):
                        missing -= _missing_in(txn, hole.depth, hole.prefix)
                    writer.replace(hole, state)
                writer.flush()
            self._missing = missing

    def discard(self) -> None:
        """Forget all of it; the slot is empty then. Whoever is killed meanwhile has nothing
        staged, and the rest goes when the chain is opened again."""
        with self._lock:
            with self._store.write() as txn:
                txn.delete(tables.META, tables.META_STAGING)
            self._pivot, self._missing = None, None
            clear_unused(self._store)

    def release(self, txn: WriteTransaction) -> Pivot:
        """Whose state the slot holds, which is whole and is given to the caller of `txn`.

        StaleStateError if it is not whole; StorageError if the store lost some of it.
        """
        pivot = _read_pivot(txn)
        if pivot is None or pivot != self._pivot or txn.first(tables.HOLES) is not None:
            raise StaleStateError("the state that is being fetched is not whole yet")
        slot = staging(txn)
        root = state_root(txn, slot)
        there, total = txn.count(slot.accounts), _total(txn)
        if root != pivot.state_root or there != total:
            raise StorageError(
                f"the state fetched for block {pivot.height} has {there} accounts of {total} and "
                f"leads to {root.hex()}, not to {pivot.state_root.hex()}"
            )
        txn.delete(tables.META, tables.META_STAGING)
        return pivot

    def released(self) -> None:
        """The commit that took it over stands."""
        with self._lock:
            self._pivot, self._missing = None, None


class _Writer:
    """Whole subtrees on their way into the staging slot, within one transaction."""

    def __init__(self, txn: WriteTransaction) -> None:
        self._txn = txn
        self._slot = staging(txn)
        last = txn.last(self._slot.accounts)
        self._last = b"" if last is None else last[0]  # the highest key, those kept back included
        self._end: bytes | None = b""  # of the last subtree
        self._nodes: list[Item] = []
        self._rows: list[Item] = []
        self._ascending = True  # all of these rows are above those in the table

    def expects(self, hole: Hole) -> bool:
        """Whether this is a hole, or a stored node of the same hash with holes below it."""
        txn = self._txn
        stored = txn.get(tables.HOLES, tables.hole_key(hole.depth, hole.prefix))
        if stored is not None:
            return stored[:32] == hole.hash
        node = txn.get(self._slot.nodes, tables.node_key(hole.depth, hole.prefix))
        return node is not None and merkle.state_node(*split_node(node)) == hole.hash

    def replace(self, hole: Hole, state: FilledState) -> None:
        """Remove what is there and is not in `state`, and keep that for `flush`."""
        start = hole.prefix
        if self._end is None or start < self._end:
            self.flush()
        if start <= self._last:
            _remove_rows(self._txn, self._slot, hole.depth, start, state.rows)
            self._ascending = False
        _remove_nodes(self._txn, self._slot, hole.depth, start, state.nodes)
        _remove_holes(self._txn, hole.depth, start)
        self._nodes += state.nodes
        self._rows += state.rows
        if state.rows:
            self._last = max(self._last, state.rows[-1][0])
        self._end = tables.subtree_end(hole.depth, start)

    def flush(self) -> None:
        """Bring all that was kept to the tables."""
        txn, slot = self._txn, self._slot
        if self._ascending:
            txn.append_many(slot.accounts, self._rows)
        else:
            txn.put_many(slot.accounts, self._rows)
        self._nodes.sort()
        txn.put_many(slot.nodes, self._nodes)
        self._rows, self._nodes = [], []
        self._ascending, self._end = True, b""


# --- within a transaction --------------------------------------------------------------------


def _read_pivot(txn: ReadTransaction) -> Pivot | None:
    stored = txn.get(tables.META, tables.META_STAGING)
    if stored is None:
        return None
    return Pivot(*tables.parse_block_key(stored), stored[40:])


def _open_root(txn: WriteTransaction, root: bytes) -> None:
    """A hole at the root, unless what is here is below that very root."""
    node = txn.get(staging(txn).nodes, tables.node_key(0, ZERO))
    is_here = node is not None and merkle.state_node(*split_node(node)) == root
    if root == ZERO or is_here:
        txn.delete(tables.HOLES, tables.hole_key(0, ZERO))
    else:
        txn.put(tables.HOLES, tables.hole_key(0, ZERO), root + bytes(8))


def _total(txn: ReadTransaction) -> int | None:
    """Accounts of the whole state, as far as that is known."""
    if _read_pivot(txn) is None:
        return None
    hole = txn.get(tables.HOLES, tables.hole_key(0, ZERO))
    if hole is not None:
        return int.from_bytes(hole[32:], "big") or None
    slot = staging(txn)
    node = txn.get(slot.nodes, tables.node_key(0, ZERO))
    if node is not None:
        _, left, _, right = split_node(node)
        return left + right
    return txn.count(slot.accounts)


def _topmost(
    txn: ReadTransaction, start: bytes, stop: bytes | None, at_once: int = HOLES_AT_ONCE
) -> Iterator[tuple[int, bytes, bytes, int]]:
    """(depth, prefix, hash, count) of the holes from `start` on that lie in no other there."""
    end: bytes = b""  # of the last one: what begins below lies in it
    at_once = min(at_once, HOLES_AT_ONCE)
    while rows := txn.range(tables.HOLES, start, stop, limit=at_once):
        for key, value in rows:
            prefix, depth = key[:32], key[32]
            if prefix < end:
                continue
            yield depth, prefix, value[:32], int.from_bytes(value[32:], "big")
            above = tables.subtree_end(depth, prefix)
            if above is None:
                return
            end = above
        start = max(rows[-1][0] + b"\0", end)


def _missing_in(txn: ReadTransaction, depth: int, prefix: bytes) -> int:
    """Accounts of all holes in a subtree."""
    span = tables.hole_key(depth, prefix), tables.subtree_end(depth, prefix)
    return sum(count for _, _, _, count in _topmost(txn, *span))


def _is_hole(txn: ReadTransaction, hole: Hole) -> bool:
    stored = txn.get(tables.HOLES, tables.hole_key(hole.depth, hole.prefix))
    return stored is not None and stored[:32] == hole.hash


def _is_covered(txn: ReadTransaction, hole: Hole) -> bool:
    """Whether the hole lies in another one."""
    path = int.from_bytes(hole.prefix, "big")
    for depth in range(hole.depth):
        free = 256 - depth
        above = tables.hole_key(depth, (path >> free << free).to_bytes(32, "big"))
        if txn.get(tables.HOLES, above) is not None:
            return True
    return False


def _descend(txn: WriteTransaction, slot: StateSlot, hole: Hole, node: bytes) -> None:
    place = tables.hole_key(hole.depth, hole.prefix)
    new = split_node(node)
    count = new[1] + new[3]
    if count <= NODE_LIMIT:
        txn.put(tables.HOLES, place, hole.hash + count.to_bytes(8, "big"))
        return
    name = tables.node_key(hole.depth, hole.prefix)
    known = txn.get(slot.nodes, name)
    before: tuple[bytes, bytes] | None = None
    if known is not None:
        left, _, right, _ = split_node(known)
        before = left, right
    middle = int.from_bytes(hole.prefix, "big") | 1 << 255 - hole.depth
    halves = (hole.prefix, *new[:2]), (middle.to_bytes(32, "big"), *new[2:])
    for side, (prefix, half, size) in enumerate(halves):
        if before is not None and half == before[side]:
            continue
        if size:
            below = tables.hole_key(hole.depth + 1, prefix)
            txn.put(tables.HOLES, below, half + size.to_bytes(8, "big"))
        else:
            _remove_rows(txn, slot, hole.depth + 1, prefix, ())
            _remove_nodes(txn, slot, hole.depth + 1, prefix, ())
            _remove_holes(txn, hole.depth + 1, prefix)
    txn.put(slot.nodes, name, node)
    txn.delete(tables.HOLES, place)


def _remove_holes(txn: WriteTransaction, depth: int, prefix: bytes) -> None:
    txn.delete_range(
        tables.HOLES, tables.hole_key(depth, prefix), tables.subtree_end(depth, prefix)
    )


def _remove_rows(
    txn: WriteTransaction, slot: StateSlot, depth: int, prefix: bytes, kept: Sequence[Item]
) -> None:
    """Remove the accounts of a subtree but for some."""
    start, stop = prefix, tables.subtree_end(depth, prefix)
    keys: set[bytes] | None = None  # made where there is something to compare with
    while rows := txn.range(slot.accounts, start, stop, limit=HOLES_AT_ONCE):
        keys = {key for key, _ in kept} if keys is None else keys
        for key, _ in rows:
            if key not in keys:
                txn.delete(slot.accounts, key)
        start = rows[-1][0] + b"\0"


def _remove_nodes(
    txn: WriteTransaction, slot: StateSlot, depth: int, prefix: bytes, kept: Sequence[Item]
) -> None:
    """Remove the nodes of a subtree but for some. Those above a stored node are stored too."""
    places = [(depth, prefix)]
    names: set[bytes] | None = None
    while places:
        depth, prefix = places.pop()
        name = tables.node_key(depth, prefix)
        if txn.get(slot.nodes, name) is None:
            continue
        names = {key for key, _ in kept} if names is None else names
        if name not in names:
            txn.delete(slot.nodes, name)
        middle = int.from_bytes(prefix, "big") | 1 << 255 - depth
        places += (depth + 1, prefix), (depth + 1, middle.to_bytes(32, "big"))
