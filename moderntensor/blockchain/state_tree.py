"""The state tree in the store: its root after each block, by touching only what changed.

The tree hangs over the `accounts` table, ordered by key = SHA-256(address). Nodes of subtrees
with more than `NODE_LIMIT` accounts are stored, under their depth and prefix; the rest is so
small that it is hashed anew from the accounts when something in it changes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from struct import Struct
from typing import Final

from ..backend import merkle
from ..errors import StorageError
from ..storage import ReadTransaction, WriteTransaction
from .crypto import sha256
from .tables import ACCOUNTS, NODES, node_key

NODE_LIMIT: Final = 16  # accounts; hashing so few costs less than keeping nodes for them
ACCOUNT_SIZE: Final = 88
_ADDRESS_SIZE: Final = 20
_BITS: Final = 256
_ZERO: Final = bytes(32)
_NODE: Final = Struct(">32sQ32sQ")

_Node = tuple[bytes, int, bytes, int]  # left, left count, right, right count


class _TreeReader:
    """The tree as one transaction sees it. Nodes are named as in a heap: the root is 1, the
    halves of n are 2n and 2n + 1, so that the number holds both depth and prefix."""

    def __init__(self, txn: ReadTransaction) -> None:
        self._reader = txn
        self._nodes: dict[int, _Node | None] = {}  # None: deleted

    def _node(self, index: int) -> _Node:
        node = self._nodes.get(index)
        if node is None:
            depth, prefix = _place(index)
            raw = self._reader.get(NODES, node_key(depth, prefix))
            if raw is None or index in self._nodes:
                raise StorageError(f"the state tree lacks its node {prefix.hex()}/{depth}")
            left, left_count, right, right_count = _NODE.unpack(raw)
            node = self._nodes[index] = (left, left_count, right, right_count)
        return node

    def _packed(self, depth: int, prefix: bytes) -> bytes:
        """The accounts under a prefix, as the engine wants them: key ‖ account."""
        stop = int.from_bytes(prefix, "big") + (1 << (_BITS - depth))
        end = stop.to_bytes(32, "big") if stop >> _BITS == 0 else None
        return b"".join(
            [
                key + value[_ADDRESS_SIZE:]
                for key, value in self._reader.range(ACCOUNTS, prefix, end)
            ]
        )

    def _root(self, count: int) -> bytes:
        """The root over all `count` accounts."""
        if count > NODE_LIMIT:
            return merkle.state_node(*self._node(1))
        return merkle.state_subtree(self._packed(0, _ZERO))[0]

    def prove(self, key: bytes) -> list[bytes]:
        """The proof for `key`, as `merkle.state_proof` makes it over all accounts."""
        proof = []
        target = int.from_bytes(key, "big")
        index, depth, count = 1, 0, self._reader.count(ACCOUNTS)
        while count > NODE_LIMIT:
            node = self._node(index)
            proof.append(_NODE.pack(*node))
            bit = target >> (_BITS - 1 - depth) & 1
            index, depth, count = 2 * index + bit, depth + 1, node[3] if bit else node[1]
        below = merkle.state_proof(self._packed(*_place(index)), key)
        # Over two accounts or more it begins at depth 0, with nodes that have one empty half.
        return proof + (below[depth:] if count > 1 else below)


class StateTree(_TreeReader):
    """The tree within one write transaction, for the changes of many blocks.

    Nodes are kept here as long as it lives and reach the store by `flush`, each once however
    many blocks have changed it. While it lives nothing else may change accounts.
    """

    def __init__(self, txn: WriteTransaction) -> None:
        super().__init__(txn)
        self._txn = txn
        self._count = txn.count(ACCOUNTS)
        self._dirty: set[int] = set()
        self._keys: list[int] = []  # of the changes being applied, ascending
        self._added: list[int] = [0]  # accounts that the first n of them add
        self.root: bytes = self._root(self._count)

    def apply(self, changes: Mapping[bytes, bytes | None]) -> bytes:
        """Set accounts (address, 20 bytes, to 88 bytes; None: it is gone); the new root."""
        txn = self._txn
        keys, added, total = [], [0], 0
        for key, address, account in sorted(
            [(sha256(address), address, account) for address, account in changes.items()]
        ):
            old = txn.get(ACCOUNTS, key)
            if account is None:
                if old is None:
                    continue
                txn.delete(ACCOUNTS, key)
                total -= 1
            else:
                record = address + account
                if old == record:
                    continue
                txn.put(ACCOUNTS, key, record)
                if old is None:
                    total += 1
            keys.append(int.from_bytes(key, "big"))
            added.append(total)
        if keys:
            self._keys, self._added = keys, added
            self.root, self._count = self._update(1, 0, self._count, 0, len(keys))
        return self.root

    def flush(self) -> None:
        """Bring the changed nodes to the store, in the order of their keys."""
        for index in sorted(self._dirty):
            node = self._nodes[index]
            key = node_key(*_place(index))
            if node is None:
                self._txn.delete(NODES, key)
            else:
                self._txn.put(NODES, key, _NODE.pack(*node))
        self._dirty.clear()

    def _update(self, index: int, depth: int, count: int, low: int, high: int) -> tuple[bytes, int]:
        """Hash and count of a subtree that held `count` accounts, after changes low..high."""
        total = count + self._added[high] - self._added[low]
        if count <= NODE_LIMIT or total <= NODE_LIMIT:
            return self._rebuild(index, count, total)
        if high - low == 1:
            return self._update_path(index, depth, count, low)
        left, left_count, right, right_count = self._node(index)
        keys = self._keys
        bit = _BITS - 1 - depth
        middle = (keys[low] >> bit | 1) << bit  # the first key of the right half
        split = bisect_left(keys, middle, low, high)
        if split > low:
            left, left_count = self._update(2 * index, depth + 1, left_count, low, split)
        if split < high:
            right, right_count = self._update(2 * index + 1, depth + 1, right_count, split, high)
        self._nodes[index] = (left, left_count, right, right_count)
        self._dirty.add(index)
        return merkle.state_node(left, left_count, right, right_count), total

    def _update_path(self, index: int, depth: int, count: int, change: int) -> tuple[bytes, int]:
        """As `_update`, for a single change: most of a block's nodes lie on such paths."""
        key = self._keys[change]
        delta = self._added[change + 1] - self._added[change]
        nodes, mark, node_hash = self._nodes, self._dirty.add, merkle.state_node
        bit = _BITS - 1 - depth
        path: list[_Node] = []
        while count > NODE_LIMIT and count + delta > NODE_LIMIT:
            node = nodes.get(index) or self._node(index)
            path.append(node)
            if key >> bit & 1:
                index, count = 2 * index + 1, node[3]
            else:
                index, count = 2 * index, node[1]
            bit -= 1
        root, count = self._rebuild(index, count, count + delta)
        for left, left_count, right, right_count in reversed(path):
            node = (
                (left, left_count, root, count) if index & 1 else (root, count, right, right_count)
            )
            index >>= 1
            nodes[index] = node
            mark(index)
            root, count = node_hash(*node), node[1] + node[3]
        return root, count

    def _rebuild(self, index: int, count: int, total: int) -> tuple[bytes, int]:
        """As `_update`, from the accounts themselves: the subtree is small, or was."""
        if count > NODE_LIMIT:
            self._prune(index)
        depth, prefix = _place(index)
        packed = self._packed(depth, prefix)
        if total > NODE_LIMIT:
            root, found, nodes = merkle.state_nodes(packed, depth, prefix, NODE_LIMIT)
            for node_depth, node_prefix, node in nodes:
                name = 1 << node_depth | int.from_bytes(node_prefix, "big") >> _BITS - node_depth
                left, left_count, right, right_count = _NODE.unpack(node)
                self._nodes[name] = (left, left_count, right, right_count)
                self._dirty.add(name)
        else:
            root, found = merkle.state_subtree(packed, depth, prefix)
        if found != total:
            raise StorageError(f"the state tree counts {total} accounts where {found} are stored")
        return root, total

    def _prune(self, index: int) -> None:
        """Delete the stored nodes of a subtree that has become small."""
        _, left_count, _, right_count = self._node(index)
        if left_count > NODE_LIMIT:
            self._prune(2 * index)
        if right_count > NODE_LIMIT:
            self._prune(2 * index + 1)
        self._nodes[index] = None
        self._dirty.add(index)


def state_root(txn: ReadTransaction) -> bytes:
    """The root that the transaction sees."""
    return _TreeReader(txn)._root(txn.count(ACCOUNTS))


def prove(txn: ReadTransaction, key: bytes) -> list[bytes]:
    """The proof that `key` holds its account, or none: see `merkle.state_proof`."""
    return _TreeReader(txn).prove(key)


def _place(index: int) -> tuple[int, bytes]:
    """Depth and prefix of a node's number."""
    depth = index.bit_length() - 1
    return depth, ((index ^ 1 << depth) << (_BITS - depth)).to_bytes(32, "big")
