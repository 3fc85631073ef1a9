"""Producing: on our slots only, each slot once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.forks import (
    STRANGER,
    VALIDATORS,
    ChainMaker,
    SetClock,
    check_books,
    opened,
)

from moderntensor.blockchain import tables
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.mempool import Mempool
from moderntensor.blockchain.producer import BlockProducer
from moderntensor.errors import HeaderChainError, InvalidTransactionError, ValidationError
from moderntensor.storage import Store

MAKER = ChainMaker(VALIDATORS, block_time=12)
START = MAKER.config.timestamp


def at(slot: float) -> int:
    return int(START + 12 * slot)


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with opened(request.param, tmp_path) as opened_store:
        yield opened_store


def producer(
    store: Store, key: KeyPair = VALIDATORS[1], slot: float = 1, maker: ChainMaker = MAKER
) -> BlockProducer:
    clock = SetClock(at(slot))
    chain = Blockchain(store, maker.config, runtime=clock)
    pool = Mempool(chain)
    chain.subscribe(pool.on_head_changed)
    return BlockProducer(chain, pool, key, clock)


def test_a_block_of_the_mempools_best(store: Store) -> None:
    ours = producer(store, slot=1.5)
    assert ours.mempool is not None
    for ahead in range(3):
        ours.mempool.add(MAKER.transfer(MAKER.genesis, ahead=ahead))
    block = ours.produce()
    assert ours.chain.head.hash == block.hash
    assert block.header.timestamp == at(1.5)
    assert [transaction.nonce for transaction in block.transactions] == [0, 1, 2]
    assert block.header.verify_signature()
    assert block.header.validator == VALIDATORS[1].public_key
    assert len(ours.mempool) == 0
    assert ours.last_slot == 1
    check_books(ours.chain)


def test_what_no_longer_fits_is_left_out(store: Store) -> None:
    """The pool may hold what another block has made impossible meanwhile."""
    ours = producer(store)
    assert ours.mempool is not None
    stale = MAKER.transfer(MAKER.genesis, 0, value=10**18 - 21_000)
    fine = MAKER.transfer(MAKER.genesis, 1, 2)

    class Pool(Mempool):
        def select(self, gas_limit: int, max_bytes: int) -> list[object]:  # type: ignore[override]
            return [MAKER.transfer(MAKER.genesis, 0, ahead=1), stale, stale, fine]

    ours = BlockProducer(ours.chain, Pool(ours.chain), VALIDATORS[1], SetClock(at(1)))
    assert ours.produce().transactions == (stale, fine)


def test_transactions_of_the_caller_are_all_or_nothing(store: Store) -> None:
    ours = producer(store)
    good, bad = MAKER.transfer(MAKER.genesis), MAKER.transfer(MAKER.genesis, nonce=5)
    with pytest.raises(InvalidTransactionError):
        ours.produce(transactions=[good, bad])
    assert ours.chain.head.height == 0
    assert ours.last_slot is None  # nothing was signed
    assert ours.produce(transactions=[good]).transactions == (good,)


@pytest.mark.parametrize("slot", [0, 2, 3, -1])
def test_slots_of_others_are_refused(slot: int, store: Store) -> None:
    ours = producer(store)
    with pytest.raises(ValidationError, match=f"slot {slot} "):
        ours.produce(at(slot))
    assert ours.last_slot is None
    assert ours.chain.head.height == 0


def test_a_slot_is_never_signed_twice_nor_an_earlier_one(store: Store) -> None:
    ours = producer(store, slot=100)
    ours.produce(at(7))
    for slot in (7, 7.9, 4):
        with pytest.raises(ValidationError):
            ours.produce(at(slot))
    # A head that is gone (its block was undone, say) changes nothing about what was signed.
    again = BlockProducer(ours.chain, None, VALIDATORS[1], SetClock(at(100)))
    assert again.last_slot == 7
    for other in (VALIDATORS[2], VALIDATORS[0]):
        BlockProducer(ours.chain, None, other, SetClock(at(100))).produce(
            at(8 if other is VALIDATORS[2] else 9)
        )
    assert again.produce(at(10)).height == 4


def test_a_slot_of_the_future_is_refused_and_not_lost(store: Store) -> None:
    ours = producer(store)
    with pytest.raises(HeaderChainError, match="future"):
        ours.produce(at(3001))
    assert ours.last_slot is None
    assert ours.produce().height == 1


def test_the_slot_is_on_disk_before_anything_is_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between claiming and importing costs the block, never a second signature."""

    class Crash(BaseException):
        pass

    class Key(KeyPair):
        __slots__ = ()

        def sign(self, message: bytes, *, aux: bytes | None = None) -> bytes:
            raise Crash

    with opened("lmdb", tmp_path) as store:
        ours = producer(store, Key(VALIDATORS[1].secret))
        with pytest.raises(Crash):
            ours.produce()
    with opened("lmdb", tmp_path) as store:
        ours = producer(store)
        assert ours.chain.head.height == 0
        assert ours.last_slot == 1
        with pytest.raises(ValidationError, match="last one signed"):
            ours.produce()
        with store.read() as txn:
            assert txn.count(tables.PRODUCER) == 1
        assert ours.next_slot(at(1)) == 4


def test_the_next_slot_of_ours() -> None:
    with opened("memory", Path()) as store:
        ours = producer(store, VALIDATORS[2])
        assert [ours.next_slot(at(slot)) for slot in (-5, 0, 1, 2, 2.5, 3, 5, 6)] == [
            2, 2, 2, 2, 2, 5, 5, 8,
        ]  # fmt: skip
        ours.chain.import_block(MAKER.block(MAKER.genesis, gap=1))
        assert ours.next_slot(at(0)) == 2
        assert producer(store, STRANGER).next_slot(at(3)) is None
        assert not producer(store, STRANGER).is_ours(3)


def test_an_open_network_takes_every_key_on_every_slot(store: Store) -> None:
    maker = ChainMaker((), block_time=12)
    ours = producer(store, STRANGER, slot=50, maker=maker)
    assert ours.next_slot(at(50)) == 50
    for slot in (1, 2, 7):
        assert ours.produce(at(slot)).header.validator == STRANGER.public_key
    assert ours.next_slot(at(3)) == 8


class _FastClock(SetClock):
    """Wall time that passes much faster than the loop's."""

    def __init__(self, now: float, loop: asyncio.AbstractEventLoop, factor: float) -> None:
        super().__init__(now)
        self._loop, self._began, self._factor = loop, loop.time(), factor

    def wall_time(self) -> float:
        return self.now + (self._loop.time() - self._began) * self._factor


async def test_running_follows_the_clock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderntensor.blockchain.producer.MAX_NAP", 0.005)
    maker = ChainMaker(VALIDATORS[:2], block_time=2)
    clock = _FastClock(maker.config.timestamp, asyncio.get_running_loop(), 20)
    chain = Blockchain(store, maker.config, runtime=clock)
    made: list[Block] = []
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heard(event: object) -> None:
        block = chain.get_block(chain.head.hash)
        assert block is not None
        made.append(block)
        if len(made) >= 6:
            loop.call_soon_threadsafe(reached.set)

    chain.subscribe(heard)
    runners = [
        asyncio.create_task(BlockProducer(chain, None, key, clock).run())  # awaited below
        for key in VALIDATORS[:2]
    ]
    async with asyncio.timeout(20):
        await reached.wait()
    for runner in runners:
        runner.cancel()
    outcomes = await asyncio.gather(*runners, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    clock.close()
    slots = [maker.config.slot_of(block.header.timestamp) for block in made]
    assert slots == sorted(set(slots))
    for slot, block in zip(slots, made, strict=True):
        assert block.header.validator == VALIDATORS[slot % 2].public_key
        assert block.header.timestamp == maker.config.timestamp + 2 * slot
    assert {slot % 2 for slot in slots} == {0, 1}


class _CountingClock(SetClock):
    tries = 0

    async def run_writer(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        self.tries += 1
        return await super().run_writer(function, *args, **kwargs)


@pytest.mark.parametrize("why", ["checkpoint", "state"])
async def test_what_is_refused_is_not_tried_without_a_pause(
    why: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint on another branch, or a first state that is not here: no block of ours may
    follow the head."""
    monkeypatch.setattr("moderntensor.blockchain.producer.MAX_NAP", 3600)
    clock = _CountingClock(at(1))
    config = ChainMaker(VALIDATORS, block_time=12).config
    if why == "checkpoint":
        config = replace(config, checkpoints={1: b"\1" * 32})
    else:
        config = replace(config, alloc={}, state_root=config.genesis_header.state_root)
    chain = Blockchain(store, config)
    ours = BlockProducer(chain, None, VALIDATORS[1], clock)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await ours.run()
    assert clock.tries == 1
    assert ours.last_slot is None
    clock.close()


async def test_running_without_a_right_to_says_so() -> None:
    not_among = pytest.raises(ValidationError, match="not among the validators")
    with opened("memory", Path()) as store, not_among:
        await producer(store, STRANGER).run()
