"""Seeds that once found something, kept: each must hold now.

What they found is tested on its own as well, where it was mended, for a seed is another run as soon
as a node says one byte more.
"""

from __future__ import annotations

from typing import Any

import pytest

from moderntensor.simulation.scenario import run_scenario

# A tenth of the size at which a campaign runs, and as cruel.
SMALL_CHAOS = {"nodes": 10, "validators": 4, "faults": 25, "seconds": 180.0, "rate": 0.5}

PINNED: list[tuple[str, int, dict[str, Any]]] = [
    # Honest announcers were dropped, five unanswered requests for one partition that cut them off:
    # tests/network/test_gossip_stalls.py, "a line that broke over the question".
    ("chaos", 106, SMALL_CHAOS),
    ("chaos", 107, SMALL_CHAOS),
    ("chaos", 114, SMALL_CHAOS),
    # A sync was cancelled while its bodies became stale, which was logged as a failure:
    # tests/sync/test_settle.py.
    ("chaos", 165, {}),
    # Each half had filled its places by itself, and after healing nobody looked for the other one:
    # tests/network/test_outlook.py, "who is on another branch is kept".
    ("partition", 600, {"nodes": 30, "validators": 8}),
    # Honest peers that imported a hidden branch block by block, and told of each, were dropped by
    # who could not place them yet: tests/network/test_news_score.py, "a whole branch".
    ("forks", 233, {}),
    ("forks", 309, {}),
    # Full honest nodes parted from an eclipsed one within a second, before it had asked them for
    # anything: tests/sync/test_follow.py, "whom an old head made us dial".
    ("eclipse", 366, {}),
    # A skeleton's last header was signed by nobody: a minute was lost, and nobody was to blame:
    # tests/sync/test_sync_liars.py, "a pin that no validator signed".
    ("sync_hostile", 20, {}),
    # The whole state was asked for in one reply, which took a slow line longer than a request may,
    # from every peer: tests/sync/test_state_stage.py, "could hold is asked for in pieces".
    ("fast_hostile", 393, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed", "parameters"), PINNED)
def test_a_seed_that_failed_once(name: str, seed: int, parameters: dict[str, Any]) -> None:
    assert run_scenario(name, seed, **parameters).violations == []
