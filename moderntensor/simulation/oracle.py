"""A second opinion on blocks: the rules of the protocol once more, written apart from the nodes.

What the nodes of a simulation accept is judged here by plain dictionaries and no store, so that a
fault of the product's chain cannot hide itself. Only hashing, encoding and the curve are shared.
"""

from __future__ import annotations

from typing import Final

from ..backend import merkle
from ..blockchain.block import MAX_BLOCK_SIZE, Block
from ..blockchain.crypto import sha256, validator_address, verify_signature
from ..blockchain.genesis import ChainConfig
from ..blockchain.state import Account
from ..blockchain.transaction import Transaction, TransactionReceipt
from ..errors import CryptoError

__all__ = ["Accounts", "Oracle"]

Accounts = dict[bytes, tuple[int, int]]
"""Address → nonce and balance; accounts without either are not there."""

KEPT_STATES: Final = 4096
"""Blocks whose accounts are kept; a simulation that branches off deeper is not judged."""


class Oracle:
    """Judges blocks of one chain and all its branches, each once, parents first."""

    def __init__(self, config: ChainConfig) -> None:
        self._config = config
        genesis = config.genesis_header
        self._heights: dict[bytes, int] = {genesis.hash: 0}
        self._timestamps: dict[bytes, int] = {genesis.hash: genesis.timestamp}
        self._states: dict[bytes, Accounts] = {
            genesis.hash: {address: (0, balance) for address, balance in config.alloc.items()}
        }
        self._bad: dict[bytes, str] = {}
        self._forbidden: dict[bytes, str] = {}

    def __len__(self) -> int:
        """Good blocks, the genesis block included."""
        return len(self._heights)

    def __contains__(self, block_hash: object) -> bool:
        return block_hash in self._heights or block_hash in self._bad

    def is_good(self, block_hash: bytes) -> bool:
        """Whether this block was judged and breaks no rule."""
        return block_hash in self._heights and block_hash not in self._forbidden

    def timestamp(self, block_hash: bytes) -> int:
        """Of a good block, Unix seconds."""
        return self._timestamps[block_hash]

    def forbid(self, block_hash: bytes, why: str) -> None:
        """An adversary has made this block such that it breaks a rule; no honest node may
        accept it, whatever this oracle finds."""
        self._forbidden[block_hash] = why

    def trust(self, blocks: dict[bytes, tuple[int, int]], head: bytes, accounts: Accounts) -> None:
        """Take a chain as good that the scenario has built itself: hash → height and timestamp
        of its blocks, and the accounts after `head`, from which the judging goes on."""
        for block_hash, (height, timestamp) in blocks.items():
            self._heights[block_hash] = height
            self._timestamps[block_hash] = timestamp
        self._states[head] = dict(accounts)

    def judge(self, block: Block) -> str | None:
        """The rule that `block` breaks, or None. Its parent must have been judged: KeyError."""
        block_hash = block.hash
        if block_hash in self._forbidden:
            return self._forbidden[block_hash]
        if block_hash in self._heights:
            return None
        if block_hash in self._bad:
            return self._bad[block_hash]
        parent = block.header.previous_hash
        if parent in self._bad or parent in self._forbidden:
            fault: str | None = "stands on a block that breaks a rule"
        else:
            fault = self._header(block) or self._execute(block)
        if fault is not None:
            self._bad[block_hash] = fault
            return fault
        self._heights[block_hash] = block.height
        self._timestamps[block_hash] = block.header.timestamp
        if len(self._states) > KEPT_STATES:
            del self._states[next(iter(self._states))]
        return None

    # --- protocol, section 5 ----------------------------------------------------------------

    def _header(self, block: Block) -> str | None:
        header, config = block.header, self._config
        parent = header.previous_hash
        slot = (header.timestamp - config.timestamp) // config.block_time
        before = (self._timestamps[parent] - config.timestamp) // config.block_time
        validators = config.validators
        signed = verify_signature(header.validator, header.signing_hash, header.signature)
        rules = {
            "version": header.version == 1,
            "gas limit": header.gas_used <= header.gas_limit == config.gas_limit,
            "height": header.height == self._heights[parent] + 1,
            "slot": header.timestamp >= config.timestamp and slot > before,
            "checkpoint": config.checkpoints.get(header.height, block.hash) == block.hash,
            "validator": not validators or header.validator == validators[slot % len(validators)],
            "signature": signed,
            "size": len(block.encode()) <= MAX_BLOCK_SIZE,
        }
        return next((rule for rule, kept in rules.items() if not kept), None)

    # --- protocol, sections 6 and 7 ---------------------------------------------------------

    def _execute(self, block: Block) -> str | None:
        header = block.header
        if merkle.list_root([each.encode() for each in block.transactions]) != header.txs_root:
            return "transactions root"
        accounts = dict(self._states[header.previous_hash])
        collector = validator_address(header.validator)
        used, receipts = 0, []
        for transaction in block.transactions:
            fault = self._transfer(accounts, collector, transaction)
            if fault is not None:
                return fault
            gas = _gas(transaction)
            used += gas
            receipts.append(TransactionReceipt(transaction_hash=transaction.hash, gas_used=gas))
        if used != header.gas_used or used > header.gas_limit:
            return "gas used"
        if merkle.list_root([each.encode() for each in receipts]) != header.receipts_root:
            return "receipts root"
        if _state_root(accounts) != header.state_root:
            return "state root"
        self._states[block.hash] = accounts
        return None

    def _transfer(
        self, accounts: Accounts, collector: bytes, transaction: Transaction
    ) -> str | None:
        if transaction.chain_id != self._config.chain_id:
            return "chain id"
        try:
            # Anew from the bytes: what a node remembers of a sender proves nothing here.
            sender = Transaction.decode(transaction.encode()).sender
        except CryptoError:
            return "transaction signature"
        nonce, balance = accounts.get(sender, (0, 0))
        gas = _gas(transaction)
        if transaction.nonce != nonce:
            return "nonce"
        if transaction.gas_limit < gas or transaction.gas_price < 1:
            return "gas of a transaction"
        if balance < transaction.value + transaction.gas_limit * transaction.gas_price:
            return "balance"
        fee = gas * transaction.gas_price
        moved = 0 if transaction.to is None else transaction.value
        accounts[sender] = (nonce + 1, balance - fee - moved)
        for address, amount in ((transaction.to, moved), (collector, fee)):
            if address is not None and (amount or address in accounts):
                nonce, balance = accounts.get(address, (0, 0))
                accounts[address] = (nonce, balance + amount)
        return None


def _gas(transaction: Transaction) -> int:
    """Intrinsic gas, from the protocol's table."""
    data = transaction.data
    gas = 21_000 + 4 * data.count(0) + 16 * (len(data) - data.count(0))
    return gas if transaction.to is not None else gas + 32_000


def _state_root(accounts: Accounts) -> bytes:
    leaves = sorted(
        sha256(address) + Account(nonce=nonce, balance=balance).encode()
        for address, (nonce, balance) in accounts.items()
        if nonce or balance
    )
    root, _ = merkle.state_subtree(b"".join(leaves))
    return root
