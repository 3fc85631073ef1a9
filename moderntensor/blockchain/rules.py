"""The rules of headers, transactions and blocks by name, and the checks of signatures.

What else a header must obey is walked by `backend.headers` over whole batches; what needs state
is in `execution`.
"""

from __future__ import annotations

from typing import Final

from ..backend import headers
from ..runtime import SignatureMemo
from .crypto import verify_signatures

__all__ = [
    "BLOCK_RULES",
    "HEADER_RULES",
    "TRANSACTION_RULES",
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
    batch: headers.HeaderBatch,
    start: int = 0,
    stop: int | None = None,
    memo: SignatureMemo | None = None,
) -> int | None:
    """Check the signatures of headers `start` to `stop` (exclusive; None: the end).

    Returns the index of the first bad one, or None if all are good. The GIL is released once
    for all of them, so slices of one batch may be checked on several threads. `memo`: what others
    have checked already, where they are believed (`Runtime.signatures`).
    """
    bad = verify_signatures(batch.signature_items(start, stop), memo)
    return None if bad is None else start + bad
