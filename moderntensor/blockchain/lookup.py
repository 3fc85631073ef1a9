"""Finding headers in the store, whichever table they are in."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..backend import headers
from ..errors import StorageError
from ..storage import ReadTransaction
from . import tables
from .chain_types import ChainHead

Anchor = headers.Anchor
HeaderBatch = headers.HeaderBatch
MAX_HEIGHT: Final = (1 << 64) - 1


class KnownHeader(NamedTuple):
    """A header in the store; `place` is the table it is in: canonical, pending or side."""

    place: str
    height: int
    raw: bytes


def one(raw: bytes) -> HeaderBatch:
    """A stored header, to read its fields."""
    return HeaderBatch.join((raw,))


def anchor_of(raw: bytes) -> Anchor:
    """What headers after this one attach to."""
    batch = one(raw)
    return Anchor(batch.hash(0), batch.height(0), batch.timestamp(0))


def head_of(raw: bytes) -> ChainHead:
    """The head of a chain that ends with this header."""
    batch = one(raw)
    return ChainHead(batch.height(0), batch.hash(0), batch.timestamp(0), batch.state_root(0))


def canonical_header(txn: ReadTransaction, where: int | bytes) -> bytes | None:
    """The header of the executed chain at a height, or of a hash; None if it has none."""
    if isinstance(where, int):
        in_range = 0 <= where <= MAX_HEIGHT
        return txn.get(tables.CANONICAL, tables.height_key(where)) if in_range else None
    stored = txn.get(tables.INDEX, where)
    if stored is None:
        return None
    raw = txn.get(tables.CANONICAL, stored)
    return raw if raw is not None and headers.header_hash(raw) == where else None


def find_header(txn: ReadTransaction, block_hash: bytes) -> KnownHeader | None:
    """The header of a hash, executed or not; None if unknown."""
    stored = txn.get(tables.INDEX, block_hash)
    if stored is None:
        return None
    height = tables.parse_height(stored)
    for table in (tables.CANONICAL, tables.PENDING):
        raw = txn.get(table, stored)
        if raw is not None and headers.header_hash(raw) == block_hash:
            return KnownHeader(table, height, raw)
    raw = txn.get(tables.SIDE, tables.block_key(height, block_hash))
    if raw is None:
        raise StorageError(f"the index names header {block_hash.hex()}, which is nowhere")
    return KnownHeader(tables.SIDE, height, raw)


def pending_span(txn: ReadTransaction) -> tuple[int, int] | None:
    """(first, last) height of the pending headers, or None if there are none."""
    first, last = txn.first(tables.PENDING), txn.last(tables.PENDING)
    if first is None or last is None:
        return None
    return tables.parse_height(first[0]), tables.parse_height(last[0])


def pending_headers(txn: ReadTransaction, start: int, count: int) -> HeaderBatch:
    """Up to `count` pending headers from height `start` on."""
    return HeaderBatch.join(txn.values(tables.PENDING, *height_range(start, start + count)))


def height_range(start: int, stop: int) -> tuple[bytes, bytes]:
    """The keys of heights from `start` to before `stop`, either of which may be any number."""
    return (
        tables.height_key(min(max(start, 0), MAX_HEIGHT)),
        tables.height_key(min(max(stop, 0), MAX_HEIGHT)),
    )
