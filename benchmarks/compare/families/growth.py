"""Whether a long chain is synced as fast, and in as little memory, as a short one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..case import OURS, Case, Contender, Mark, Scale
from ..sync_run import Source, served

TITLE = "Growth"

MIB: Final = 1024 * 1024
LOOK_SECONDS: Final = 0.02  # how often a syncing process tells its memory
BOUND: Final = (
    "the index by hash takes headers anywhere: in a long chain nearly every header of a commit "
    "lies on a page of its own, 4 KiB that are copied and written for 48 bytes (at 20,000 blocks "
    "some 330 pages hold them all)"
)
GROWN: Final = "grown"


def cases(scale: Scale) -> Iterator[Case]:
    """One chain of ten spans; a sync of the first is compared with one of the last or of all."""
    span = scale.pick(20_000, 2000)
    rounds = scale.pick(5, 1)
    note = "" if not scale.quick else f"in small: {10 * span:,} blocks, not 200,000"
    with served(10 * span, 0) as source:
        source.sync_to(9 * span, GROWN)
        yield _rate(source, span, rounds, note)
        yield _memory(source, scale.pick(3, 1), note)


def _rate(source: Source, span: int, rounds: int, note: str) -> Case:
    """Both fetch, check, execute and store as many blocks."""
    total = source.head.height

    def first() -> float:
        last = source.sync("--target", span)[-1]
        return float(last["blocks"] / last["seconds"])

    def final() -> float:
        last = source.sync(start=GROWN)[-1]
        assert last["blocks"] == span
        return float(last["blocks"] / last["seconds"])

    early = f"from nothing to {span:,}"
    return Case(
        f"blocks {total - span:,} to {total:,}",
        "blocks/s",
        (Contender(OURS, final), Contender(early, first)),
        (Mark(0.9, (early,), percent=True, bound=BOUND),),
        rounds=rounds,
        note=note,
    )


def _memory(source: Source, rounds: int, note: str) -> Case:
    total = source.head.height

    def most(*options: object) -> float:
        said = source.sync("--report", LOOK_SECONDS, *options)
        return max(line.get("memory", 0) for line in said) / MIB

    half = total // 2
    early = f"{half:,} blocks"
    return Case(
        f"anonymous memory while {total:,} blocks are synced, at most",
        "MiB",
        (Contender(OURS, most), Contender(early, lambda: most("--target", half))),
        (Mark(150.0), Mark(0.85, (early,), percent=True)),
        better="lower",
        rounds=rounds,
        note=note,
    )
