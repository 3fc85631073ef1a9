"""What one sender has waiting in a mempool, and what that is worth to the pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .transaction import Transaction

__all__ = ["ENTRY_OVERHEAD", "MAX_NONCE_GAP", "Entry", "Sender"]

MAX_NONCE_GAP: Final = 64  # go-ethereum: AccountQueue, transactions one sender may have waiting
MAX_NONCE: Final = 2**64 - 1
# What a waiting transaction takes of memory beside its data, where it is its sender's only one:
# 1,510 bytes were measured (Python 3.11, 64 bit), 760 where fifty share a sender; the allocator
# rounds up, and tables grow before they are full.
ENTRY_OVERHEAD: Final = 2048


class Entry:
    """One transaction that waits: `length` bytes encoded, `size` bytes of memory."""

    __slots__ = ("arrival", "cost", "length", "price", "since", "size", "transaction")

    def __init__(self, transaction: Transaction, length: int, arrival: int, since: float) -> None:
        self.transaction = transaction
        self.length = length
        self.size = ENTRY_OVERHEAD + len(transaction.data)
        self.price = transaction.gas_price
        self.cost = transaction.max_cost
        self.arrival = arrival
        self.since = since


class Sender:
    """One sender's transactions by nonce. `nonce` and `balance` are its account's."""

    __slots__ = ("address", "balance", "by_nonce", "cost", "nonce", "size", "worth")

    def __init__(self, address: bytes) -> None:
        self.address = address
        self.nonce = 0
        self.balance = 0
        self.by_nonce: dict[int, Entry] = {}
        self.cost = 0  # the most that all of them can take from the account
        self.size = 0
        self.worth: tuple[int, int, bytes] = (0, 0, address)

    def keep(self, entry: Entry) -> None:
        """Have `entry` waiting; its nonce is free."""
        self.by_nonce[entry.transaction.nonce] = entry
        self.cost += entry.cost
        self.size += entry.size

    def drop(self, entry: Entry) -> None:
        """Have it no longer."""
        del self.by_nonce[entry.transaction.nonce]
        self.cost -= entry.cost
        self.size -= entry.size

    def window(self) -> range:
        """The nonces that may wait. The last one of 64 bits can never be followed: unused."""
        return range(self.nonce, min(self.nonce + MAX_NONCE_GAP, MAX_NONCE))

    def run(self) -> Iterator[Entry]:
        """What could be included, in order: from the account's nonce on, without a gap."""
        nonce = self.nonce
        while (entry := self.by_nonce.get(nonce)) is not None:
            yield entry
            nonce += 1

    def last(self) -> Entry:
        """The one that could be included last."""
        return self.by_nonce[max(self.by_nonce)]

    def weigh(self) -> None:
        """Bring `worth` up to date: the lowest price, since nothing behind that can be included
        first; nothing while a nonce is missing. Ties: who came last goes first, the address
        settles."""
        price, newest, complete = 0, 0, False
        if self.by_nonce:
            entries = self.by_nonce.values()
            price = min([entry.price for entry in entries])
            newest = max([entry.arrival for entry in entries])
            complete = max(self.by_nonce) - self.nonce + 1 == len(entries)
        self.worth = (price if complete else 0, -newest, self.address)
