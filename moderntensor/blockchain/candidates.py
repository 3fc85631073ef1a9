"""Headers ahead of the executed chain: where a batch attaches, and the pending candidate.

`pending` holds one run of headers, each checked whole (rules and signature; but see
`provisional`), that attaches to the executed chain at its fork point and ends higher than the
head. Its bodies come later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ..backend import headers
from ..errors import (
    FinalityError,
    HeaderChainError,
    InvalidBlockError,
    StaleBodiesError,
    UnknownParentError,
)
from ..storage import ReadTransaction, WriteTransaction
from . import provisional, side, tables
from .chain_types import ChainHead
from .genesis import ChainConfig
from .invalid import InvalidBlocks
from .lookup import (
    Anchor,
    HeaderBatch,
    KnownHeader,
    anchor_of,
    find_header,
    pending_headers,
    pending_span,
)

DELETED_AT_ONCE: Final = 4096  # headers in memory while a candidate of any length is given up


class Attachment(NamedTuple):
    """Where a batch of headers meets what is known.

    The first `skip` headers are known already; `anchor` is what the next one stands on, and it
    lies in table `place`. `fork` is the height of the last executed block below them all.
    """

    skip: int
    anchor: Anchor
    place: str
    fork: int


def attach(
    txn: ReadTransaction,
    batch: HeaderBatch,
    now: int,
    *,
    config: ChainConfig,
    head: ChainHead,
    invalid: InvalidBlocks,
) -> Attachment:
    """Find where `batch` attaches and check every rule but the signatures.

    UnknownParentError, HeaderChainError, FinalityError; InvalidBlockError where a header is
    remembered as invalid. ValueError for an empty batch.
    """
    if not len(batch):
        raise ValueError("no headers to attach")
    parent = find_header(txn, batch.previous_hash(0))
    if parent is None:
        refuse_invalid(batch, invalid)
        raise UnknownParentError(
            f"header {batch.hash(0).hex()} of height {batch.height(0)} stands on "
            f"{batch.previous_hash(0).hex()}, which is unknown"
        )
    try:
        batch.check(anchor_of(parent.raw), config.rules, now)
    except HeaderChainError as error:
        if error.rule == "checkpoint":
            raise FinalityError(
                f"header of height {error.height} contradicts the checkpoint there"
            ) from error
        raise
    refuse_invalid(batch, invalid)
    skip = _known_prefix(txn, batch)
    if skip:
        last = find_header(txn, batch.hash(skip - 1))
        if last is None:  # read in the same transaction: cannot be
            raise UnknownParentError("a header vanished")
        parent = last
    fork = fork_of(txn, parent)
    if skip < len(batch):
        check_finality(txn, config, head, fork)
    return Attachment(skip, anchor_of(parent.raw), parent.place, fork)


def refuse_invalid(batch: HeaderBatch, invalid: InvalidBlocks) -> None:
    """InvalidBlockError for the first header remembered as invalid, or standing on such a one."""
    if not invalid:
        return
    parent = batch.previous_hash(0)
    for i, block_hash in enumerate(batch.hashes()):
        rule = invalid.rule(block_hash)
        if rule is not None:
            raise InvalidBlockError(batch.height(i), block_hash, rule, "remembered as invalid")
        if parent in invalid:
            raise InvalidBlockError(
                batch.height(i), block_hash, "ancestor", f"{parent.hex()[:16]} is invalid"
            )
        parent = block_hash


def _known_prefix(txn: ReadTransaction, batch: HeaderBatch) -> int:
    """How many headers at the start are known: with one, all before it are, so bisect."""
    low, high = 0, len(batch)
    if txn.get(tables.INDEX, batch.hash(0)) is None:
        return 0
    while low < high:
        middle = (low + high) // 2
        if txn.get(tables.INDEX, batch.hash(middle)) is None:
            high = middle
        else:
            low = middle + 1
    return low


def fork_of(txn: ReadTransaction, header: KnownHeader) -> int:
    """The height of the last executed block on the way down from a known header."""
    if header.place == tables.CANONICAL:
        return header.height
    if header.place == tables.PENDING:
        span = pending_span(txn)
        return span[0] - 1 if span else header.height
    return side.path(txn, header).fork


def check_finality(txn: ReadTransaction, config: ChainConfig, head: ChainHead, fork: int) -> None:
    """FinalityError where a branch from `fork` would undo what may not be undone."""
    depth = head.height - fork
    if depth <= 0:
        return
    if depth > config.max_reorg_depth:
        raise FinalityError(
            f"a branch from height {fork} would undo {depth} blocks, "
            f"at most {config.max_reorg_depth} may be"
        )
    final = final_height(txn)
    if fork < final:  # `max_reorg_depth` was smaller once, and undo records are not kept longer
        raise FinalityError(f"a branch from height {fork} is below {final}, which is final")
    for height in config.checkpoints:
        if fork < height <= head.height:
            raise FinalityError(f"a branch from height {fork} is below the checkpoint of {height}")


def final_height(txn: ReadTransaction) -> int:
    """The highest block that can never be undone, whatever the settings say by now."""
    stored = txn.get(tables.META, tables.META_FINAL)
    return 0 if stored is None else tables.parse_height(stored)


def to_apply(
    txn: ReadTransaction, head: ChainHead, start: int, count: int, hashes: Sequence[bytes] | None
) -> HeaderBatch:
    """The pending headers from height `start` on, to which so many bodies are to be applied.

    StaleBodiesError where they do not begin there, or are not those of `hashes` if given;
    ValueError for a reorganisation that would not end above `head`.
    """
    if not count:
        raise ValueError("no bodies to apply")
    span = provisional.checked_span(txn)
    if span is None or span[0] != start or span[1] < start + count - 1:
        raise StaleBodiesError(
            f"bodies {start} to {start + count - 1} are not where the pending headers "
            f"begin ({'there are none' if span is None else f'{span[0]} to {span[1]}'})"
        )
    batch = pending_headers(txn, start, count)
    if hashes is not None and batch.hashes() != list(hashes):
        raise StaleBodiesError(f"the pending headers from {start} on are others by now")
    if start + count - 1 <= head.height:
        raise ValueError(
            f"bodies of a reorganisation end at {start + count - 1}, and must reach beyond "
            f"the head at {head.height}"
        )
    return batch


# --- changing the pending headers ------------------------------------------------------------


def extend(
    txn: WriteTransaction,
    config: ChainConfig,
    batch: HeaderBatch,
    place: Attachment,
    trusted_to: int,
) -> int:
    """Make `batch`, checked and longer than all that is known, the candidate or its end.

    Signatures are checked above height `trusted_to` only, of a checkpoint. Returns how many of
    its headers are new.
    """
    new = batch[place.skip :]
    if place.place == tables.PENDING:
        delete_from(txn, place.anchor.height + 1)
    else:
        delete_from(txn, 0)
    if place.place == tables.SIDE:
        known = find_header(txn, place.anchor.hash)
        if known is not None:
            for height, _, raw in side.path(txn, known).headers:
                txn.put(tables.PENDING, tables.height_key(height), raw)
    first, count = place.anchor.height + 1, len(new)
    last = first + count - 1
    keys = list(map(tables.height_key, range(first, last + 1)))
    txn.put_many(tables.PENDING, list(zip(keys, map(new.raw, range(count)), strict=True)))
    # Hashes lie anywhere in the index: in their order each of its pages is looked for once.
    txn.put_many(tables.INDEX, sorted(zip(new.hashes(), keys, strict=True)))
    _note_tip(txn, last, new.hash(-1))
    provisional.extended(txn, config, first, last, trusted_to)
    return count


def delete_from(txn: WriteTransaction, height: int) -> None:
    """Forget the pending headers at `height` and above."""
    start = tables.height_key(height)
    while doomed := txn.range(tables.PENDING, start, limit=DELETED_AT_ONCE):
        for key, raw in doomed:
            block_hash = headers.header_hash(raw)
            # Its index stays where another table has the header too.
            if txn.get(tables.CANONICAL, key) != raw and (
                txn.get(tables.SIDE, key + block_hash) is None
            ):
                txn.delete(tables.INDEX, block_hash)
            txn.delete(tables.PENDING, key)
    last = txn.last(tables.PENDING)
    if last is None:
        txn.delete(tables.META, tables.META_CANDIDATE)
    else:
        anchor = anchor_of(last[1])
        _note_tip(txn, anchor.height, anchor.hash)
    provisional.shortened(txn)


def cut(txn: WriteTransaction, height: int, head_height: int) -> None:
    """As `delete_from`; what is left is no candidate unless it ends above the executed head."""
    delete_from(txn, height)
    span = pending_span(txn)
    if span is not None and span[1] <= head_height:
        delete_from(txn, 0)


def _note_tip(txn: WriteTransaction, height: int, block_hash: bytes) -> None:
    txn.put(tables.META, tables.META_CANDIDATE, tables.block_key(height, block_hash))


def follow(
    txn: WriteTransaction,
    config: ChainConfig,
    head: ChainHead,
    fork: int,
    undone: list[bytes],
) -> None:
    """Bring the candidate in line with a head that has just moved, in the same commit.

    The executed chain left its old course after height `fork`; `undone` are the headers taken
    off it, ascending. What has been executed is no longer pending; a candidate that is not
    longer, or that attaches too deep, is given up.
    """
    span = pending_span(txn)
    if span is None:
        return
    first, last = span
    if first <= head.height:
        # The usual course: what was pending has been executed, all of it or the first part.
        common = tables.height_key(min(last, head.height))
        if txn.get(tables.PENDING, common) == txn.get(tables.CANONICAL, common):
            txn.delete_range(
                tables.PENDING, tables.height_key(first), tables.height_key(head.height + 1)
            )
            if last <= head.height:
                txn.delete(tables.META, tables.META_CANDIDATE)
            provisional.shortened(txn)
            return
    if last <= head.height:
        delete_from(txn, 0)
        return
    # It goes another way. It may stand on blocks that were undone: they are pending again.
    for raw in undone[: max(0, first - 1 - fork)]:
        txn.put(tables.PENDING, tables.height_key(anchor_of(raw).height), raw)
    first = min(first, fork + 1)
    while first <= head.height:
        key = tables.height_key(first)
        if txn.get(tables.PENDING, key) != txn.get(tables.CANONICAL, key):
            break
        txn.delete(tables.PENDING, key)
        first += 1
    provisional.shortened(txn)
    try:
        check_finality(txn, config, head, first - 1)
    except FinalityError:
        delete_from(txn, 0)
