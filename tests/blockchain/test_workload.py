"""Chains made to measure: the same each time, and with as many accounts as were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.workload import build_chain, demo_config, demo_keys

ACCOUNTS, VALIDATORS = demo_keys(5), demo_keys(3, "validator")
BLOCKS = 30


@pytest.fixture
def state_db() -> Iterator[StateDB]:
    with StateDB(None) as opened:
        yield opened


def grow(state_db: StateDB, transfers: int, new_accounts: int, batch: int = 7) -> Blockchain:
    chain = Blockchain(state_db.store, demo_config(ACCOUNTS, VALIDATORS))
    for _ in build_chain(
        chain,
        validators=VALIDATORS,
        accounts=ACCOUNTS,
        blocks=BLOCKS,
        transfers=transfers,
        new_accounts=new_accounts,
        batch=batch,
    ):
        pass
    return chain


def transfers_of(chain: Blockchain) -> list[int]:
    found = []
    for height in range(1, chain.head.height + 1):
        block = chain.get_block(height)
        assert block is not None
        found.append(len(block.transactions))
    return found


@pytest.mark.parametrize(
    ("transfers", "new_accounts"), [(58, 29), (58, 58), (58, 1), (100, 33), (7, 3), (0, 0)]
)
def test_so_many_transfers_make_so_many_accounts(
    state_db: StateDB, transfers: int, new_accounts: int
) -> None:
    chain = grow(state_db, transfers, new_accounts)
    spread = transfers_of(chain)
    assert sum(spread) == transfers
    assert max(spread) - min(spread) <= 1
    paid = sum(state_db.balance(key.address) > 0 for key in VALIDATORS)  # fees
    assert state_db.account_count == len(ACCOUNTS) + paid + new_accounts


def test_the_same_arguments_give_the_same_blocks(state_db: StateDB) -> None:
    chain = grow(state_db, 58, 29)
    with StateDB(None) as other:
        assert grow(other, 58, 29, batch=BLOCKS).head == chain.head
    with StateDB(None) as other:
        assert grow(other, 58, 28).head != chain.head


def test_a_second_run_makes_accounts_of_its_own(state_db: StateDB) -> None:
    grow(state_db, 58, 29)
    before = state_db.account_count
    grow(state_db, 58, 29)
    assert state_db.account_count == before + 29


def test_what_makes_no_account_pays_one_that_was_made(state_db: StateDB) -> None:
    """So that a state grows and changes everywhere at once."""
    chain = grow(state_db, 90, 30)
    seen: dict[bytes, int] = {}
    for height in range(1, BLOCKS + 1):
        block = chain.get_block(height)
        assert block is not None
        for transaction in block.transactions:
            assert transaction.to is not None
            seen[transaction.to] = seen.get(transaction.to, 0) + 1
    assert len(seen) == 30
    assert sum(seen.values()) == 90
    assert not seen.keys() & {key.address for key in ACCOUNTS}


def test_transfers_go_to_whom_they_are_told(state_db: StateDB) -> None:
    addresses = [bytes((i,)) * 20 for i in (1, 2, 3)]
    chain = Blockchain(state_db.store, demo_config(ACCOUNTS, VALIDATORS))
    given: Any = {"validators": VALIDATORS, "accounts": ACCOUNTS, "blocks": 4, "transfers": 7}
    for _ in build_chain(chain, recipients=addresses, **given):
        pass
    assert [len(chain.transactions_of(address, limit=9)) for address in addresses] == [3, 2, 2]
    with pytest.raises(ValueError, match="either new accounts or given recipients"):
        next(build_chain(chain, recipients=addresses, new_accounts=1, **given))


def test_more_accounts_than_transfers_are_refused(state_db: StateDB) -> None:
    with pytest.raises(ValueError, match="58 transfers cannot make 59 accounts"):
        grow(state_db, 58, 59)
