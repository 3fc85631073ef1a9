"""What metrics cost: the node beside one whose counters do nothing and that nobody scrapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from benchmarks import metrics_cost

from ..case import OURS, Case, Contender, Mark, Scale
from .node import Pair

TITLE = "Metrics"

UNCOUNTED = f"{OURS}, uncounted"
TRANSFERS = 5  # in a block

_MARK = Mark(0.98, (UNCOUNTED,), percent=True)
_NOTHING = "the methods of its counters do nothing"


def cases(scale: Scale) -> Iterator[Case]:
    with ExitStack() as stack:
        yield _messages(scale, [Pair(stack, end) for end in (OURS, UNCOUNTED)])
    blocks = scale.pick(4000, 300)
    with metrics_cost.serving(blocks, TRANSFERS) as port:
        yield _sync(scale, port, blocks)


def _messages(scale: Scale, pairs: list[Pair]) -> Case:
    count = scale.pick(100_000, 20_000)

    def sample(pair: Pair) -> Callable[[], float]:
        return lambda: pair.flood(count)

    return Case(
        "one-way messages of 46 bytes, counted",
        "messages/s",
        tuple(
            Contender(pair.end, sample(pair), _NOTHING if pair.end == UNCOUNTED else "")
            for pair in pairs
        ),
        (_MARK,),
        rounds=scale.pick(15, 3),
    )


def _sync(scale: Scale, port: int, blocks: int) -> Case:
    def sample(*options: str) -> Callable[[], float]:
        def run() -> float:
            with metrics_cost.child("--sync", port, blocks, *options) as process:
                assert process.stdout is not None
                _, seconds = json.loads(process.stdout.readline())
                return blocks / float(seconds)

        return run

    return Case(
        f"sync of {blocks:,} blocks of {TRANSFERS} transfers, counted and scraped every second",
        "blocks/s",
        (
            Contender(OURS, sample("--watched")),
            Contender(UNCOUNTED, sample(), f"{_NOTHING}, and nobody scrapes it"),
        ),
        (_MARK,),
        rounds=scale.pick(9, 1),
    )
