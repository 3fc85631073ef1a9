"""How far down a chain keeps what it needs to see its state as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.forks import VALIDATORS, ChainMaker, bodies_of, dump, headers_of, opened
from hypothesis import given
from hypothesis import strategies as st

from moderntensor.blockchain import tables
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.undo import decode_undo, encode_undo
from moderntensor.storage import Store


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with opened(request.param, tmp_path) as opened_store:
        yield opened_store


@given(
    st.dictionaries(
        st.binary(min_size=20, max_size=20),
        st.none() | st.integers(1, 255).map(lambda n: bytes([n]) * 88),
    )
)
def test_records_say_what_was_there(before: dict[bytes, bytes | None]) -> None:
    record = encode_undo(before)
    assert len(record) == 108 * len(before)
    assert decode_undo(record) == before


def test_undo_is_kept_from_the_last_snapshot_height_on(store: Store) -> None:
    maker = ChainMaker(VALIDATORS, snapshot_interval=20, max_reorg_depth=4)
    blocks = maker.run(maker.genesis, 65, transfers=1)
    chain = Blockchain(store, maker.config)
    for block in blocks[:50]:
        chain.import_block(block)
        height = block.height
        kept = min(height - 4, height - height % 20)
        assert [tables.parse_height(key) for key, _ in dump(store)[tables.UNDO]] == list(
            range(max(kept, 0) + 1, height + 1)
        )
    chain.add_headers(headers_of(blocks))
    chain.apply_bodies(51, bodies_of(blocks[50:]))
    assert tables.parse_height(dump(store)[tables.UNDO][0][0]) == 61


def test_far_behind_no_undo_is_kept_for_snapshots(store: Store) -> None:
    maker = ChainMaker(VALIDATORS, snapshot_interval=10, max_reorg_depth=4)
    blocks = maker.run(maker.genesis, 60, transfers=1)
    chain = Blockchain(store, maker.config)
    chain.add_headers(headers_of(blocks))
    chain.apply_bodies(1, bodies_of(blocks[:39]))
    kept = [tables.parse_height(key) for key, _ in dump(store)[tables.UNDO]]
    assert kept == [36, 37, 38, 39]
    chain.apply_bodies(40, bodies_of(blocks[39:49]))
    kept = [tables.parse_height(key) for key, _ in dump(store)[tables.UNDO]]
    assert kept == list(range(41, 50))
