"""What is done to the nodes and the link, and when: fixed by a seed before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

HARD: Final = 0.25  # share of restarts by SIGKILL
LONGEST_DOWN: Final = 8.0  # seconds
CALM: Final = 30.0  # seconds at the end without a restart; a fifth of a shorter run

Mood = Literal["clear", "slow", "stalled", "reset"]
MOODS: Final[tuple[Mood, ...]] = ("clear", "slow", "stalled", "reset")


@dataclass(frozen=True, slots=True)
class Restart:
    """Of one node, `at` seconds after the beginning, away for `down` seconds."""

    at: float
    node: int
    hard: bool
    down: float


@dataclass(frozen=True, slots=True)
class Weather:
    """What the flaky link is like from `at` seconds on."""

    at: float
    mood: Mood


Step = Restart | Weather


def plan(seed: int, seconds: float, nodes: Sequence[int], every: float) -> list[Step]:
    """The steps of a run in order. One of `nodes`, drawn at random, is restarted every `every`
    seconds or so; never two at once."""
    random = Random(seed)
    last = seconds - min(CALM, seconds / 5)
    steps: list[Step] = []
    at = every * random.uniform(0.5, 1.0)
    while at < last:
        down = random.uniform(0.2, min(LONGEST_DOWN, every / 4))
        steps.append(Restart(at, random.choice(nodes), random.random() < HARD, down))
        at += down + every * random.uniform(0.6, 1.4)
    at = random.uniform(1.0, 5.0)
    while at < last:
        steps.append(Weather(at, random.choice(MOODS)))
        at += random.uniform(2.0, 15.0)
    steps.append(Weather(last, "clear"))
    return sorted(steps, key=lambda step: step.at)
