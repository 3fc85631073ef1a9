"""What is held against a teller of news, and what is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from helpers.clocks import Clocks

from moderntensor.network.gossip.score import NewsScore
from moderntensor.network.limits import UNKNOWN_BRANCH_BURST, UNKNOWN_PARENTS_BURST
from moderntensor.network.offences import Offence


class Teller:
    """As much of a peer as is judged."""

    def __init__(self) -> None:
        self.offences: list[Offence] = []

    def punish(self, offence: Offence, detail: str = "") -> None:
        self.offences.append(offence)


def tell(
    strays: int, *, our_head_moves: int, one_branch: bool = False, higher: int = 1, later: int = 12
) -> list[Offence]:
    """A teller of so many blocks of unknown parents, while our head moves by so much each time;
    `one_branch`: each block is the parent of the next, and so much `higher` and `later`."""
    head = SimpleNamespace(height=100)
    host = SimpleNamespace(runtime=Clocks(), chain=SimpleNamespace(head=head))
    score, teller = NewsScore(cast(Any, host)), Teller()
    for number in range(strays):
        header = SimpleNamespace(
            height=100 + higher * number,
            timestamp=1000 + later * number,
            hash=(number + 1).to_bytes(32, "big"),
            previous_hash=(number if one_branch else 2**32).to_bytes(32, "big"),
        )
        score.stray(cast(Any, teller), cast(Any, header), 12)
        head.height += our_head_moves
    return teller.offences


def test_who_catches_up_just_before_us_tells_of_blocks_that_we_cannot_place_yet() -> None:
    assert not tell(200, our_head_moves=3)


def test_who_tells_of_a_whole_branch_block_by_block_is_on_it() -> None:
    """It imports a branch that was kept from all, faster than we ask for it."""
    assert not tell(100, our_head_moves=0, one_branch=True)


def test_a_branch_that_never_ends_is_held_against_its_teller() -> None:
    """One validator can sign it by itself, in slots of its own."""
    offences = tell(int(UNKNOWN_BRANCH_BURST) + 3, our_head_moves=0, one_branch=True)
    assert offences == [Offence.UNKNOWN_PARENT] * 2


@pytest.mark.parametrize("wrong", [{"higher": 2}, {"higher": 0}, {"later": 0}])
def test_what_can_be_no_branch_is_none(wrong: dict[str, int]) -> None:
    number = int(UNKNOWN_PARENTS_BURST) + 3
    assert len(tell(number, our_head_moves=0, one_branch=True, **wrong)) == 3


def test_blocks_that_lead_nowhere_are_held_against_their_teller() -> None:
    offences = tell(int(UNKNOWN_PARENTS_BURST) + 2, our_head_moves=0)
    assert offences == [Offence.UNKNOWN_PARENT] * 2
