"""The state tree in the store: its root after each block, by touching only what changed.

The tree hangs over the accounts of a state slot, ordered by key = SHA-256(address). Nodes of
subtrees with more than `NODE_LIMIT` accounts are stored, under their depth and prefix; the rest is
so small that it is hashed anew from the accounts when something in it changes. The engine's
`StateTree` knows how the tree changes; here are its ways to the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final, NamedTuple

from ..backend import merkle
from ..errors import StorageError
from ..storage import ReadTransaction, WriteTransaction
from .state_slots import StateSlot, active
from .tables import node_key, subtree_end

NODE_LIMIT: Final = merkle.NODE_LIMIT  # accounts; nodes for so few would cost more than hashing
ACCOUNT_SIZE: Final = 88
_ADDRESS_SIZE: Final = 20
_BITS: Final = 256
_NODE: Final = Struct(">32sQ32sQ")  # left, left count, right, right count


class FilledState(NamedTuple):
    """A subtree built from its accounts: what `merkle.state_records` gives.

    `nodes` are (depth u8 ‖ prefix, node of 80 bytes), of subtrees with more than `NODE_LIMIT`
    accounts; `rows` (key, address ‖ account), ascending.
    """

    hash: bytes
    count: int  # type: ignore[assignment]  # hides that of tuples, which nobody wants here
    nodes: list[tuple[bytes, bytes]]
    rows: list[tuple[bytes, bytes]]


class StateTree:
    """The tree within one write transaction, for the changes of many blocks.

    What they touch is read once. It is kept here as long as this lives and reaches the store by
    `flush`, accounts and nodes, each once however many blocks have changed it; until then the
    tables show none of it. While it lives nothing else may change them.
    """

    def __init__(self, txn: WriteTransaction) -> None:
        self._txn = txn
        self._slot = slot = active(txn)
        self._tree = merkle.StateTree(
            txn.count(slot.accounts),
            lambda key: txn.get(slot.nodes, key),
            lambda start, stop: txn.range(slot.accounts, start, stop),
        )

    @property
    def root(self) -> bytes:
        """The root after all changes so far."""
        return self._tree.root

    def apply(self, changes: Mapping[bytes, bytes | None]) -> bytes:
        """Set accounts (address, 20 bytes, to 88 bytes; None: it is gone); the new root."""
        return self._tree.apply(changes)

    def flush(self) -> None:
        """Bring what has changed to the store, in the order of its keys."""
        slot = (self._slot.nodes, self._slot.accounts)
        for table, changes in zip(slot, self._tree.take_changes(), strict=True):
            kept = []
            for key, value in changes:
                if value is None:
                    self._txn.delete(table, key)
                else:
                    kept.append((key, value))
            if kept:
                self._txn.put_many(table, kept)


def state_root(txn: ReadTransaction, slot: StateSlot | None = None) -> bytes:
    """The root that the transaction sees, of the active slot unless another is given."""
    slot = slot or active(txn)
    count = txn.count(slot.accounts)
    if count > NODE_LIMIT:
        return merkle.state_node(*_node(txn, slot, 0, 0))
    return merkle.state_subtree(_packed(txn, slot, 0, 0))[0]


def prove(txn: ReadTransaction, key: bytes) -> list[bytes]:
    """The proof that `key` holds its account, or none: see `merkle.state_proof`."""
    slot = active(txn)
    proof = []
    target = int.from_bytes(key, "big")
    depth, prefix, count = 0, 0, txn.count(slot.accounts)
    while count > NODE_LIMIT:
        node = _node(txn, slot, depth, prefix)
        proof.append(_NODE.pack(*node))
        half = 1 << _BITS - 1 - depth
        right = bool(target & half)
        depth, prefix, count = depth + 1, prefix | (target & half), node[3] if right else node[1]
    below = merkle.state_proof(_packed(txn, slot, depth, prefix), key)
    # Over two accounts or more it begins at depth 0, with nodes that have one empty half.
    return proof + (below[depth:] if count > 1 else below)


def split_node(node: bytes) -> tuple[bytes, int, bytes, int]:
    """(left hash, left count, right hash, right count) of a stored node."""
    left, left_count, right, right_count = _NODE.unpack(node)
    return left, left_count, right, right_count


def _node(
    txn: ReadTransaction, slot: StateSlot, depth: int, prefix: int
) -> tuple[bytes, int, bytes, int]:
    name = prefix.to_bytes(32, "big")
    raw = txn.get(slot.nodes, node_key(depth, name))
    if raw is None:
        raise StorageError(f"the state tree lacks its node {name.hex()}/{depth}")
    return split_node(raw)


def _packed(txn: ReadTransaction, slot: StateSlot, depth: int, prefix: int) -> bytes:
    """The accounts under a prefix, as the engine wants them: key ‖ account."""
    start = prefix.to_bytes(32, "big")
    rows = txn.range(slot.accounts, start, subtree_end(depth, start))
    return b"".join([key + value[_ADDRESS_SIZE:] for key, value in rows])
