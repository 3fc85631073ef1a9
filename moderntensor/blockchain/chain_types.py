"""Small immutable values that the chain hands out."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ChainHead(NamedTuple):
    """Where a chain ends. `timestamp` is Unix seconds."""

    height: int
    hash: bytes
    timestamp: int
    state_root: bytes


class AppliedBatch(NamedTuple):
    """What one commit did: so many blocks executed, so many undone, and the head since."""

    blocks: int
    transactions: int
    head: ChainHead
    reverted: int = 0


class HeadChanged(NamedTuple):
    """Told to subscribers after a commit. Blocks are (height, hash): `applied` ascending,
    `reverted` descending, both of the same commit."""

    head: ChainHead
    applied: tuple[tuple[int, bytes], ...]
    reverted: tuple[tuple[int, bytes], ...] = ()


class ImportResult(StrEnum):
    """What became of a block that was imported."""

    APPLIED = "applied"  # it is part of the executed chain now
    KNOWN = "known"  # it was there already
    SIDE = "side"  # valid as far as can be told, on a branch that is not longer
