"""States built from all of their accounts, and chains whose genesis gives a root alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.forks import ACCOUNTS, VALIDATORS, ChainMaker, bodies_of, dump, headers_of, opened
from helpers.staged import Tree, account, check_slot, stage
from helpers.state_reference import account as reference_account
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor.blockchain import state_build, state_slots, tables
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.staging import Pivot, StateStaging
from moderntensor.blockchain.state_build import build_state
from moderntensor.blockchain.state_load import load_state
from moderntensor.errors import ConfigError, DecodeError, StateMissingError
from moderntensor.storage import Store

MAKER = ChainMaker(VALIDATORS)
BLOCKS = MAKER.run(MAKER.genesis, 12, transfers=2)
FIRST = Tree({key.address: reference_account(0, 10**18) for key in ACCOUNTS})


def numbered(count: int) -> dict[bytes, bytes]:
    return {number.to_bytes(20, "big"): account(number + 1) for number in range(count)}


MANY = Tree(numbered(700))


def root_only(**changes: object) -> ChainConfig:
    """The chain of `MAKER`, whose first balances are not given."""
    document = json.loads(MAKER.config.to_json())
    del document["alloc"]
    document |= {"state_root": MAKER.genesis.header.state_root.hex(), **changes}
    return ChainConfig.from_json(json.dumps(document))


def chunks(records: bytes, size: int) -> Iterator[bytes]:
    """Cut anywhere."""
    return (records[at : at + size] for at in range(0, len(records), size))


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with opened(request.param, tmp_path) as opened_store:
        yield opened_store


# --- building --------------------------------------------------------------------------------


@given(st.integers(0, 700), st.sampled_from([20, 64, 1000]), st.integers(1, 5000))
@settings(max_examples=30, deadline=None)
def test_a_state_in_chunks_is_the_state_as_a_whole(count: int, part: int, cut: int) -> None:
    tree = Tree(numbered(count)) if count < 700 else MANY
    whole = tree.part(0, bytes(32))
    rows, nodes = list[tuple[bytes, bytes]](), list[tuple[bytes, bytes]]()

    def put(some_rows: list[tuple[bytes, bytes]], some_nodes: list[tuple[bytes, bytes]]) -> None:
        assert len(some_rows) <= part
        assert some_nodes == sorted(some_nodes)
        rows.extend(some_rows)
        nodes.extend(some_nodes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_build, "BUILT_AT_ONCE", part)
        assert build_state(chunks(tree.packed(), cut), put) == (tree.root, count)
    assert rows == whole.rows
    assert sorted(nodes) == whole.nodes


@pytest.mark.parametrize("part", [20, 1000])
def test_records_that_are_none(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_build, "BUILT_AT_ONCE", part)
    good = MANY.records
    for wrong in (
        [*good[:300], *good[299:]],  # twice the same
        [*good[:300], good[301], good[300], *good[302:]],
        [*good[1:], good[0]],
        [*good, good[0]],
        [good[-1], *good],
        [*good[:-1], good[-1][:-1]],
        [*good[:50], good[50][:20] + bytes(88), *good[51:]],
    ):
        with pytest.raises(DecodeError):
            build_state(chunks(b"".join(wrong), 999), lambda rows, nodes: None)


# --- a genesis that gives a root --------------------------------------------------------------


def test_the_genesis_is_the_same_without_its_balances() -> None:
    config = root_only()
    assert config.genesis_hash == MAKER.config.genesis_hash
    assert config.alloc == {}
    assert ChainConfig.from_json(config.to_json()) == config
    assert "alloc" not in json.loads(config.to_json())
    assert "state_root" not in json.loads(MAKER.config.to_json())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"alloc": {"00" * 20: "1"}}, "state_root: given beside alloc"),
        ({"state_root": "00" * 31}, "state_root"),
        ({"state_root": 5}, "state_root"),
    ],
)
def test_a_root_that_cannot_be_used(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        root_only(**changes)
    with pytest.raises(ConfigError, match="state_root"):
        ChainConfig(chain_id=1, timestamp=1, state_root="text")  # type: ignore[arg-type]


def test_without_accounts_nothing_is_executed(store: Store) -> None:
    chain = Blockchain(store, root_only())
    assert not chain.has_state
    assert chain.head.hash == MAKER.genesis.hash
    assert chain.add_headers(headers_of(BLOCKS)) == 12
    for attempt in (
        lambda: chain.apply_bodies(1, bodies_of(BLOCKS)),
        lambda: chain.import_block(BLOCKS[0]),
        lambda: chain.try_block(BLOCKS[0]),
        lambda: chain.draft_block(VALIDATORS[0].public_key, 1_800_000_000, []),
    ):
        with pytest.raises(StateMissingError, match="block 0 are not here"):
            attempt()
    assert not chain.is_invalid(BLOCKS[0].hash)
    assert not Blockchain(store, root_only()).has_state


def test_a_genesis_without_any_account_lacks_nothing(store: Store) -> None:
    config = root_only(state_root="00" * 32)
    assert config.genesis_hash == replace(MAKER.config, alloc={}).genesis_hash
    assert Blockchain(store, config).has_state


def test_loading_fills_it(store: Store) -> None:
    chain = Blockchain(store, root_only())
    assert load_state(store, root_only(), chunks(FIRST.packed(), 100)) == len(ACCOUNTS)
    assert chain.has_state
    with store.read() as txn:
        check_slot(txn, state_slots.active(txn), FIRST)
    chain = Blockchain(store, root_only())
    chain.add_headers(headers_of(BLOCKS))
    assert chain.apply_bodies(1, bodies_of(BLOCKS)).blocks == 12
    assert chain.earliest_height == 0
    with pytest.raises(ValueError, match="has its state"):
        load_state(store, root_only(), chunks(FIRST.packed(), 100))


def test_loading_an_empty_store_begins_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_build, "BUILT_AT_ONCE", 50)
    document = json.loads(root_only().to_json())
    config = ChainConfig.from_json(json.dumps(document | {"state_root": MANY.root.hex()}))
    assert load_state(store, config, chunks(MANY.packed(), 1000)) == 700
    with store.read() as txn:
        check_slot(txn, state_slots.active(txn), MANY)
    assert Blockchain(store, config).has_state


def test_what_does_not_load_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_build, "BUILT_AT_ONCE", 50)
    Blockchain(store, root_only())
    before = dump(store)
    with pytest.raises(ConfigError, match="these accounts lead to"):
        load_state(store, root_only(), chunks(MANY.packed(), 1000))
    with pytest.raises(DecodeError):
        load_state(store, root_only(), [MANY.packed(), MANY.packed()])
    assert dump(store) == before

    def killed() -> Iterator[bytes]:
        yield MANY.packed()[: 108 * 500]
        raise KeyboardInterrupt

    # As if the process had been killed: nobody cleans up.
    monkeypatch.setattr("moderntensor.blockchain.state_load.clear_unused", lambda store: None)
    with pytest.raises(KeyboardInterrupt):
        load_state(store, root_only(), killed())
    assert dump(store) != before
    assert not Blockchain(store, root_only()).has_state
    assert dump(store) == before


def test_balances_that_come_later(store: Store) -> None:
    """Begun with the root alone, opened with the whole genesis file."""
    Blockchain(store, root_only())
    chain = Blockchain(store, MAKER.config)
    assert chain.has_state
    with store.read() as txn:
        check_slot(txn, state_slots.active(txn), FIRST)


def test_a_fetched_state_serves_as_well(store: Store) -> None:
    chain = Blockchain(store, root_only())
    chain.add_headers(headers_of(BLOCKS))
    tree = Tree(
        {who: reference_account(*funds) for who, funds in MAKER.states[BLOCKS[7].hash].items()}
    )
    staging = StateStaging(store)
    stage(staging, tree, Pivot(8, BLOCKS[7].hash, tree.root))
    chain.adopt_state(staging)
    assert chain.has_state
    chain.apply_bodies(9, bodies_of(BLOCKS[8:]))
    assert chain.head.hash == BLOCKS[-1].hash
    assert tables.META_EARLIEST in dict(dump(store)[tables.META])
