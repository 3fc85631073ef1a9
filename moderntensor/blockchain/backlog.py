"""Bodies of old blocks, brought in below a state that was fetched, from the newest down."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CryptoError, InvalidBlockError, StorageError
from ..storage import WriteTransaction
from . import tables
from .block import EMPTY_BODY, MAX_BLOCK_SIZE
from .indices import IndexRows
from .lookup import one
from .prepared import PreparedBody


def add(txn: WriteTransaction, first: int, bodies: Sequence[PreparedBody]) -> None:
    """Keep the bodies of blocks `first` … of the chain, which end right below the earliest one
    that is here, and index their transactions. They are not executed.

    ValueError where they end elsewhere. InvalidBlockError, and the transaction is of no use then,
    where a body is not its header's (`body_only`), or holds what is no transaction.
    """
    stored = txn.get(tables.META, tables.META_EARLIEST)
    earliest = 0 if stored is None else tables.parse_height(stored)
    if not bodies or first < 0 or first + len(bodies) != earliest:
        raise ValueError(f"bodies {first} to {first + len(bodies)} do not end below {earliest}")
    rows = IndexRows()
    kept = []
    for height, body in enumerate(bodies, first):
        key = tables.height_key(height)
        raw = txn.get(tables.CANONICAL, key)
        if raw is None:
            raise StorageError(f"the store has no header of block {height}")
        header = one(raw)
        block_hash = header.hash(0)
        if body.root != header.txs_root(0):
            detail = body.fault if body.root is None and body.fault else "is not its header's"
            raise InvalidBlockError(height, block_hash, "body", detail, body_only=True)
        if body.raw == EMPTY_BODY:
            continue
        if body.fault is not None:
            raise InvalidBlockError(height, block_hash, "encoding", body.fault)
        if len(raw) + len(body.raw) > MAX_BLOCK_SIZE:
            raise InvalidBlockError(height, block_hash, "size", f"over {MAX_BLOCK_SIZE} bytes")
        try:
            rows.add(height, body.transactions)
        except CryptoError as error:
            raise InvalidBlockError(height, block_hash, "signature", str(error)) from error
        kept.append((key + block_hash, body.raw))
    txn.put_many(tables.BODIES, kept)
    rows.write(txn)
    if first:
        txn.put(tables.META, tables.META_EARLIEST, tables.height_key(first))
    else:
        txn.delete(tables.META, tables.META_EARLIEST)
