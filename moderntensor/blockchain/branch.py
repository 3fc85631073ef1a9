"""Moving the executed chain within one write transaction: undo blocks, execute others, note all.

Nothing here commits. Whoever opened the transaction does, so that a batch of blocks, or a whole
reorganisation, reaches the disk at once or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import (
    InvalidBlockError,
    InvalidTransactionError,
    StateMissingError,
    StorageError,
)
from ..storage import WriteTransaction
from . import candidates, side, tables
from .block import EMPTY_BODY, MAX_BLOCK_SIZE, ZERO_HASH
from .chain_types import ChainHead
from .crypto import validator_address
from .execution import BlockExecution, Ledger
from .genesis import ChainConfig
from .indices import IndexRows, unindex
from .lookup import HeaderBatch, head_of, one
from .prepared import PreparedBody
from .state import read_encoded_from, state_is_here
from .state_slots import active
from .state_tree import StateTree
from .transaction import Transaction
from .undo import decode_undo, encode_undo, kept_above


class BranchWriter:
    """Moves the head of the executed chain inside `txn`.

    `head` is where it stands so far; `applied` and `undone` are what happened to get there:
    (height, hash) ascending, and headers descending. `stop` is the height at which the writer
    will stop: blocks that can no longer be undone from there need no undo record. StorageError
    where `head` is not that of the store.
    """

    def __init__(
        self, txn: WriteTransaction, config: ChainConfig, head: ChainHead, stop: int
    ) -> None:
        stored = txn.get(tables.META, tables.META_HEAD)
        if stored != tables.block_key(head.height, head.hash):
            # Executed on a head that is not there, good blocks would be taken for invalid.
            raise StorageError(f"the store is no longer at block {head.height}: who writes to it?")
        if not state_is_here(txn, head.state_root):
            raise StateMissingError(
                f"the accounts as of block {head.height} are not here, the genesis gives their "
                "root alone: load them, or fetch a state from others (fast sync)"
            )
        self._txn = txn
        self._config = config
        self._final = stop - config.max_reorg_depth
        self._kept = kept_above(txn, config, stop)
        self._fork = head.height
        accounts = active(txn).accounts
        self._ledger = Ledger(lambda address: read_encoded_from(txn, accounts, address))
        self._tree: StateTree | None = None  # made when the first change comes
        self._before: dict[bytes, bytes | None] = {}
        self._rows = IndexRows()
        self._execution: BlockExecution | None = None
        # Most nodes see no side block for days; then none is looked for.
        self._has_side = txn.first(tables.SIDE) is not None
        self.head = head
        self.applied: list[tuple[int, bytes]] = []
        self.undone: list[bytes] = []
        self.transactions = 0

    # --- back -------------------------------------------------------------------------------

    def undo_to(self, fork: int) -> None:
        """Take the blocks above height `fork` off the chain, and put the state back."""
        txn = self._txn
        old: dict[bytes, bytes | None] = {}
        for height in range(self.head.height, fork, -1):
            raw = _need(txn.get(tables.CANONICAL, tables.height_key(height)), "header", height)
            block_hash = one(raw).hash(0)
            key = tables.block_key(height, block_hash)
            body = txn.get(tables.BODIES, key)
            if body is not None:
                record = _need(txn.get(tables.UNDO, key), "undo record", height)
                old.update(decode_undo(record))
                txn.delete(tables.UNDO, key)
                unindex(txn, height, body)
            side.keep(txn, height, block_hash, raw)
            self.undone.append(raw)
        self._has_side = True
        txn.delete_range(tables.CANONICAL, tables.height_key(fork + 1))
        self.head = head_of(
            _need(txn.get(tables.CANONICAL, tables.height_key(fork)), "header", fork)
        )
        self._fork = fork
        if old:
            if self._change_state(old) != self.head.state_root:
                raise StorageError(f"undoing to block {fork} does not lead to its state root")
            self._flush_state()  # the ledger reads accounts from the store

    # --- forth ------------------------------------------------------------------------------

    def apply(self, batch: HeaderBatch, bodies: Sequence[PreparedBody], *, indexed: bool) -> None:
        """Execute blocks on top of the head, whose headers have been checked.

        `indexed` says that the hash index has their headers. InvalidBlockError for the first
        block that breaks a rule; the transaction is of no use then.
        """
        for i, block_hash in enumerate(batch.hashes()):
            body = bodies[i]
            if body.root != batch.txs_root(i):
                raise InvalidBlockError(
                    self.head.height + 1,
                    block_hash,
                    "body",
                    body.fault if body.root is None and body.fault else "is not its header's",
                    body_only=True,
                )
            gas_used, receipts_root, state_root = 0, ZERO_HASH, self.head.state_root
            raw = batch.raw(i)
            if body.root != ZERO_HASH:
                self._check_form(block_hash, raw, body)
                validator = validator_address(batch.validator(i))
                try:
                    self.begin_execution(validator)
                    for transaction in body.transactions:
                        self.execute(transaction)
                except InvalidTransactionError as error:
                    raise self._invalid(block_hash, error.rule, str(error)) from error
                gas_used, receipts_root, state_root = self.finish_execution()
            if gas_used != batch.gas_used(i):
                raise self._invalid(block_hash, "gas_used", f"executes to {gas_used}")
            if receipts_root != batch.receipts_root(i):
                raise self._invalid(block_hash, "receipts_root", "is not that of its receipts")
            if state_root != batch.state_root(i):
                raise self._invalid(block_hash, "state_root", "is not that of the state after it")
            self.record(
                ChainHead(self.head.height + 1, block_hash, batch.timestamp(i), state_root),
                raw,
                body,
                indexed=indexed,
            )

    def _check_form(self, block_hash: bytes, raw: bytes, body: PreparedBody) -> None:
        size = len(raw) + len(body.raw)
        if size > MAX_BLOCK_SIZE:
            raise self._invalid(block_hash, "size", f"{size} bytes, at most {MAX_BLOCK_SIZE}")
        if body.fault is not None:
            raise self._invalid(block_hash, "encoding", body.fault)

    def _invalid(self, block_hash: bytes, rule: str, detail: str) -> InvalidBlockError:
        return InvalidBlockError(self.head.height + 1, block_hash, rule, detail)

    # --- one block at a time, for those who make blocks ---------------------------------------

    def begin_execution(self, validator: bytes) -> None:
        """Begin a block whose fees go to the 20-byte address `validator`."""
        config = self._config
        self._execution = BlockExecution(self._ledger, config.chain_id, config.gas_limit, validator)

    def execute(self, transaction: Transaction) -> None:
        """Execute a transaction of the block; as `BlockExecution.execute`."""
        if self._execution is None:
            raise RuntimeError("no block was begun")
        self._execution.execute(transaction)

    def finish_execution(self) -> tuple[int, bytes, bytes]:
        """(gas_used, receipts_root, state_root) of the block that was begun."""
        execution = self._execution
        if execution is None:
            raise RuntimeError("no block was begun")
        changes, self._before = self._ledger.take_changes()
        root = self._change_state(changes) if changes else self.head.state_root
        return execution.gas_used, execution.receipts_root(), root

    def _change_state(self, changes: Mapping[bytes, bytes | None]) -> bytes:
        if self._tree is None:
            self._tree = StateTree(self._txn)
        return self._tree.apply(changes)

    def _flush_state(self) -> None:
        if self._tree is not None:
            self._tree.flush()

    def record(
        self, head: ChainHead, raw: bytes, body: PreparedBody, *, indexed: bool = False
    ) -> None:
        """Write down the block that was executed last as the new head."""
        txn = self._txn
        height_key = tables.height_key(head.height)
        key = height_key + head.hash
        txn.append(tables.CANONICAL, height_key, raw)
        if not indexed:
            txn.put(tables.INDEX, head.hash, height_key)
        if self._has_side:
            txn.delete(tables.SIDE, key)
        if body.raw != EMPTY_BODY:
            txn.put(tables.BODIES, key, body.raw)
            if head.height > self._kept:
                txn.put(tables.UNDO, key, encode_undo(self._before))
            self._rows.add(head.height, body.transactions)
        self._before = {}
        self.head = head
        self.applied.append((head.height, head.hash))
        self.transactions += len(body.transactions)

    def finish(self) -> None:
        """Note the head, bring the pending headers in line with it, forget what is final."""
        txn, head = self._txn, self.head
        self._flush_state()
        self._rows.write(txn)
        txn.put(tables.META, tables.META_HEAD, tables.block_key(head.height, head.hash))
        if self._kept > 0:
            txn.delete_range(tables.UNDO, stop=tables.height_key(self._kept + 1))
        final = self._final
        if final > 0 and final > candidates.final_height(txn):
            txn.put(tables.META, tables.META_FINAL, tables.height_key(final))
        candidates.follow(txn, self._config, head, self._fork, self.undone[::-1])
        if self._has_side:
            if not self.undone:  # those stay for one commit more: someone may want their bodies
                side.prune(txn, final)
            side.trim(txn)


def _need(value: bytes | None, what: str, height: int) -> bytes:
    if value is None:
        raise StorageError(f"the store has no {what} of block {height}")
    return value
