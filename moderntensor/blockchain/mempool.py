"""Transactions that wait for a block: bounded, in nonce order per sender, dearest first.

For each sender the pool keeps a run of nonces from the account's on, a bounded distance ahead,
and no more than the account can pay for all together. A transaction replaces one of the same
nonce only at a gas price 10 % higher. When the pool is full, the last transaction of the sender
who is worth least makes room: a sender is worth the lowest price of its run, since nothing
behind that can be included first, and nothing while a nonce is missing at its beginning.
"""

from __future__ import annotations

import heapq
import threading
from contextlib import suppress
from typing import Final, Protocol

from sortedcontainers import SortedList  # type: ignore[import-untyped]

from ..errors import EncodeError, InvalidTransactionError
from .block import Block, decode_body
from .chain_types import HeadChanged
from .genesis import ChainConfig
from .transaction import MAX_TRANSACTION_SIZE, Transaction

__all__ = ["ALWAYS_INVALID", "Mempool"]

DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024  # far above what so many transfers need
DEFAULT_MAX_TRANSACTIONS: Final = 5120  # go-ethereum: GlobalSlots 4096 + GlobalQueue 1024
MAX_NONCE_GAP: Final = 64  # go-ethereum: AccountQueue, transactions one sender may have waiting
MAX_NONCE: Final = 2**64 - 1
REPLACEMENT_PERCENT: Final = 10  # go-ethereum: PriceBump

ALWAYS_INVALID: Final = frozenset(
    {"encoding", "chain_id", "signature", "gas_limit", "block_gas", "gas_price"}
)
"""Rules whose breach no state of the chain could excuse: an honest node never relays such a
transaction. The others ("nonce", "balance", "replacement", "full") depend on when it is looked
at and on what else waits."""


class _Account(Protocol):
    @property
    def nonce(self) -> int: ...
    @property
    def balance(self) -> int: ...


class _Chain(Protocol):
    """What the pool needs of a `Blockchain`."""

    @property
    def config(self) -> ChainConfig: ...
    def get_account(self, address: bytes, /) -> _Account: ...
    def body_of(self, block_hash: bytes, /) -> bytes | None: ...


class _Entry:
    __slots__ = ("arrival", "size", "transaction")

    def __init__(self, transaction: Transaction, size: int, arrival: int) -> None:
        self.transaction = transaction
        self.size = size
        self.arrival = arrival


class _Sender:
    """One sender's transactions by nonce, and how much they are worth to the pool."""

    __slots__ = ("address", "balance", "by_nonce", "nonce", "worth")

    def __init__(self, address: bytes) -> None:
        self.address = address
        self.nonce = 0
        self.balance = 0
        self.by_nonce: dict[int, _Entry] = {}
        self.worth: tuple[int, int, bytes] = (0, 0, address)

    def window(self) -> range:
        """The nonces that may wait. The last one of 64 bits can never be followed: unused."""
        return range(self.nonce, min(self.nonce + MAX_NONCE_GAP, MAX_NONCE))

    def run(self) -> list[_Entry]:
        """What could be included, in order: from the account's nonce on, without a gap."""
        found = []
        nonce = self.nonce
        while (entry := self.by_nonce.get(nonce)) is not None:
            found.append(entry)
            nonce += 1
        return found

    def cost(self) -> int:
        """The most that all transactions together can take from the account."""
        return sum(entry.transaction.max_cost for entry in self.by_nonce.values())

    def weigh(self) -> None:
        """Bring `worth` up to date. Ties: who came last goes first, the address settles."""
        entries = self.by_nonce.values()
        complete = len(self.run()) == len(entries)
        price = min((entry.transaction.gas_price for entry in entries), default=0)
        newest = max((entry.arrival for entry in entries), default=0)
        self.worth = (price if complete else 0, -newest, self.address)


class Mempool:
    """The transactions that wait. Thread-safe; what it hands out stays valid.

    `chain` needs `config`, `get_account(address)` and, to follow the head, `body_of(hash)`.
    """

    def __init__(
        self,
        chain: _Chain,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_transactions: int = DEFAULT_MAX_TRANSACTIONS,
    ) -> None:
        """Bounds: encoded bytes (at least one transaction's 131,068), and a count."""
        if max_bytes < MAX_TRANSACTION_SIZE or max_transactions < 1:
            raise ValueError("a pool has room for one transaction at least")
        self._chain = chain
        self._max_bytes = max_bytes
        self._max_transactions = max_transactions
        self._lock = threading.RLock()
        self._by_hash: dict[bytes, _Entry] = {}
        self._senders: dict[bytes, _Sender] = {}
        self._by_worth: SortedList[tuple[int, int, bytes]] = SortedList()
        self._bytes = 0
        self._arrivals = 0

    # --- looking ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._by_hash)

    def __contains__(self, transaction_hash: object) -> bool:
        return transaction_hash in self._by_hash

    @property
    def size(self) -> int:
        """Encoded bytes of all transactions."""
        return self._bytes

    def get(self, transaction_hash: bytes) -> Transaction | None:
        """The waiting transaction of that hash."""
        entry = self._by_hash.get(transaction_hash)
        return None if entry is None else entry.transaction

    def hashes(self) -> list[bytes]:
        """The hashes of all transactions, in no particular order."""
        with self._lock:
            return list(self._by_hash)

    def next_nonce(self, address: bytes) -> int:
        """The nonce that the next transaction of this account should have."""
        with self._lock:
            sender = self._senders.get(address)
            if sender is not None:
                return sender.nonce + len(sender.run())
        return self._chain.get_account(address).nonce

    def select(self, gas_limit: int, max_bytes: int) -> list[Transaction]:
        """The best body: dearest first, each sender's in nonce order.

        `gas_limit` bounds the sum of intrinsic gas, `max_bytes` the encoded body. A sender
        whose next transaction does not fit is passed over.
        """
        with self._lock:
            runs = [iter(sender.run()) for sender in self._senders.values()]
        heads: list[tuple[int, int, int]] = []
        current: dict[int, _Entry] = {}

        def advance(which: int) -> None:
            entry = next(runs[which], None)
            if entry is not None:
                current[which] = entry
                heapq.heappush(heads, (-entry.transaction.gas_price, entry.arrival, which))

        for which in range(len(runs)):
            advance(which)
        chosen: list[Transaction] = []
        room, gas = max_bytes - 4, gas_limit  # 4: the body's count
        while heads:
            _, _, which = heapq.heappop(heads)
            entry = current[which]
            used, length = entry.transaction.intrinsic_gas, entry.size + 4
            if used <= gas and length <= room:
                gas -= used
                room -= length
                chosen.append(entry.transaction)
                advance(which)
        return chosen

    # --- adding ----------------------------------------------------------------------------

    def add(self, transaction: Transaction) -> bool:
        """Check a transaction and keep it; False if it was there already.

        InvalidTransactionError otherwise, with one of the rules in `ALWAYS_INVALID`, or
        "nonce" (used already, or more than 64 ahead of the account), "balance" (the account
        cannot pay for this and all that waits), "replacement" (another one of this nonce pays
        as much, or up to 10 % less) or "full" (the pool is, of dearer ones).
        """
        config = self._chain.config
        try:
            if transaction.hash in self._by_hash:
                return False
        except EncodeError as error:
            raise InvalidTransactionError("encoding", str(error)) from error
        # Recovering the sender is what costs: outside the lock, once per transaction.
        address = transaction.validate(config.chain_id, config.gas_limit)
        with self._lock:
            if transaction.hash in self._by_hash:
                return False
            self._insert(transaction, len(transaction.encode()), address)
        return True

    def _insert(self, transaction: Transaction, size: int, address: bytes) -> None:
        account = self._chain.get_account(address)
        sender = self._senders.get(address) or _Sender(address)
        self._refresh(sender, account)
        nonce = transaction.nonce
        if nonce not in sender.window():
            raise _invalid(transaction, "nonce", f"{nonce}, its sender is at {account.nonce}")
        replaced = sender.by_nonce.get(nonce)
        cost = sender.cost() + transaction.max_cost
        if replaced is not None:
            price = replaced.transaction.gas_price
            if transaction.gas_price * 100 < price * (100 + REPLACEMENT_PERCENT):
                raise _invalid(
                    transaction,
                    "replacement",
                    f"gas price {transaction.gas_price}, over {price} by less than 10 %",
                )
            cost -= replaced.transaction.max_cost
        if cost > account.balance:
            raise _invalid(transaction, "balance", f"{account.balance}, {cost} are needed")
        self._arrivals += 1
        if replaced is not None:
            self._drop(sender, replaced)
        entry = _Entry(transaction, size, self._arrivals)
        self._keep(sender, entry)
        gone = self._make_room()
        if transaction.hash not in self._by_hash:
            # Refused, it leaves all as it was: else what never gets in could clear the pool.
            if replaced is not None:
                gone.append((sender, replaced))
            for owner, other in gone:
                if other is not entry:
                    self._keep(owner, other)
            raise _invalid(transaction, "full", f"{len(self)} transactions of more worth wait")

    def _make_room(self) -> list[tuple[_Sender, _Entry]]:
        """Drop what is worth least until the rest fits; what was dropped."""
        gone = []
        while len(self._by_hash) > self._max_transactions or self._bytes > self._max_bytes:
            _, _, address = self._by_worth[0]
            sender = self._senders[address]
            entry = sender.by_nonce[max(sender.by_nonce)]
            self._drop(sender, entry)
            gone.append((sender, entry))
        return gone

    # --- following the chain ---------------------------------------------------------------

    def remove_included(self, block: Block) -> None:
        """Forget the transactions of `block`, which is part of the chain now, and what its
        execution has made impossible."""
        with self._lock:
            for transaction in block.transactions:
                self._forget(transaction.hash)
            self._revalidate()

    def on_head_changed(self, event: HeadChanged) -> None:
        """Follow the chain: to be subscribed to a `Blockchain`.

        What can no longer be included leaves; what a reorganisation took out of the chain comes
        back where it is still valid, at most as many as the pool may hold.
        """
        with self._lock:
            self._revalidate()
            room = self._max_transactions
            for _, block_hash in reversed(event.reverted):
                returning = self._transactions_of(block_hash)[:room]
                room -= len(returning)
                for transaction in returning:
                    # Most are in the new chain as well: their nonces are used, which is no fault.
                    with suppress(InvalidTransactionError):
                        self.add(transaction)

    def _transactions_of(self, block_hash: bytes) -> tuple[Transaction, ...]:
        body = self._chain.body_of(block_hash)
        return () if body is None else decode_body(body)

    def _revalidate(self) -> None:
        """Compare all that waits with the accounts as they are now: one read per sender."""
        for sender in list(self._senders.values()):
            self._refresh(sender, self._chain.get_account(sender.address))

    def _refresh(self, sender: _Sender, account: _Account) -> None:
        """Take note of the account as it is now, and drop what it has made impossible."""
        if (account.nonce, account.balance) == (sender.nonce, sender.balance):
            return
        sender.nonce, sender.balance = account.nonce, account.balance
        window = sender.window()
        for nonce in [nonce for nonce in sender.by_nonce if nonce not in window]:
            self._drop(sender, sender.by_nonce[nonce])
        while sender.cost() > account.balance:  # nothing costs nothing: it ends
            self._drop(sender, sender.by_nonce[max(sender.by_nonce)])
        if sender.by_nonce:
            self._weigh(sender)

    # --- the books -------------------------------------------------------------------------

    def _forget(self, transaction_hash: bytes) -> None:
        entry = self._by_hash.get(transaction_hash)
        if entry is not None:
            self._drop(self._senders[entry.transaction.sender], entry)

    def _keep(self, sender: _Sender, entry: _Entry) -> None:
        self._senders[sender.address] = sender
        sender.by_nonce[entry.transaction.nonce] = entry
        self._by_hash[entry.transaction.hash] = entry
        self._bytes += entry.size
        self._weigh(sender)

    def _drop(self, sender: _Sender, entry: _Entry) -> None:
        del sender.by_nonce[entry.transaction.nonce]
        del self._by_hash[entry.transaction.hash]
        self._bytes -= entry.size
        if sender.by_nonce:
            self._weigh(sender)
        else:
            self._by_worth.remove(sender.worth)
            del self._senders[sender.address]

    def _weigh(self, sender: _Sender) -> None:
        self._by_worth.discard(sender.worth)
        sender.weigh()
        self._by_worth.add(sender.worth)


def _invalid(transaction: Transaction, rule: str, detail: str) -> InvalidTransactionError:
    return InvalidTransactionError(rule, detail, transaction.hash)
