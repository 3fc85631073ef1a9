"""Executing on top of the head without keeping anything: to check a block, or to make one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ..errors import InvalidTransactionError, UnknownParentError
from ..storage import Store, WriteTransaction
from .block import MAX_BLOCK_SIZE, MAX_HEADER_SIZE, Block, BlockHeader
from .branch import BranchWriter
from .chain_types import ChainHead
from .crypto import validator_address
from .genesis import ChainConfig
from .lookup import one
from .merkle import transactions_root
from .prepared import body_of_block
from .transaction import Transaction


class Draft(NamedTuple):
    """What is asked of a block that is to be made: under which x-only key, when (Unix seconds),
    with what, and whether what does not fit is left out."""

    validator: bytes
    timestamp: int
    transactions: tuple[Transaction, ...]
    skip_invalid: bool = False


class _DiscardedError(Exception):
    """Ends a write transaction without a trace."""


@contextmanager
def _discarded(store: Store) -> Iterator[WriteTransaction]:
    with suppress(_DiscardedError), store.write() as txn:
        yield txn
        raise _DiscardedError


def try_block(store: Store, config: ChainConfig, head: ChainHead, block: Block) -> None:
    """Execute `block` on `head` and keep nothing. InvalidBlockError, UnknownParentError."""
    if block.header.previous_hash != head.hash:
        raise UnknownParentError(f"block {block.hash.hex()} does not stand on the head")
    with _discarded(store) as txn:
        BranchWriter(txn, config, head, head.height + 1).apply(
            one(block.header.encode()), [body_of_block(block)], indexed=False
        )


def draft_block(store: Store, config: ChainConfig, head: ChainHead, draft: Draft) -> Block:
    """The unsigned block after `head` that executes as it says. InvalidTransactionError."""
    with _discarded(store) as txn:
        writer = BranchWriter(txn, config, head, head.height + 1)
        included, results = execute_draft(writer, draft)
        return assemble(head, config, draft, included, results)


def execute_draft(
    writer: BranchWriter, draft: Draft
) -> tuple[tuple[Transaction, ...], tuple[int, bytes, bytes]]:
    """The transactions that the block can hold, executed, and (gas_used, receipts_root,
    state_root)."""
    writer.begin_execution(validator_address(draft.validator))
    included = []
    room = MAX_BLOCK_SIZE - MAX_HEADER_SIZE - 4  # 4: the count of the body
    for transaction in draft.transactions:
        size = 4 + len(transaction.encode())
        try:
            if size > room:
                raise InvalidTransactionError(
                    "size", "no room for it in the block", transaction.hash
                )
            writer.execute(transaction)
        except InvalidTransactionError:
            if not draft.skip_invalid:
                raise
            continue
        room -= size
        included.append(transaction)
    return tuple(included), writer.finish_execution()


def assemble(
    head: ChainHead,
    config: ChainConfig,
    draft: Draft,
    transactions: tuple[Transaction, ...],
    results: tuple[int, bytes, bytes],
) -> Block:
    """The unsigned block of what `execute_draft` gave."""
    gas_used, receipts_root, state_root = results
    return Block(
        header=BlockHeader(
            height=head.height + 1,
            timestamp=draft.timestamp,
            previous_hash=head.hash,
            state_root=state_root,
            txs_root=transactions_root(transactions),
            receipts_root=receipts_root,
            validator=draft.validator,
            gas_used=gas_used,
            gas_limit=config.gas_limit,
        ),
        transactions=transactions,
    )
