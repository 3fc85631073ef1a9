"""The state tree in the store: its root after each block, by touching only what changed.

The tree hangs over the `accounts` table, ordered by key = SHA-256(address). Nodes of subtrees
with more than `NODE_LIMIT` accounts are stored, under their depth and prefix; the rest is so
small that it is hashed anew from the accounts when something in it changes. The engine's
`StateTree` knows how the tree changes; here are its ways to the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

from ..backend import merkle
from ..errors import StorageError
from ..storage import ReadTransaction, WriteTransaction
from .tables import ACCOUNTS, NODES, node_key

NODE_LIMIT: Final = merkle.NODE_LIMIT  # accounts; nodes for so few would cost more than hashing
ACCOUNT_SIZE: Final = 88
_ADDRESS_SIZE: Final = 20
_BITS: Final = 256
_NODE: Final = Struct(">32sQ32sQ")  # left, left count, right, right count


class StateTree:
    """The tree within one write transaction, for the changes of many blocks.

    What they touch is read once. It is kept here as long as this lives and reaches the store by
    `flush`, accounts and nodes, each once however many blocks have changed it; until then the
    tables show none of it. While it lives nothing else may change them.
    """

    def __init__(self, txn: WriteTransaction) -> None:
        self._txn = txn
        self._tree = merkle.StateTree(
            txn.count(ACCOUNTS),
            lambda key: txn.get(NODES, key),
            lambda start, stop: txn.range(ACCOUNTS, start, stop),
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
        for table, changes in zip((NODES, ACCOUNTS), self._tree.take_changes(), strict=True):
            kept = []
            for key, value in changes:
                if value is None:
                    self._txn.delete(table, key)
                else:
                    kept.append((key, value))
            if kept:
                self._txn.put_many(table, kept)


def state_root(txn: ReadTransaction) -> bytes:
    """The root that the transaction sees."""
    count = txn.count(ACCOUNTS)
    if count > NODE_LIMIT:
        return merkle.state_node(*_node(txn, 0, 0))
    return merkle.state_subtree(_packed(txn, 0, 0))[0]


def prove(txn: ReadTransaction, key: bytes) -> list[bytes]:
    """The proof that `key` holds its account, or none: see `merkle.state_proof`."""
    proof = []
    target = int.from_bytes(key, "big")
    depth, prefix, count = 0, 0, txn.count(ACCOUNTS)
    while count > NODE_LIMIT:
        node = _node(txn, depth, prefix)
        proof.append(_NODE.pack(*node))
        half = 1 << _BITS - 1 - depth
        right = bool(target & half)
        depth, prefix, count = depth + 1, prefix | (target & half), node[3] if right else node[1]
    below = merkle.state_proof(_packed(txn, depth, prefix), key)
    # Over two accounts or more it begins at depth 0, with nodes that have one empty half.
    return proof + (below[depth:] if count > 1 else below)


def _node(txn: ReadTransaction, depth: int, prefix: int) -> tuple[bytes, int, bytes, int]:
    name = prefix.to_bytes(32, "big")
    raw = txn.get(NODES, node_key(depth, name))
    if raw is None:
        raise StorageError(f"the state tree lacks its node {name.hex()}/{depth}")
    left, left_count, right, right_count = _NODE.unpack(raw)
    return left, left_count, right, right_count


def _packed(txn: ReadTransaction, depth: int, prefix: int) -> bytes:
    """The accounts under a prefix, as the engine wants them: key ‖ account."""
    stop = prefix + (1 << _BITS - depth)
    end = stop.to_bytes(32, "big") if stop >> _BITS == 0 else None
    rows = txn.range(ACCOUNTS, prefix.to_bytes(32, "big"), end)
    return b"".join([key + value[_ADDRESS_SIZE:] for key, value in rows])
