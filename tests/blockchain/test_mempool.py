"""The pool of waiting transactions: rules, bounds and order."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.pools import ANN, BOB, CAT, GAS, KEYS, MIB, Account, Chain, check_books, refused, tx

from moderntensor.blockchain.block import encode_body
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.mempool import ALWAYS_INVALID, MIN_BYTES, Mempool
from moderntensor.blockchain.transaction import MAX_TRANSACTION_SIZE, Transaction
from moderntensor.blockchain.waiting import ENTRY_OVERHEAD, MAX_NONCE_GAP


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def pool(chain: Chain) -> Iterator[Mempool]:
    made = Mempool(chain)
    yield made
    check_books(made)


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
    assert (len(pool), pool.size) == (1, ENTRY_OVERHEAD)
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
    pool = Mempool(chain, max_bytes=MIN_BYTES + ENTRY_OVERHEAD)
    pool.add(small)
    pool.add(tx(BOB, 0, price=50, data=bytes(130_000)))
    assert refused(pool, tx(ANN, 0, price=11, data=bytes(2_000))) == "full"
    assert small.hash in pool
    check_books(pool)


# --- choosing ------------------------------------------------------------------------------


def test_the_latest_come_first(chain: Chain) -> None:
    pool = Mempool(chain, max_transactions=3)
    first, second, third = tx(ANN, 0, price=5), tx(BOB, 0, price=5), tx(BOB, 1, price=5)
    for transaction in (first, second, third):
        pool.add(transaction)
    assert pool.latest(2) == [third, second]
    # Refused for want of room, it has made some go and come back.
    assert refused(pool, tx(CAT, 0, price=1)) == "full"
    assert pool.latest(9) == [third, second, first]
    again = tx(ANN, 0, price=6)
    pool.add(again)
    assert pool.latest(9) == [again, third, second]
    assert pool.latest(0) == []


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
    pool = Mempool(chain, max_bytes=MIN_BYTES)
    for n, key in enumerate(KEYS):
        pool.add(tx(key, 0, 10 + n, data=bytes(60_000)))
        assert pool.size <= MIN_BYTES
    assert [t.gas_price for t in pool.select(GAS, MIB)] == [14, 13]
    check_books(pool)


def test_what_is_refused_for_want_of_room_drives_nobody_out(chain: Chain) -> None:
    pool = Mempool(chain, max_bytes=MIN_BYTES)
    assert pool.add(tx(ANN, 0, 10))
    assert pool.add(tx(ANN, 1, 10))
    assert pool.add(tx(BOB, 0, 30, data=bytes(100_000)))
    # Dearer than Ann's, yet without both of them there would still be no room for it.
    assert refused(pool, tx(CAT, 0, 20, data=bytes(100_000))) == "full"
    assert [t.nonce for t in pool.select(GAS, MIB) if t.sender == ANN.address] == [0, 1]
    check_books(pool)


@pytest.mark.parametrize("bounds", [{"max_bytes": MIN_BYTES - 1}, {"max_transactions": 0}])
def test_bounds_leave_room_for_one(chain: Chain, bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="room for one"):
        Mempool(chain, **bounds)


def test_threads_may_add_at_once(chain: Chain, pool: Mempool) -> None:
    waiting = [tx(key, nonce) for nonce in range(10) for key in KEYS]

    def add_all(turn: int) -> int:
        return sum(pool.add(transaction) for transaction in waiting[turn:] + waiting[:turn])

    with ThreadPoolExecutor(4) as threads:
        added = sum(threads.map(add_all, range(0, 40, 10)))
    assert added == len(waiting) == len(pool)
    assert len(pool.select(GAS, MIB)) == len(waiting)


def test_one_sender_has_its_share_of_the_room_and_no_more(chain: Chain) -> None:
    pool = Mempool(chain, max_bytes=8 * 2 * MIN_BYTES)
    chain.give(ANN, balance=10**15)
    most = MAX_TRANSACTION_SIZE - 138
    assert pool.add(tx(ANN, 0, data=bytes(most)))
    assert pool.add(tx(ANN, 1, data=bytes(most)))
    assert refused(pool, tx(ANN, 2, data=bytes(most))) == "full"
    assert pool.add(tx(ANN, 1, 20, data=bytes(most)))  # takes the place of the other
    assert pool.add(tx(BOB, 0, data=bytes(most)))
    check_books(pool)


@pytest.mark.parametrize(("senders", "each", "data"), [(200, 1, 0), (4, 50, 0), (100, 1, 700)])
def test_what_it_counts_is_what_it_takes(senders: int, each: int, data: int) -> None:
    keys = [KeyPair.from_secret((n + 1).to_bytes(32, "big")) for n in range(senders)]
    chain = Chain()
    for key in keys:
        chain.accounts[key.address] = Account(0, 10**12)
    encoded = [tx(key, n, data=bytes(data)).encode() for key in keys for n in range(each)]
    pool = Mempool(chain)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for raw in encoded:
            pool.add(Transaction.decode_hashed(raw))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(pool) == len(encoded)
    assert taken <= pool.size <= 4 * taken
