"""Transactions that wait for a block: bounded, in nonce order per sender, dearest first.

For each sender the pool keeps a run of nonces from the account's on, a bounded distance ahead,
and no more than the account can pay for all together. A transaction replaces one of the same
nonce only at a gas price 10 % higher. When the pool is full, the last transaction of the sender
who is worth least makes room: a sender is worth the lowest price of its run, since nothing
behind that can be included first, and nothing while a nonce is missing at its beginning. What
has waited for hours leaves.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from operator import attrgetter
from typing import Final, Protocol

from sortedcontainers import SortedKeyList, SortedList  # type: ignore[import-untyped]

from ..errors import EncodeError, InvalidTransactionError
from .block import Block, decode_body
from .chain_types import HeadChanged
from .genesis import ChainConfig
from .transaction import MAX_TRANSACTION_SIZE, Transaction, identify
from .waiting import ENTRY_OVERHEAD, Entry, Sender

__all__ = ["ALWAYS_INVALID", "MIN_BYTES", "Mempool"]

DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024  # far above what so many transfers need
DEFAULT_MAX_TRANSACTIONS: Final = 5120  # go-ethereum: GlobalSlots 4096 + GlobalQueue 1024
DEFAULT_LIFETIME: Final = 3 * 3600.0  # seconds; go-ethereum: Lifetime
REPLACEMENT_PERCENT: Final = 10  # go-ethereum: PriceBump
SENDER_SHARE: Final = 8  # one sender has an eighth of the bytes: 64 of the largest by default
MIN_BYTES: Final = MAX_TRANSACTION_SIZE + ENTRY_OVERHEAD  # room for one

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
    def get_funds(self, addresses: Sequence[bytes], /) -> Sequence[tuple[int, int]]: ...
    def body_of(self, block_hash: bytes, /) -> bytes | None: ...


class Mempool:
    """The transactions that wait. Thread-safe; what it hands out stays valid.

    `chain` needs `config`, `get_account(address)` and, to follow the head, `get_funds(addresses)`
    and `body_of(hash)`.
    """

    def __init__(
        self,
        chain: _Chain,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_transactions: int = DEFAULT_MAX_TRANSACTIONS,
        lifetime: float = DEFAULT_LIFETIME,
    ) -> None:
        """Bounds: bytes of memory (at least `MIN_BYTES`, 133,116), a count, and the seconds that
        a transaction may wait (see `expire`)."""
        if max_bytes < MIN_BYTES or max_transactions < 1:
            raise ValueError("a pool has room for one transaction at least")
        self._chain = chain
        self._max_bytes = max_bytes
        self._max_transactions = max_transactions
        self._sender_bytes = max(max_bytes // SENDER_SHARE, MIN_BYTES)
        self._lifetime = lifetime
        self._lock = threading.RLock()
        self._by_hash: dict[bytes, Entry] = {}
        self._senders: dict[bytes, Sender] = {}
        self._by_worth: SortedList[tuple[int, int, bytes]] = SortedList()
        self._by_age: SortedKeyList[Entry] = SortedKeyList(key=attrgetter("arrival"))
        self._returned: dict[bytes, None] = {}
        self._bytes = 0
        self._arrivals = 0
        self._clock: float | None = None  # what `expire` was told last
        self._elapsed = 0.0  # by that clock, since it was told first

    # --- looking ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._by_hash)

    def __contains__(self, transaction_hash: object) -> bool:
        return transaction_hash in self._by_hash

    @property
    def size(self) -> int:
        """Bytes of memory that all transactions take, as far as they can be counted."""
        return self._bytes

    def get(self, transaction_hash: bytes) -> Transaction | None:
        """The waiting transaction of that hash."""
        entry = self._by_hash.get(transaction_hash)
        return None if entry is None else entry.transaction

    def hashes(self) -> list[bytes]:
        """The hashes of all transactions, in no particular order."""
        with self._lock:
            return list(self._by_hash)

    def latest(self, limit: int) -> list[Transaction]:
        """Up to `limit` transactions, those first that came last."""
        with self._lock:
            entries = islice(reversed(self._by_age), limit)
            return [entry.transaction for entry in entries]

    def next_nonce(self, address: bytes) -> int:
        """The nonce that the next transaction of this account should have."""
        with self._lock:
            sender = self._senders.get(address)
            if sender is not None:
                return sender.nonce + sum(1 for _ in sender.run())
        return self._chain.get_account(address).nonce

    def select(self, gas_limit: int, max_bytes: int) -> list[Transaction]:
        """The best body: dearest first, each sender's in nonce order.

        `gas_limit` bounds the sum of intrinsic gas, `max_bytes` the encoded body. A sender
        whose next transaction does not fit is passed over.
        """
        with self._lock:
            runs = [iter(tuple(sender.run())) for sender in self._senders.values()]
        heads: list[tuple[int, int, int]] = []
        current: dict[int, Entry] = {}

        def advance(which: int) -> None:
            entry = next(runs[which], None)
            if entry is not None:
                current[which] = entry
                heapq.heappush(heads, (-entry.price, entry.arrival, which))

        for which in range(len(runs)):
            advance(which)
        chosen: list[Transaction] = []
        room, gas = max_bytes - 4, gas_limit  # 4: the body's count
        while heads:
            _, _, which = heapq.heappop(heads)
            entry = current[which]
            used, length = entry.transaction.intrinsic_gas, entry.length + 4
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
        as much, or up to 10 % less) or "full" (the pool is, of dearer ones, or its sender's
        share of it).
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

    def _insert(self, transaction: Transaction, length: int, address: bytes) -> None:
        account = self._chain.get_account(address)
        sender = self._senders.get(address) or Sender(address)
        self._refresh(sender, account.nonce, account.balance)
        nonce = transaction.nonce
        if nonce not in sender.window():
            raise _invalid(transaction, "nonce", f"{nonce}, its sender is at {account.nonce}")
        entry = Entry(transaction, length, self._arrivals + 1, self._elapsed)
        replaced = sender.by_nonce.get(nonce)
        cost, size = sender.cost + entry.cost, sender.size + entry.size
        if replaced is not None:
            if entry.price * 100 < replaced.price * (100 + REPLACEMENT_PERCENT):
                raise _invalid(
                    transaction,
                    "replacement",
                    f"gas price {entry.price}, over {replaced.price} by less than 10 %",
                )
            cost -= replaced.cost
            size -= replaced.size
        if cost > account.balance:
            raise _invalid(
                transaction, "balance", f"the account has {account.balance}, {cost} are needed"
            )
        if size > self._sender_bytes:
            raise _invalid(transaction, "full", f"{size} bytes of one sender would wait")
        self._arrivals += 1
        if replaced is not None:
            self._drop(sender, replaced)
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

    def _make_room(self) -> list[tuple[Sender, Entry]]:
        """Drop what is worth least until the rest fits; what was dropped."""
        gone = []
        while len(self._by_hash) > self._max_transactions or self._bytes > self._max_bytes:
            _, _, address = self._by_worth[0]
            sender = self._senders[address]
            entry = sender.last()
            self._drop(sender, entry)
            gone.append((sender, entry))
        return gone

    # --- time ------------------------------------------------------------------------------

    def expire(self, now: float) -> int:
        """Drop what has waited for longer than `lifetime`; how many. To be called now and then.

        `now` is in seconds of a clock that does not jump (the loop's). What is added between two
        calls counts from the earlier of them.
        """
        with self._lock:
            if self._clock is not None:
                self._elapsed += max(0.0, now - self._clock)
            self._clock = now
            count = 0
            while self._by_age and self._by_age[0].since + self._lifetime < self._elapsed:
                entry = self._by_age[0]
                self._drop(self._senders[entry.transaction.sender], entry)
                count += 1
            return count

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
                identify(returning)  # all senders in one go
                for transaction in returning:
                    # Most are in the new chain as well: their nonces are used, which is no fault.
                    with suppress(InvalidTransactionError):
                        if self.add(transaction):
                            self._returned[transaction.hash] = None
            while len(self._returned) > self._max_transactions:
                del self._returned[next(iter(self._returned))]

    def take_returned(self) -> list[Transaction]:
        """What reorganisations have brought back since the last call and still waits: it is news
        again."""
        with self._lock:
            returned, self._returned = self._returned, {}
            entries = (self._by_hash.get(tx_hash) for tx_hash in returned)
            return [entry.transaction for entry in entries if entry is not None]

    def _transactions_of(self, block_hash: bytes) -> tuple[Transaction, ...]:
        body = self._chain.body_of(block_hash)
        return () if body is None else decode_body(body)

    def _revalidate(self) -> None:
        """Compare all that waits with the accounts as they are now."""
        senders = list(self._senders.values())
        funds = self._chain.get_funds([sender.address for sender in senders])
        for sender, (nonce, balance) in zip(senders, funds, strict=True):
            self._refresh(sender, nonce, balance)

    def _refresh(self, sender: Sender, nonce: int, balance: int) -> None:
        """Take note of the account as it is now, and drop what it has made impossible."""
        if (nonce, balance) == (sender.nonce, sender.balance):
            return
        sender.nonce, sender.balance = nonce, balance
        window = sender.window()
        for gone in [other for other in sender.by_nonce if other not in window]:
            self._drop(sender, sender.by_nonce[gone])
        while sender.cost > balance:  # nothing costs nothing: it ends
            self._drop(sender, sender.last())
        if sender.by_nonce:
            self._weigh(sender)

    # --- the books -------------------------------------------------------------------------

    def _forget(self, transaction_hash: bytes) -> None:
        entry = self._by_hash.get(transaction_hash)
        if entry is not None:
            self._drop(self._senders[entry.transaction.sender], entry)

    def _keep(self, sender: Sender, entry: Entry) -> None:
        self._senders[sender.address] = sender
        sender.keep(entry)
        self._by_hash[entry.transaction.hash] = entry
        self._by_age.add(entry)
        self._bytes += entry.size
        self._weigh(sender)

    def _drop(self, sender: Sender, entry: Entry) -> None:
        sender.drop(entry)
        del self._by_hash[entry.transaction.hash]
        self._by_age.remove(entry)
        self._bytes -= entry.size
        if sender.by_nonce:
            self._weigh(sender)
        else:
            self._by_worth.remove(sender.worth)
            del self._senders[sender.address]

    def _weigh(self, sender: Sender) -> None:
        self._by_worth.discard(sender.worth)
        sender.weigh()
        self._by_worth.add(sender.worth)


def _invalid(transaction: Transaction, rule: str, detail: str) -> InvalidTransactionError:
    return InvalidTransactionError(rule, detail, transaction.hash)
