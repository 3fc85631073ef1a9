"""Validators that sign two headers at one height are found out, once each, within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.forks import (
    ACCOUNTS,
    VALIDATORS,
    ChainMaker,
    bodies_of,
    headers_of,
    opened,
)

from moderntensor.blockchain import evidence
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.errors import HeaderChainError

MAKER = ChainMaker(VALIDATORS)
TRUNK = MAKER.run(MAKER.genesis, 9)


def twin(block: Block, value: int = 5) -> Block:
    """Another block of the same validator, height and slot."""
    parent = MAKER.blocks[block.header.previous_hash]
    return MAKER.block(parent, [MAKER.transfer(parent, value=value)])


def pair(first: Block, second: Block) -> tuple[bytes, bytes]:
    return first.header.encode(), second.header.encode()


@pytest.fixture(params=["memory", "lmdb"])
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Blockchain]:
    with opened(request.param, tmp_path) as store:
        chain = Blockchain(store, MAKER.config)
        chain.add_headers(headers_of(TRUNK))
        chain.apply_bodies(1, bodies_of(TRUNK))
        yield chain


def test_two_blocks_of_one_height_are_evidence(
    chain: Blockchain, caplog: pytest.LogCaptureFixture
) -> None:
    assert chain.evidence() == []
    rival = twin(TRUNK[4])
    for _ in range(2):  # heard of again, it is no news
        chain.import_block(rival)
    assert chain.import_block(twin(TRUNK[4], 6)) == "side"
    assert chain.evidence() == [pair(TRUNK[4], rival)]
    assert VALIDATORS[5 % 3].public_key.hex() in caplog.text
    assert caplog.text.count("signed two blocks of height 5") == 1
    assert Blockchain(chain.store, MAKER.config).evidence() == [pair(TRUNK[4], rival)]


def test_headers_are_evidence_even_where_they_lead_nowhere(chain: Blockchain) -> None:
    rival = twin(TRUNK[6])
    branch = [rival, MAKER.block(rival, gap=2), MAKER.block(rival, gap=4)]
    assert chain.add_headers(headers_of(branch[:2])) == 0
    assert chain.evidence() == [pair(TRUNK[6], rival)]


def test_headers_that_wait_count_as_well(chain: Blockchain) -> None:
    ahead = MAKER.run(TRUNK[-1], 2)
    chain.add_headers(headers_of(ahead))
    rival = twin(ahead[0])
    chain.import_block(rival)
    assert chain.evidence() == [pair(ahead[0], rival)]


def test_who_did_not_sign_is_not_accused(chain: Blockchain) -> None:
    forged = Block(header=twin(TRUNK[4]).header.replace(signature=bytes(64)))
    with pytest.raises(HeaderChainError, match="signature"):
        chain.import_block(forged)
    with pytest.raises(HeaderChainError, match="signature"):
        chain.add_headers(headers_of([forged]))
    chain.import_block(MAKER.block(TRUNK[3], gap=2))  # another validator, in its slot
    assert chain.evidence() == []


def test_the_lowest_make_room(chain: Blockchain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MAX_EVIDENCE", 2)
    rivals = [twin(block) for block in TRUNK[3:6]]
    for rival in rivals:
        chain.import_block(rival)
    assert chain.evidence() == [
        pair(TRUNK[4], rivals[1]),
        pair(TRUNK[5], rivals[2]),
    ]


def test_on_an_open_network_nobody_is_accused() -> None:
    maker = ChainMaker(())
    with opened("memory", Path()) as store:
        chain = Blockchain(store, maker.config)
        for gap in (1, 2):
            chain.import_block(maker.block(maker.genesis, gap=gap, key=ACCOUNTS[0]))
        assert chain.evidence() == []
