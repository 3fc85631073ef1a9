"""Headers taken in without a look at their signatures, since a checkpoint above will cover them.

A hash fixes every byte of every header below it, so that headers up to a checkpoint, or to the
block of `assume_valid`, need no signature checks once the candidate has reached it. Until then they
are provisional: they lie at the end of the pending headers, from the height on that
`META_PROVISIONAL` names, and nothing is made of them. That height is written in the same commit as
they are, so that a crash leaves none that counts as checked.
"""

from __future__ import annotations

from ..storage import ReadTransaction, WriteTransaction
from . import tables
from .genesis import ChainConfig
from .lookup import KnownHeader, one, pending_span


def first_height(txn: ReadTransaction) -> int | None:
    """From where on pending headers are provisional; None if they are not."""
    stored = txn.get(tables.META, tables.META_PROVISIONAL)
    return None if stored is None else tables.parse_height(stored)


def holds(txn: ReadTransaction, header: KnownHeader) -> bool:
    """Whether a known header is one of them."""
    first = first_height(txn)
    return first is not None and header.place == tables.PENDING and header.height >= first


def checked_span(txn: ReadTransaction) -> tuple[int, int] | None:
    """(first, last) height of the pending headers that are not provisional, if there are any."""
    span, first = pending_span(txn), first_height(txn)
    if span is None or first is None:
        return span
    last = min(span[1], first - 1)
    return (span[0], last) if span[0] <= last else None


def extended(
    txn: WriteTransaction, config: ChainConfig, start: int, tip: int, trusted_to: int
) -> None:
    """The candidate got headers `start` … `tip`, and signatures were checked above `trusted_to`
    only; each header obeys the checkpoints."""
    first = first_height(txn)
    if first is None:
        if start > trusted_to:
            return
        first = start
    covered = max((at for at in _covering(txn, config) if first <= at <= tip), default=None)
    if covered is not None:
        whole = covered >= start and covered >= trusted_to  # what lies above has been checked
        first = tip + 1 if whole else covered + 1
    _note(txn, first, tip)


def _covering(txn: ReadTransaction, config: ChainConfig) -> list[int]:
    """The heights whose hash, which the candidate has, covers what lies below."""
    found = list(config.checkpoints)  # which every header obeys
    if config.assume_valid is not None:
        height, block_hash = config.assume_valid
        raw = txn.get(tables.PENDING, tables.height_key(height))
        if raw is not None and one(raw).hash(0) == block_hash:
            found.append(height)
    return found


def confirmed(txn: WriteTransaction, height: int) -> None:
    """The signatures of the provisional headers up to `height` were checked after all."""
    span = pending_span(txn)
    _note(txn, height + 1, span[1] if span else 0)


def shortened(txn: WriteTransaction) -> None:
    """The candidate lost headers at either end, or all."""
    first = first_height(txn)
    if first is not None:
        start, tip = pending_span(txn) or (0, 0)
        _note(txn, max(first, start), tip)


def _note(txn: WriteTransaction, first: int, tip: int) -> None:
    if first > tip:
        txn.delete(tables.META, tables.META_PROVISIONAL)
    else:
        txn.put(tables.META, tables.META_PROVISIONAL, tables.height_key(first))
