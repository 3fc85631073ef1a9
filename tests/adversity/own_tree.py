"""The state tree once more, from docs/protocol.md and hashlib alone, as `wire` is the protocol.

Over a whole state in memory, with every node remembered: quick enough to serve from.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import cached_property
from hashlib import sha256

ZERO = bytes(32)
BITS = 256


def record(address: bytes, nonce: int, balance: int, roots: bytes = bytes(64)) -> bytes:
    """An account on the wire: 108 bytes."""
    return address + nonce.to_bytes(8, "big") + balance.to_bytes(16, "big") + roots


def key_of(row: bytes) -> bytes:
    return sha256(row[:20]).digest()


def beyond(depth: int, prefix: bytes) -> int:
    """The first key, as a number, that lies behind a subtree."""
    return int.from_bytes(prefix, "big") + (1 << BITS - depth)


def halves(depth: int, prefix: bytes) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    """Where the two subtrees below begin."""
    right = int.from_bytes(prefix, "big") | 1 << BITS - 1 - depth
    return (depth + 1, prefix), (depth + 1, right.to_bytes(32, "big"))


class OwnTree:
    """The tree over records in any order."""

    def __init__(self, state: Mapping[bytes, tuple[int, int]]) -> None:
        """`state`: address to (nonce, balance)."""
        self._hold(record(address, *funds) for address, funds in state.items() if any(funds))

    @classmethod
    def of_records(cls, rows: Iterable[bytes]) -> OwnTree:
        """Over accounts as they travel."""
        self = cls.__new__(cls)
        self._hold(rows)
        return self

    def _hold(self, rows: Iterable[bytes]) -> None:
        self.rows = sorted(rows, key=key_of)
        self._keys = [key_of(row) for row in self.rows]
        self._known: dict[tuple[int, bytes], tuple[bytes, int]] = {}  # hash and count by place

    def _span(self, depth: int, prefix: bytes) -> tuple[int, int]:
        first, end = bisect_left(self._keys, prefix), beyond(depth, prefix)
        if end >> BITS:
            return first, len(self._keys)
        return first, bisect_left(self._keys, end.to_bytes(32, "big"), first)

    def records(self, depth: int, prefix: bytes) -> list[bytes]:
        """All of a subtree, by key."""
        first, end = self._span(depth, prefix)
        return self.rows[first:end]

    def subtree(self, depth: int = 0, prefix: bytes = ZERO) -> tuple[bytes, int]:
        """Its hash and count."""
        place = depth, prefix
        found = self._known.get(place)
        if found is None:
            first, end = self._span(depth, prefix)
            if first == end:
                found = ZERO, 0
            elif first + 1 == end:
                leaf = b"\0" + self._keys[first] + self.rows[first][20:]
                found = sha256(leaf).digest(), 1
            else:
                found = sha256(b"\1" + self._node(depth, prefix)).digest(), end - first
            self._known[place] = found
        return found

    def _node(self, depth: int, prefix: bytes) -> bytes:
        return b"".join(
            digest + struct.pack(">Q", count)
            for digest, count in (self.subtree(*half) for half in halves(depth, prefix))
        )

    def node(self, depth: int, prefix: bytes) -> bytes | None:
        """The 80 bytes of two accounts or more."""
        first, end = self._span(depth, prefix)
        return self._node(depth, prefix) if end - first > 1 else None

    @property
    def root(self) -> bytes:
        return self.subtree()[0]

    @cached_property
    def digest(self) -> str:
        """A name for all keys and records, in their order: two states of one digest are equal."""
        whole = sha256()
        for key, row in zip(self._keys, self.rows, strict=True):
            whole.update(key + row)
        return whole.hexdigest()
