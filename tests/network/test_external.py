"""Our own address, out of what peers say that they see."""

from __future__ import annotations

import pytest
from helpers.book import TurnedClock, far

from moderntensor.config import NodeConfig
from moderntensor.errors import ConfigError
from moderntensor.network.external import ExternalAddress
from moderntensor.network.limits import EXTERNAL_GROUPS, EXTERNAL_VOTE_TIME, EXTERNAL_VOTES

OURS, LIE = "30.1.2.3", "66.6.6.6"
OURS_6 = "2a00:1450::7"


def external(**changes: object) -> tuple[ExternalAddress, TurnedClock]:
    clock = TurnedClock()
    return ExternalAddress(NodeConfig().replace(**changes), clock), clock


def test_several_groups_must_agree() -> None:
    address, _ = external()
    for number in range(EXTERNAL_GROUPS):
        assert not address.hosts
        agreed = address.vote(far(number), f"::ffff:{OURS}")
        assert agreed is (number == EXTERNAL_GROUPS - 1)
    assert address.hosts == (OURS,)
    assert not address.vote(far(99), OURS)  # nothing new


def test_neither_one_liar_nor_one_group_of_them_decides() -> None:
    address, _ = external()
    for number in range(1000):
        assert not address.vote(f"20.1.{number >> 8}.{number & 255}", LIE)
    assert not address.hosts
    for number in range(1, 1 + EXTERNAL_GROUPS):
        address.vote(far(number), OURS)
    assert address.hosts == (OURS,)


def test_as_many_liars_as_honest_ones_leave_it_open() -> None:
    address, _ = external()
    for number in range(4):
        address.vote(far(number), OURS)
        address.vote(far(number + 10), LIE)
    assert not address.hosts
    address.vote(far(20), OURS)
    assert address.hosts == (OURS,)


def test_a_group_changes_its_mind_and_votes_end() -> None:
    address, clock = external()
    for number in range(EXTERNAL_GROUPS):
        address.vote(far(number), LIE)
        clock.now += 60.0
    for number in range(EXTERNAL_GROUPS):
        address.vote(far(number), OURS)
    assert address.hosts == (OURS,)
    clock.now += EXTERNAL_VOTE_TIME
    assert not address.hosts


def test_both_families_are_learned_each_by_itself() -> None:
    address, _ = external()
    for number in range(EXTERNAL_GROUPS):
        address.vote(f"2a{number:02x}::1", OURS_6)
        address.vote(far(number), OURS)
    assert address.hosts == (OURS, OURS_6)


@pytest.mark.parametrize(
    "observed",
    ["", "0.0.0.0", "::", "127.0.0.1", "10.0.0.1", "192.0.2.1", "224.0.0.1", "name"],  # noqa: S104
)
def test_what_is_no_address_of_ours_does_not_count(observed: str) -> None:
    address, _ = external()
    for number in range(9):
        assert not address.vote(far(number), observed)
    assert not address.hosts


def test_local_nodes_vote_only_where_they_are_not_exempt() -> None:
    for exempt, outcome in ((True, ()), (False, ("127.0.0.1",))):
        address, _ = external(exempt_local=exempt)
        for number in range(1, 5):
            address.vote(f"127.{number}.0.1", "127.0.0.1")
            address.vote(f"10.{number}.0.1", "30.0.0.1" if exempt else "127.0.0.1")
        assert address.hosts == outcome


def test_votes_are_bounded() -> None:
    address, _ = external()
    for number in range(10 * EXTERNAL_VOTES):
        address.vote(far(number), far(number + 5000))
    assert len(address._votes) == EXTERNAL_VOTES


def test_the_operator_knows_better() -> None:
    address, _ = external(external_address=OURS)
    for number in range(9):
        assert not address.vote(far(number), LIE)
    assert address.hosts == (OURS,)
    for wrong in ("name.example", "0.0.0.0", "224.0.0.1", ""):  # noqa: S104
        with pytest.raises(ConfigError, match="external_address"):
            external(external_address=wrong)
