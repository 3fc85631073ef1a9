"""Blocks that came before their time by our clock: nobody's fault, and asked for again later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from ..host import Host
from ..limits import (
    EARLY_BLOCK_HORIZON,
    EARLY_BLOCKS,
    EARLY_BLOCKS_PER_PEER,
    FETCH_ALTERNATIVES,
)
from ..peer import Peer

__all__ = ["EarlyBlocks"]

_NAP = 1.0  # seconds: the wall clock may be set meanwhile


@dataclass(slots=True, eq=False)
class _Early:
    height: int
    due: float  # wall clock
    tellers: list[Peer] = field(default_factory=list)


class EarlyBlocks:
    """Remembers, by hash, which blocks will be admitted later, and who told of them.

    `again(peer, hash, height)` is called for each of those when it is time. What is due later
    than `EARLY_BLOCK_HORIZON` seconds from now is not kept.
    """

    def __init__(self, host: Host, again: Callable[[Peer, bytes, int], object]) -> None:
        self._host = host
        self._again = again
        self._blocks: dict[bytes, _Early] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._blocks)

    def clear(self) -> None:
        """Forget all of them."""
        self._blocks.clear()

    def hold(self, peer: Peer, block_hash: bytes, height: int, due: float) -> None:
        """`peer` has told of a block that our wall clock will admit at `due`."""
        if due > self._host.runtime.wall_time() + EARLY_BLOCK_HORIZON:
            return
        early = self._blocks.get(block_hash)
        if early is None:
            if len(self._blocks) >= EARLY_BLOCKS or self._count(peer) >= EARLY_BLOCKS_PER_PEER:
                return
            early = self._blocks[block_hash] = _Early(height, due)
            self._wake.set()
        if len(early.tellers) <= FETCH_ALTERNATIVES and peer not in early.tellers:
            early.tellers.append(peer)

    def _count(self, peer: Peer) -> int:
        return sum(early.tellers[0] is peer for early in self._blocks.values())

    async def run(self) -> None:
        """Ask again when it is time, until cancelled."""
        while True:
            if not self._blocks:
                self._wake.clear()
                await self._wake.wait()
            now = self._host.runtime.wall_time()
            for block_hash, early in tuple(self._blocks.items()):
                if early.due <= now:
                    del self._blocks[block_hash]
                    for peer in early.tellers:
                        if not peer.closed:
                            self._again(peer, block_hash, early.height)
            if self._blocks:
                first = min(early.due for early in self._blocks.values())
                await asyncio.sleep(min(max(first - now, 0.0), _NAP))
