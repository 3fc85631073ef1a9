"""Every fuzz target over its seeds, over small changes of them, and over what was once found."""

from __future__ import annotations

import random

import pytest

from fuzz import targets
from fuzz.found import FOUND

TARGETS = targets.load()
CHANGES = 6  # of each seed; the fuzzer makes the others


def mutated(data: bytes, source: random.Random) -> bytes:
    """The input with a few bytes changed, removed or put in."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randint(0, len(changed))
        match source.randrange(3):
            case 0:
                changed[at : at + 1] = source.randbytes(1)
            case 1:
                del changed[at : at + source.randint(1, 4)]
            case _:
                changed[at:at] = source.randbytes(source.randint(1, 4))
    return bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_what_is_near_them(name: str) -> None:
    target, source = TARGETS[name], random.Random(name)
    seeds = list(target.seeds())
    assert seeds
    for seed in (b"", *seeds):
        assert len(seed) <= target.longest
        target.run(seed)
        for _ in range(CHANGES):
            target.run(mutated(seed, source))


def test_what_a_fuzzer_found_stays_mended() -> None:
    for name, data in FOUND:
        TARGETS[name].run(data)
