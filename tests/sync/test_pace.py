"""How much is asked of a peer at once, how long it is waited for, and what is told of that."""

from __future__ import annotations

import pytest

from moderntensor.network.sync.pace import Capacity, Patience
from moderntensor.network.sync.status import RATE_SPAN, Rate, SyncPhase, SyncStatus


def test_a_request_grows_and_shrinks_with_what_a_peer_delivers() -> None:
    capacity = Capacity()
    assert capacity.size(192) == 192  # unknown: all that is allowed
    for _ in range(20):
        capacity.delivered(40, 1.0)
    assert 38 <= capacity.size(192) <= 42
    capacity.failed()
    assert 19 <= capacity.size(192) <= 21
    for _ in range(9):
        capacity.failed()
    assert capacity.size(192) == 1
    for _ in range(20):
        capacity.delivered(192, 0.001)
    assert capacity.size(192) == 192


def test_what_may_be_large_begins_small_and_grows_in_a_few_requests() -> None:
    capacity = Capacity(first=4)
    assert (capacity.size(128), capacity.requests(4)) == (4, 1)
    asked = []
    while (size := capacity.size(128)) < 128:
        asked.append(size)
        capacity.delivered(size, 0.01)
    assert asked == [4, 16, 64]
    assert capacity.requests(4) == 4


def test_what_is_small_is_not_asked_for_by_ones() -> None:
    """However long a single item took: that was the distance."""
    capacity = Capacity(least=64)
    capacity.delivered(1, 1.2)
    assert capacity.size(1024) == 64
    assert capacity.size(43) == 43
    capacity.delivered(64, 1.25)
    for _ in range(20):
        capacity.delivered(capacity.size(1024), 1.25)
    assert 64 <= capacity.size(1024) < 80  # and no more than it delivers in time


def test_fewer_requests_are_under_way_where_one_item_takes_long() -> None:
    capacity = Capacity(first=4)
    for _ in range(20):
        capacity.delivered(1, 1.4)
    assert (capacity.size(128), capacity.requests(4)) == (1, 2)
    for _ in range(20):
        capacity.delivered(1, 5.0)
    assert (capacity.size(128), capacity.requests(4)) == (1, 1)


def test_neither_distance_nor_a_small_request_makes_a_peer_slow() -> None:
    capacity, latency = Capacity(), 2.0
    for _ in range(20):
        items = capacity.size(128, latency)
        capacity.delivered(items, latency + items / 100)
    assert capacity.size(128, latency) > 90  # of a hundred in the target's second
    for _ in range(3):
        capacity.delivered(1, latency)  # what was left
    assert capacity.size(128, latency) > 80
    assert capacity.size(128, 3600.0) <= 128  # and no PONG makes a request endless


def test_patience_doubles_within_bounds_and_comes_back() -> None:
    patience = Patience(2.0, 64.0)
    waits = []
    for _ in range(7):
        waits.append(patience.seconds)
        patience.ran_out()
    assert waits == [2, 4, 8, 16, 32, 64, 64]
    for _ in range(50):
        patience.served()
    assert patience.seconds == 2.0


def test_a_rate_forgets() -> None:
    rate = Rate(100.0)
    for i in range(50):
        rate.add(10, 100.0 + i / 10)
    assert rate.value(105.0) == pytest.approx(100, rel=0.05)
    assert rate.value(105.0 + 2 * RATE_SPAN) == 0


def status(**changes: object) -> SyncStatus:
    fields: dict[str, object] = {
        "phase": SyncPhase.BLOCKS,
        "start_height": 100,
        "header_height": 400,
        "current_height": 200,
        "target_height": 500,
        "headers_per_second": 0.0,
        "blocks_per_second": 50.0,
        "transactions_per_second": 0.0,
        "bytes_received": 0,
        "peers": 1,
        "waiting": None,
    }
    return SyncStatus(**(fields | changes))  # type: ignore[arg-type]


def test_status_counts_the_time_to_go() -> None:
    assert (status().progress, status().eta_seconds) == (0.25, 6.0)
    assert status(blocks_per_second=0.0).eta_seconds is None
    done = status(current_height=500)
    assert (done.progress, done.eta_seconds) == (1.0, 0.0)
    assert status(start_height=500, current_height=500).progress == 1.0
