"""What a block's transactions do to the state: every rule of the protocol's section 6, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..backend import merkle
from ..errors import CryptoError, InvalidTransactionError
from .state import Account
from .transaction import Transaction, TransactionReceipt

MAX_NONCE: Final = (1 << 64) - 1

#: Nonce and balance of an account; (0, 0) where there is none.
Funds = tuple[int, int]


class Ledger:
    """Accounts in front of the store for a run of blocks: what was read and what has changed.

    Each account is read from the store once, however many blocks touch it.
    """

    __slots__ = ("_before", "_funds", "_read")

    def __init__(self, read: Callable[[bytes], Account]) -> None:
        self._read = read
        self._funds: dict[bytes, Funds] = {}
        self._before: dict[bytes, Funds] = {}

    def get(self, address: bytes) -> Funds:
        """Nonce and balance as they are now."""
        funds = self._funds.get(address)
        if funds is None:
            account = self._read(address)
            funds = self._funds[address] = (account.nonce, account.balance)
        return funds

    def set(self, address: bytes, funds: Funds) -> None:
        """Change an account that has been read."""
        if address not in self._before:
            self._before[address] = self._funds[address]
        self._funds[address] = funds

    def take_changes(self) -> tuple[dict[bytes, bytes | None], dict[bytes, bytes | None]]:
        """What changed since the last call, and what was there before: accounts encoded, by
        address; None where there is none."""
        changes: dict[bytes, bytes | None] = {}
        before: dict[bytes, bytes | None] = {}
        for address, old in self._before.items():
            now = self._funds[address]
            if now != old:
                before[address] = _encode(old)
                changes[address] = _encode(now)
        self._before = {}
        return changes, before


def _encode(funds: Funds) -> bytes | None:
    nonce, balance = funds
    return Account(nonce=nonce, balance=balance).encode() if nonce or balance else None


class BlockExecution:
    """Executes the transactions of one block, one after the other, on a ledger.

    `validator` is the 20-byte address that the fees go to.
    """

    __slots__ = ("_chain_id", "_gas_limit", "_ledger", "_receipts", "_validator", "gas_used")

    def __init__(self, ledger: Ledger, chain_id: int, gas_limit: int, validator: bytes) -> None:
        self._ledger = ledger
        self._chain_id = chain_id
        self._gas_limit = gas_limit
        self._validator = validator
        self._receipts: list[bytes] = []
        self.gas_used = 0

    def execute(self, transaction: Transaction) -> None:
        """Execute one transaction; InvalidTransactionError, with nothing changed, if it breaks
        a rule (`rules.TRANSACTION_RULES`)."""
        ledger = self._ledger
        if transaction.chain_id != self._chain_id:
            raise _broken(
                transaction, "chain_id", f"{transaction.chain_id}, this chain is {self._chain_id}"
            )
        try:
            sender = transaction.sender
        except CryptoError as error:
            raise _broken(transaction, "signature", str(error)) from error
        nonce, balance = ledger.get(sender)
        if transaction.nonce != nonce or nonce == MAX_NONCE:
            raise _broken(transaction, "nonce", f"{transaction.nonce}, its sender is at {nonce}")
        gas = transaction.intrinsic_gas
        if transaction.gas_limit < gas:
            raise _broken(transaction, "gas_limit", f"{transaction.gas_limit}, needs {gas}")
        if self.gas_used + gas > self._gas_limit:
            raise _broken(
                transaction, "block_gas", f"{self.gas_used + gas}, a block has {self._gas_limit}"
            )
        price = transaction.gas_price
        if price < 1:
            raise _broken(transaction, "gas_price", "0, at least 1")
        value = transaction.value
        if balance < value + transaction.gas_limit * price:
            raise _broken(transaction, "balance", f"{balance}, needs {transaction.max_cost}")
        fee = gas * price
        to = transaction.to
        if to is None:  # a creation moves nothing: there is no VM, it only burns its gas
            ledger.set(sender, (nonce + 1, balance - fee))
        else:
            ledger.set(sender, (nonce + 1, balance - value - fee))
            nonce, balance = ledger.get(to)
            ledger.set(to, (nonce, balance + value))
        nonce, balance = ledger.get(self._validator)
        ledger.set(self._validator, (nonce, balance + fee))
        self.gas_used += gas
        self._receipts.append(
            TransactionReceipt(transaction_hash=transaction.hash, gas_used=gas).encode()
        )

    def receipts_root(self) -> bytes:
        """The root over the receipts so far."""
        return merkle.list_root(self._receipts)


def _broken(transaction: Transaction, rule: str, detail: str) -> InvalidTransactionError:
    return InvalidTransactionError(rule, detail, transaction.hash)
