"""What can be asked of a chain. Every answer is of one commit, and is plain bytes or values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from ..backend import headers
from ..storage import ReadTransaction, Store
from . import tables
from .block import EMPTY_BODY, ZERO_HASH, Block, BlockHeader
from .evidence import Evidence, kept
from .genesis import ChainConfig
from .lookup import (
    HeaderBatch,
    canonical_header,
    find_header,
    height_range,
    one,
    pending_headers,
    pending_span,
)
from .prepared import split_body
from .provisional import checked_span, first_height
from .state import Account, decode_funds, read_account, read_encoded_from
from .state_slots import active
from .transaction import Transaction, TransactionReceipt

MAX_HEADERS_RANGE: Final = 65_535  # what the count of a list16 can say
MAX_LOCATOR: Final = 64  # GET_HEADERS.locator
LOCATOR_DENSE: Final = 10  # newest hashes without gaps, as in Bitcoin's block locator

Where = int | bytes


class ChainReader:
    """Reading a chain; unless said otherwise, the executed one. Safe on any thread."""

    def __init__(self, store: Store, config: ChainConfig) -> None:
        self.store = store
        self.config = config
        self.genesis_hash = config.genesis_hash
        self.earliest_height = 0
        """From this height on all bodies are here; those below, but for what a chain of before
        has left, are not: the state came from others."""

    def _note_earliest(self, txn: ReadTransaction) -> None:
        stored = txn.get(tables.META, tables.META_EARLIEST)
        self.earliest_height = 0 if stored is None else tables.parse_height(stored)

    # --- headers ----------------------------------------------------------------------------

    def header_bytes(self, where: Where) -> bytes | None:
        """The encoded header at a height, or of a hash."""
        with self.store.read() as txn:
            return canonical_header(txn, where)

    def get_header(self, where: Where) -> BlockHeader | None:
        """The header at a height, or of a hash."""
        raw = self.header_bytes(where)
        return None if raw is None else BlockHeader.decode(raw)

    def hash_at(self, height: int) -> bytes | None:
        """The hash of the block at a height."""
        raw = self.header_bytes(height)
        return None if raw is None else headers.header_hash(raw)

    def height_of(self, block_hash: bytes) -> int | None:
        """The height of a block of the executed chain."""
        raw = self.header_bytes(block_hash)
        return None if raw is None else one(raw).height(0)

    def is_known(self, block_hash: bytes) -> bool:
        """Whether the header of this hash is here: executed, pending, or on another branch."""
        with self.store.read() as txn:
            return txn.get(tables.INDEX, block_hash) is not None

    def headers_range(
        self, start: int, count: int, stride: int = 1, *, prefix: bytes = b""
    ) -> bytes:
        """The `list16[header]` encoding of up to `count` headers from `start` on, every
        `stride`-th; as many as there are up to the head. `prefix` goes before it."""
        if start < 0 or stride < 1:
            raise ValueError("start is at least 0, stride at least 1")
        count = max(0, min(count, MAX_HEADERS_RANGE))
        with self.store.read() as txn:
            if stride == 1:
                # Heights have no gaps, so that a count says where to stop.
                first, _ = height_range(start, start)
                found = txn.values(tables.CANONICAL, first, limit=count)
            else:
                found = _strided(txn, range(start, start + count * stride, stride))
        found.insert(0, prefix + len(found).to_bytes(2, "big"))
        return b"".join(found)

    # --- blocks -----------------------------------------------------------------------------

    def get_block(self, where: Where) -> Block | None:
        """The block at a height, or of a hash."""
        with self.store.read() as txn:
            raw = canonical_header(txn, where)
            body = None if raw is None else _body(txn, raw)
        return None if raw is None or body is None else Block.assemble(raw, body)

    def blocks_range(self, start: int, stop: int, max_bytes: int) -> list[bytes]:
        """Encoded blocks from height `start` to before `stop`, or to the head.

        Ends before `max_bytes` are exceeded, but holds at least one block if there is one.
        """
        if start < 0:
            raise ValueError("start is at least 0")
        found: list[bytes] = []
        size = 0
        with self.store.read() as txn:
            for height in range(start, stop):
                raw = canonical_header(txn, height)
                body = None if raw is None else _body(txn, raw)
                if raw is None or body is None:
                    break
                size += len(raw) + len(body)
                if found and size > max_bytes:
                    break
                found.append(raw + body)
        return found

    def body_of(self, block_hash: bytes) -> bytes | None:
        """The encoded body of any known block, executed or not; None where it is not here."""
        with self.store.read() as txn:
            header = find_header(txn, block_hash)
            return None if header is None else _body(txn, header.raw)

    def is_pruned(self, block_hash: bytes) -> bool:
        """Whether a block is on the chain, without its body being here."""
        with self.store.read() as txn:
            raw = canonical_header(txn, block_hash)
            return raw is not None and _body(txn, raw) is None

    # --- transactions -----------------------------------------------------------------------

    def get_transaction(self, tx_hash: bytes) -> tuple[Transaction, int, int] | None:
        """A transaction with the height of its block and its position there."""
        with self.store.read() as txn:
            place = txn.get(tables.TX_INDEX, tx_hash)
            if place is None:
                return None
            height, position = tables.parse_location(place)
            raw = _transactions_at(txn, height)[position]
        return Transaction.decode(raw), height, position

    def get_receipt(self, tx_hash: bytes) -> TransactionReceipt | None:
        """What became of a transaction."""
        found = self.get_transaction(tx_hash)
        if found is None:
            return None
        return TransactionReceipt(transaction_hash=tx_hash, gas_used=found[0].intrinsic_gas)

    def transactions_of(
        self, address: bytes, limit: int = 100, before: bytes | None = None
    ) -> list[bytes]:
        """Hashes of up to `limit` transactions that `address` sent or received, newest first.

        `before` is the last hash of the previous page; an unknown one gives an empty page.
        """
        start, stop = tables.address_key(address), tables.prefix_end(address)
        with self.store.read() as txn:
            if before is not None:
                place = txn.get(tables.TX_INDEX, before)
                if place is None:
                    return []
                stop = address + place
            keys = txn.range(tables.ADDRESS_INDEX, start, stop, limit=limit, reverse=True)
            hashes = []
            height, block = -1, list[bytes]()
            for key, _ in keys:
                at, position = tables.parse_address_key(key)
                if at != height:
                    height, block = at, _transactions_at(txn, at)
                hashes.append(Transaction.decode(block[position]).hash)
        return hashes

    # --- state ------------------------------------------------------------------------------

    def get_account(self, address: bytes) -> Account:
        """An account as of the head; nonce 0 and balance 0 where there is none."""
        with self.store.read() as txn:
            return read_account(txn, address)

    def get_funds(self, addresses: Sequence[bytes]) -> list[tuple[int, int]]:
        """Nonce and balance of each address, all as of one head; zeros where there is none."""
        with self.store.read() as txn:
            accounts = active(txn).accounts
            return [
                decode_funds(read_encoded_from(txn, accounts, address)) for address in addresses
            ]

    # --- validators that broke the rules ----------------------------------------------------

    def evidence(self) -> list[Evidence]:
        """Pairs of headers of one height under one validator's key, the latest 1,024."""
        with self.store.read() as txn:
            return kept(txn)

    # --- where two chains meet --------------------------------------------------------------

    def locator(self, of: Literal["pending", "canonical"] = "pending") -> tuple[bytes, ...]:
        """At most 64 hashes, newest first, dense at the tip and ever sparser down to genesis.

        Of the candidate where there is one (`"pending"`), or of the executed chain alone.
        """
        with self.store.read() as txn:
            last = txn.last(tables.CANONICAL)
            tip = tables.parse_height(last[0]) if last else 0
            span = pending_span(txn) if of == "pending" else None
            first = tip + 1
            if span is not None:
                first, tip = span
            hashes = []
            for height in _locator_heights(tip):
                key = tables.height_key(height)
                raw = txn.get(tables.PENDING if height >= first else tables.CANONICAL, key)
                if raw is not None:
                    hashes.append(headers.header_hash(raw))
        return tuple(hashes)

    def find_fork(self, locator: Iterable[bytes]) -> int | None:
        """The height of the first of these hashes that is on the executed chain."""
        with self.store.read() as txn:
            for block_hash in locator:
                raw = canonical_header(txn, block_hash)
                if raw is not None:
                    return one(raw).height(0)
        return None

    # --- what waits for its bodies ----------------------------------------------------------

    def pending_span(self) -> tuple[int, int] | None:
        """First and last height whose bodies are to be applied next; None if there are none.

        A first height at or below the head's is a reorganisation.
        """
        with self.store.read() as txn:
            return checked_span(txn)

    def candidate_span(self) -> tuple[int, int] | None:
        """As `pending_span`, with the headers that are provisional."""
        with self.store.read() as txn:
            return pending_span(txn)

    def provisional_height(self) -> int | None:
        """From where on pending headers are provisional; None if they are not."""
        with self.store.read() as txn:
            return first_height(txn)

    def provisional_headers(self, count: int) -> HeaderBatch:
        """The first `count` of the provisional headers, or as many as there are."""
        with self.store.read() as txn:
            first = first_height(txn)
            return pending_headers(txn, first or 0, 0 if first is None else count)

    def has_header(self, height: int, block_hash: bytes) -> bool:
        """Whether the executed chain, or the pending headers, provisional or not, have this."""
        with self.store.read() as txn:
            found = find_header(txn, block_hash)
            return found is not None and found.place != tables.SIDE and found.height == height

    def pending_batch(self, start: int, count: int) -> HeaderBatch:
        """Up to `count` pending headers from height `start` on, none of them provisional."""
        with self.store.read() as txn:
            span = checked_span(txn)
            count = 0 if span is None else min(count, span[1] + 1 - start)
            return pending_headers(txn, start, count)

    def pending_hashes(self, start: int, count: int) -> list[tuple[int, bytes, bytes]]:
        """(height, hash, txs_root) of up to `count` pending headers from `start` on, none of them
        provisional."""
        batch = self.pending_batch(start, count)
        return [(batch.height(i), batch.hash(i), batch.txs_root(i)) for i in range(len(batch))]


def _strided(txn: ReadTransaction, heights: range) -> list[bytes]:
    found = []
    for height in heights:
        raw = canonical_header(txn, height)
        if raw is None:
            break
        found.append(raw)
    return found


def _body(txn: ReadTransaction, header: bytes) -> bytes | None:
    batch = one(header)
    if batch.txs_root(0) == ZERO_HASH:
        return EMPTY_BODY
    return txn.get(tables.BODIES, tables.block_key(batch.height(0), batch.hash(0)))


def _transactions_at(txn: ReadTransaction, height: int) -> list[bytes]:
    """The encoded transactions of the executed block at a height."""
    raw = canonical_header(txn, height)
    body = None if raw is None else _body(txn, raw)
    return [] if body is None else split_body(body)


def _locator_heights(tip: int) -> list[int]:
    heights: list[int] = []
    height, step = tip, 1
    while height > 0 and len(heights) < MAX_LOCATOR - 1:
        heights.append(height)
        if len(heights) >= LOCATOR_DENSE:
            step *= 2
        height -= step
    return [*heights, 0]
