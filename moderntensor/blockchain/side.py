"""Blocks on other branches: those that arrived on one that is not longer, and those undone.

Each has been checked whole but for execution, and stands on another or on the executed chain.
They are bounded in number, shortest branch dropped first, and forgotten below finality.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ..backend import headers
from ..errors import FinalityError, UnknownParentError
from ..storage import ReadTransaction, WriteTransaction
from . import tables
from .block import EMPTY_BODY
from .lookup import KnownHeader, canonical_header, find_header, one

# Eight full branches of the default reorganisation depth.
MAX_SIDE_BLOCKS: Final = 1024


class SidePath(NamedTuple):
    """From the executed chain to a block beside it: the fork's height, and (height, hash,
    header) of each block after it, ascending."""

    fork: int
    headers: list[tuple[int, bytes, bytes]]


def path(txn: ReadTransaction, header: KnownHeader) -> SidePath:
    """The way from the executed chain to a side block; FinalityError where it is forgotten."""
    found: list[tuple[int, bytes, bytes]] = []
    height, raw = header.height, header.raw
    while True:
        batch = one(raw)
        found.append((height, batch.hash(0), raw))
        height -= 1
        parent = batch.previous_hash(0)
        if canonical_header(txn, parent) is not None:
            return SidePath(height, found[::-1])
        above = txn.get(tables.SIDE, tables.block_key(max(height, 0), parent))
        if above is None:
            raise FinalityError(f"the branch below side block {height + 1} is no longer kept")
        raw = above


def path_to(txn: ReadTransaction, block_hash: bytes) -> SidePath:
    """The way from the executed chain to any block whose body is here; nothing for a block of
    that chain itself. UnknownParentError where there is none, FinalityError as `path`."""
    header = find_header(txn, block_hash)
    if header is not None:
        if header.place == tables.CANONICAL:
            return SidePath(header.height, [])
        if holds(txn, header.height, block_hash):  # it may be pending as well
            return path(txn, header)
    raise UnknownParentError(f"the body of {block_hash.hex()} is not here yet")


def holds(txn: ReadTransaction, height: int, block_hash: bytes) -> bool:
    """Whether a block is kept here."""
    return txn.get(tables.SIDE, tables.block_key(height, block_hash)) is not None


def add(txn: WriteTransaction, height: int, block_hash: bytes, raw: bytes, body: bytes) -> None:
    """Keep a block of another branch; it, or another, may be dropped for want of room."""
    keep(txn, height, block_hash, raw)
    if body != EMPTY_BODY:
        txn.put(tables.BODIES, tables.block_key(height, block_hash), body)
    trim(txn)


def keep(txn: WriteTransaction, height: int, block_hash: bytes, raw: bytes) -> None:
    """Keep a block whose body is in the store already."""
    txn.put(tables.SIDE, tables.block_key(height, block_hash), raw)
    txn.put(tables.INDEX, block_hash, tables.height_key(height))


def forget(txn: WriteTransaction, height: int, block_hash: bytes) -> None:
    """Drop a side block, its body, and its index unless it is pending as well."""
    key = tables.block_key(height, block_hash)
    txn.delete(tables.SIDE, key)
    txn.delete(tables.BODIES, key)
    pending = txn.get(tables.PENDING, key[:8])
    if pending is None or headers.header_hash(pending) != block_hash:
        txn.delete(tables.INDEX, block_hash)


def prune(txn: WriteTransaction, height: int) -> None:
    """Forget side blocks at `height` and below: nothing can make them executed again."""
    if height < 0:
        return
    for key, _ in txn.range(tables.SIDE, stop=tables.height_key(height + 1)):
        forget(txn, *tables.parse_block_key(key))


def descendants(txn: ReadTransaction, block_hash: bytes, height: int) -> list[tuple[int, bytes]]:
    """(height, hash) of the side blocks that stand on a block, near ones first."""
    family = {block_hash}
    found = []
    for key, raw in txn.range(tables.SIDE, tables.height_key(height + 1)):
        if one(raw).previous_hash(0) in family:
            family.add(key[8:])
            found.append(tables.parse_block_key(key))
    return found


def trim(txn: WriteTransaction) -> None:
    """Drop the ends of the shortest branches until there are no more blocks than there may be."""
    while txn.count(tables.SIDE) > MAX_SIDE_BLOCKS:
        _drop_shortest(txn)


def _drop_shortest(txn: WriteTransaction) -> None:
    blocks = txn.range(tables.SIDE)
    parents = {one(raw).previous_hash(0) for _, raw in blocks}
    # Heights ascend: the first without a child is the end of the shortest branch.
    shortest = next(key for key, _ in blocks if key[8:] not in parents)
    forget(txn, *tables.parse_block_key(shortest))
