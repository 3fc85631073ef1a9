"""Checking headers, blocks and transactions against the rules of a chain."""

from __future__ import annotations

from typing import Final

from ..errors import HeaderChainError, InvalidTransactionError
from ..runtime import Runtime
from .block import Block, BlockHeader
from .chain import Blockchain
from .genesis import ChainConfig
from .lookup import HeaderBatch, one
from .prepared import PreparedBody, prepare_bodies, prepare_body
from .rules import (
    BLOCK_RULES,
    HEADER_RULES,
    TRANSACTION_RULES,
    verify_header_signatures,
)
from .state import StateDB
from .transaction import Transaction

__all__ = [
    "BLOCK_RULES",
    "HEADER_RULES",
    "TRANSACTION_RULES",
    "BlockValidator",
    "HeaderBatch",
    "PreparedBody",
    "prepare_bodies",
    "prepare_body",
    "verify_header_signatures",
]


class BlockValidator:
    """The rules of one chain, with the chain that they are checked against (`chain`).

    Its methods change nothing; `chain.import_block` is what takes a block in.
    """

    def __init__(
        self, state_db: StateDB, config: ChainConfig, *, runtime: Runtime | None = None
    ) -> None:
        """Open the chain in the store of `state_db`; see `Blockchain`."""
        self.state_db: Final = state_db
        self.config: Final = config
        self.chain: Final = Blockchain(state_db.store, config, runtime=runtime)

    def validate_header(self, header: BlockHeader) -> None:
        """Check a header against the known one under it, and its signature.

        HeaderChainError, UnknownParentError, FinalityError; InvalidBlockError where it is
        remembered as invalid.
        """
        batch = one(header.encode())
        self.chain.check_headers(batch)
        if verify_header_signatures(batch) is not None:
            raise HeaderChainError(0, header.height, "signature")

    def validate_block(self, block: Block) -> None:
        """Check all of a block that would be the next after the head, execution included.

        Raises as `validate_header`; InvalidBlockError names the rule that its body breaks.
        UnknownParentError where it does not stand on the head, for only there is the state at
        hand.
        """
        self.validate_header(block.header)
        self.chain.try_block(block)

    def validate_transaction(self, transaction: Transaction) -> None:
        """Check a transaction as the next of its sender on the head's state.

        InvalidTransactionError names the rule.
        """
        sender = transaction.validate(self.config.chain_id, self.config.gas_limit)
        account = self.chain.get_account(sender)
        if transaction.nonce != account.nonce:
            raise InvalidTransactionError(
                "nonce", f"{transaction.nonce}, its sender is at {account.nonce}", transaction.hash
            )
        if account.balance < transaction.max_cost:
            raise InvalidTransactionError(
                "balance", f"{account.balance}, needs {transaction.max_cost}", transaction.hash
            )
