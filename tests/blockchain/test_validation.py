"""Every rule of a header, broken by hand, wherever a header can come in."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.forks import (
    STRANGER,
    VALIDATORS,
    ChainMaker,
    SetClock,
    headers_of,
    opened,
)

from moderntensor.backend import headers as engine
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.transaction import Transaction
from moderntensor.blockchain.validation import (
    HEADER_RULES,
    BlockValidator,
    verify_header_signatures,
)
from moderntensor.errors import (
    FinalityError,
    HeaderChainError,
    InvalidBlockError,
    InvalidTransactionError,
    UnknownParentError,
)

MAKER = ChainMaker(VALIDATORS, block_time=12)
START = MAKER.config.timestamp
CLOCK = SetClock(START + 12 * 100)
GOOD = MAKER.run(MAKER.genesis, 3)


def broken(rule: str) -> Block:
    """A block on `GOOD[-1]` that breaks just this rule, and is signed where that can be."""
    parent = GOOD[-1]
    step = {
        "version": {"version": 2},
        "gas_limit": {"gas_limit": MAKER.config.gas_limit - 1},
        "gas_used": {"gas_used": MAKER.config.gas_limit + 1},
        "height": {"height": parent.height + 2},
        "slot": {"timestamp": parent.header.timestamp + 11},
        "signature": {"signature": b"\x01" * 64},
    }
    if rule == "validator":
        return MAKER.block(parent, key=STRANGER)
    if rule == "future":  # the first slot that begins after now + 15 s
        return MAKER.block(parent, gap=102 - 3)
    return MAKER.block(parent, **step[rule])


@pytest.fixture
def validator() -> BlockValidator:
    found = BlockValidator(StateDB(None), MAKER.config, runtime=CLOCK)
    for block in GOOD:
        found.chain.import_block(block)
    return found


def test_the_rules_are_those_of_the_engine_and_the_signature() -> None:
    assert (*engine.RULES, "signature") == HEADER_RULES


@pytest.mark.parametrize(
    "rule",
    ["version", "gas_limit", "gas_used", "height", "slot", "future", "validator", "signature"],
)
def test_a_broken_rule_is_named_everywhere(rule: str, validator: BlockValidator) -> None:
    block = broken(rule)
    chain = validator.chain
    before = chain.head, chain.header_head
    for take in (
        lambda: validator.validate_header(block.header),
        lambda: validator.validate_block(block),
        lambda: chain.import_block(block),
        lambda: chain.add_headers(headers_of([block])),
    ):
        with pytest.raises(HeaderChainError) as caught:
            take()
        assert caught.value.rule == rule
        assert caught.value.height == 4
    assert (chain.head, chain.header_head) == before
    # Nobody may be kept from sending the right header of that height.
    assert not chain.is_invalid(block.hash)
    assert not chain.is_known(block.hash)


def test_linkage_within_a_batch(validator: BlockValidator) -> None:
    other = MAKER.run(GOOD[-1], 3, gap=3)
    run = MAKER.run(GOOD[-1], 3)
    with pytest.raises(HeaderChainError) as caught:
        validator.chain.add_headers(headers_of([run[0], run[1], other[2]]))
    assert (caught.value.rule, caught.value.index, caught.value.height) == ("previous_hash", 2, 6)


def test_two_blocks_in_one_slot_and_time_running_backwards(validator: BlockValidator) -> None:
    for timestamp in (GOOD[-1].header.timestamp, GOOD[-1].header.timestamp - 12, START - 1):
        with pytest.raises(HeaderChainError, match="slot"):
            validator.chain.import_block(MAKER.block(GOOD[-1], timestamp=timestamp))


def test_a_timestamp_may_lie_anywhere_in_its_slot(validator: BlockValidator) -> None:
    slot = MAKER.block(GOOD[-1]).header.timestamp
    late = MAKER.block(GOOD[-1], timestamp=slot + 11)
    assert validator.chain.import_block(late) == "applied"


def test_the_future_comes_closer() -> None:
    clock = SetClock(CLOCK.now)
    chain = Blockchain(StateDB(None).store, MAKER.config, runtime=clock)
    block = MAKER.block(MAKER.genesis, gap=102)  # 24 s from now
    with pytest.raises(HeaderChainError, match="future"):
        chain.import_block(block)
    chain.check_headers(headers_of([block]), int(clock.now) + 9)
    clock.now += 9
    assert chain.import_block(block) == "applied"


def test_an_unknown_parent(validator: BlockValidator) -> None:
    orphan = MAKER.run(GOOD[-1], 2)[1]
    for take in (
        lambda: validator.validate_header(orphan.header),
        lambda: validator.chain.import_block(orphan),
        lambda: validator.chain.add_headers(headers_of([orphan])),
    ):
        with pytest.raises(UnknownParentError):
            take()


def test_a_checkpoint_is_finality(tmp_path: Path) -> None:
    """Who is on a chain against our checkpoint may be right: no rule is broken, none is banned."""
    maker = ChainMaker(VALIDATORS)
    right = maker.run(maker.genesis, 6)
    wrong = maker.run(maker.genesis, 8, gap=2)
    maker = ChainMaker(VALIDATORS, checkpoints={3: right[2].hash})
    with opened("memory", tmp_path) as store:
        chain = Blockchain(store, maker.config)
        with pytest.raises(FinalityError):
            chain.add_headers(headers_of(wrong))
        for block in wrong[:2]:
            chain.import_block(block)
        with pytest.raises(FinalityError):
            chain.import_block(wrong[2])
        assert chain.add_headers(headers_of(right)) == 6
        chain.apply_bodies(1, [block.body for block in right])
        assert chain.head.hash == right[-1].hash
        # Below a checkpoint that has been passed, nothing may branch off any more.
        with pytest.raises(FinalityError):
            chain.import_block(maker_fork(right[0]))
        assert chain.import_block(maker_fork(right[3])) == "side"


def maker_fork(parent: Block) -> Block:
    maker = ChainMaker(VALIDATORS)
    maker.states[parent.hash] = maker.states[maker.genesis.hash]
    return maker.block(parent, gap=5)


def test_signatures_of_a_slice() -> None:
    run = MAKER.run(MAKER.genesis, 5)
    bad = Block(header=run[3].header.replace(signature=run[2].header.signature))
    batch = headers_of([*run[:3], bad, run[4]])
    assert verify_header_signatures(batch) == 3
    assert verify_header_signatures(batch, 0, 3) is None
    assert verify_header_signatures(batch, 4) is None


def test_a_bad_signature_within_a_batch_keeps_all_of_it_out(validator: BlockValidator) -> None:
    run = MAKER.run(GOOD[-1], 2)
    bad = Block(header=run[1].header.replace(signature=bytes(64)))
    with pytest.raises(HeaderChainError) as caught:
        validator.chain.add_headers(headers_of([run[0], bad]))
    assert (caught.value.rule, caught.value.index) == ("signature", 1)
    assert validator.chain.pending_span() is None
    assert validator.chain.add_headers(headers_of(run)) == 2


def test_an_open_network_takes_any_key_but_no_bad_signature() -> None:
    maker = ChainMaker()
    chain = Blockchain(StateDB(None).store, maker.config)
    first = maker.block(maker.genesis, key=STRANGER)
    assert chain.import_block(first) == "applied"
    assert chain.import_block(maker.block(first, key=VALIDATORS[1])) == "applied"
    for key in (bytes(32), b"\xff" * 32):  # no point of the curve has these as its x
        with pytest.raises(HeaderChainError, match="signature"):
            chain.import_block(maker.block(first, validator=key))


def test_validating_changes_nothing(validator: BlockValidator) -> None:
    parent = GOOD[-1]
    block = MAKER.block(parent, [MAKER.transfer(parent)])
    before = validator.state_db.root, validator.chain.head
    validator.validate_header(block.header)
    validator.validate_block(block)
    wrong = MAKER.block(parent, [MAKER.transfer(parent)], state_root=bytes(32))
    with pytest.raises(InvalidBlockError) as caught:
        validator.validate_block(wrong)
    assert caught.value.rule == "state_root"
    assert not validator.chain.is_invalid(wrong.hash)
    with pytest.raises(UnknownParentError):
        validator.validate_block(MAKER.block(GOOD[0], gap=4))  # stands below the head
    assert (validator.state_db.root, validator.chain.head) == before
    assert validator.chain.import_block(block) == "applied"


def test_transactions_against_the_head(validator: BlockValidator) -> None:
    def sent(**fields: object) -> Transaction:
        return MAKER.transfer(GOOD[-1], **fields)  # type: ignore[arg-type]

    validator.validate_transaction(sent())
    for rule, transaction in {
        "chain_id": sent(chain_id=2),
        "signature": sent().replace(s=b"\xff" * 32),
        "nonce": sent(nonce=1),
        "gas_limit": sent(gas_limit=20_999),
        "gas_price": sent(gas_price=0),
        "balance": sent(value=10**18),
    }.items():
        with pytest.raises(InvalidTransactionError) as caught:
            validator.validate_transaction(transaction)
        assert caught.value.rule == rule
