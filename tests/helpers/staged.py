"""States to stage: served as a peer would, and what the store must hold of them in the end."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from hashlib import sha256

from moderntensor.backend import merkle
from moderntensor.blockchain import tables
from moderntensor.blockchain.staging import Hole, Pivot, StateStaging
from moderntensor.blockchain.state_slots import StateSlot
from moderntensor.blockchain.state_tree import FilledState
from moderntensor.storage import ReadTransaction

ZERO = bytes(32)


def account(number: int) -> bytes:
    """88 bytes, different for each number from 1 on."""
    return number.to_bytes(8, "big") + bytes(80)


class Tree:
    """A whole state, address → account, and any part of it."""

    def __init__(self, state: Mapping[bytes, bytes]) -> None:
        rows = sorted(
            (sha256(address).digest(), address + value) for address, value in state.items()
        )
        self.keys = [key for key, _ in rows]
        self.records = [record for _, record in rows]
        self.root = self.part(0, ZERO).hash
        self.count = len(rows)

    def packed(self, depth: int = 0, prefix: bytes = ZERO) -> bytes:
        """The records of a subtree."""
        end = tables.subtree_end(depth, prefix)
        stop = len(self.keys) if end is None else bisect_left(self.keys, end)
        return b"".join(self.records[bisect_left(self.keys, prefix) : stop])

    def part(self, depth: int, prefix: bytes) -> FilledState:
        """A subtree, as who has fetched and verified it hands it on."""
        return FilledState(*merkle.state_records(self.packed(depth, prefix), depth, prefix))

    def node(self, depth: int, prefix: bytes) -> bytes:
        """The node of a subtree of two accounts or more."""
        middle = int.from_bytes(prefix, "big") | 1 << 255 - depth
        left = self.part(depth + 1, prefix)
        right = self.part(depth + 1, middle.to_bytes(32, "big"))
        return b"".join(half.hash + half.count.to_bytes(8, "big") for half in (left, right))

    def pivot(self, height: int = 1024, block_hash: bytes = b"\1" * 32) -> Pivot:
        """A block whose state this is."""
        return Pivot(height, block_hash, self.root)


def fetch(staging: StateStaging, tree: Tree, holes: list[Hole], largest: int) -> int:
    """Bring in the nodes of large holes and the accounts of others; how many accounts."""
    large = [hole for hole in holes if hole.count == 0 < tree.count > 16 or hole.count > largest]
    small = [hole for hole in holes if hole not in large]
    staging.descend([(hole, tree.node(*hole[:2])) for hole in large])
    staging.fill([(hole, tree.part(*hole[:2])) for hole in small])
    return sum(hole.count or tree.count for hole in small)


def stage(staging: StateStaging, tree: Tree, pivot: Pivot, largest: int = 64) -> int:
    """Stage all of it; how many accounts were fetched."""
    staging.aim(pivot)
    fetched = 0
    while holes := staging.holes(100):
        fetched += fetch(staging, tree, holes, largest)
    return fetched


def check_slot(txn: ReadTransaction, slot: StateSlot, tree: Tree) -> None:
    """A slot holds exactly what the state built in bulk is."""
    whole = tree.part(0, ZERO)
    assert txn.range(slot.accounts) == whole.rows
    assert txn.range(slot.nodes) == whole.nodes
