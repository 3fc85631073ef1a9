"""Opening the chain in a store: a new one begins with its genesis block, an old one is checked."""

from __future__ import annotations

import logging
from typing import Final

from ..errors import ConfigError, FinalityError, StorageError
from ..storage import ReadTransaction, Store, WriteTransaction
from . import candidates, provisional, tables
from .chain_types import ChainHead
from .genesis import ChainConfig
from .lookup import canonical_header, head_of, one, pending_headers, pending_span
from .state import Account, apply_changes

log = logging.getLogger(__name__)

_SCHEMA: Final = tables.SCHEMA_VERSION.to_bytes(4, "big")


def open_chain(store: Store, config: ChainConfig) -> ChainHead:
    """The executed head of the chain in `store`, which is begun if the store is empty.

    Nothing is written unless all that is there belongs to this chain: StorageError for a store
    of another schema, of another genesis, or at odds with itself; ConfigError where a
    checkpoint contradicts the blocks that are there.
    """
    with store.read() as txn:
        if txn.get(tables.META, tables.META_SCHEMA) is None:
            occupied = [name for name in tables.TABLES if txn.first(name) is not None]
            head = None
        else:
            occupied = []
            head = _check(txn, config)
            sound = head is None or _pending_is_sound(txn, config, head)
    if occupied:
        raise StorageError(f"the store holds data of no known schema (in {', '.join(occupied)})")
    if head is None:
        with store.write() as write:
            return _begin(write, config)
    if not sound:
        log.warning("headers that wait for their bodies do not fit this configuration: dropped")
        with store.write() as write:
            candidates.delete_from(write, 0)
    return head


def _begin(txn: WriteTransaction, config: ChainConfig) -> ChainHead:
    raw = config.genesis_header.encode()
    head = head_of(raw)
    accounts = {
        address: Account(nonce=0, balance=balance) for address, balance in config.alloc.items()
    }
    if apply_changes(txn, accounts) != head.state_root:
        raise StorageError("the first balances do not lead to the state root of the genesis")
    key = tables.height_key(0)
    txn.put(tables.CANONICAL, key, raw)
    txn.put(tables.INDEX, head.hash, key)
    txn.put(tables.META, tables.META_SCHEMA, _SCHEMA)
    txn.put(tables.META, tables.META_GENESIS, head.hash)
    txn.put(tables.META, tables.META_HEAD, tables.block_key(0, head.hash))
    return head


def _check(txn: ReadTransaction, config: ChainConfig) -> ChainHead:
    schema = txn.get(tables.META, tables.META_SCHEMA)
    if schema != _SCHEMA:
        found = int.from_bytes(schema or b"", "big")
        raise StorageError(
            f"the store has schema version {found}, this program knows {tables.SCHEMA_VERSION}"
        )
    genesis = txn.get(tables.META, tables.META_GENESIS) or b""
    if genesis != config.genesis_hash:
        raise StorageError(
            f"the store holds the chain of genesis {genesis.hex()}, not of "
            f"{config.genesis_hash.hex()}"
        )
    stored = txn.get(tables.META, tables.META_HEAD)
    last = txn.last(tables.CANONICAL)
    if stored is None or last is None:
        raise StorageError("the store has no head")
    head = head_of(last[1])
    if stored != tables.block_key(head.height, head.hash) or last[0] != stored[:8]:
        raise StorageError("the head of the store is not the end of its chain")
    for height, expected in config.checkpoints.items():
        raw = canonical_header(txn, height)
        if raw is not None and one(raw).hash(0) != expected:
            raise ConfigError(f"checkpoints.{height}: contradicts the chain in the store")
    return head


def _pending_is_sound(txn: ReadTransaction, config: ChainConfig, head: ChainHead) -> bool:
    """Whether the pending headers attach, are longer, and obey settings that may have changed."""
    span = pending_span(txn)
    unchecked = provisional.first_height(txn)
    if span is None:
        return txn.get(tables.META, tables.META_CANDIDATE) is None and unchecked is None
    first, last = span
    below = canonical_header(txn, first - 1)
    ends = pending_headers(txn, first, 1), pending_headers(txn, last, 1)
    return (
        below is not None
        and last > head.height
        and (unchecked is None or unchecked <= last)
        and txn.count(tables.PENDING) == last - first + 1
        and ends[0].previous_hash(0) == one(below).hash(0)
        and txn.get(tables.META, tables.META_CANDIDATE) == tables.block_key(last, ends[1].hash(0))
        and all(
            pending_headers(txn, height, 1).hash(0) == expected
            for height, expected in config.checkpoints.items()
            if first <= height <= last
        )
        and _may_be_left(txn, config, head, first - 1)
    )


def _may_be_left(txn: ReadTransaction, config: ChainConfig, head: ChainHead, fork: int) -> bool:
    try:
        candidates.check_finality(txn, config, head, fork)
    except FinalityError:
        return False
    return True
