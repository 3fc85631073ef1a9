"""The pool beside a model of it that is too simple to be wrong, through any sequence of events."""

from __future__ import annotations

from typing import NamedTuple

from helpers.pools import GAS, KEYS, MIB, Account, Chain, changed, check_books, tx
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moderntensor.blockchain.block import Block
from moderntensor.blockchain.mempool import ALWAYS_INVALID, Mempool
from moderntensor.blockchain.transaction import Transaction
from moderntensor.blockchain.waiting import ENTRY_OVERHEAD, MAX_NONCE_GAP
from moderntensor.errors import InvalidTransactionError

MOST = 6  # transactions
LIFETIME = 100.0
START = 20 * 21_000 * 30  # each account's balance: some 20 transfers of the middle price

who = st.integers(0, len(KEYS) - 1)
nonces = st.one_of(st.integers(0, 4), st.sampled_from([MAX_NONCE_GAP - 1, MAX_NONCE_GAP, 70]))
prices = st.integers(1, 60)
sizes = st.sampled_from([0, 0, 0, 500])


class Waiting(NamedTuple):
    transaction: Transaction
    arrival: int
    since: float


class PoolBesideModel(RuleBasedStateMachine):
    """The model is one list, searched for everything."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = Chain()
        for key in KEYS:
            self.chain.give(key, balance=START)
        self.pool = Mempool(self.chain, max_transactions=MOST, lifetime=LIFETIME)
        self.waiting: list[Waiting] = []
        self.arrivals = 0
        self.now = 0.0
        self.mined: list[Block] = []
        self.pool.expire(self.now)

    # --- the model ---------------------------------------------------------------------------

    def of(self, address: bytes) -> list[Waiting]:
        return [w for w in self.waiting if w.transaction.sender == address]

    def worth(self, address: bytes) -> tuple[int, int, bytes]:
        mine = self.of(address)
        first = self.chain.get_account(address).nonce
        complete = sorted(w.transaction.nonce for w in mine) == list(
            range(first, first + len(mine))
        )
        price = min(w.transaction.gas_price for w in mine) if complete else 0
        return price, -max(w.arrival for w in mine), address

    def admit(self, transaction: Transaction) -> str:
        """What the pool should say: "taken", "known", or the rule that refuses."""
        if any(w.transaction == transaction for w in self.waiting):
            return "known"
        account = self.chain.get_account(transaction.sender)
        if not account.nonce <= transaction.nonce < account.nonce + MAX_NONCE_GAP:
            return "nonce"
        mine = self.of(transaction.sender)
        same = [w for w in mine if w.transaction.nonce == transaction.nonce]
        if any(transaction.gas_price * 10 < w.transaction.gas_price * 11 for w in same):
            return "replacement"
        others = [w.transaction.max_cost for w in mine if w not in same]
        if sum(others) + transaction.max_cost > account.balance:
            return "balance"
        before = self.waiting
        self.arrivals += 1
        new = Waiting(transaction, self.arrivals, self.now)
        self.waiting = [w for w in before if w not in same] + [new]
        while len(self.waiting) > MOST:
            worst = min({w.transaction.sender for w in self.waiting}, key=self.worth)
            self.waiting.remove(max(self.of(worst), key=lambda w: w.transaction.nonce))
        if new in self.waiting:
            return "taken"
        self.waiting = before
        return "full"

    def look_again(self) -> None:
        """After the accounts have changed."""
        for key in KEYS:
            account = self.chain.get_account(key.address)
            window = range(account.nonce, account.nonce + MAX_NONCE_GAP)
            for w in self.of(key.address):
                if w.transaction.nonce not in window:
                    self.waiting.remove(w)
            while sum(w.transaction.max_cost for w in self.of(key.address)) > account.balance:
                last = max(self.of(key.address), key=lambda w: w.transaction.nonce)
                self.waiting.remove(last)

    # --- what happens ------------------------------------------------------------------------

    @rule(who=who, nonce=nonces, price=prices, size=sizes)
    def add(self, who: int, nonce: int, price: int, size: int) -> None:
        transaction = tx(KEYS[who], nonce, price, data=bytes(size))
        expected = self.admit(transaction)
        try:
            said = "taken" if self.pool.add(transaction) else "known"
        except InvalidTransactionError as error:
            assert error.rule not in ALWAYS_INVALID
            said = error.rule
        assert said == expected

    @rule(count=st.integers(1, 4))
    def mine(self, count: int) -> None:
        chosen = self.pool.select(count * 21_000, MIB)
        for transaction in chosen:
            old = self.chain.get_account(transaction.sender)
            assert transaction.nonce == old.nonce
            assert transaction.max_cost <= old.balance
            self.chain.accounts[transaction.sender] = Account(
                old.nonce + 1, old.balance - transaction.max_cost
            )
        block = self.chain.block(chosen)
        self.mined.append(block)
        self.pool.on_head_changed(changed([block]))
        self.look_again()

    @precondition(lambda self: self.mined)
    @rule()
    def undo(self) -> None:
        block = self.mined.pop()
        for transaction in block.transactions:
            old = self.chain.get_account(transaction.sender)
            self.chain.accounts[transaction.sender] = Account(
                old.nonce - 1, old.balance + transaction.max_cost
            )
        self.pool.on_head_changed(changed([], [block]))
        self.look_again()
        back = [t for t in block.transactions[:MOST] if self.admit(t) == "taken"]
        here = {w.transaction.hash for w in self.waiting}
        assert [t.hash for t in self.pool.take_returned()] == [
            t.hash for t in back if t.hash in here
        ]

    @rule(who=who, balance=st.integers(0, START))
    def spend(self, who: int, balance: int) -> None:
        self.chain.give(KEYS[who], balance=balance)
        self.pool.on_head_changed(changed())
        self.look_again()

    @rule(seconds=st.floats(0.0, 80.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.pool.expire(self.now)
        self.waiting = [w for w in self.waiting if w.since + LIFETIME >= self.now]

    # --- what holds --------------------------------------------------------------------------

    @invariant()
    def same(self) -> None:
        assert set(self.pool.hashes()) == {w.transaction.hash for w in self.waiting}
        assert len(self.pool) <= MOST
        assert self.pool.size == sum(ENTRY_OVERHEAD + len(w.transaction.data) for w in self.waiting)
        check_books(self.pool)

    @invariant()
    def ordered(self) -> None:
        chosen = self.pool.select(GAS, MIB)
        for key in KEYS:
            first = self.chain.get_account(key.address).nonce
            run = [t.nonce for t in chosen if t.sender == key.address]
            assert run == list(range(first, first + len(run)))
            assert self.pool.next_nonce(key.address) == first + len(run)
            held = {w.transaction.nonce for w in self.of(key.address)}
            assert first + len(run) not in held


PoolBesideModel.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestPoolBesideModel = PoolBesideModel.TestCase
