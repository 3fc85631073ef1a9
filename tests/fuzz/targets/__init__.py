"""All targets by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Target(NamedTuple):
    """What is fuzzed: `run` takes an input, `seeds` gives the first ones."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    longest: int = 4096
    """Bytes of the longest input that is worth trying."""
    words: tuple[bytes, ...] = ()
    """What inputs of this kind are made of, for the fuzzer's dictionary."""
    native: bool = True
    """Whether it exercises the compiled engines, so that the sanitizers have something to see."""


def load() -> dict[str, Target]:
    """Every target; imported late, so that a fuzzer can instrument what they import."""
    from . import chain, files, framing, headers, kept, layouts, merkle, messages, secure, states

    rooms = (framing, messages, layouts, headers, merkle, states, chain, secure, files, kept)
    return {name: target for room in rooms for name, target in room.TARGETS.items()}
