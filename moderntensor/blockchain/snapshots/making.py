"""Making an image of the state after one block while the chain goes on.

The state is read in small pieces, each in a transaction of its own, which holds nobody up. Each
piece is brought back to what it was after the block: by the undo records, read in the same
transaction, of the blocks that were put on top since. The root tells whether it came out right.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, Final

from ...backend import merkle
from ...errors import StorageError
from ...storage import ReadTransaction
from .. import tables
from ..block import ZERO_HASH
from ..chain import Blockchain
from ..crypto import sha256
from ..lookup import HeaderBatch, canonical_header, one
from ..state_slots import active
from ..undo import decode_undo
from .file import NODE_FLOOR, PAGE, SnapshotInfo, encode_page

__all__ = ["SnapshotLostError", "making"]

CHUNK: Final = 8192  # accounts at most that one transaction reads, some milliseconds' worth
# Accounts that blocks above have changed and that were not come to yet: 50 MiB. A block of
# transfers changes 2,900 at most.
CHANGED_MOST: Final = 131_072
HEADERS_AT_ONCE: Final = 1024
_SPILL: Final = 4 << 20  # bytes of nodes in memory, until they go to their file
_SYNC: Final = 16 << 20  # bytes written until they go to disk, so that no flood of them does
_COPY: Final = 1 << 20


class SnapshotLostError(StorageError):
    """The state of that height is not to be had (any more); a later one will be."""


class _Past:
    """The state after one block, seen through a state some blocks later."""

    def __init__(self, chain: Blockchain, height: int, block_hash: bytes) -> None:
        self._store = chain.store
        self._block = self._seen = (height, block_hash)
        # As they were after the block, of the accounts that blocks up to `_seen` have changed.
        self._changed: dict[bytes, bytes | None] = {}
        self._keys: list[bytes] = []  # of those, ascending

    def expected(self) -> int:
        """About how many accounts there are."""
        with self._store.read() as txn:
            return txn.count(active(txn).accounts)

    def records(self, depth: int, prefix: bytes) -> bytes | None:
        """The accounts under a prefix; None if they are more than `CHUNK`. Prefixes ascend: what
        lies before one is not asked for again."""
        stop = tables.subtree_end(depth, prefix)
        with self._store.read() as txn:
            self._look_back(txn, prefix)
            rows = txn.range(active(txn).accounts, prefix, stop, limit=CHUNK + 1)
        if len(rows) > CHUNK:
            return None
        first = bisect_left(self._keys, prefix)
        last = len(self._keys) if stop is None else bisect_left(self._keys, stop)
        if first < last:
            found = dict(rows)
            for key in self._keys[first:last]:
                record = self._changed[key]
                if record is None:
                    found.pop(key, None)
                else:
                    found[key] = record
            if len(found) > CHUNK:
                return None
            rows = sorted(found.items())
            for key in self._keys[:last]:
                del self._changed[key]
            del self._keys[:last]
        return b"".join([record for _, record in rows])

    def _look_back(self, txn: ReadTransaction, start: bytes) -> None:
        """Learn what the blocks that were added since have changed from the key `start` on."""
        stored = txn.get(tables.META, tables.META_HEAD)
        if stored is None:
            raise SnapshotLostError("the chain has no head")
        if stored == tables.block_key(*self._seen):
            return
        if not _is_on_chain(txn, *self._seen):
            # Reorganised: other blocks are on top of ours, if that is still there. What was learnt
            # of it from those before stays true.
            self._seen = self._block
            if not _is_on_chain(txn, *self._seen):
                raise SnapshotLostError(f"block {self._seen[0]} is no longer on the chain")
        head, _ = tables.parse_block_key(stored)
        for first in range(self._seen[0] + 1, head + 1, HEADERS_AT_ONCE):
            count = min(HEADERS_AT_ONCE, head + 1 - first)
            self._undo(txn, first, count, start)
        self._keys = sorted(self._changed)

    def _undo(self, txn: ReadTransaction, first: int, count: int, start: bytes) -> None:
        headers = txn.values(tables.CANONICAL, tables.height_key(first), limit=count)
        batch = HeaderBatch.join(headers)
        for i, block_hash in enumerate(batch.hashes()):
            self._seen = (first + i, block_hash)
            if batch.txs_root(i) == ZERO_HASH:
                continue
            record = txn.get(tables.UNDO, tables.block_key(first + i, block_hash))
            if record is None:
                raise SnapshotLostError(f"what block {first + i} has changed is forgotten")
            for address, account in decode_undo(record).items():
                key = sha256(address)
                if key >= start:  # the lowest block knows how it was
                    self._changed.setdefault(key, None if account is None else address + account)
            if len(self._changed) > CHANGED_MOST:
                raise SnapshotLostError("the blocks above change too much to be held")


def _is_on_chain(txn: ReadTransaction, height: int, block_hash: bytes) -> bool:
    header = canonical_header(txn, block_hash)
    return header is not None and one(header).height(0) == height


class _Tree:
    """The upper tree over chunks that come in the order of their keys.

    Its nodes wait in a file, by depth, for all accounts to be written before them.
    """

    def __init__(self, spill: BinaryIO) -> None:
        self._spill = spill
        self._waiting: dict[int, bytearray] = {}
        self._bytes = 0
        self._spilled: dict[int, list[tuple[int, int]]] = {}
        self._end = 0
        self._done: list[tuple[bytes, int]] = []  # finished subtrees whose parent is not
        self.nodes = 0

    def add(self, records: bytes, depth: int, prefix: bytes) -> None:
        """Put in the next subtree, from its accounts."""
        root, count, nodes, _ = merkle.state_records(records, depth, prefix, NODE_FLOOR, rows=False)
        self._done.append((root, count))
        for key, node in sorted(nodes):
            self._keep(key, node)

    def join(self, depth: int, prefix: bytes) -> None:
        """Put the node over the last two subtrees."""
        right, right_count = self._done.pop()
        left, left_count = self._done.pop()
        count = left_count + right_count
        if count < 2:  # one account is itself, wherever it stands
            self._done.append((left if left_count else right, count))
            return
        if count > NODE_FLOOR:
            node = left + left_count.to_bytes(8, "big") + right + right_count.to_bytes(8, "big")
            self._keep(tables.node_key(depth, prefix), node)
        self._done.append((merkle.state_node(left, left_count, right, right_count), count))

    @property
    def root(self) -> tuple[bytes, int]:
        """(state root, accounts), once all is there."""
        (root,) = self._done
        return root

    def _keep(self, key: bytes, node: bytes) -> None:
        self._waiting.setdefault(key[0], bytearray()).extend(key + node)
        self._bytes += len(key) + len(node)
        self.nodes += 1
        if self._bytes >= _SPILL:
            self._put_down()

    def _put_down(self) -> None:
        for depth, rows in self._waiting.items():
            self._spill.write(rows)
            self._spilled.setdefault(depth, []).append((self._end, len(rows)))
            self._end += len(rows)
        self._waiting.clear()
        self._bytes = 0

    def rows(self) -> Iterator[bytes]:
        """The nodes, ascending by depth and prefix, in pieces of at most a MiB."""
        self._put_down()
        for _, pieces in sorted(self._spilled.items()):
            for at, size in pieces:
                for start in range(at, at + size, _COPY):
                    self._spill.seek(start)
                    yield self._spill.read(min(_COPY, at + size - start))


def making(
    chain: Blockchain,
    height: int,
    block_hash: bytes,
    output: BinaryIO,
    spill: BinaryIO,
    sync: Callable[[], None],
) -> Generator[None, None, None]:
    """Write the snapshot of a block of the chain to `output`, pausing after every chunk.

    `spill` is used meanwhile; `sync` is called now and then, and at the end, to bring `output` to
    the disk.

    Raises `SnapshotLostError`, `StorageError`, and `OSError` from the files.
    """
    header = chain.get_header(block_hash)
    if header is None or header.height != height:
        raise SnapshotLostError(f"block {height} is not on the chain")
    past = _Past(chain, height, block_hash)
    tree = _Tree(spill)
    digest = hashlib.sha256()
    unsynced = 0
    expected = past.expected()
    output.write(bytes(PAGE))
    # From left to right; a subtree that was split is joined when both its halves are done.
    stack = [(0, 0, False)]
    while stack:
        depth, at, split = stack.pop()
        prefix = at.to_bytes(32, "big")
        if split:
            tree.join(depth, prefix)
            continue
        records = None if expected >> depth > CHUNK // 2 else past.records(depth, prefix)
        if records is None:
            half = at | 1 << 255 - depth
            stack += ((depth, at, True), (depth + 1, half, False), (depth + 1, at, False))
            continue
        tree.add(records, depth, prefix)
        digest.update(records)
        output.write(records)
        unsynced += len(records)
        if unsynced >= _SYNC:
            sync()
            unsynced = 0
        yield
    root, accounts = tree.root
    if root != header.state_root:
        raise StorageError(f"the image of the state after block {height} has another root")
    for rows in tree.rows():
        digest.update(rows)
        output.write(rows)
        yield
    info = SnapshotInfo(height, block_hash, root, accounts)
    output.seek(0)
    output.write(encode_page(info, tree.nodes, digest.digest()))
    sync()
