"""What transactions do to balances, and every rule of a body broken by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.forks import (
    ACCOUNTS,
    STRANGER,
    VALIDATORS,
    ChainMaker,
    check_books,
    headers_of,
    opened,
    state_root,
)

from moderntensor.backend import merkle
from moderntensor.blockchain.block import EMPTY_BODY, Block, encode_body
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.crypto import CURVE_ORDER
from moderntensor.blockchain.execution import MAX_NONCE, BlockExecution, Ledger
from moderntensor.blockchain.prepared import decode_body, prepare_bodies, prepare_body, split_body
from moderntensor.blockchain.rules import BLOCK_RULES, TRANSACTION_RULES
from moderntensor.blockchain.state import Account, encode_funds
from moderntensor.blockchain.transaction import Transaction, TransactionReceipt
from moderntensor.blockchain.workload import DEFAULT_BALANCE
from moderntensor.errors import InvalidBlockError, InvalidTransactionError

MAKER = ChainMaker(VALIDATORS)
GENESIS = MAKER.genesis
SUPPLY = sum(MAKER.config.alloc.values())
A, B, C, D = (key.address for key in ACCOUNTS)


@pytest.fixture(params=["memory", "lmdb"])
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Blockchain]:
    with opened(request.param, tmp_path) as store:
        yield Blockchain(store, MAKER.config)


def sent(sender: int = 0, to: int | bytes | None = 1, **fields: Any) -> Transaction:
    return MAKER.transfer(GENESIS, sender, to, **fields)


def malleated(transaction: Transaction) -> Transaction:
    """The other signature of the same transaction: valid to the curve, refused by us."""
    s = CURVE_ORDER - int.from_bytes(transaction.s, "big")
    return transaction.replace(s=s.to_bytes(32, "big"), v=1 - transaction.v)


def balances(chain: Blockchain) -> dict[bytes, tuple[int, int]]:
    found = {}
    for address in (*MAKER.config.alloc, *(v.address for v in VALIDATORS), STRANGER.address):
        account = chain.get_account(address)
        if account != Account():
            found[address] = (account.nonce, account.balance)
    return found


# --- what is valid ---------------------------------------------------------------------------


def test_a_transfer_moves_value_and_pays_the_validator(chain: Blockchain) -> None:
    block = MAKER.block(GENESIS, [sent(value=7000, gas_price=3, gas_limit=50_000, data=b"\0a")])
    assert chain.import_block(block) == "applied"
    fee = (21_000 + 4 + 16) * 3  # what it used, not what it was ready to use
    validator = VALIDATORS[1].address  # slot 1
    assert balances(chain) == {
        A: (1, DEFAULT_BALANCE - 7000 - fee),
        B: (0, DEFAULT_BALANCE + 7000),
        C: (0, DEFAULT_BALANCE),
        D: (0, DEFAULT_BALANCE),
        validator: (0, fee),
    }
    assert block.header.gas_used == 21_020
    assert chain.get_receipt(block.transactions[0].hash) == TransactionReceipt(
        transaction_hash=block.transactions[0].hash, gas_used=21_020
    )


def test_a_creation_burns_its_gas_and_moves_nothing(chain: Blockchain) -> None:
    chain.import_block(MAKER.block(GENESIS, [sent(to=None, value=5, data=b"\1")]))
    fee = 21_000 + 32_000 + 16
    assert chain.get_account(A) == Account(nonce=1, balance=DEFAULT_BALANCE - fee)
    assert chain.get_account(VALIDATORS[1].address).balance == fee


def test_to_oneself_and_by_the_validator(chain: Blockchain) -> None:
    first = MAKER.block(GENESIS, [sent(to=0, value=10**17), sent(1, VALIDATORS[2].address)])
    chain.import_block(first)
    assert chain.get_account(A).balance == DEFAULT_BALANCE - 21_000
    # The validator of slot 2 spends what it was just given, in its own block.
    spend = Transaction.create(
        VALIDATORS[2], chain_id=1, nonce=0, to=C, value=400, gas_price=1, gas_limit=21_000
    )
    fund = MAKER.transfer(first, 3, VALIDATORS[2].address, value=30_000)
    second = MAKER.block(first, [fund, spend])
    chain.import_block(second)
    assert chain.get_account(VALIDATORS[2].address) == Account(
        nonce=1, balance=1000 + 30_000 + 21_000 - 400
    )


def test_an_account_that_ends_with_nothing_but_a_nonce_stays(chain: Blockchain) -> None:
    all_of_it = MAKER.block(GENESIS, [sent(value=DEFAULT_BALANCE - 21_000)])
    chain.import_block(all_of_it)
    assert chain.get_account(A) == Account(nonce=1, balance=0)


def test_nothing_sent_to_nobody_makes_no_account(chain: Blockchain) -> None:
    before = len(balances(chain))
    chain.import_block(MAKER.block(GENESIS, [sent(to=STRANGER.address, value=0)]))
    assert STRANGER.address not in balances(chain)
    assert len(balances(chain)) == before + 1  # the validator


def test_gas_limit_and_price_bind_balance_before_execution(chain: Blockchain) -> None:
    """balance ≥ value + gas_limit · price, though less will be paid."""
    fits = sent(value=DEFAULT_BALANCE - 50_000 * 2, gas_limit=50_000, gas_price=2)
    chain.import_block(MAKER.block(GENESIS, [fits]))
    assert chain.get_account(A).balance == 29_000 * 2


def test_supply_is_constant_over_a_long_random_run(chain: Blockchain) -> None:
    blocks = MAKER.run(GENESIS, 40, transfers=5)
    for block in blocks:
        chain.import_block(block)
    assert sum(balance for _, balance in balances(chain).values()) == SUPPLY
    assert chain.head.state_root == state_root(balances(chain))
    check_books(chain)


# --- what is not -----------------------------------------------------------------------------

BROKEN: dict[str, tuple[str, Any]] = {
    "chain id": ("chain_id", lambda: [sent(chain_id=2)]),
    "no key has this signature": ("signature", lambda: [sent().replace(r=b"\xff" * 32)]),
    "high s": ("signature", lambda: [malleated(sent())]),
    "nonce ahead": ("nonce", lambda: [sent(nonce=1)]),
    "nonce used": ("nonce", lambda: [sent(), sent()]),
    "out of order": ("nonce", lambda: [sent(ahead=1), sent()]),
    "sender nobody knows": ("nonce", lambda: [sent(nonce=3).replace(value=1)]),
    "too little gas": ("gas_limit", lambda: [sent(gas_limit=20_999)]),
    "too little gas for its data": ("gas_limit", lambda: [sent(data=b"ab", gas_limit=21_031)]),
    "too little gas for a creation": ("gas_limit", lambda: [sent(to=None, gas_limit=52_999)]),
    "free gas": ("gas_price", lambda: [sent(gas_price=0)]),
    "overspent by one": ("balance", lambda: [sent(value=DEFAULT_BALANCE - 20_999)]),
    "cannot pay its whole gas limit": (
        "balance",
        lambda: [sent(value=DEFAULT_BALANCE - 21_000, gas_limit=21_001)],
    ),
    "a sum over 128 bits": (
        "balance",
        lambda: [sent(value=2**128 - 1, gas_price=2**64 - 1, gas_limit=2**64 - 1)],
    ),
    "second one overspends": (
        "balance",
        lambda: [sent(value=DEFAULT_BALANCE - 30_000), sent(ahead=1, value=0)],
    ),
    # Rules are tried in the order of the protocol: the earlier one is named.
    "chain id before signature": ("chain_id", lambda: [malleated(sent(chain_id=2))]),
    "nonce before gas": ("nonce", lambda: [sent(nonce=9, gas_limit=1, gas_price=0)]),
    "gas before its price": ("gas_limit", lambda: [sent(gas_limit=1, gas_price=0)]),
    "price before balance": ("gas_price", lambda: [sent(gas_price=0, value=2**127)]),
}


def unchecked(transactions: list[Transaction]) -> Block:
    """A block whose header speaks of these transactions, in order up to what they lead to."""
    header = MAKER.block(
        GENESIS,
        txs_root=merkle.list_root([transaction.encode() for transaction in transactions]),
        gas_used=sum(transaction.intrinsic_gas for transaction in transactions),
    ).header
    return Block(header=header, transactions=tuple(transactions))


@pytest.mark.parametrize("name", BROKEN)
def test_a_transaction_that_breaks_a_rule_breaks_its_block(name: str, chain: Blockchain) -> None:
    rule, make = BROKEN[name]
    assert rule in TRANSACTION_RULES
    block = unchecked(make())
    root = chain.head.state_root
    with pytest.raises(InvalidBlockError) as caught:
        chain.import_block(block)
    assert (caught.value.rule, caught.value.height, caught.value.hash) == (rule, 1, block.hash)
    assert not caught.value.body_only
    assert chain.is_invalid(block.hash)
    assert chain.head.height == 0
    assert chain.head.state_root == root == state_root(balances(chain))
    check_books(chain)
    # The header is refused from now on, and so is what stands on it.
    for refused in (block, MAKER.block(_known(block))):
        with pytest.raises(InvalidBlockError):
            chain.add_headers(headers_of([refused]))
    assert chain.import_block(MAKER.block(GENESIS, [sent()])) == "applied"


def _known(block: Block) -> Block:
    MAKER.states[block.hash] = MAKER.states[GENESIS.hash]
    return block


@pytest.mark.parametrize("rule", ["gas_used", "receipts_root", "state_root"])
@pytest.mark.parametrize("transfers", [0, 1])
def test_a_header_that_claims_other_results(rule: str, transfers: int, chain: Blockchain) -> None:
    assert rule in BLOCK_RULES
    wrong = {"gas_used": 21_001, "receipts_root": b"\1" * 32, "state_root": b"\2" * 32}
    block = MAKER.block(GENESIS, [sent()][:transfers], **{rule: wrong[rule]})
    with pytest.raises(InvalidBlockError) as caught:
        chain.import_block(block)
    assert caught.value.rule == rule
    assert chain.is_invalid(block.hash)
    check_books(chain)


def test_gas_of_all_transactions_together(chain: Blockchain) -> None:
    maker = ChainMaker(VALIDATORS)
    heavy = [
        maker.transfer(GENESIS, n % 4, (n + 1) % 4, n // 4, data=b"\1" * 130_000) for n in range(15)
    ]
    total = sum(transaction.intrinsic_gas for transaction in heavy)
    assert total > maker.config.gas_limit
    fits = maker.block(GENESIS, heavy[:14])
    over = maker.block(GENESIS, heavy, gas_used=maker.config.gas_limit)
    with pytest.raises(InvalidBlockError) as caught:
        chain.import_block(over)
    assert caught.value.rule == "block_gas"
    assert chain.import_block(fits) == "applied"


@pytest.mark.parametrize("way", ["block", "headers and bodies"])
def test_a_block_over_two_mebibytes(way: str, chain: Blockchain) -> None:
    heavy = [sent(n % 4, 1, ahead=n // 4, data=bytes(130_900)) for n in range(17)]
    block = MAKER.block(GENESIS, heavy)
    chain.add_headers(headers_of([block]))
    with pytest.raises(InvalidBlockError) as caught:
        if way == "block":
            chain.import_block(block)
        else:
            chain.apply_bodies(1, [block.body])
    assert (caught.value.rule, caught.value.body_only) == ("size", False)
    assert chain.is_invalid(block.hash)
    assert chain.header_head == chain.head  # it does not wait for its body any more


def test_bytes_that_are_no_transaction(chain: Blockchain) -> None:
    items = [sent().encode(), b"\0" * 200]
    body = b"\0\0\0\2" + b"".join(len(item).to_bytes(4, "big") + item for item in items)
    header = MAKER.block(GENESIS, txs_root=merkle.list_root(items)).header
    chain.add_headers(headers_of([Block(header=header)]))
    with pytest.raises(InvalidBlockError) as caught:
        chain.apply_bodies(1, [body])
    assert (caught.value.rule, caught.value.body_only) == ("encoding", False)
    assert chain.is_invalid(header.hash)


@pytest.mark.parametrize(
    "body",
    [
        EMPTY_BODY,
        b"",
        b"\0\0\0\2" + encode_body([sent()])[4:],
        encode_body([sent()]) + b"\0",
        encode_body([sent(), sent(1, 2)]),
        encode_body([malleated(sent())]),
    ],
)
def test_another_body_says_nothing_about_the_header(body: bytes, chain: Blockchain) -> None:
    block = MAKER.block(GENESIS, [sent()])
    chain.add_headers(headers_of([block]))
    with pytest.raises(InvalidBlockError) as caught:
        chain.apply_bodies(1, [body])
    assert (caught.value.rule, caught.value.body_only) == ("body", True)
    assert not chain.is_invalid(block.hash)
    assert chain.pending_span() == (1, 1)
    assert chain.apply_bodies(1, [block.body]).head.hash == block.hash


def test_a_body_for_a_header_without_one(chain: Blockchain) -> None:
    block = MAKER.block(GENESIS)
    chain.add_headers(headers_of([block]))
    with pytest.raises(InvalidBlockError, match="body"):
        chain.apply_bodies(1, [encode_body([sent()])])
    mixed = Block(header=block.header, transactions=(sent(),))
    with pytest.raises(InvalidBlockError) as caught:
        chain.import_block(mixed)
    assert caught.value.body_only
    assert chain.apply_bodies(1, [EMPTY_BODY]).blocks == 1


# --- the parts --------------------------------------------------------------------------------


def test_a_transaction_that_is_refused_leaves_the_ledger_alone() -> None:
    ledger = Ledger(lambda address: encode_funds(0, MAKER.config.alloc.get(address, 0)))
    execution = BlockExecution(ledger, 1, 30_000_000, VALIDATORS[0].address)
    execution.execute(sent())
    root, gas = execution.receipts_root(), execution.gas_used
    with pytest.raises(InvalidTransactionError):
        execution.execute(sent(ahead=1, value=2**100))
    assert (execution.receipts_root(), execution.gas_used) == (root, gas)
    changes, before = ledger.take_changes()
    assert set(changes) == set(before) == {A, B, VALIDATORS[0].address}
    assert before[VALIDATORS[0].address] is None
    assert ledger.take_changes() == ({}, {})


def test_the_last_nonce_is_never_used() -> None:
    ledger = Ledger(lambda _: encode_funds(MAX_NONCE, 10**20))
    execution = BlockExecution(ledger, 1, 30_000_000, VALIDATORS[0].address)
    with pytest.raises(InvalidTransactionError, match="nonce"):
        execution.execute(sent(nonce=MAX_NONCE))


def test_prepared_bodies_never_raise() -> None:
    good = encode_body([sent(), sent(1, 2)])
    assert split_body(good) == [sent().encode(), sent(1, 2).encode()]
    assert len(prepare_body(good)) == 2
    assert prepare_body(good).root == merkle.body_root(good)[0]
    for transaction in prepare_body(good).transactions:
        again = Transaction.decode(transaction.encode())
        assert (transaction.hash, transaction.sender) == (again.hash, again.sender)
    for cut in range(len(good)):
        prepared = prepare_body(good[:cut])
        if good[:cut] != EMPTY_BODY:
            assert (prepared.root, len(prepared)) == (None, 0)
            assert prepared.fault
    unsigned = encode_body([sent().replace(r=b"\xff" * 32)])
    assert prepare_body(unsigned).fault is None
    assert decode_body(EMPTY_BODY).root == bytes(32)


def test_bodies_prepared_together_are_as_if_alone() -> None:
    one, nobody, two = sent(), sent().replace(r=b"\xff" * 32), sent(1, 2)
    parts = [[one, nobody], [], [two]]
    bodies = [encode_body(part) for part in parts]
    prepared = prepare_bodies([*bodies[:2], b"no body", bodies[2]])
    assert [body.root for body in prepared] == [
        *(merkle.body_root(body)[0] for body in bodies[:2]), None, merkle.body_root(bodies[2])[0]
    ]  # fmt: skip
    assert prepared[1] is prepare_body(EMPTY_BODY)
    found = [transaction for body in prepared for transaction in body.transactions]
    assert found == [one, nobody, two]
    for made, transaction in zip(found, (one, nobody, two), strict=True):
        assert transaction.hash == made._hash  # known by now
        if transaction is not nobody:
            assert transaction.sender == made._sender
    # What is nobody's is refused as if it had never been looked at.
    texts = []
    for transaction in (found[1], nobody):
        ledger = Ledger(lambda _: encode_funds(0, 10**20))
        execution = BlockExecution(ledger, 1, 30_000_000, VALIDATORS[0].address)
        with pytest.raises(InvalidTransactionError) as caught:
            execution.execute(transaction)
        texts.append((caught.value.rule, str(caught.value)))
    assert texts[0] == texts[1]
    assert texts[0][0] == "signature"
