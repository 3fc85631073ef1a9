"""What is held against a teller of news, and what is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from helpers.clocks import Clocks

from moderntensor.network.gossip.score import NewsScore
from moderntensor.network.limits import UNKNOWN_PARENTS_BURST
from moderntensor.network.offences import Offence


class Teller:
    """As much of a peer as is judged."""

    def __init__(self) -> None:
        self.offences: list[Offence] = []

    def punish(self, offence: Offence, detail: str = "") -> None:
        self.offences.append(offence)


def tell(strays: int, *, our_head_moves: int, one_branch: bool = False) -> list[Offence]:
    """A teller of so many blocks of unknown parents, while our head moves by so much each time;
    `one_branch`: each block is the parent of the next."""
    head = SimpleNamespace(height=100)
    host = SimpleNamespace(runtime=Clocks(), chain=SimpleNamespace(head=head))
    score, teller = NewsScore(cast(Any, host)), Teller()
    for number in range(strays):
        header = SimpleNamespace(
            height=100 + 3 * number,
            hash=bytes([number + 1]) * 32,
            previous_hash=bytes([number if one_branch else 255]) * 32,
        )
        score.stray(cast(Any, teller), cast(Any, header), 12)
        head.height += our_head_moves
    return teller.offences


def test_who_catches_up_just_before_us_tells_of_blocks_that_we_cannot_place_yet() -> None:
    assert not tell(200, our_head_moves=3)


def test_who_tells_of_a_whole_branch_block_by_block_is_on_it() -> None:
    """It imports a branch that was kept from all, faster than we ask for it."""
    assert not tell(100, our_head_moves=0, one_branch=True)


def test_blocks_that_lead_nowhere_are_held_against_their_teller() -> None:
    offences = tell(int(UNKNOWN_PARENTS_BURST) + 2, our_head_moves=0)
    assert offences == [Offence.UNKNOWN_PARENT] * 2
