"""What people want to see of a chain: several things together, all as of one commit.

What a node's peers ask for is in `chain_reader`; these are slower and say more.
"""

from __future__ import annotations

from typing import NamedTuple

from ..storage import ReadTransaction, Store
from . import tables
from .block import EMPTY_BODY, ZERO_HASH, BlockHeader
from .chain_types import ChainHead
from .lookup import canonical_header, find_header, head_of, height_range, one
from .prepared import split_body
from .state import Account, read_account
from .transaction import Transaction, identify

__all__ = [
    "BlockMissing",
    "FoundBlock",
    "PlacedTransaction",
    "account_at_head",
    "find_block",
    "headers_below",
    "transaction_at",
    "transactions_page",
]


class PlacedTransaction(NamedTuple):
    """A transaction of the executed chain."""

    transaction: Transaction
    height: int
    position: int


class FoundBlock(NamedTuple):
    """A block of the executed chain, its transactions' senders recovered; `size` in bytes."""

    header: BlockHeader
    transactions: tuple[Transaction, ...]
    size: int


class BlockMissing(NamedTuple):
    """Why there is no block to show: its header is `known`, on another branch or not executed yet;
    or it is `executed` and its transactions are not here."""

    known: bool = False
    executed: int | None = None
    """Its height, where it is executed."""


def _header(txn: ReadTransaction, where: int | bytes | None) -> bytes | None:
    if where is None:
        last = txn.last(tables.CANONICAL)
        return None if last is None else last[1]
    return canonical_header(txn, where)


def _body(txn: ReadTransaction, raw: bytes) -> bytes | None:
    batch = one(raw)
    if batch.txs_root(0) == ZERO_HASH:
        return EMPTY_BODY
    return txn.get(tables.BODIES, tables.block_key(batch.height(0), batch.hash(0)))


def find_block(
    store: Store, where: int | bytes | None, *, body: bool = True
) -> FoundBlock | BlockMissing:
    """The block at a height, of a hash, or at the head (None); without its body the header alone,
    and a size of 0."""
    with store.read() as txn:
        raw = _header(txn, where)
        if raw is None:
            known = isinstance(where, bytes) and find_header(txn, where) is not None
            return BlockMissing(known=known)
        encoded = _body(txn, raw) if body else None
    header = BlockHeader.decode(raw)
    if not body:
        return FoundBlock(header, (), 0)
    if encoded is None:
        return BlockMissing(executed=header.height)
    transactions = tuple(Transaction.decode_hashed(each) for each in split_body(encoded))
    identify(transactions)
    return FoundBlock(header, transactions, len(raw) + len(encoded))


def headers_below(
    store: Store, stop: int | None, limit: int, body_bytes: int
) -> list[tuple[BlockHeader, int | None]]:
    """Up to `limit` headers of the executed chain below height `stop` (None: from the head down),
    the highest first, each with the number of its transactions: of the first ones, until
    `body_bytes` of bodies were read for that, and of those without any."""
    with store.read() as txn:
        last = txn.last(tables.CANONICAL)
        if last is None:
            return []
        top = tables.parse_height(last[0]) + 1
        top = top if stop is None else min(top, stop)
        found: list[tuple[bytes, int | None]] = []
        for raw in reversed(txn.values(tables.CANONICAL, *height_range(top - limit, top))):
            count: int | None = 0
            if one(raw).txs_root(0) != ZERO_HASH:
                body = _body(txn, raw) if body_bytes > 0 else None
                count = None if body is None else int.from_bytes(body[:4], "big")
                body_bytes -= 0 if body is None else len(body)
            found.append((raw, count))
    return [(BlockHeader.decode(raw), count) for raw, count in found]


def transaction_at(store: Store, tx_hash: bytes) -> PlacedTransaction | None:
    """An executed transaction by its hash, its sender recovered."""
    with store.read() as txn:
        place = txn.get(tables.TX_INDEX, tx_hash)
        if place is None:
            return None
        height, position = tables.parse_location(place)
        raw = canonical_header(txn, height)
        body = None if raw is None else _body(txn, raw)
    if body is None:
        return None
    found = Transaction.decode_hashed(split_body(body)[position])
    identify((found,))
    return PlacedTransaction(found, height, position)


def transactions_page(
    store: Store, address: bytes, limit: int, before: bytes | None, body_bytes: int
) -> tuple[list[PlacedTransaction], bool] | None:
    """Transactions that `address` sent or received, the newest first, and whether there are more:
    up to `limit`, and no block is begun after `body_bytes` of bodies were read.

    `before` is the hash of the last one of the page before; None where it is none of the chain's.
    """
    start, stop = tables.address_key(address), tables.prefix_end(address)
    encoded: list[tuple[bytes, int, int]] = []
    with store.read() as txn:
        if before is not None:
            place = txn.get(tables.TX_INDEX, before)
            if place is None:
                return None
            stop = address + place
        keys = txn.range(tables.ADDRESS_INDEX, start, stop, limit=limit + 1, reverse=True)
        height, block = -1, list[bytes]()
        for key, _ in keys[:limit]:
            at, position = tables.parse_address_key(key)
            if at != height:
                raw = canonical_header(txn, at)
                body = _body(txn, raw) if raw is not None and body_bytes > 0 else None
                if body is None:
                    break
                body_bytes -= len(body)
                height, block = at, split_body(body)
            encoded.append((block[position], at, position))
    transactions = [Transaction.decode_hashed(raw) for raw, _, _ in encoded]
    identify(transactions)
    page = [
        PlacedTransaction(tx, at, position)
        for tx, (_, at, position) in zip(transactions, encoded, strict=True)
    ]
    return page, len(keys) > len(page)


def account_at_head(store: Store, address: bytes) -> tuple[Account, ChainHead]:
    """An account, zeros where there is none, and the head after which it is so."""
    with store.read() as txn:
        last = txn.last(tables.CANONICAL)
        head = ChainHead(0, ZERO_HASH, 0, ZERO_HASH) if last is None else head_of(last[1])
        return read_account(txn, address), head
