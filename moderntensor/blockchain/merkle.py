"""Roots and proofs of the lists that a header commits to: RFC 9162 trees.

A byte 00 goes before a leaf and 01 before a node, and no leaf is ever duplicated, so that one
root belongs to one list. The work is done by the engine (`moderntensor.backend.merkle`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..backend import merkle as _engine
from .transaction import Transaction, TransactionReceipt

__all__ = ["MerkleTree", "receipts_root", "transactions_root"]


class MerkleTree:
    """The tree over a list of byte strings; immutable.

    >>> tree = MerkleTree([b"a", b"b", b"c"])
    >>> MerkleTree.verify(tree.root, b"b", 1, len(tree), tree.proof(1))
    True
    """

    __slots__ = ("_leaves", "_root")

    def __init__(self, leaves: Iterable[bytes]) -> None:
        """TypeError if a leaf is not `bytes`."""
        self._leaves = tuple(leaves)
        self._root = _engine.list_root(self._leaves)

    @property
    def root(self) -> bytes:
        """32 bytes; all zero for the empty list."""
        return self._root

    def __len__(self) -> int:
        return len(self._leaves)

    def proof(self, index: int) -> list[bytes]:
        """Sibling hashes from leaf `index` up, at most 64 of 32 bytes.

        IndexError outside 0 … len - 1.
        """
        return _engine.list_proof(self._leaves, index)

    @staticmethod
    def verify(root: bytes, leaf: bytes, index: int, count: int, proof: Sequence[bytes]) -> bool:
        """Whether `leaf` is item `index` of the list of `count` items under `root`."""
        return _engine.verify_list_proof(root, leaf, index, count, proof)


def transactions_root(transactions: Iterable[Transaction]) -> bytes:
    """txs_root of a block with these transactions, 32 bytes."""
    return _engine.list_root([transaction.encode() for transaction in transactions])


def receipts_root(receipts: Iterable[TransactionReceipt]) -> bytes:
    """receipts_root of a block with these receipts, 32 bytes."""
    return _engine.list_root([receipt.encode() for receipt in receipts])
