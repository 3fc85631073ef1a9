"""Headers that a checkpoint will cover: what they may be used for before and after."""

from __future__ import annotations

import pytest
from helpers.forged import forged_header
from helpers.forks import VALIDATORS, ChainMaker

from moderntensor.blockchain import tables
from moderntensor.blockchain.block import Block, BlockHeader
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.lookup import HeaderBatch
from moderntensor.blockchain.state import StateDB
from moderntensor.errors import (
    ConfigError,
    FinalityError,
    HeaderChainError,
    StaleBodiesError,
    UnknownParentError,
)
from moderntensor.storage import Store

MAKER = ChainMaker(VALIDATORS)
BLOCKS = MAKER.run(MAKER.genesis, 12)
POINT = 10  # of the checkpoint
CONFIG = MAKER.config.trusting(POINT, BLOCKS[POINT - 1].hash)


def batch_of(*headers: BlockHeader) -> HeaderBatch:
    return HeaderBatch.join(header.encode() for header in headers)


GOOD = batch_of(*(block.header for block in BLOCKS))


def forged(parent: Block, count: int, config: ChainConfig = CONFIG) -> HeaderBatch:
    """A linked run that obeys every rule, under signatures of nobody."""
    headers = [parent.header]
    for _ in range(count):
        headers.append(forged_header(headers[-1], config))
    return batch_of(*headers[1:])


@pytest.fixture
def store() -> Store:
    return StateDB(None).store


@pytest.fixture
def chain(store: Store) -> Blockchain:
    return Blockchain(store, CONFIG)


def test_they_wait_until_the_checkpoint_is_reached(chain: Blockchain) -> None:
    assert chain.add_headers(GOOD[:6], trusted_to=POINT) == 6
    assert chain.header_head.height == 6
    assert chain.provisional_height() == 1
    assert (chain.candidate_span(), chain.pending_span()) == ((1, 6), None)
    assert chain.pending_hashes(1, 99) == []
    assert chain.provisional_headers(2).hashes() == GOOD[:2].hashes()
    with pytest.raises(StaleBodiesError):
        chain.apply_bodies(1, [block.body for block in BLOCKS[:6]])
    assert chain.add_headers(GOOD[6:11], trusted_to=POINT) == 5
    assert chain.provisional_height() is None
    assert chain.pending_span() == (1, 11)
    assert not len(chain.provisional_headers(99))
    chain.apply_bodies(1, [block.body for block in BLOCKS[:11]])
    assert chain.head.hash == BLOCKS[10].hash


def test_signatures_above_the_checkpoint_are_checked(chain: Blockchain) -> None:
    chain.add_headers(GOOD[: POINT - 2], trusted_to=POINT)
    false = bytearray(GOOD.encode())
    false[-1] ^= 1
    with pytest.raises(HeaderChainError, match="signature") as caught:
        chain.add_headers(HeaderBatch(bytes(false)), trusted_to=POINT)
    assert caught.value.height == 12
    assert chain.header_head.height == POINT - 2


def test_a_forged_run_never_reaches_the_checkpoint(chain: Blockchain) -> None:
    false = forged(MAKER.genesis, POINT)
    assert chain.add_headers(false[: POINT - 1], trusted_to=POINT) == POINT - 1
    assert chain.pending_span() is None
    with pytest.raises(FinalityError, match="checkpoint"):
        chain.add_headers(false, trusted_to=POINT)
    # Nor is it taken for good because another run ends there.
    with pytest.raises(HeaderChainError, match="previous_hash"):
        chain.add_headers(HeaderBatch.join([false.raw(i) for i in range(9)] + [GOOD.raw(9)]))
    assert chain.provisional_height() == 1
    chain.drop_pending(1)
    assert chain.provisional_height() is None
    assert chain.header_head == chain.head
    assert chain.add_headers(GOOD, trusted_to=POINT) == 12
    assert chain.provisional_height() is None


def test_a_checkpoint_on_the_way_covers_what_lies_below(store: Store) -> None:
    config = CONFIG.trusting(4, BLOCKS[3].hash)
    chain = Blockchain(store, config)
    chain.add_headers(GOOD[:3], trusted_to=POINT)
    chain.add_headers(GOOD[3:7], trusted_to=POINT)
    assert chain.provisional_height() == 5
    assert chain.pending_span() == (1, 4)
    assert len(chain.pending_hashes(1, 99)) == 4
    chain.apply_bodies(1, [block.body for block in BLOCKS[:4]])
    assert (chain.candidate_span(), chain.pending_span()) == ((5, 7), None)
    chain.add_headers(GOOD[7:], trusted_to=POINT)
    assert chain.pending_span() == (5, 12)


def test_their_signatures_may_be_checked_after_all(chain: Blockchain) -> None:
    chain.add_headers(GOOD[:6], trusted_to=POINT)
    with pytest.raises(ValueError, match="begin"):
        chain.confirm_headers(GOOD[2:4])
    with pytest.raises(ValueError, match="others"):
        chain.confirm_headers(forged(MAKER.genesis, 3))
    chain.confirm_headers(GOOD[:2])
    assert chain.provisional_height() == 3
    chain.add_headers(GOOD[6:8])  # checked ones above do not cover them: nothing trusts those
    assert chain.pending_span() == (1, 2)
    chain.drop_pending(7)
    chain.confirm_headers(GOOD[2:6])
    assert chain.provisional_height() is None
    assert chain.pending_span() == (1, 6)


def test_they_are_provisional_in_the_store_too(store: Store) -> None:
    Blockchain(store, CONFIG).add_headers(GOOD[:6], trusted_to=POINT)
    again = Blockchain(store, CONFIG)
    assert (again.provisional_height(), again.pending_span()) == (1, None)
    # Without the checkpoint nothing will cover them, and they stay what they are.
    without = Blockchain(store, MAKER.config)
    assert (without.provisional_height(), without.pending_span()) == (1, None)
    without.add_headers(GOOD)
    assert without.provisional_height() == 1
    # One that is new may lie among them.
    nearer = Blockchain(store, MAKER.config.trusting(4, BLOCKS[3].hash))
    assert nearer.pending_span() is None
    nearer.drop_pending(12)
    nearer.add_headers(GOOD)
    assert nearer.pending_span() == (1, 4)


def test_a_checkpoint_against_them_drops_them(store: Store) -> None:
    Blockchain(store, CONFIG).add_headers(forged(MAKER.genesis, 6), trusted_to=POINT)
    other = Blockchain(store, CONFIG.trusting(5, BLOCKS[4].hash))
    assert other.candidate_span() is None
    assert other.provisional_height() is None


def test_a_mark_beyond_the_end_is_not_believed(store: Store) -> None:
    chain = Blockchain(store, CONFIG)
    chain.add_headers(GOOD[:6])
    with store.write() as txn:
        txn.put(tables.META, tables.META_PROVISIONAL, tables.height_key(9))
    again = Blockchain(store, CONFIG)
    assert (again.candidate_span(), again.provisional_height()) == (None, None)


def test_a_longer_branch_that_is_signed_replaces_them(chain: Blockchain) -> None:
    chain.add_headers(forged(MAKER.genesis, 6), trusted_to=POINT)
    assert chain.add_headers(GOOD[:7]) == 7
    assert chain.provisional_height() is None
    assert chain.pending_span() == (1, 7)


def test_blocks_that_came_another_way_are_not_provisional(chain: Blockchain) -> None:
    chain.add_headers(GOOD[:3], trusted_to=POINT)
    for block in BLOCKS[:4]:
        chain.import_block(block)
    assert chain.head.height == 4
    assert chain.provisional_height() is None


def test_a_block_of_theirs_is_held_to_its_signature(chain: Blockchain) -> None:
    """A header that is known without a look at its signature is not known to be signed."""
    false = forged(MAKER.genesis, 6)
    chain.add_headers(false, trusted_to=POINT)
    for _ in range(2):
        with pytest.raises(HeaderChainError, match="signature"):
            chain.import_block(Block(header=BlockHeader.decode(false.raw(0))))
    assert chain.head.height == 0
    chain.import_block(BLOCKS[0])
    assert chain.head.hash == BLOCKS[0].hash


def test_a_forged_block_of_theirs_is_not_kept_beside_the_chain(chain: Blockchain) -> None:
    for block in BLOCKS[:2]:
        chain.import_block(block)
    false = forged(MAKER.genesis, 6)
    chain.add_headers(false, trusted_to=POINT)
    for i in range(3):
        with pytest.raises((HeaderChainError, UnknownParentError)):
            chain.import_block(Block(header=BlockHeader.decode(false.raw(i))))
    assert chain.head.hash == BLOCKS[1].hash


def test_they_begin_after_the_blocks_that_came_another_way(chain: Blockchain) -> None:
    chain.add_headers(GOOD[:6], trusted_to=POINT)
    for block in BLOCKS[:3]:
        chain.import_block(block)
    assert chain.provisional_height() == 4
    assert chain.provisional_headers(2).hashes() == GOOD[3:5].hashes()
    chain.confirm_headers(GOOD[3:5])
    assert chain.pending_span() == (4, 5)


def test_they_begin_after_the_fork_that_came_another_way(chain: Blockchain) -> None:
    """The chain goes over to the course that they are on."""
    for block in MAKER.run(MAKER.genesis, 3, gap=2):
        chain.import_block(block)
    chain.add_headers(GOOD[:6], trusted_to=POINT)
    for block in BLOCKS[:4]:
        chain.import_block(block)
    assert chain.head.hash == BLOCKS[3].hash
    assert chain.provisional_height() == 5
    chain.confirm_headers(GOOD[4:6])
    assert chain.pending_span() == (5, 6)


def test_they_convict_no_validator() -> None:
    """Two headers of one height, one of which nobody signed, are no evidence."""
    config = MAKER.config.trusting(20, bytes(32))
    chain = Blockchain(StateDB(None).store, config)
    chain.add_headers(forged(MAKER.genesis, 8, config), trusted_to=20)
    chain.add_headers(GOOD[:9])
    assert chain.evidence() == []


def test_only_checkpoints_are_trusted(chain: Blockchain) -> None:
    with pytest.raises(ValueError, match="no checkpoint at height 9"):
        chain.add_headers(GOOD, trusted_to=9)
    with pytest.raises(ConfigError, match=r"checkpoints\.10"):
        CONFIG.trusting(POINT, bytes(32))
    with pytest.raises(ConfigError, match=r"checkpoints\.11: needs 32 bytes"):
        CONFIG.trusting(11, b"short")
    assert CONFIG.trusting(POINT, BLOCKS[POINT - 1].hash) == CONFIG
