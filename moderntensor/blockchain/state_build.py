"""A state tree built from all of its accounts in the order of their keys, in bounded memory.

The accounts come in chunks, cut anywhere, and are split at the prefixes of the tree as they come;
each part is hashed whole by the engine, and only the nodes above the parts are made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from ..backend import merkle
from ..errors import DecodeError
from .crypto import sha256
from .tables import node_key, subtree_end

BUILT_AT_ONCE: Final = 16_384  # accounts: some 10 MiB as rows
_RECORD: Final = 108  # address ‖ account
_ADDRESS: Final = 20
_ZERO: Final = bytes(32)
_BITS: Final = 256
_DISORDER: Final = "records: keys must ascend strictly"

Rows = list[tuple[bytes, bytes]]
Put = Callable[[Rows, Rows], None]


def build_state(chunks: Iterable[bytes], put: Put) -> tuple[bytes, int]:
    """Root and count of the state of these account records (address ‖ account, 108 bytes each),
    which ascend by key = SHA-256(address).

    `put(rows, nodes)` gets what a state slot holds of them: at most `BUILT_AT_ONCE` rows at a
    time, ascending over all calls, and nodes ascending within one. DecodeError where a record
    cannot be an account or is out of order; what was put before is of no use then.
    """
    records = _Records(chunks)
    root, count, nodes = _build(records, put, 0, _ZERO)
    put([], sorted(nodes))
    if not records.at_end:
        raise DecodeError(_DISORDER)
    return root, count


def _build(records: _Records, put: Put, depth: int, prefix: bytes) -> tuple[bytes, int, Rows]:
    """Hash and count of a subtree, and those of its nodes that were not put."""
    part = records.take(subtree_end(depth, prefix))
    if part is not None:
        root, count, nodes, rows = merkle.state_records(part, depth, prefix)
        put(rows, nodes)
        return root, count, []
    if depth == _BITS:  # they are all from below
        raise DecodeError(_DISORDER)
    middle = int.from_bytes(prefix, "big") | 1 << _BITS - 1 - depth
    left, left_count, nodes = _build(records, put, depth + 1, prefix)
    right, right_count, others = _build(records, put, depth + 1, middle.to_bytes(32, "big"))
    node = left + left_count.to_bytes(8, "big") + right + right_count.to_bytes(8, "big")
    root = merkle.state_node(left, left_count, right, right_count)
    upper = [(node_key(depth, prefix), node), *nodes, *others]
    return root, left_count + right_count, upper


class _Records:
    """Records as they come, of which so many are here that it can be told where a part ends."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._held = bytearray()
        self._more = True

    @property
    def at_end(self) -> bool:
        """Whether there are no further ones."""
        return self._count(1) == 0

    def take(self, stop: bytes | None) -> bytes | None:
        """All records with keys below `stop`; None if they are more than `BUILT_AT_ONCE`."""
        count = self._count(BUILT_AT_ONCE + 1)
        if stop is not None:
            count = self._below(stop, count)
        if count > BUILT_AT_ONCE:
            return None
        part = bytes(self._held[: count * _RECORD])
        del self._held[: count * _RECORD]
        return part

    def _count(self, wanted: int) -> int:
        """How many are here: `wanted`, unless there are no more."""
        while self._more and len(self._held) < wanted * _RECORD:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._more = False
                if len(self._held) % _RECORD:
                    raise DecodeError(f"records: the last is not {_RECORD} bytes long")
            else:
                self._held += chunk
        return min(len(self._held) // _RECORD, wanted)

    def _below(self, stop: bytes, count: int) -> int:
        """How many of the first `count` have keys below `stop`."""
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            at = middle * _RECORD
            if sha256(bytes(self._held[at : at + _ADDRESS])) < stop:
                low = middle + 1
            else:
                high = middle
        return low
