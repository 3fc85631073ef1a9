"""The rules of headers, transactions and blocks by name, and the checks of signatures.

What else a header must obey is walked by `backend.headers` over whole batches; what needs state
is in `execution`.
"""

from __future__ import annotations

from typing import Final

from ..backend import headers
from ..errors import CryptoError, InvalidTransactionError
from .block import ZERO_HASH
from .crypto import verify_signatures
from .transaction import Transaction

__all__ = [
    "BLOCK_RULES",
    "HEADER_RULES",
    "TRANSACTION_RULES",
    "ZERO_HASH",
    "check_transaction",
    "verify_header_signatures",
]

#: Rules that a header may break, cheapest first: `HeaderChainError.rule`.
HEADER_RULES: Final = (
    "version",
    "gas_limit",
    "gas_used",
    "height",
    "previous_hash",
    "slot",
    "future",
    "checkpoint",
    "validator",
    "signature",
)

#: Rules that a transaction may break, in the order in which they are tried:
#: `InvalidTransactionError.rule`, and `InvalidBlockError.rule` of the block that holds it.
TRANSACTION_RULES: Final = (
    "encoding",  # not the one canonical encoding of a transaction
    "chain_id",
    "signature",
    "nonce",
    "gas_limit",  # below the intrinsic gas
    "block_gas",  # the gas of the block's transactions exceeds the block's limit
    "gas_price",
    "balance",
)

#: Rules that a block may break as a whole: `InvalidBlockError.rule`.
BLOCK_RULES: Final = (
    "body",  # not what the header's txs_root says; says nothing about the header
    "size",
    "gas_used",
    "receipts_root",
    "state_root",
    "ancestor",  # stands on a block that is remembered as invalid
)


def verify_header_signatures(
    batch: headers.HeaderBatch, start: int = 0, stop: int | None = None
) -> int | None:
    """Check the signatures of headers `start` to `stop` (exclusive; None: the end).

    Returns the index of the first bad one, or None if all are good. The GIL is released once
    for all of them, so slices of one batch may be checked on several threads.
    """
    bad = verify_signatures(batch.signature_items(start, stop))
    return None if bad is None else start + bad


def check_transaction(transaction: Transaction, chain_id: int, gas_limit: int) -> bytes:
    """The rules that need no state, for a transaction outside a block: its sender's address.

    `gas_limit` is a block's: a transaction that uses more can never be included.
    InvalidTransactionError names the rule.
    """
    if transaction.chain_id != chain_id:
        raise InvalidTransactionError(
            "chain_id", f"{transaction.chain_id}, this chain is {chain_id}", transaction.hash
        )
    try:
        sender = transaction.sender
    except CryptoError as error:
        raise InvalidTransactionError("signature", str(error), transaction.hash) from error
    intrinsic = transaction.intrinsic_gas
    if transaction.gas_limit < intrinsic:
        raise InvalidTransactionError(
            "gas_limit", f"{transaction.gas_limit}, needs {intrinsic}", transaction.hash
        )
    if intrinsic > gas_limit:
        raise InvalidTransactionError(
            "block_gas", f"{intrinsic}, a block has {gas_limit}", transaction.hash
        )
    if transaction.gas_price < 1:
        raise InvalidTransactionError("gas_price", "0, at least 1", transaction.hash)
    return sender
