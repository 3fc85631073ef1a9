"""The pool follows the chain: what was included leaves, what was undone comes back; time passes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.pools import ANN, BOB, CAT, GAS, MIB, Chain, changed, check_books, refused, tx

from moderntensor.blockchain.mempool import DEFAULT_LIFETIME, Mempool
from moderntensor.blockchain.transaction import Transaction
from moderntensor.blockchain.waiting import MAX_NONCE_GAP
from moderntensor.errors import InvalidTransactionError


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def pool(chain: Chain) -> Iterator[Mempool]:
    made = Mempool(chain)
    yield made
    check_books(made)


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


# --- time ----------------------------------------------------------------------------------


def test_what_has_waited_for_hours_leaves(chain: Chain) -> None:
    pool = Mempool(chain, lifetime=100.0)
    pool.add(tx(ANN, 0))
    assert pool.expire(5_000.0) == 0  # whatever the clock began with
    pool.expire(5_050.0)
    pool.add(tx(BOB, 0))
    assert pool.expire(5_100.0) == 0
    assert pool.expire(5_101.0) == 1
    assert pool.hashes() == [tx(BOB, 0).hash]
    assert pool.expire(5_150.0) == 0
    assert pool.expire(5_151.0) == 1
    assert not len(pool)
    check_books(pool)


def test_a_clock_that_begins_anew_makes_nothing_older(chain: Chain, pool: Mempool) -> None:
    pool.add(tx(ANN, 0))
    pool.expire(10 * DEFAULT_LIFETIME)
    assert pool.expire(7.0) == 0
    assert pool.expire(7.0 + DEFAULT_LIFETIME) == 0
    assert pool.expire(8.0 + DEFAULT_LIFETIME) == 1


def test_a_replacement_waits_from_when_it_came(chain: Chain) -> None:
    pool = Mempool(chain, lifetime=100.0)
    pool.expire(0.0)
    pool.add(tx(ANN, 0, 10))
    pool.add(tx(ANN, 1, 10))
    pool.expire(60.0)
    pool.add(tx(ANN, 0, 20))
    assert pool.expire(101.0) == 1
    assert [t.gas_price for t in pool.select(GAS, MIB)] == [20]
    check_books(pool)


def test_what_was_refused_for_want_of_room_makes_nothing_younger(chain: Chain) -> None:
    pool = Mempool(chain, max_transactions=2, lifetime=100.0)
    pool.expire(0.0)
    pool.add(tx(ANN, 0, 10))
    pool.add(tx(BOB, 0, 20))
    pool.expire(90.0)
    assert refused(pool, tx(CAT, 0, 5)) == "full"
    assert pool.expire(101.0) == 2


def test_what_was_reverted_is_news_again_once(chain: Chain, pool: Mempool) -> None:
    lost, gone = tx(BOB, 0), tx(ANN, 0)
    pool.on_head_changed(changed([], [chain.block([lost, gone])]))
    chain.give(ANN, nonce=1)
    pool.on_head_changed(changed([chain.block([gone])]))
    assert pool.take_returned() == [lost]
    assert pool.take_returned() == []
