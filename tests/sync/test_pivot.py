"""Which block a fast sync may begin with, what is said of it, and how far it has got."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.sync_nodes import CONFIG, VALIDATORS, grown

from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.network.sync.pivot import (
    BLOCKS_ABOVE,
    HeaderBatch,
    choose,
    highest_pivot,
    signers_down,
    usable,
    what_is_proved,
    why_not_at,
)
from moderntensor.network.sync.status import Meter, SyncPhase, SyncStatus
from moderntensor.runtime import Runtime

HASH = b"\7" * 32
OPEN = ChainConfig(chain_id=1, timestamp=0)


def keys(count: int) -> list[bytes]:
    return [bytes([n]) * 32 for n in range(count)]


def test_it_is_followed_by_64_blocks() -> None:
    one = keys(1)[0]
    assert highest_pivot(500, [one] * 500, 1) == 500 - BLOCKS_ABOVE
    assert highest_pivot(64, [one] * 64, 1) == 0
    assert highest_pivot(63, [one] * 63, 1) is None
    assert highest_pivot(500, [one] * 500, 0) == 500 - BLOCKS_ABOVE  # an open validator set


@pytest.mark.parametrize("validators", [1, 3, 4, 99, 100, 101])
def test_it_is_followed_by_more_than_two_thirds_of_the_validators(validators: int) -> None:
    """Of n in turn it takes the first 2n/3, rounded down, and one."""
    needed = validators * 2 // 3 + 1
    turns = [keys(validators)[n % validators] for n in range(1000)]
    assert highest_pivot(1000, turns, validators) == 1000 - max(BLOCKS_ABOVE, needed)
    silent = [keys(validators)[n % max(1, needed - 1)] for n in range(1000)]
    if validators > 1:
        assert highest_pivot(1000, silent, validators) is None


def test_which_announcements_count() -> None:
    old, new = (32, b"a" * 32), (64, b"b" * 32)
    announced = [old, new, new, (64, b"c" * 32), (65, HASH), (96, HASH), (0, HASH)]
    assert usable(announced, 32, 1, 95) == [(64, b"c" * 32), new, old]
    assert usable(announced, 32, 33, 95) == [(64, b"c" * 32), new]
    assert usable([], 32, 0, 95) == []


def test_the_newest_on_our_own_headers_is_chosen() -> None:
    chain = grown(8)
    batch = HeaderBatch(chain.headers_range(1, 8))

    def header_at(height: int) -> HeaderBatch:
        return batch[height - 1 : height]

    true = [(height, batch.hash(height - 1)) for height in (6, 4)]
    found = choose([(8, HASH), *true], header_at)
    assert found == (6, batch.hash(5), batch.state_root(5))
    assert choose([(8, HASH), (99, HASH)], header_at) is None


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_signers_are_read_from_the_tip_down(at_once: int) -> None:
    chain = grown(7)

    def headers(start: int, count: int) -> HeaderBatch:
        return HeaderBatch(chain.headers_range(start, count))

    found = list(signers_down(headers, 7, 2, at_once))
    assert found == [headers(height, 1).validator(0) for height in (7, 6, 5, 4, 3)]
    assert set(found) == {key.public_key for key in VALIDATORS}


def test_why_a_height_cannot_be() -> None:
    assert why_not_at(64, 32, 0, 64) is None
    assert why_not_at(65, 32, 0, 64) == "snapshots are of every 32th block"
    assert why_not_at(64, 32, 64, 90) == "the chain is at block 64 already"
    assert why_not_at(96, 32, 0, 90) == (
        "too few blocks follow it; block 90 is the last that enough do"
    )
    assert why_not_at(96, 32, 0, None) == "too few blocks follow it"


@pytest.mark.parametrize(
    ("config", "said", "enough"),
    [
        (CONFIG, "all validator signatures are checked, and more than two thirds", True),
        (CONFIG.trusting(90, HASH), "it is fixed by the hash of block 90 (0707", True),
        (CONFIG.trusting(9, HASH), "no checkpoint or trusted head covers it", True),
        (CONFIG.trusting(900, HASH), "no checkpoint or trusted head covers it", True),
        (OPEN, "anybody may sign blocks of this chain, and no checkpoint", False),
        (OPEN.trusting(90, HASH), "it is fixed by the hash of block 90", True),
    ],
)
def test_what_is_proved_is_said_plainly(config: ChainConfig, said: str, enough: bool) -> None:
    told, is_enough = what_is_proved(config, 64, 130, assumed=False)
    assert said in told
    assert is_enough is enough


def test_what_is_assumed_is_said() -> None:
    config = replace(CONFIG, assume_valid=(80, HASH))
    told, _ = what_is_proved(config, 64, 130, assumed=True)
    assert "signatures above block 80 are checked, those up to there are assumed" in told
    assert "assumed" not in what_is_proved(config, 64, 130, assumed=False)[0]


# --- how far it is -----------------------------------------------------------------------------


@pytest.fixture
def clock() -> list[float]:
    return [100.0]


@pytest.fixture
def meter(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> Meter:
    runtime = Runtime(1)
    monkeypatch.setattr(runtime, "loop_time", lambda: clock[0])
    return Meter(runtime, 0)


def test_the_state_stands_for_the_blocks_up_to_it(meter: Meter, clock: list[float]) -> None:
    meter.target_height = 1000
    meter.phase = SyncPhase.STATE

    def status() -> SyncStatus:
        return meter.status(1)

    assert (status().pivot_height, status().progress) == (None, 0.0)
    meter.state_begins(800, 0, None)
    assert (status().pivot_height, status().eta_seconds) == (800, None)
    meter.state_progress(0, 4000)
    clock[0] += 1
    meter.state_progress(1000, 4000)
    assert (status().accounts_done, status().accounts_total) == (1000, 4000)
    assert status().progress == pytest.approx(0.2)
    assert status().accounts_per_second == pytest.approx(1000)
    assert status().eta_seconds == pytest.approx(3.0)
    # A newer state of which half is here.
    meter.state_begins(900, 0, None)
    meter.state_progress(2500, 5000)
    assert status().pivot_height == 900
    assert status().progress == pytest.approx(0.45)
    assert status().accounts_per_second == pytest.approx(1000)  # that was no download
    assert meter.accounts_gained == 1000
    clock[0] += 1
    meter.state_adopted(900, 5000)
    meter.phase = SyncPhase.BLOCKS
    assert status().progress == pytest.approx(0.9)
    result = meter.result(1000, HASH)
    assert (result.pivot_height, result.accounts, result.blocks) == (900, 5000, 0)
    assert result.state_seconds == pytest.approx(2.0)
    assert result.accounts_per_second == pytest.approx(2500)


def test_a_state_that_was_given_up_is_none(meter: Meter) -> None:
    meter.target_height = 1000
    meter.state_begins(800, 10, 100)
    meter.state_given_up()
    status = meter.status(1)
    assert (status.pivot_height, status.accounts_done, status.accounts_total) == (None, 0, None)
    assert status.progress == 0.0
    result = meter.result(0, HASH)
    assert (result.pivot_height, result.accounts, result.state_seconds) == (None, 0, 0.0)
    assert result.accounts_per_second == 0.0
