"""Headers, transactions and blocks as RLP records: the fields of ours, in their order.

`rlp` is asked for what its documentation shows: `Serializable` classes with a sedes for each
field, `rlp.encode(record)` and `rlp.decode(data, Class)`. Numbers are big-endian without leading
zeros, whatever their width, and a missing recipient is the empty string, as on Ethereum.
"""

from __future__ import annotations

from typing import Any, Final

import rlp
from rlp.sedes import Binary, CountableList, big_endian_int, binary

from moderntensor.blockchain.block import MAX_EXTRA_DATA, Block, BlockHeader
from moderntensor.blockchain.transaction import Transaction

_HASH: Final = Binary.fixed_length(32)
_SIGNATURE: Final = Binary.fixed_length(64)
_RECIPIENT: Final = Binary.fixed_length(20, allow_empty=True)


class RlpTransaction(rlp.Serializable):
    """A `Transaction`."""

    fields = (
        ("chain_id", big_endian_int),
        ("nonce", big_endian_int),
        ("to", _RECIPIENT),
        ("value", big_endian_int),
        ("gas_price", big_endian_int),
        ("gas_limit", big_endian_int),
        ("data", binary),
        ("v", big_endian_int),
        ("r", _HASH),
        ("s", _HASH),
    )


class RlpHeader(rlp.Serializable):
    """A `BlockHeader`."""

    fields = (
        ("version", big_endian_int),
        ("height", big_endian_int),
        ("timestamp", big_endian_int),
        ("previous_hash", _HASH),
        ("state_root", _HASH),
        ("txs_root", _HASH),
        ("receipts_root", _HASH),
        ("validator", _HASH),
        ("gas_used", big_endian_int),
        ("gas_limit", big_endian_int),
        ("extra_data", Binary(max_length=MAX_EXTRA_DATA)),
        ("signature", _SIGNATURE),
    )


class RlpBlock(rlp.Serializable):
    """A `Block`."""

    fields = (("header", RlpHeader), ("transactions", CountableList(RlpTransaction)))


def values(record: BlockHeader | Transaction) -> tuple[Any, ...]:
    """What the fields of one of our records hold, with RLP's empty string for None."""
    held = [getattr(record, name) for name, _ in record.__fields__]
    return tuple(b"" if value is None else value for value in held)


def rlp_transaction(transaction: Transaction) -> RlpTransaction:
    """The same transaction for `rlp`."""
    return RlpTransaction(*values(transaction))


def rlp_header(header: BlockHeader) -> RlpHeader:
    """The same header for `rlp`."""
    return RlpHeader(*values(header))


def rlp_block(block: Block) -> RlpBlock:
    """The same block for `rlp`."""
    return RlpBlock(rlp_header(block.header), [rlp_transaction(tx) for tx in block.transactions])
