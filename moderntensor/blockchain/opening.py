"""Opening the chain in a store: a new one begins with its genesis block, an old one is checked."""

from __future__ import annotations

import logging
from typing import Final

from ..errors import ConfigError, FinalityError, StorageError
from ..storage import ReadTransaction, Store, WriteTransaction
from . import candidates, provisional, tables
from .chain_types import ChainHead
from .crypto import sha256
from .genesis import ChainConfig
from .lookup import canonical_header, head_of, one, pending_headers, pending_span
from .state import Account, state_is_here
from .state_build import Rows, build_state
from .state_slots import active, clear_unused

log = logging.getLogger(__name__)

_SCHEMA: Final = tables.SCHEMA_VERSION.to_bytes(4, "big")
_SCHEMAS: Final = (_SCHEMA, tables.SCHEMA_ADOPTED.to_bytes(4, "big"))
_RECORDS_AT_ONCE: Final = 4096  # first balances, encoded


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
    with store.read() as txn:
        lacks_state = not state_is_here(txn, head.state_root)
    if lacks_state and config.alloc and head.height == 0:  # it was begun with the root alone
        with store.write() as write:
            _write_alloc(write, config, head.state_root)
    clear_unused(store)
    return head


def _begin(txn: WriteTransaction, config: ChainConfig) -> ChainHead:
    raw = config.genesis_header.encode()
    head = head_of(raw)
    if config.alloc:
        _write_alloc(txn, config, head.state_root)
    key = tables.height_key(0)
    txn.put(tables.CANONICAL, key, raw)
    txn.put(tables.INDEX, head.hash, key)
    txn.put(tables.META, tables.META_SCHEMA, _SCHEMA)
    txn.put(tables.META, tables.META_GENESIS, head.hash)
    txn.put(tables.META, tables.META_HEAD, tables.block_key(0, head.hash))
    return head


def _write_alloc(txn: WriteTransaction, config: ChainConfig, root: bytes) -> None:
    """Write the first balances as the state."""
    slot = active(txn)

    def put(rows: Rows, nodes: Rows) -> None:
        txn.append_many(slot.accounts, rows)
        txn.put_many(slot.nodes, nodes)

    addresses = sorted(config.alloc, key=sha256)
    records = (
        b"".join(
            address + Account(nonce=0, balance=config.alloc[address]).encode()
            for address in addresses[at : at + _RECORDS_AT_ONCE]
        )
        for at in range(0, len(addresses), _RECORDS_AT_ONCE)
    )
    if build_state(records, put)[0] != root:
        raise StorageError("the first balances do not lead to the state root of the genesis")


def _check(txn: ReadTransaction, config: ChainConfig) -> ChainHead:
    schema = txn.get(tables.META, tables.META_SCHEMA)
    if schema not in _SCHEMAS:
        found = int.from_bytes(schema or b"", "big")
        raise StorageError(
            f"the store has schema version {found}, this program knows "
            f"{tables.SCHEMA_VERSION} and {tables.SCHEMA_ADOPTED}"
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
    _check_adopted(txn, head, schema)
    for height, expected in config.checkpoints.items():
        raw = canonical_header(txn, height)
        if raw is not None and one(raw).hash(0) != expected:
            raise ConfigError(f"checkpoints.{height}: contradicts the chain in the store")
    return head


def _check_adopted(txn: ReadTransaction, head: ChainHead, schema: bytes | None) -> None:
    """StorageError where what a state that was adopted leaves behind cannot be."""
    slot = txn.get(tables.META, tables.META_STATE)
    earliest = txn.get(tables.META, tables.META_EARLIEST)
    if slot not in (None, b"\0", b"\1") or (slot is not None and schema == _SCHEMA):
        raise StorageError("the store does not say which of its state slots is active")
    if earliest is not None and not 0 < tables.parse_height(earliest) <= head.height + 1:
        raise StorageError(
            f"the store has bodies from block {tables.parse_height(earliest)} on, and ends at "
            f"{head.height}"
        )


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
