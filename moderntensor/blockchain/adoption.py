"""Making a state that was fetched the chain's own, in one commit.

The headers up to the pivot were checked whole, and its state was proved by the last of them. So
the chain goes on from there as if it had executed all blocks below: they are final, and their
bodies may come later (`backlog`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ..errors import StaleStateError, StorageError
from ..storage import WriteTransaction
from . import candidates, provisional, side, tables
from .chain_types import ChainHead
from .genesis import ChainConfig
from .indices import unindex
from .lookup import head_of, one
from .staging import Pivot, StateStaging
from .state_slots import switch

MOVED_AT_ONCE: Final = 4096  # headers in memory, of the many that move


class Adoption(NamedTuple):
    """What a commit that adopted a state did: `blocks` are those that the head moved over,
    `undone` the headers that it took off the chain, descending."""

    head: ChainHead
    blocks: int
    undone: list[bytes]


def adopt(
    txn: WriteTransaction, config: ChainConfig, head: ChainHead, staging: StateStaging
) -> Adoption:
    """Make the staged state that of the chain, and its pivot the head.

    StaleStateError where it is not whole, or its pivot is not among the pending headers (those
    checked whole) above `head`; FinalityError where it is on a branch that may not be followed.
    """
    pivot = staging.release(txn)
    fork = _fork_below(txn, head, pivot)
    candidates.check_finality(txn, config, head, fork)
    for key, _ in txn.range(tables.SIDE):
        side.forget(txn, *tables.parse_block_key(key))
    undone = _take_off(txn, head.height, fork)
    _move_pending(txn, fork + 1, pivot.height)
    switch(txn)
    txn.delete_range(tables.UNDO)
    txn.put(tables.META, tables.META_HEAD, tables.block_key(pivot.height, pivot.block_hash))
    txn.put(tables.META, tables.META_FINAL, tables.height_key(pivot.height))
    txn.put(tables.META, tables.META_EARLIEST, tables.height_key(pivot.height + 1))
    raw = txn.get(tables.CANONICAL, tables.height_key(pivot.height))
    if raw is None:
        raise StorageError(f"the header of block {pivot.height} vanished")
    return Adoption(head_of(raw), pivot.height - fork, undone)


def _fork_below(txn: WriteTransaction, head: ChainHead, pivot: Pivot) -> int:
    """The height of the last executed block below the pivot."""
    if pivot.height <= head.height:
        raise StaleStateError(f"the chain is at block {head.height}, past {pivot.height}")
    span = provisional.checked_span(txn)
    raw = txn.get(tables.PENDING, tables.height_key(pivot.height))
    if span is None or raw is None or not span[0] <= pivot.height <= span[1]:
        raise StaleStateError(f"block {pivot.height} is not among the checked headers")
    header = one(raw)
    if header.hash(0) != pivot.block_hash or header.state_root(0) != pivot.state_root:
        raise StaleStateError(
            f"the headers lead to another block {pivot.height} than {pivot.block_hash.hex()}"
        )
    return span[0] - 1


def _take_off(txn: WriteTransaction, height: int, fork: int) -> list[bytes]:
    """Make side blocks of what the chain has above its fork; their headers, descending."""
    undone = []
    for at in range(height, fork, -1):
        raw = txn.get(tables.CANONICAL, tables.height_key(at))
        if raw is None:
            raise StorageError(f"the store has no header of block {at}")
        block_hash = one(raw).hash(0)
        body = txn.get(tables.BODIES, tables.block_key(at, block_hash))
        if body is not None:
            unindex(txn, at, body)
        # They stay for now: someone may want their transactions.
        side.keep(txn, at, block_hash, raw)
        undone.append(raw)
    txn.delete_range(tables.CANONICAL, tables.height_key(fork + 1))
    return undone


def _move_pending(txn: WriteTransaction, first: int, last: int) -> None:
    """Make the pending headers `first` to `last`, where they begin, part of the chain."""
    start, stop = tables.height_key(first), tables.height_key(last + 1)
    while rows := txn.range(tables.PENDING, start, stop, limit=MOVED_AT_ONCE):
        txn.append_many(tables.CANONICAL, rows)
        start = tables.height_key(tables.parse_height(rows[-1][0]) + 1)
    rest = txn.range(tables.PENDING, stop, limit=MOVED_AT_ONCE)
    if len(rest) < MOVED_AT_ONCE:
        txn.delete_range(tables.PENDING)  # all of it costs nothing, a part of it each row
        txn.append_many(tables.PENDING, rest)
    else:
        txn.delete_range(tables.PENDING, stop=stop)
    if not rest:
        txn.delete(tables.META, tables.META_CANDIDATE)
    provisional.shortened(txn)
