"""The pool of waiting transactions: rules, bounds, order, and following the chain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor.blockchain.block import Block, BlockHeader, encode_body
from moderntensor.blockchain.chain_types import ChainHead, HeadChanged
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.mempool import (
    ALWAYS_INVALID,
    MAX_NONCE_GAP,
    Mempool,
)
from moderntensor.blockchain.transaction import MAX_TRANSACTION_SIZE, Transaction
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


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def pool(chain: Chain) -> Iterator[Mempool]:
    made = Mempool(chain)
    yield made
    check_books(made)


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
    assert sum(len(transaction.encode()) for transaction in held) == pool.size
    assert len({(t.sender, t.nonce) for t in held}) == len(held)
    senders = {t.sender for t in held}
    assert set(pool._senders) == senders
    assert sorted(s.worth for s in pool._senders.values()) == list(pool._by_worth)


# --- adding --------------------------------------------------------------------------------


def test_what_is_added_is_there_once(pool: Mempool) -> None:
    transaction = tx(ANN, 0)
    assert transaction.hash not in pool
    assert pool.add(transaction) is True
    assert pool.add(transaction) is False
    assert pool.add(Transaction.decode(transaction.encode())) is False
    assert transaction.hash in pool
    assert pool.get(transaction.hash) is transaction
    assert pool.hashes() == [transaction.hash]
    assert (len(pool), pool.size) == (1, len(transaction.encode()))
    assert pool.get(bytes(32)) is None


@pytest.mark.parametrize(
    ("transaction", "rule"),
    [
        (tx(ANN, 0, chain_id=2), "chain_id"),
        (tx(ANN, 0, price=0), "gas_price"),
        (tx(ANN, 0, gas_limit=20_999), "gas_limit"),
        (tx(ANN, 0).replace(s=b"\xff" * 32), "signature"),
        (tx(ANN, 0).replace(value=-1), "encoding"),
        (tx(ANN, 0).replace(data=bytes(MAX_TRANSACTION_SIZE - 130)), "encoding"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_never_valid_is_refused(pool: Mempool, transaction: Transaction, rule: str) -> None:
    assert refused(pool, transaction) == rule
    assert rule in ALWAYS_INVALID


def test_more_gas_than_a_block_has_is_refused() -> None:
    chain = Chain()
    chain.config = ChainConfig(chain_id=1, timestamp=0, gas_limit=21_000)
    assert refused(Mempool(chain), tx(ANN, 0, data=b"\1")) == "block_gas"


def test_nonces_start_at_the_account_and_end_within_reach(chain: Chain, pool: Mempool) -> None:
    chain.give(ANN, nonce=5)
    assert refused(pool, tx(ANN, 4)) == "nonce"
    assert refused(pool, tx(ANN, 5 + MAX_NONCE_GAP)) == "nonce"
    assert pool.add(tx(ANN, 5 + MAX_NONCE_GAP - 1))
    assert pool.add(tx(ANN, 5))
    assert "nonce" not in ALWAYS_INVALID


def test_the_last_nonce_of_all_is_never_used(chain: Chain, pool: Mempool) -> None:
    chain.give(ANN, nonce=2**64 - 2)
    assert pool.add(tx(ANN, 2**64 - 2))
    assert refused(pool, tx(ANN, 2**64 - 1)) == "nonce"


def test_an_account_pays_for_all_that_waits(chain: Chain, pool: Mempool) -> None:
    cost = tx(ANN, 0).max_cost
    chain.give(ANN, balance=2 * cost)
    assert pool.add(tx(ANN, 0))
    assert refused(pool, tx(ANN, 1, value=2)) == "balance"
    assert pool.add(tx(ANN, 1))
    assert refused(pool, tx(ANN, 2)) == "balance"
    assert refused(pool, tx(KeyPair.from_secret(b"\x63" * 32), 0)) == "balance"


def test_a_balance_is_compared_exactly(chain: Chain, pool: Mempool) -> None:
    chain.give(ANN, balance=2**128 - 1)
    assert refused(pool, tx(ANN, 0, value=2**128 - 1)) == "balance"
    most = tx(ANN, 0, price=2**64 - 1, gas_limit=2**64 - 1, value=2**65)
    assert most.max_cost > 2**128  # would look small if it wrapped
    assert refused(pool, most) == "balance"
    assert pool.add(tx(ANN, 0, price=1, value=2**128 - 1 - 21_000))


# --- replacing -----------------------------------------------------------------------------


@pytest.mark.parametrize(("price", "taken"), [(99, False), (100, False), (109, False), (110, True)])
def test_a_replacement_pays_ten_percent_more(pool: Mempool, price: int, taken: bool) -> None:
    first, second = tx(ANN, 0, price=100), tx(ANN, 0, price=price, value=2)
    pool.add(first)
    if taken:
        assert pool.add(second)
        assert pool.hashes() == [second.hash]
    else:
        assert refused(pool, second) == "replacement"


def test_a_replacement_need_not_be_paid_for_twice(chain: Chain, pool: Mempool) -> None:
    chain.give(ANN, balance=tx(ANN, 0, price=20).max_cost)
    assert pool.add(tx(ANN, 0, price=10))
    assert pool.add(tx(ANN, 0, price=20))
    assert refused(pool, tx(ANN, 0, price=22)) == "balance"


def test_a_replacement_that_has_no_room_replaces_nothing(chain: Chain) -> None:
    small = tx(ANN, 0, price=10)
    pool = Mempool(chain, max_bytes=MAX_TRANSACTION_SIZE)
    pool.add(small)
    pool.add(tx(BOB, 0, price=50, data=bytes(130_000)))
    assert refused(pool, tx(ANN, 0, price=11, data=bytes(2_000))) == "full"
    assert small.hash in pool
    check_books(pool)


# --- choosing ------------------------------------------------------------------------------


def test_dearest_first_in_each_senders_order(pool: Mempool) -> None:
    a0, a1, a2 = tx(ANN, 0, 5), tx(ANN, 1, 90), tx(ANN, 2, 1)
    b0, b1 = tx(BOB, 0, 50), tx(BOB, 1, 4)
    for transaction in (a2, b1, a1, b0, a0):
        pool.add(transaction)
    assert pool.select(GAS, MIB) == [b0, a0, a1, b1, a2]


def test_equal_prices_go_by_arrival(pool: Mempool) -> None:
    waiting = [tx(key, 0) for key in KEYS]
    for transaction in waiting[::-1]:
        pool.add(transaction)
    assert pool.select(GAS, MIB) == waiting[::-1]


def test_nothing_is_chosen_behind_a_gap(pool: Mempool) -> None:
    pool.add(tx(ANN, 1, 100))
    assert pool.select(GAS, MIB) == []
    pool.add(tx(ANN, 3, 100))
    pool.add(tx(ANN, 0, 1))
    assert [t.nonce for t in pool.select(GAS, MIB)] == [0, 1]
    assert pool.next_nonce(ANN.address) == 2
    assert pool.next_nonce(BOB.address) == 0


def test_what_does_not_fit_is_passed_over(pool: Mempool) -> None:
    large = tx(ANN, 0, 100, data=b"\1" * 1000)
    behind = tx(ANN, 1, 99)
    small = tx(BOB, 0, 1)
    for transaction in (large, behind, small):
        pool.add(transaction)
    assert pool.select(large.intrinsic_gas - 1, MIB) == [small]
    assert pool.select(GAS, len(encode_body([small]))) == [small]
    assert pool.select(GAS, len(encode_body([small])) - 1) == []
    everything = [large, behind, small]
    assert pool.select(sum(t.intrinsic_gas for t in everything), MIB) == everything
    assert pool.select(GAS, len(encode_body(everything))) == everything
    assert pool.select(GAS, len(encode_body(everything)) - 1) == [large, behind]
    assert pool.select(0, MIB) == []


# --- bounds --------------------------------------------------------------------------------


def test_the_cheapest_makes_room(chain: Chain) -> None:
    pool = Mempool(chain, max_transactions=2)
    cheap, middle, dear = tx(ANN, 0, 10), tx(BOB, 0, 20), tx(CAT, 0, 30)
    pool.add(cheap)
    pool.add(middle)
    assert refused(pool, tx(CAT, 0, 10)) == "full"  # worth as much, but later
    assert pool.add(dear)
    assert pool.hashes() == [middle.hash, dear.hash]
    check_books(pool)


def test_a_sender_is_worth_its_cheapest(chain: Chain) -> None:
    pool = Mempool(chain, max_transactions=3)
    blocked = [tx(ANN, 0, 1), tx(ANN, 1, 1000), tx(ANN, 2, 1000)]
    for transaction in blocked:
        pool.add(transaction)
    assert pool.add(tx(BOB, 0, 2))  # dear ones behind a cheap one cannot keep others out
    assert [t.nonce for t in pool.select(GAS, MIB)] == [0, 0, 1]
    check_books(pool)


def test_what_waits_behind_a_gap_is_worth_nothing(chain: Chain) -> None:
    pool = Mempool(chain, max_transactions=2)
    pool.add(tx(ANN, 5, 1000))
    pool.add(tx(BOB, 0, 10))
    assert pool.add(tx(CAT, 0, 1))
    assert {t.sender for t in pool.select(GAS, MIB)} == {BOB.address, CAT.address}
    assert refused(pool, tx(ANN, 5, 1000)) == "full"
    check_books(pool)


def test_bytes_are_bounded_too(chain: Chain) -> None:
    pool = Mempool(chain, max_bytes=MAX_TRANSACTION_SIZE)
    for n, key in enumerate(KEYS):
        pool.add(tx(key, 0, 10 + n, data=bytes(60_000)))
        assert pool.size <= MAX_TRANSACTION_SIZE
    assert [t.gas_price for t in pool.select(GAS, MIB)] == [14, 13]
    check_books(pool)


def test_what_is_refused_for_want_of_room_drives_nobody_out(chain: Chain) -> None:
    pool = Mempool(chain, max_bytes=MAX_TRANSACTION_SIZE)
    assert pool.add(tx(ANN, 0, 10))
    assert pool.add(tx(ANN, 1, 10))
    assert pool.add(tx(BOB, 0, 30, data=bytes(100_000)))
    # Dearer than Ann's, yet without both of them there would still be no room for it.
    assert refused(pool, tx(CAT, 0, 20, data=bytes(100_000))) == "full"
    assert [t.nonce for t in pool.select(GAS, MIB) if t.sender == ANN.address] == [0, 1]
    check_books(pool)


@pytest.mark.parametrize("bounds", [{"max_bytes": 131_067}, {"max_transactions": 0}])
def test_bounds_leave_room_for_one(chain: Chain, bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="room for one"):
        Mempool(chain, **bounds)


# --- following the chain -------------------------------------------------------------------


def test_what_was_included_leaves(chain: Chain, pool: Mempool) -> None:
    mine, next_one, other = tx(ANN, 0), tx(ANN, 1), tx(BOB, 0)
    for transaction in (mine, next_one, other):
        pool.add(transaction)
    block = chain.block([mine])
    chain.give(ANN, nonce=1)
    pool.on_head_changed(changed([block]))
    assert pool.hashes() == [next_one.hash, other.hash]
    assert set(pool.select(GAS, MIB)) == {next_one, other}


def test_what_another_transaction_made_impossible_leaves(chain: Chain, pool: Mempool) -> None:
    pool.add(tx(ANN, 0))
    pool.add(tx(ANN, 1))
    elsewhere = tx(ANN, 0, value=7)  # signed by the same key, seen in a block only
    chain.give(ANN, nonce=1)
    pool.remove_included(chain.block([elsewhere]))
    assert [t.nonce for t in pool.select(GAS, MIB)] == [1]
    assert len(pool) == 1


def test_an_account_that_became_poorer_keeps_what_it_can_pay(chain: Chain, pool: Mempool) -> None:
    for nonce in range(4):
        pool.add(tx(ANN, nonce))
    chain.give(ANN, nonce=1, balance=2 * tx(ANN, 1).max_cost)
    pool.on_head_changed(changed())
    assert [t.nonce for t in pool.select(GAS, MIB)] == [1, 2]
    assert len(pool) == 2


def test_a_stale_view_of_a_sender_is_put_right_by_its_next_transaction(
    chain: Chain, pool: Mempool
) -> None:
    pool.add(tx(ANN, 0))
    pool.add(tx(ANN, 1))
    chain.give(ANN, nonce=1)
    pool.add(tx(ANN, 2))
    assert [t.nonce for t in pool.select(GAS, MIB)] == [1, 2]
    chain.give(ANN, nonce=3)
    assert refused_and_cleared(pool, tx(ANN, 2, 100)) == "nonce"
    assert len(pool) == 0


def refused_and_cleared(pool: Mempool, transaction: Transaction) -> str:
    with pytest.raises(InvalidTransactionError) as caught:
        pool.add(transaction)
    return caught.value.rule


def test_what_was_reverted_comes_back(chain: Chain, pool: Mempool) -> None:
    kept, lost, both = tx(ANN, 0), tx(BOB, 0), tx(CAT, 0)
    second = tx(BOB, 1)
    old = [chain.block([kept, lost]), chain.block([both, second])]
    new = [chain.block([both]), chain.block([]), chain.block([])]
    for key, nonce in ((ANN, 1), (BOB, 2), (CAT, 1)):
        chain.give(key, nonce=nonce)
    pool.add(tx(ANN, 1))
    for key, nonce in ((ANN, 0), (BOB, 0), (CAT, 1)):
        chain.give(key, nonce=nonce)
    pool.on_head_changed(changed(new, old[::-1]))
    assert {t.hash for t in pool.select(GAS, MIB)} == {
        kept.hash,
        lost.hash,
        second.hash,
        tx(ANN, 1).hash,
    }
    assert both.hash not in pool


def test_what_cannot_be_paid_any_more_does_not_come_back(chain: Chain, pool: Mempool) -> None:
    old = chain.block([tx(ANN, 0), tx(BOB, 0)])
    chain.give(ANN, balance=0)
    pool.on_head_changed(changed([], [old]))
    assert [t.sender for t in pool.select(GAS, MIB)] == [BOB.address]


def test_a_nonce_that_went_back_leaves_a_gap_and_not_an_error(chain: Chain, pool: Mempool) -> None:
    chain.give(ANN, nonce=MAX_NONCE_GAP)
    far, near = tx(ANN, MAX_NONCE_GAP), tx(BOB, 0)
    pool.add(far)
    pool.add(near)
    chain.give(ANN, nonce=0)
    pool.on_head_changed(changed([], [chain.block([])]))
    assert pool.hashes() == [near.hash]  # too far ahead now


def test_no_more_comes_back_than_there_is_room_for(chain: Chain) -> None:
    pool = Mempool(chain, max_transactions=3)
    old = [chain.block([tx(key, n) for key in (ANN, BOB)]) for n in range(5)]
    pool.on_head_changed(changed([], old[::-1]))
    assert len(pool) <= 3
    assert all(t.nonce <= 1 for t in pool.select(GAS, MIB))
    check_books(pool)


def test_a_reverted_block_whose_body_is_gone_is_no_error(pool: Mempool) -> None:
    stranger = Chain().block([tx(ANN, 0)])
    pool.on_head_changed(changed([], [stranger]))
    assert len(pool) == 0


# --- everything at once --------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3), st.integers(0, 7), st.integers(1, 60)),
        st.tuples(st.just("mine"), st.integers(1, 6)),
        st.tuples(st.just("poor"), st.integers(0, 3), st.integers(0, 4)),
        st.tuples(st.just("back"), st.integers(0, 3), st.integers(0, 3)),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(steps)
def test_whatever_happens_the_books_balance(script: list[Any]) -> None:
    chain = Chain()
    pool = Mempool(chain, max_transactions=7)
    for step in script:
        match step:
            case ("add", who, nonce, price):
                try:
                    pool.add(tx(KEYS[who], nonce, price))
                except InvalidTransactionError as error:
                    assert error.rule not in ALWAYS_INVALID
            case ("mine", count):
                chosen = pool.select(count * 21_000, MIB)
                assert len(chosen) <= count
                for transaction in chosen:
                    account = chain.get_account(transaction.sender)
                    assert transaction.nonce == account.nonce
                    assert transaction.max_cost <= account.balance
                    chain.accounts[transaction.sender] = Account(
                        account.nonce + 1, account.balance - transaction.max_cost
                    )
                pool.on_head_changed(changed([chain.block(chosen)]))
                assert not any(transaction.hash in pool for transaction in chosen)
            case ("poor", who, afford):
                chain.give(KEYS[who], balance=afford * 21_001 * 30)
                pool.on_head_changed(changed())
            case ("back", who, nonce):
                chain.give(KEYS[who], nonce=nonce)
                pool.on_head_changed(changed([], [chain.block([])]))
        assert len(pool) <= 7
        check_books(pool)


def test_threads_may_add_at_once(chain: Chain, pool: Mempool) -> None:
    waiting = [tx(key, nonce) for nonce in range(10) for key in KEYS]

    def add_all(turn: int) -> int:
        return sum(pool.add(transaction) for transaction in waiting[turn:] + waiting[:turn])

    with ThreadPoolExecutor(4) as threads:
        added = sum(threads.map(add_all, range(0, 40, 10)))
    assert added == len(waiting) == len(pool)
    assert len(pool.select(GAS, MIB)) == len(waiting)
