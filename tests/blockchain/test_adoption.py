"""A chain that goes on from a state that was fetched, instead of executing what led to it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import adopt_state
from helpers.forks import (
    ACCOUNTS,
    VALIDATORS,
    ChainMaker,
    bodies_of,
    dump,
    headers_of,
    opened,
)
from helpers.staged import Tree, check_slot, stage
from helpers.state_reference import account

import moderntensor
from moderntensor import backend
from moderntensor.blockchain import state_slots, tables
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain, HeadChanged
from moderntensor.blockchain.mempool import Mempool
from moderntensor.blockchain.prepared import PreparedBody, prepare_bodies
from moderntensor.blockchain.staging import Pivot, StateStaging
from moderntensor.blockchain.state import StateDB, verify_account
from moderntensor.errors import (
    FinalityError,
    InvalidBlockError,
    StaleStateError,
    StorageError,
)
from moderntensor.storage import Store

MAKER = ChainMaker(VALIDATORS, snapshot_interval=8, max_reorg_depth=16)
GENESIS = MAKER.genesis
BLOCKS = MAKER.run(GENESIS, 60, transfers=3)
PIVOT = BLOCKS[39]


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with opened(request.param, tmp_path) as opened_store:
        yield opened_store


def state_after(block: Block) -> Tree:
    return Tree({who: account(*funds) for who, funds in MAKER.states[block.hash].items()})


def pivot_of(block: Block) -> Pivot:
    return Pivot(block.height, block.hash, block.header.state_root)


def staged(store: Store, block: Block = PIVOT) -> StateStaging:
    staging = StateStaging(store)
    stage(staging, state_after(block), pivot_of(block))
    return staging


def adopted(store: Store) -> Blockchain:
    """All headers, the state after the pivot, and nothing else."""
    chain = Blockchain(store, MAKER.config)
    chain.add_headers(headers_of(BLOCKS))
    chain.adopt_state(staged(store))
    return chain


def prepared(first: int, last: int) -> list[PreparedBody]:
    """The bodies of blocks `first` to `last`."""
    return prepare_bodies(bodies_of(BLOCKS[first - 1 : last]))


def check_adopted(chain: Blockchain) -> None:
    """Right after the commit: everything says so, also when it is opened again."""
    for seen in (chain, Blockchain(chain.store, MAKER.config)):
        assert (seen.head.height, seen.head.hash) == (40, PIVOT.hash)
        assert seen.header_head.hash == BLOCKS[-1].hash
        assert seen.pending_span() == (41, 60)
        assert seen.earliest_height == 41
        assert seen.has_state
        assert [seen.hash_at(height) for height in range(61)] == [
            GENESIS.hash,
            *(block.hash for block in BLOCKS[:40]),
            *([None] * 20),
        ]
    left = dump(chain.store)
    assert not left[tables.UNDO]
    assert not left[tables.HOLES]
    with chain.store.read() as txn:
        check_slot(txn, state_slots.active(txn), state_after(PIVOT))
        assert [txn.count(table) for table in state_slots.staging(txn)] == [0, 0]
        assert txn.get(tables.META, tables.META_STAGING) is None
    assert StateStaging(chain.store).pivot is None


def test_a_new_node_goes_on_from_the_pivot(store: Store) -> None:
    chain = Blockchain(store, MAKER.config)
    chain.add_headers(headers_of(BLOCKS))
    heard: list[HeadChanged] = []
    chain.subscribe(heard.append)
    done = chain.adopt_state(staged(store))
    assert (done.blocks, done.transactions, done.reverted) == (40, 0, 0)
    assert done.head == chain.head
    assert heard == [HeadChanged(chain.head, ((40, PIVOT.hash),))]
    check_adopted(chain)
    chain.apply_bodies(41, bodies_of(BLOCKS[40:]))
    assert chain.head.hash == BLOCKS[-1].hash
    assert StateDB(store).root == BLOCKS[-1].header.state_root
    for key in ACCOUNTS:
        found, proof = StateDB(store).prove(key.address)
        assert (found.nonce, found.balance) == MAKER.states[BLOCKS[-1].hash][key.address]
        assert verify_account(chain.head.state_root, key.address, found, proof)
    assert chain.earliest_height == Blockchain(store, MAKER.config).earliest_height == 41


def test_bodies_below_the_pivot_are_pruned(store: Store) -> None:
    chain = adopted(store)
    below, above = BLOCKS[10], BLOCKS[45]
    assert chain.is_pruned(below.hash)
    assert chain.is_pruned(PIVOT.hash)
    assert (chain.body_of(below.hash), chain.get_block(11)) == (None, None)
    assert chain.header_bytes(11) == below.header.encode()
    assert chain.get_transaction(below.transactions[0].hash) is None
    assert chain.blocks_range(1, 60, 1 << 20) == []
    assert not chain.is_pruned(above.hash), "not executed, so not on the chain yet"
    assert not chain.is_pruned(bytes(32))
    assert not chain.is_pruned(GENESIS.hash)
    chain.apply_bodies(41, bodies_of(BLOCKS[40:]))
    assert not chain.is_pruned(above.hash)
    assert chain.get_block(46) == above
    assert chain.transactions_of(ACCOUNTS[0].address, limit=1000) == [
        tx.hash
        for block in reversed(BLOCKS[40:])
        for tx in reversed(block.transactions)
        if ACCOUNTS[0].address in (tx.sender, tx.to)
    ]


def test_a_chain_of_before_that_the_headers_lead_away_from(store: Store) -> None:
    old = MAKER.run(BLOCKS[11], 9, transfers=2, gap=2)  # 13 … 21
    beside = MAKER.run(BLOCKS[14], 3, transfers=1, gap=3)
    chain = Blockchain(store, MAKER.config)
    pool = Mempool(chain)
    chain.subscribe(pool.on_head_changed)
    for block in (*BLOCKS[:12], *old):
        chain.import_block(block)
    for block in (*BLOCKS[12:15], *beside):
        chain.import_block(block)
    chain.add_headers(headers_of(BLOCKS))
    assert chain.pending_span() == (13, 60)
    heard: list[HeadChanged] = []
    chain.subscribe(heard.append)
    reverted = tuple((block.height, block.hash) for block in reversed(old))
    done = chain.adopt_state(staged(store))
    assert (done.blocks, done.reverted) == (28, 9)
    assert heard == [HeadChanged(chain.head, ((40, PIVOT.hash),), reverted)]
    check_adopted(chain)
    mine = [tx.hash for block in BLOCKS[:12] for tx in block.transactions]
    assert [tx for tx, _ in dump(store)[tables.TX_INDEX]] == sorted(mine)
    # Those that were taken off go as after any reorganisation, and nothing leads back to them.
    assert chain.body_of(old[0].hash) == old[0].body
    assert all(not chain.is_known(block.hash) for block in beside)
    with pytest.raises(FinalityError):
        chain.import_block(MAKER.block(old[-1]))
    chain.apply_bodies(41, bodies_of(BLOCKS[40:]))
    assert chain.head.hash == BLOCKS[-1].hash
    again = Blockchain(store, MAKER.config)
    more = MAKER.run(BLOCKS[-1], 20, transfers=1)
    for block in more:
        again.import_block(block)
    assert not dump(store)[tables.SIDE]
    assert set(dict(dump(store)[tables.INDEX])) == {
        block.hash for block in (GENESIS, *BLOCKS, *more)
    }


def test_nothing_below_the_pivot_can_be_undone(store: Store) -> None:
    chain = adopted(store)
    other = MAKER.run(BLOCKS[38], 30, gap=2)
    with pytest.raises(FinalityError):
        chain.add_headers(headers_of(other))
    chain.apply_bodies(41, bodies_of(BLOCKS[40:50]))
    fork = MAKER.run(PIVOT, 21, transfers=2, gap=2)
    for block in fork:
        chain.import_block(block)
    assert chain.head.hash == fork[-1].hash
    assert StateDB(store).root == fork[-1].header.state_root


def test_what_cannot_be_adopted_changes_nothing(store: Store) -> None:
    chain = Blockchain(store, MAKER.config)
    chain.add_headers(headers_of(BLOCKS[:39]))
    staging = StateStaging(store)

    def refused(match: str) -> None:
        before, head = dump(store), chain.head
        with pytest.raises(StaleStateError, match=match):
            chain.adopt_state(staging)
        assert dump(store) == before
        assert chain.head == head

    refused("not whole")
    staging.aim(pivot_of(PIVOT))
    refused("not whole")
    stage(staging, state_after(PIVOT), pivot_of(PIVOT))
    refused("not among")
    chain.add_headers(headers_of(MAKER.run(BLOCKS[38], 3, gap=2)))
    refused("another block 40")
    chain.drop_pending(1)
    chain.add_headers(headers_of(BLOCKS))
    chain.apply_bodies(1, bodies_of(BLOCKS[:40]))
    refused("past 40")
    staging.discard()
    assert staged(store, BLOCKS[47]).complete
    assert chain.adopt_state(StateStaging(store)).blocks == 8


def test_headers_that_nobody_checked_are_not_adopted(store: Store) -> None:
    far = ChainMaker(VALIDATORS, checkpoints={60: BLOCKS[-1].hash}, snapshot_interval=8).config
    chain = Blockchain(store, far)
    chain.add_headers(headers_of(BLOCKS[:50]), signatures_checked=True, trusted_to=60)
    with pytest.raises(StaleStateError, match="not among the checked"):
        chain.adopt_state(staged(store))
    chain.add_headers(headers_of(BLOCKS[50:]), signatures_checked=True, trusted_to=60)
    chain.adopt_state(StateStaging(store))
    assert chain.head.hash == PIVOT.hash


def test_the_pivot_may_be_the_last_header(store: Store) -> None:
    chain = Blockchain(store, MAKER.config)
    chain.add_headers(headers_of(BLOCKS[:40]))
    chain.adopt_state(staged(store))
    assert chain.header_head == chain.head
    assert chain.pending_span() is None
    assert not dump(store)[tables.PENDING]
    assert Blockchain(store, MAKER.config).head == chain.head
    for block in BLOCKS[40:]:
        chain.import_block(block)
    assert chain.head.hash == BLOCKS[-1].hash


def test_many_headers_above_the_pivot(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderntensor.blockchain.adoption.MOVED_AT_ONCE", 7)
    check_adopted(adopted(store))


def test_a_second_adoption_uses_the_first_slot(store: Store) -> None:
    chain = adopted(store)
    chain.adopt_state(staged(store, BLOCKS[47]))
    assert (chain.head.height, chain.earliest_height) == (48, 49)
    with store.read() as txn:
        assert state_slots.active(txn).accounts == tables.ACCOUNTS
    chain.apply_bodies(49, bodies_of(BLOCKS[48:]))
    assert StateDB(store).root == BLOCKS[-1].header.state_root
    assert dump(store)[tables.ACCOUNTS_B] == []


# --- bodies from before ------------------------------------------------------------------------


def test_old_bodies_make_the_chain_whole(store: Store, tmp_path: Path) -> None:
    chain = adopted(store)
    chain.apply_bodies(41, bodies_of(BLOCKS[40:]))
    for first, last in ((31, 40), (30, 30), (1, 29)):
        chain.add_old_bodies(first, prepared(first, last))
        assert chain.earliest_height == Blockchain(store, MAKER.config).earliest_height == first
        assert chain.is_pruned(BLOCKS[first - 2].hash) == (first > 1)
        assert chain.get_block(first) == BLOCKS[first - 1]
    chain.add_old_bodies(0, prepare_bodies([GENESIS.body]))
    assert chain.earliest_height == 0
    with opened("memory", tmp_path, "whole") as other:
        whole = Blockchain(other, MAKER.config)
        whole.add_headers(headers_of(BLOCKS))
        whole.apply_bodies(1, bodies_of(BLOCKS))
        for table in (tables.CANONICAL, tables.BODIES, tables.TX_INDEX, tables.ADDRESS_INDEX):
            assert dump(store, table) == dump(other, table)
    assert tables.META_EARLIEST not in dict(dump(store)[tables.META])


def test_old_bodies_that_are_not_wanted(store: Store) -> None:
    chain = adopted(store)
    before = dump(store)
    for first, bodies in (
        (30, prepared(30, 39)),
        (40, prepared(40, 41)),
        (41, prepared(41, 45)),
        (41, []),
        (-1, prepared(1, 42)[:42]),
    ):
        with pytest.raises(ValueError, match="do not end below"):
            chain.add_old_bodies(first, bodies)
    for wrong in (prepared(38, 39) + prepared(39, 39), prepare_bodies([b"", b"\0", b"\0"])):
        with pytest.raises(InvalidBlockError, match="body") as caught:
            chain.add_old_bodies(38, wrong)
        assert caught.value.body_only
    assert dump(store) == before
    assert chain.earliest_height == 41
    whole = Blockchain(store, MAKER.config)
    whole.add_old_bodies(40, prepared(40, 40))


@pytest.mark.parametrize("fault", ["encoding", "signature"])
def test_an_old_body_that_no_execution_would_take(fault: str, store: Store) -> None:
    """More than two thirds of the validators built on it: the headers are what they are."""
    good = MAKER.transfer(GENESIS)
    bad = good.replace(s=bytes(32)) if fault == "signature" else good
    maker = ChainMaker(VALIDATORS, snapshot_interval=8)
    raw = Block(header=GENESIS.header, transactions=(bad,)).body
    if fault == "encoding":
        raw = (1).to_bytes(4, "big") + (3).to_bytes(4, "big") + b"abc"
    body = prepare_bodies([raw])[0]
    assert body.root is not None
    first = maker.block(maker.genesis, txs_root=body.root)
    rest = [first, *maker.run(first, 7)]
    chain = Blockchain(store, maker.config)
    chain.add_headers(headers_of(rest))
    staging = StateStaging(store)
    genesis = Tree({key.address: account(0, 10**18) for key in ACCOUNTS})
    stage(staging, genesis, pivot_of(rest[-1]))
    chain.adopt_state(staging)
    chain.add_old_bodies(2, prepare_bodies(bodies_of(rest[1:])))
    with pytest.raises(InvalidBlockError) as caught:
        chain.add_old_bodies(1, [body])
    assert (caught.value.rule, caught.value.body_only) == (fault, False)
    assert chain.earliest_height == 2


# --- damaged and killed ------------------------------------------------------------------------


def test_a_store_at_odds_with_an_adoption_is_refused(store: Store) -> None:
    adopted(store)
    for key, value, match in (
        (tables.META_STATE, b"\2", "slot"),
        (tables.META_SCHEMA, b"\0\0\0\1", "slot"),
        (tables.META_EARLIEST, tables.height_key(42), "bodies from block 42"),
        (tables.META_EARLIEST, tables.height_key(0), "bodies from block 0"),
    ):
        with store.read() as read:
            good = read.get(tables.META, key) or b""
        with store.write() as txn:
            txn.put(tables.META, key, value)
        with pytest.raises(StorageError, match=match):
            Blockchain(store, MAKER.config)
        with store.write() as txn:
            txn.put(tables.META, key, good)
    Blockchain(store, MAKER.config)


def test_killed_around_an_adoption_it_is_before_or_after(tmp_path: Path) -> None:
    genesis = tmp_path / "genesis.json"
    MAKER.config.save(genesis)
    with opened("lmdb", tmp_path) as store:
        chain = Blockchain(store, MAKER.config)
        for block in MAKER.run(GENESIS, 9, transfers=2, gap=2):
            chain.import_block(block)
        chain.add_headers(headers_of(BLOCKS))
        staged(store)
    package = Path(moderntensor.__file__).parent.parent
    environment = {
        **os.environ,
        "PYTHONPATH": f"{package}{os.pathsep}{package / 'tests'}",
        "MODERNTENSOR_PURE": "1" if backend.NAME == "pure" else "0",
    }
    rng = random.Random(5)
    command = [sys.executable, adopt_state.__file__, tmp_path / "store", genesis]
    seen = []
    for attempt in range(8):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            if attempt == 7:
                assert child.stdout.readline() == b"adopted 40\n"
            else:
                threading.Event().wait(rng.random() * 0.006)
            child.send_signal(signal.SIGKILL)
        with opened("lmdb", tmp_path) as store:
            chain = Blockchain(store, MAKER.config)
            seen.append(chain.head.height)
            if chain.head.height == 40:
                check_adopted(chain)
                break
            assert chain.head.height == 9
            assert (chain.earliest_height, chain.header_head.height) == (0, 60)
            assert StateDB(store).root == chain.head.state_root
            assert StateStaging(store).complete
    assert seen[-1] == 40


# --- killed in between, at any write -----------------------------------------------------------


class _KilledError(Exception):
    pass


def test_interrupted_at_any_write_nothing_has_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened("memory", tmp_path) as store:
        chain = Blockchain(store, MAKER.config)
        for block in MAKER.run(GENESIS, 3, transfers=2, gap=2):
            chain.import_block(block)
        chain.add_headers(headers_of(BLOCKS))
        staging = staged(store)
        before = dump(store)
        write = type(store.write())
        left = 0

        def counted(name: str) -> None:
            original = getattr(write, name)

            def call(self: object, *args: object, **kwargs: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    raise _KilledError
                return original(self, *args, **kwargs)

            monkeypatch.setattr(write, name, call)

        for name in ("put", "append", "delete", "delete_range"):
            counted(name)
        for steps in range(1000):
            left = steps
            try:
                chain.adopt_state(staging)
            except _KilledError:
                if chain.head.height == 40:
                    break  # the commit stood, and the old slot was being emptied
                assert dump(store) == before
                assert staging.pivot == pivot_of(PIVOT)
            else:
                break
        assert steps > 50
        monkeypatch.undo()
        check_adopted(Blockchain(store, MAKER.config))
