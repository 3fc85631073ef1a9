"""Blocks that are known from elsewhere: `assume_valid`, which pins nothing, and a head to trust
that is named with the sync."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from helpers.forged import forge
from helpers.sync_nodes import (
    CONFIG,
    SETTINGS,
    connect,
    grown,
    new_validator,
    serving,
    syncing,
)

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.errors import ConfigError, SyncError
from moderntensor.network.sync import header_checks

BLOCKS = 150
POINT = 140
FEW = SETTINGS.replace(
    headers_per_request=16, trusted_headers_per_request=64, blocks_per_request=16, sync_give_up=0.5
)


@pytest.fixture(scope="module")
def source() -> Blockchain:
    return grown(BLOCKS, 1)


@pytest.fixture(scope="module")
def known(source: Blockchain) -> bytes:
    found = source.hash_at(POINT)
    assert found is not None
    return found


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """The heights whose signatures were checked."""
    heights: set[int] = set()
    real = header_checks.verify_header_signatures

    def verify(batch: header_checks.HeaderBatch, start: int, stop: int, memo: None) -> int | None:
        heights.update(batch.height(i) for i in range(start, stop))
        return real(batch, start, stop)

    monkeypatch.setattr(header_checks, "verify_header_signatures", verify)
    yield heights


async def test_below_it_no_signature_is_checked(
    source: Blockchain, known: bytes, checked: set[int]
) -> None:
    config = replace(CONFIG, assume_valid=(POINT, known))
    async with serving(source) as server, syncing(new_validator(config), settings=FEW) as sync:
        await connect(sync, server)
        await sync.sync()
        assert sync.chain.head == source.head
        assert checked == set(range(POINT + 1, BLOCKS + 1))
        assert sync.chain.provisional_height() is None


async def test_on_another_chain_all_are_checked_and_nothing_is_pinned(
    source: Blockchain, checked: set[int]
) -> None:
    config = replace(CONFIG, assume_valid=(POINT, bytes(32)))
    async with serving(source) as server, syncing(new_validator(config), settings=FEW) as sync:
        await connect(sync, server)
        await sync.sync()
        assert sync.chain.head == source.head
        assert checked == set(range(1, BLOCKS + 1))


async def test_a_forged_chain_gains_nothing_by_it(source: Blockchain, known: bytes) -> None:
    """It is long enough to pass the block, and has another one there."""
    config = replace(CONFIG, assume_valid=(POINT, known))
    false = forge(grown(20, 1), BLOCKS + 20)
    validator = new_validator(config)
    async with serving(false) as liar, syncing(validator, settings=FEW) as sync:
        await connect(sync, liar)
        with pytest.raises(SyncError):
            await sync.sync()
        assert sync.chain.head.height <= 20
        span = sync.chain.pending_span()
        assert span is None or span[1] <= 20  # what is forged is kept as provisional at most
        assert not sync.node.peers
        async with serving(source) as honest:
            await connect(sync, honest)
            await sync.sync()
            assert sync.chain.head == source.head


def test_it_is_read_and_written(known: bytes) -> None:
    config = replace(CONFIG, assume_valid=(POINT, known))
    assert config.genesis_hash == CONFIG.genesis_hash
    again = ChainConfig.from_json(config.to_json())
    assert again.assume_valid == (POINT, known)
    assert "assume_valid" not in CONFIG.to_json()
    assert again.covering_heights == {POINT}
    assert again.trusting(3, known).covering_heights == {3, POINT}


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ((0, bytes(32)), "assume_valid.height: 0"),
        ((1, bytes(31)), "assume_valid.hash: needs 32 bytes"),
        ((1,), "assume_valid: needs a height and a hash"),
        ([1, bytes(32)], "assume_valid: needs a height and a hash"),
    ],
)
def test_what_it_cannot_be(block: tuple[int, bytes], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        replace(CONFIG, assume_valid=block)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[1]", "assume_valid: must be a JSON object"),
        ('{"height": 1}', "assume_valid: must have a height and a hash"),
        ('{"height": 1, "hash": "00"}', "assume_valid.hash: '00' is not 64 hex digits"),
    ],
)
def test_files_that_do_not_say_it(text: str, complaint: str) -> None:
    document = f'{{"chain_id": 1, "timestamp": 0, "assume_valid": {text}}}'
    with pytest.raises(ConfigError, match=complaint):
        ChainConfig.from_json(document)


# --- a head to trust, named with the sync ------------------------------------------------------


async def test_a_sync_may_be_told_a_head_to_trust(
    source: Blockchain, known: bytes, checked: set[int]
) -> None:
    async with serving(source) as server, syncing(settings=FEW) as sync:
        await connect(sync, server)
        await sync.sync(trusted_head=(POINT, known))
        assert sync.chain.head == source.head
        assert checked == set(range(POINT + 1, BLOCKS + 1))
        assert sync.chain.config.checkpoints[POINT] == known
        for wrong in (POINT, 10):  # it contradicts what is trusted, and what is here
            with pytest.raises(ConfigError, match=rf"checkpoints\.{wrong}"):
                await sync.sync(trusted_head=(wrong, bytes(32)))
            with pytest.raises(ConfigError, match=rf"checkpoints\.{wrong}"):
                await sync.fast_sync(trusted_head=(wrong, bytes(32)))
        assert dict(sync.chain.config.checkpoints) == {POINT: known}


async def test_no_other_chain_is_followed_then(source: Blockchain) -> None:
    async with serving(source) as server, syncing(settings=FEW) as sync:
        await connect(sync, server)
        with pytest.raises(SyncError):
            await sync.sync(trusted_head=(POINT, bytes(32)))
        assert sync.chain.head.height == 0
        assert not sync.node.peers


async def test_headers_that_contradict_it_are_let_go(source: Blockchain, known: bytes) -> None:
    async with serving(source) as server, syncing(settings=FEW) as sync:
        await connect(sync, server)
        await sync.sync_headers()
        assert sync.chain.header_head == source.head
        sync.chain.trust(POINT, known)
        assert sync.chain.header_head == source.head
        sync.chain.trust(POINT - 1, bytes(32))
        assert sync.chain.header_head.height == 0
        assert sync.chain.candidate_span() is None
