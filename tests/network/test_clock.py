"""What fresh blocks say of our clock: a median that few cannot move, and a line now and then."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from helpers.rawpeer import QUIET
from helpers.sync_nodes import CONFIG

from moderntensor.cli.node import status_line
from moderntensor.config import NodeConfig
from moderntensor.network.clock import (
    CLOCK_OFF,
    LEAST_VOTES,
    MOST_VOTES,
    VOTE_LIFETIME,
    WARN_INTERVAL,
    ClockOffset,
)
from moderntensor.node import FullNode
from moderntensor.runtime import Runtime


class Clocked(Runtime):
    """A runtime whose loop has the time that a test says."""

    now = 1000.0

    def loop_time(self) -> float:
        return self.now


class Teller(NamedTuple):
    host_address: str
    address: str


def public(number: int) -> Teller:
    """A peer in a netgroup of its own."""
    return Teller(f"77.{number}.1.1", f"77.{number}.1.1:30303")


@pytest.fixture
def runtime() -> Clocked:
    return Clocked()


@pytest.fixture
def clock(runtime: Clocked) -> ClockOffset:
    made = ClockOffset(NodeConfig(), runtime)
    made.block_time = 12
    return made


def test_few_say_nothing(clock: ClockOffset) -> None:
    assert clock.reading() == (None, 0, False)
    for number in range(LEAST_VOTES - 1):
        clock.sample(public(number), 100.0)
    assert clock.reading() == (None, LEAST_VOTES - 1, False)
    clock.sample(public(LEAST_VOTES), 100.0)
    assert clock.reading() == (100.0, LEAST_VOTES, True)


def test_a_minority_cannot_move_it(clock: ClockOffset) -> None:
    for number in range(6):
        clock.sample(public(number), -0.5 - number / 10)
    for number in range(6, 11):
        clock.sample(public(number), 1e9)
    seconds, peers, off = clock.reading()
    assert seconds is not None
    assert -1.0 <= seconds <= -0.5
    assert (peers, off) == (11, False)


def test_many_of_one_netgroup_have_one_vote(clock: ClockOffset) -> None:
    for number in range(LEAST_VOTES):
        clock.sample(public(number), -1.0)
    for last in range(100):
        clock.sample(Teller(f"99.1.1.{last}", f"99.1.1.{last}:1"), 500.0)
    assert clock.reading() == (-1.0, LEAST_VOTES + 1, False)


def test_local_ones_are_so_many_unless_they_are_not_exempt(runtime: Clocked) -> None:
    tellers = [Teller("127.0.0.1", f"127.0.0.1:{port}") for port in range(1, 9)]
    for exempt, votes in ((True, 8), (False, 1)):
        clock = ClockOffset(NodeConfig(exempt_local=exempt), runtime)
        for teller in tellers:
            clock.sample(teller, 0.0)
        assert clock.reading().peers == votes


@pytest.mark.parametrize(
    ("seconds", "off"),
    [(CLOCK_OFF, False), (CLOCK_OFF + 1, True), (-CLOCK_OFF - 12, False), (-CLOCK_OFF - 13, True)],
)
def test_late_blocks_are_forgiven_a_slot(clock: ClockOffset, seconds: float, off: bool) -> None:
    for number in range(LEAST_VOTES):
        clock.sample(public(number), seconds)
    assert clock.reading() == (seconds, LEAST_VOTES, off)


def test_the_newest_counts_and_old_ones_do_not(clock: ClockOffset, runtime: Clocked) -> None:
    for number in range(LEAST_VOTES):
        clock.sample(public(number), 100.0)
        clock.sample(public(number), 0.0)
    assert clock.reading().seconds == 0.0
    runtime.now += VOTE_LIFETIME + 1
    assert clock.reading() == (None, 0, False)
    for number in range(3 * MOST_VOTES):
        clock.sample(public(number), 0.0)
    assert clock.reading().peers == MOST_VOTES


def test_it_is_said_once_in_a_while(
    clock: ClockOffset, runtime: Clocked, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3 * LEAST_VOTES):
        clock.sample(public(number), -60.0)
    (line,) = caplog.messages
    assert "60 s fast" in line
    runtime.now += WARN_INTERVAL + 1
    for number in range(LEAST_VOTES):
        clock.sample(public(number), 60.0)
    assert "60 s slow" in caplog.messages[1]
    assert len(caplog.messages) == 2


async def test_the_status_line_of_a_node_says_so() -> None:
    async with FullNode(None, CONFIG, settings=QUIET) as node:
        assert "clock" not in status_line(node)
        for number in range(LEAST_VOTES):
            node.p2p.gossip.clock.sample(public(number), 42.0)
        assert node.p2p.clock_offset.seconds == 42.0
        assert "clock off by +42 s" in status_line(node)
