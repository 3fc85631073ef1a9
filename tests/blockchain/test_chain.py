"""The chain in a store: what is asked of it, what it refuses, and what survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import apply_blocks
from helpers.forks import (
    ACCOUNTS,
    STRANGER,
    VALIDATORS,
    ChainMaker,
    bodies_of,
    check_books,
    dump,
    headers_of,
    opened,
)

import moderntensor
from moderntensor import backend
from moderntensor.blockchain import condemned, tables
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain, HeadChanged
from moderntensor.blockchain.invalid import InvalidBlocks
from moderntensor.blockchain.lookup import HeaderBatch
from moderntensor.blockchain.prepared import prepare_bodies, prepare_body
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.workload import build_chain, demo_config, demo_keys
from moderntensor.errors import (
    ConfigError,
    HeaderChainError,
    InvalidBlockError,
    StaleBodiesError,
    StorageError,
    ValidationError,
)
from moderntensor.storage import Store, open_store

MAKER = ChainMaker(VALIDATORS)
GENESIS = MAKER.genesis
BLOCKS = MAKER.run(GENESIS, 30, transfers=3)
TOP = BLOCKS[-1]


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with opened(request.param, tmp_path) as opened_store:
        yield opened_store


@pytest.fixture
def chain(store: Store) -> Blockchain:
    """With all blocks executed."""
    found = Blockchain(store, MAKER.config)
    found.add_headers(headers_of(BLOCKS))
    found.apply_bodies(1, bodies_of(BLOCKS))
    return found


# --- a new chain -----------------------------------------------------------------------------


def test_a_new_chain_is_its_genesis_block(store: Store) -> None:
    chain = Blockchain(store, MAKER.config)
    assert chain.head == chain.header_head
    assert (chain.head.height, chain.head.hash) == (0, MAKER.config.genesis_hash)
    assert chain.genesis_hash == GENESIS.hash
    assert chain.get_block(0) == GENESIS
    assert chain.get_account(ACCOUNTS[0].address).balance == 10**18
    assert StateDB(store).root == GENESIS.header.state_root
    assert chain.locator() == (GENESIS.hash,)
    assert chain.pending_span() is None
    check_books(chain)


def test_a_chain_without_balances() -> None:
    config = demo_config([])
    chain = Blockchain(StateDB(None).store, config)
    assert chain.head.state_root == bytes(32)
    for _ in build_chain(chain, validators=VALIDATORS, blocks=3):
        pass
    assert chain.head.height == 3


# --- headers first, then bodies --------------------------------------------------------------


def test_headers_wait_for_their_bodies(store: Store) -> None:
    chain = Blockchain(store, MAKER.config)
    batch = headers_of(BLOCKS)
    assert chain.check_headers(batch).hash == GENESIS.hash
    assert chain.add_headers(batch[:20]) == 20
    assert chain.check_headers(batch).height == 20  # the anchor of what is new in it
    assert chain.add_headers(batch) == 10
    assert chain.add_headers(batch[5:9]) == 0
    assert (chain.head.height, chain.header_head.hash) == (0, TOP.hash)
    assert chain.pending_span() == (1, 30)
    assert chain.pending_hashes(29, 10) == [
        (block.height, block.hash, block.header.txs_root) for block in BLOCKS[28:]
    ]
    # Not executed: known, but neither served nor counted as ours.
    block = BLOCKS[3]
    assert chain.is_known(block.hash)
    assert chain.get_header(block.hash) is None
    assert chain.get_block(block.height) is None
    assert chain.body_of(block.hash) is None
    assert chain.find_fork([block.hash, GENESIS.hash]) == 0
    assert chain.locator()[0] == TOP.hash
    assert chain.locator("canonical") == (GENESIS.hash,)
    check_books(chain)
    done = chain.apply_bodies(1, bodies_of(BLOCKS[:12]))
    assert (done.blocks, done.transactions, done.reverted) == (12, 36, 0)
    assert done.head == chain.head
    assert chain.pending_span() == (13, 30)
    check_books(chain)
    chain.apply_bodies(13, prepare_bodies(bodies_of(BLOCKS[12:])))
    assert chain.head.hash == chain.header_head.hash == TOP.hash
    assert chain.head.state_root == TOP.header.state_root
    check_books(chain)


def test_bodies_that_the_chain_does_not_wait_for(store: Store) -> None:
    chain = Blockchain(store, MAKER.config)
    bodies = bodies_of(BLOCKS)
    with pytest.raises(StaleBodiesError):
        chain.apply_bodies(1, bodies[:1])
    chain.add_headers(headers_of(BLOCKS[:10]))
    for start, count in ((2, 1), (1, 11), (0, 1)):
        with pytest.raises(StaleBodiesError):
            chain.apply_bodies(start, bodies[:count])
    with pytest.raises(StaleBodiesError):
        chain.apply_bodies(1, bodies[:2], hashes=[BLOCKS[0].hash, BLOCKS[0].hash])
    with pytest.raises(ValueError, match="no bodies"):
        chain.apply_bodies(1, [])
    assert chain.head.height == 0
    hashes = [block.hash for block in BLOCKS[:2]]
    assert chain.apply_bodies(1, bodies[:2], hashes=hashes).blocks == 2
    other = MAKER.run(GENESIS, 11, gap=2)
    chain.add_headers(headers_of(other))
    with pytest.raises(ValueError, match="beyond the head"):
        chain.apply_bodies(1, bodies_of(other[:2]))
    assert chain.apply_bodies(1, bodies_of(other[:3])).reverted == 2


def test_signatures_that_the_caller_has_checked_are_not_checked_again(store: Store) -> None:
    chain = Blockchain(store, MAKER.config)
    unsigned = Block(header=BLOCKS[0].header.replace(signature=bytes(64)))
    with pytest.raises(HeaderChainError):
        chain.add_headers(headers_of([unsigned]))
    assert chain.add_headers(headers_of([unsigned]), signatures_checked=True) == 1


def test_the_good_blocks_before_a_bad_one_are_kept(store: Store) -> None:
    bad = MAKER.block(BLOCKS[9], [MAKER.transfer(BLOCKS[9])], gas_used=21_001)
    above = MAKER.run(bad, 4)
    chain = Blockchain(store, MAKER.config)
    events: list[HeadChanged] = []
    chain.subscribe(events.append)
    run = [*BLOCKS[:10], bad, *above]
    chain.add_headers(headers_of(run))
    with pytest.raises(InvalidBlockError) as caught:
        chain.apply_bodies(1, bodies_of(run))
    assert (caught.value.height, caught.value.rule) == (11, "gas_used")
    assert chain.head.hash == BLOCKS[9].hash
    assert [len(event.applied) for event in events] == [10]
    assert chain.pending_span() is None
    assert chain.header_head == chain.head
    assert all(chain.is_invalid(block.hash) for block in [bad, *above])
    assert not any(chain.is_known(block.hash) for block in [bad, *above])
    check_books(chain)
    again = Blockchain(store, MAKER.config)  # the memory is on disk
    assert again.is_invalid(bad.hash)
    with pytest.raises(InvalidBlockError):
        again.import_block(MAKER.block(bad, gap=7))
    assert again.import_block(BLOCKS[10]) == "applied"


def test_a_wrong_body_keeps_the_good_ones_and_the_headers(store: Store) -> None:
    chain = Blockchain(store, MAKER.config)
    chain.add_headers(headers_of(BLOCKS))
    bodies = bodies_of(BLOCKS)
    with pytest.raises(InvalidBlockError) as caught:
        chain.apply_bodies(1, [*bodies[:6], bodies[5], *bodies[7:]])
    assert (caught.value.height, caught.value.body_only) == (7, True)
    assert chain.head.height == 6
    assert chain.pending_span() == (7, 30)
    chain.apply_bodies(7, bodies[6:])
    check_books(chain)


def test_memory_of_invalid_blocks_is_bounded(store: Store) -> None:
    Blockchain(store, MAKER.config)
    with store.write() as txn:
        memory = InvalidBlocks(txn, limit=3)
        for n in range(5):
            memory.add(txn, bytes([n]) * 32, "state_root")
    assert len(memory) == 3
    assert bytes([4]) * 32 in memory
    assert bytes(32) not in memory
    assert len(dump(store, tables.INVALID)[tables.INVALID]) == 3


def test_descendants_of_an_invalid_block_are_remembered_within_bounds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(condemned, "MAX_CONDEMNED", 4)
    bad = MAKER.block(GENESIS, state_root=bytes(32))
    run = [bad, *MAKER.run(bad, 8)]
    chain = Blockchain(store, MAKER.config)
    chain.add_headers(headers_of(run))
    with pytest.raises(InvalidBlockError):
        chain.apply_bodies(1, bodies_of(run[:1]))
    assert sum(chain.is_invalid(block.hash) for block in run) == 4
    assert chain.pending_span() is None
    for refused in (run, run[4:], run[:1]):  # no way in, remembered or not
        with pytest.raises(ValidationError):
            chain.add_headers(headers_of(refused))


def test_two_chains_in_one_store_do_not_mislead_each_other(store: Store) -> None:
    chain, stale = Blockchain(store, MAKER.config), Blockchain(store, MAKER.config)
    chain.import_block(BLOCKS[0])
    with pytest.raises(StorageError, match="no longer at block 0"):
        stale.import_block(BLOCKS[1])
    assert not stale.is_invalid(BLOCKS[1].hash)
    chain.import_block(BLOCKS[1])
    check_books(chain)


def test_a_chain_is_built_of_as_many_blocks_as_were_announced(chain: Blockchain) -> None:
    with pytest.raises(ValueError, match="0 blocks were made, not 3"), chain.extending(3):
        pass
    assert chain.head.height == 30


def test_dropping_what_waits(store: Store) -> None:
    chain = Blockchain(store, MAKER.config)
    chain.add_headers(headers_of(BLOCKS))
    chain.drop_pending(11)
    assert chain.pending_span() == (1, 10)
    assert chain.header_head.hash == BLOCKS[9].hash
    check_books(chain)
    chain.drop_pending(1)
    assert chain.pending_span() is None
    check_books(chain)
    assert chain.add_headers(headers_of(BLOCKS)) == 30


# --- reading ---------------------------------------------------------------------------------


def test_headers_and_blocks_by_height_and_hash(chain: Blockchain) -> None:
    for block in (GENESIS, BLOCKS[0], BLOCKS[13], TOP):
        for where in (block.height, block.hash):
            assert chain.get_header(where) == block.header
            assert chain.get_block(where) == block
            assert chain.header_bytes(where) == block.header.encode()
        assert chain.hash_at(block.height) == block.hash
        assert chain.height_of(block.hash) == block.height
        assert chain.body_of(block.hash) == block.body
    for nowhere in (31, -1, 2**64, b"\1" * 32):
        assert chain.get_header(nowhere) is None
        assert chain.get_block(nowhere) is None
    assert chain.hash_at(31) is None
    assert chain.height_of(bytes(32)) is None
    assert chain.body_of(bytes(32)) is None


def test_ranges_of_headers(chain: Blockchain) -> None:
    def heights(start: int, count: int, stride: int = 1) -> list[int]:
        batch = HeaderBatch(chain.headers_range(start, count, stride))
        assert all(batch.hash(i) == chain.hash_at(batch.height(i)) for i in range(len(batch)))
        return [batch.height(i) for i in range(len(batch))]

    assert heights(0, 4) == [0, 1, 2, 3]
    assert heights(28, 100) == [28, 29, 30]
    assert heights(31, 5) == heights(5, 0) == heights(2**64 - 1, 192) == []
    assert heights(1, 4, 10) == [1, 11, 21]
    assert heights(2**64 - 1, 192, 65_535) == []
    assert heights(0, 2048, 30) == [0, 30]
    for start, stride in ((-1, 1), (0, 0)):
        with pytest.raises(ValueError, match="at least"):
            chain.headers_range(start, 1, stride)


def test_ranges_of_blocks(chain: Blockchain) -> None:
    encoded = [block.encode() for block in BLOCKS]
    assert chain.blocks_range(1, 31, 2**30) == encoded
    assert chain.blocks_range(28, 2**64, 2**30) == encoded[27:]
    assert chain.blocks_range(5, 5, 2**30) == []
    assert chain.blocks_range(31, 40, 2**30) == []
    size = len(encoded[0]) + len(encoded[1])
    assert chain.blocks_range(1, 31, size) == encoded[:2]
    assert chain.blocks_range(1, 31, size - 1) == encoded[:1]
    assert chain.blocks_range(1, 31, 0) == encoded[:1]  # one, so that the asker gets on


def test_transactions_and_receipts(chain: Blockchain) -> None:
    for block in (BLOCKS[0], TOP):
        for position, transaction in enumerate(block.transactions):
            assert chain.get_transaction(transaction.hash) == (transaction, block.height, position)
            receipt = chain.get_receipt(transaction.hash)
            assert receipt is not None
            assert (receipt.transaction_hash, receipt.gas_used) == (transaction.hash, 21_000)
    assert chain.get_transaction(bytes(32)) is None
    assert chain.get_receipt(bytes(32)) is None


def test_transactions_of_an_address(chain: Blockchain) -> None:
    def of(address: bytes) -> list[bytes]:
        return [
            transaction.hash
            for block in reversed(BLOCKS)
            for transaction in reversed(block.transactions)
            if address in (transaction.sender, transaction.to)
        ]

    for key in ACCOUNTS:
        expected = of(key.address)
        assert expected
        assert chain.transactions_of(key.address) == expected[:100]
        pages, last = [], None
        while page := chain.transactions_of(key.address, limit=7, before=last):
            pages += page
            last = page[-1]
        assert pages == expected
    assert chain.transactions_of(STRANGER.address) == []
    assert chain.transactions_of(b"\xff" * 20) == []
    assert chain.transactions_of(ACCOUNTS[0].address, before=bytes(32)) == []
    assert chain.transactions_of(ACCOUNTS[0].address, limit=0) == []


def test_locators_are_short_and_find_the_fork(store: Store) -> None:
    long = Blockchain(store, demo_config([]))
    keys = demo_keys(1)
    for _ in build_chain(long, validators=keys, blocks=700):
        pass
    locator = long.locator()
    heights = [long.height_of(block_hash) for block_hash in locator]
    assert heights[:10] == list(range(700, 690, -1))
    assert heights[-1] == 0
    assert len(locator) < 20
    assert heights == sorted(heights, key=lambda height: -(height or 0))
    other = Blockchain(StateDB(None).store, demo_config([]))
    for _ in build_chain(other, validators=keys, blocks=300):
        pass
    for _ in build_chain(other, validators=demo_keys(1, "other"), blocks=50):
        pass
    fork = long.find_fork(other.locator())
    assert fork is not None
    assert 240 <= fork <= 300
    assert other.find_fork(long.locator()) is not None
    assert long.find_fork([]) is None


# --- telling -----------------------------------------------------------------------------------


def test_listeners_hear_of_every_commit(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    chain = Blockchain(store, MAKER.config)
    heard: list[int] = []

    def failing(event: HeadChanged) -> None:
        raise RuntimeError("not the chain's fault")

    chain.subscribe(failing)
    end = chain.subscribe(lambda event: heard.append(event.head.height))
    chain.import_block(BLOCKS[0])
    chain.add_headers(headers_of(BLOCKS[:5]))
    chain.apply_bodies(2, bodies_of(BLOCKS[1:5]))
    assert heard == [1, 5]
    assert "not the chain's fault" in caplog.text
    end()
    end()
    chain.import_block(BLOCKS[5])
    assert heard == [1, 5]


def test_readers_see_whole_commits_while_blocks_are_applied(chain: Blockchain) -> None:
    """State, head and chain of one read always belong together."""
    blocks = MAKER.run(TOP, 40, transfers=2)
    wrong: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            with chain.store.read() as txn:
                last = txn.last(tables.CANONICAL)
                head = txn.get(tables.META, tables.META_HEAD)
                supply = sum(
                    int.from_bytes(record[28:44], "big") for record in txn.values(tables.ACCOUNTS)
                )
            assert last is not None
            if head is None or head[:8] != last[0] or supply != 4 * 10**18:
                wrong.append("torn")
            locator = chain.locator()
            if len(locator) < 2:
                wrong.append("locator")

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for start in range(0, 40, 4):
            chain.add_headers(headers_of(blocks[start : start + 4]))
            chain.apply_bodies(31 + start, bodies_of(blocks[start : start + 4]))
    finally:
        done.set()
        thread.join()
    assert not wrong
    assert chain.head.hash == blocks[-1].hash


# --- opening again -----------------------------------------------------------------------------


def test_reopening_finds_everything_as_it_was(tmp_path: Path) -> None:
    with opened("lmdb", tmp_path) as store:
        chain = Blockchain(store, MAKER.config)
        chain.add_headers(headers_of(BLOCKS))
        chain.apply_bodies(1, bodies_of(BLOCKS[:20]))
        seen = chain.head, chain.header_head, chain.pending_span()
        before = dump(store)
    with opened("lmdb", tmp_path) as store:
        chain = Blockchain(store, MAKER.config)
        assert (chain.head, chain.header_head, chain.pending_span()) == seen
        assert dump(store) == before
        chain.apply_bodies(21, bodies_of(BLOCKS[20:]))
        assert chain.head.hash == TOP.hash


def test_another_chain_is_refused_and_nothing_is_written(chain: Blockchain) -> None:
    before = dump(chain.store)
    other = ChainMaker(VALIDATORS, chain_id=2).config
    with pytest.raises(StorageError, match="genesis"):
        Blockchain(chain.store, other)
    assert dump(chain.store) == before


@pytest.mark.parametrize("schema", [b"\0\0\0\3", b"\0\0\0\0", b""])
def test_another_schema_is_refused(schema: bytes, chain: Blockchain) -> None:
    with chain.store.write() as txn:
        txn.put(tables.META, tables.META_SCHEMA, schema)
    before = dump(chain.store)
    with pytest.raises(StorageError, match="schema"):
        Blockchain(chain.store, MAKER.config)
    assert dump(chain.store) == before


def test_data_of_nobody_knows_what_is_refused(store: Store) -> None:
    with store.write() as txn:
        txn.put(tables.ACCOUNTS, b"key", b"value")
    before = dump(store)
    with pytest.raises(StorageError, match="accounts"):
        Blockchain(store, MAKER.config)
    assert dump(store) == before


def test_a_store_at_odds_with_itself_is_refused(chain: Blockchain) -> None:
    with chain.store.write() as txn:
        txn.delete(tables.CANONICAL, tables.height_key(30))
    with pytest.raises(StorageError, match="head"):
        Blockchain(chain.store, MAKER.config)


def test_a_checkpoint_against_the_stored_chain(chain: Blockchain) -> None:
    with pytest.raises(ConfigError, match=r"checkpoints\.7"):
        Blockchain(chain.store, ChainMaker(VALIDATORS, checkpoints={7: b"\1" * 32}).config)
    Blockchain(chain.store, ChainMaker(VALIDATORS, checkpoints={7: BLOCKS[6].hash}).config)


def test_headers_that_no_longer_fit_the_settings_are_dropped(chain: Blockchain) -> None:
    ahead = MAKER.run(TOP, 5)
    chain.add_headers(headers_of(ahead))
    strict = ChainMaker(VALIDATORS, checkpoints={33: b"\1" * 32}).config
    again = Blockchain(chain.store, strict)
    assert again.pending_span() is None
    assert again.head.hash == TOP.hash
    check_books(again)


def test_a_full_disk_loses_no_commit_and_no_head(tmp_path: Path) -> None:
    heavy, parent = [], GENESIS
    for _ in range(40):
        parent = MAKER.block(parent, [MAKER.transfer(parent, data=bytes(60_000))])
        heavy.append(parent)
    size = 1 << 20
    with open_store(tmp_path / "s", tables.TABLES, map_size=size, max_map_size=size) as store:
        chain = Blockchain(store, MAKER.config)
        with pytest.raises(StorageError, match="full"):
            for block in heavy:
                chain.import_block(block)
        reached = chain.head
        assert 0 < reached.height < 20
        check_books(chain)
    with open_store(tmp_path / "s", tables.TABLES, map_size=64 * size) as store:
        chain = Blockchain(store, MAKER.config)
        assert chain.head == reached
        for block in heavy[reached.height :]:
            chain.import_block(block)
        check_books(chain)


def test_many_threads_import_the_same_blocks(store: Store) -> None:
    chain = Blockchain(store, MAKER.config)
    heard: list[int] = []
    chain.subscribe(lambda event: heard.append(event.head.height))
    results: list[str] = []

    def feed() -> None:
        results.extend(chain.import_block(block) for block in BLOCKS)

    threads = [threading.Thread(target=feed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == list(range(1, 31))
    assert results.count("applied") == 30
    assert results.count("known") == 90
    check_books(chain)


# --- killed ------------------------------------------------------------------------------------


def test_a_process_killed_while_it_applies_loses_no_commit(tmp_path: Path) -> None:
    maker = ChainMaker(VALIDATORS)
    blocks = maker.run(maker.genesis, 200, transfers=2)
    path, genesis = tmp_path / "blocks", tmp_path / "genesis.json"
    apply_blocks.write_blocks(path, blocks)
    maker.config.save(genesis)
    package = Path(moderntensor.__file__).parent.parent
    environment = {
        **os.environ,
        "PYTHONPATH": f"{package}{os.pathsep}{package / 'tests'}",
        "MODERNTENSOR_PURE": "1" if backend.NAME == "pure" else "0",
    }
    command = [sys.executable, apply_blocks.__file__, tmp_path / "store", path, genesis]
    height = 0
    for lines in (1, 3, 2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
            assert child.stdout is not None
            reported = [int(child.stdout.readline()) for _ in range(lines)]
            child.send_signal(signal.SIGKILL)
        assert reported[0] > height, "it went on where it was"
        with opened("lmdb", tmp_path) as store:
            chain = Blockchain(store, maker.config)
            height = chain.head.height
            assert reported[-1] <= height < 200
            assert chain.head.hash == blocks[height - 1].hash
            assert StateDB(store).root == blocks[height - 1].header.state_root
            check_books(chain)
    with opened("lmdb", tmp_path) as store:
        chain = Blockchain(store, maker.config)
        for _ in apply_blocks.apply_all(chain, blocks):
            pass
        assert chain.head.hash == blocks[-1].hash
        check_books(chain)
        with opened("memory", tmp_path) as other:
            whole = Blockchain(other, maker.config)
            for _ in apply_blocks.apply_all(whole, blocks):
                pass
            assert dump(other) == dump(store)


# --- chains made to measure --------------------------------------------------------------------


def test_built_chains_are_deterministic_and_valid(store: Store) -> None:
    accounts, validators = demo_keys(5), demo_keys(3, "validator")
    config = demo_config(accounts, validators)
    built = Blockchain(StateDB(None).store, config)
    heads = list(
        build_chain(
            built,
            validators=validators[::-1],
            accounts=accounts,
            blocks=25,
            transfers_per_block=4,
            batch=10,
        )
    )
    assert [head.height for head in heads] == [10, 20, 25]
    check_books(built)
    chain = Blockchain(store, config)
    chain.add_headers(HeaderBatch(built.headers_range(1, 100)))
    blocks = [Block.decode(raw) for raw in built.blocks_range(1, 100, 2**30)]
    assert all(len(block.transactions) == 4 for block in blocks)
    for block in blocks[:20]:
        chain.import_block(block)
    # The rest is built here instead of taken: the same blocks.
    for _ in build_chain(
        chain, validators=validators, accounts=accounts, blocks=5, transfers_per_block=4
    ):
        pass
    assert chain.head == built.head
    assert dump(chain.store, tables.ACCOUNTS) == dump(built.store, tables.ACCOUNTS)
    with pytest.raises(ConfigError):
        next(build_chain(built, validators=validators[:2], blocks=1))
    with pytest.raises(ValueError, match="two accounts"):
        next(build_chain(built, validators=validators, blocks=1, transfers_per_block=1))


def test_prepared_and_raw_bodies_do_the_same(tmp_path: Path) -> None:
    dumps = []
    for prepare in (False, True):
        with opened("memory", tmp_path) as store:
            chain = Blockchain(store, MAKER.config)
            chain.add_headers(headers_of(BLOCKS))
            bodies = bodies_of(BLOCKS)
            chain.apply_bodies(1, [prepare_body(b) for b in bodies] if prepare else bodies)
            dumps.append(dump(store))
    assert dumps[0] == dumps[1]
