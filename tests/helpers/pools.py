"""A mempool on as much of a chain as it looks at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pytest

from moderntensor.blockchain.block import Block, BlockHeader
from moderntensor.blockchain.chain_types import ChainHead, HeadChanged
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.mempool import Mempool
from moderntensor.blockchain.transaction import Transaction
from moderntensor.blockchain.waiting import ENTRY_OVERHEAD
from moderntensor.errors import InvalidTransactionError

KEYS = [KeyPair.from_secret(bytes([n]) * 32) for n in range(1, 6)]
ANN, BOB, CAT, *_ = KEYS
GAS = 30_000_000
MIB = 1024 * 1024


class Account(NamedTuple):
    nonce: int
    balance: int


class Chain:
    """As much of a chain as the pool looks at."""

    def __init__(self) -> None:
        self.config = ChainConfig(chain_id=1, timestamp=0)
        self.accounts = {key.address: Account(0, 10**12) for key in KEYS}
        self.bodies: dict[bytes, bytes] = {}

    def get_account(self, address: bytes) -> Account:
        return self.accounts.get(address, Account(0, 0))

    def get_funds(self, addresses: Sequence[bytes]) -> list[tuple[int, int]]:
        return [self.get_account(address) for address in addresses]

    def body_of(self, block_hash: bytes) -> bytes | None:
        return self.bodies.get(block_hash)

    def give(self, key: KeyPair, *, nonce: int | None = None, balance: int | None = None) -> None:
        old = self.accounts[key.address]
        self.accounts[key.address] = Account(
            old.nonce if nonce is None else nonce, old.balance if balance is None else balance
        )

    def block(self, transactions: Iterable[Transaction]) -> Block:
        block = Block(
            header=BlockHeader(
                height=len(self.bodies) + 1,
                timestamp=12,
                previous_hash=bytes(32),
                state_root=bytes(32),
                validator=bytes(32),
                gas_limit=GAS,
            ),
            transactions=tuple(transactions),
        )
        self.bodies[block.hash] = block.body
        return block


def tx(key: KeyPair, nonce: int, price: int = 10, **changes: Any) -> Transaction:
    values: dict[str, Any] = {"chain_id": 1, "to": CAT.address, "value": 1}
    return Transaction.create(key, nonce=nonce, gas_price=price, **(values | changes))


def changed(applied: Iterable[Block] = (), reverted: Iterable[Block] = ()) -> HeadChanged:
    return HeadChanged(
        ChainHead(1, bytes(32), 12, bytes(32)),
        tuple((block.height, block.hash) for block in applied),
        tuple((block.height, block.hash) for block in reverted),
    )


def refused(pool: Mempool, transaction: Transaction) -> str:
    """The rule by which the pool refuses; whatever was there still is."""
    before = set(pool.hashes())
    with pytest.raises(InvalidTransactionError) as caught:
        pool.add(transaction)
    assert set(pool.hashes()) == before
    return caught.value.rule


def check_books(pool: Mempool) -> None:
    """What the pool counts is what it holds, and what it would put in a block fits there."""
    waiting = [pool.get(known) for known in pool.hashes()]
    held = [transaction for transaction in waiting if transaction is not None]
    assert len(held) == len(pool) == len(waiting)
    assert sum(ENTRY_OVERHEAD + len(transaction.data) for transaction in held) == pool.size
    assert len({(t.sender, t.nonce) for t in held}) == len(held)
    senders = {t.sender for t in held}
    assert set(pool._senders) == senders
    for sender in pool._senders.values():
        entries = sender.by_nonce.values()
        assert sender.cost == sum(entry.transaction.max_cost for entry in entries)
        assert sender.size == sum(entry.size for entry in entries)
    ages = [entry.arrival for entry in pool._by_age]
    assert ages == sorted(set(ages))
    assert {entry.transaction.hash for entry in pool._by_age} == set(pool.hashes())
    assert sorted(s.worth for s in pool._senders.values()) == list(pool._by_worth)
