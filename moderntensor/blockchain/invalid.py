"""Memory of blocks that broke a rule, by the hash of their header.

A header's hash covers its signature and commits to its body, so a hash that is remembered here
is invalid for good. A body that does not match its header says nothing about the header and is
never remembered.
"""

from __future__ import annotations

from typing import Final

from ..storage import ReadTransaction, WriteTransaction
from . import tables

# Each cost somebody a valid signature under a validator's key; on an open network keys are free,
# so the memory is bounded. 64 Ki hashes are some 10 MiB in memory, 3 MiB on disk.
MAX_INVALID: Final = 65_536


class InvalidBlocks:
    """Hash → rule; the table and a copy of it in memory. Changed under the chain's lock."""

    def __init__(self, txn: ReadTransaction, limit: int = MAX_INVALID) -> None:
        self._limit = limit
        self._rules = {key: value.decode("ascii") for key, value in txn.range(tables.INVALID)}

    def __len__(self) -> int:
        return len(self._rules)

    def __contains__(self, block_hash: object) -> bool:
        return block_hash in self._rules

    def rule(self, block_hash: bytes) -> str | None:
        """The rule that the block breaks; None if it is not remembered."""
        return self._rules.get(block_hash)

    def add(self, txn: WriteTransaction, block_hash: bytes, rule: str) -> None:
        """Remember; beyond the limit the oldest in memory is forgotten."""
        # What memory says ahead of the commit is true whether or not the commit succeeds.
        while len(self._rules) >= self._limit:
            oldest = next(iter(self._rules))
            del self._rules[oldest]
            txn.delete(tables.INVALID, oldest)
        self._rules[block_hash] = rule
        txn.put(tables.INVALID, block_hash, rule.encode("ascii"))
