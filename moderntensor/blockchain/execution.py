"""What a block's transactions do to the state: every rule of the protocol's section 6, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..backend import merkle
from ..errors import CryptoError, InvalidTransactionError
from .state import decode_funds, encode_funds
from .transaction import Transaction, encode_receipt

MAX_NONCE: Final = (1 << 64) - 1

#: Nonce and balance of an account; (0, 0) where there is none.
Funds = tuple[int, int]


class Ledger:
    """Accounts in front of the store for a run of blocks: what was read and what has changed.

    `read` gets the stored 88 bytes of an address, or None. Each account is read once, however
    many blocks touch it.
    """

    __slots__ = ("_encoded", "_funds", "_read", "_touched")

    def __init__(self, read: Callable[[bytes], bytes | None]) -> None:
        self._read = read
        self._funds: dict[bytes, Funds] = {}
        self._encoded: dict[bytes, bytes | None] = {}  # as of the last `take_changes`
        self._touched: dict[bytes, None] = {}  # since then, in order

    def get(self, address: bytes) -> Funds:
        """Nonce and balance as they are now."""
        funds = self._funds.get(address)
        if funds is None:
            account = self._encoded[address] = self._read(address)
            funds = self._funds[address] = decode_funds(account)
        return funds

    def set(self, address: bytes, funds: Funds) -> None:
        """Change an account that has been read."""
        self._funds[address] = funds
        self._touched[address] = None

    def take_changes(self) -> tuple[dict[bytes, bytes | None], dict[bytes, bytes | None]]:
        """What changed since the last call, and what was there before: accounts encoded, by
        address; None where there is none."""
        changes: dict[bytes, bytes | None] = {}
        before: dict[bytes, bytes | None] = {}
        encoded = self._encoded
        for address in self._touched:
            old, now = encoded[address], encode_funds(*self._funds[address])
            if now != old:
                before[address] = old
                changes[address] = encoded[address] = now
        self._touched = {}
        return changes, before


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
        self._receipts.append(encode_receipt(transaction.hash, gas))

    def receipts_root(self) -> bytes:
        """The root over the receipts so far."""
        return merkle.list_root(self._receipts)


def _broken(transaction: Transaction, rule: str, detail: str) -> InvalidTransactionError:
    return InvalidTransactionError(rule, detail, transaction.hash)
