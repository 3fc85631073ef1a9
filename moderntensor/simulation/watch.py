"""What one honest host has told of its chain so far, kept apart from its node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..blockchain.chain_types import HeadChanged
from ..blockchain.lookup import HeaderBatch

if TYPE_CHECKING:
    from ..blockchain.chain import Blockchain
    from .host import Host

__all__ = ["Watched"]

HEADERS_AT_ONCE: Final = 2048


class Watched:
    """The chain of a host, block by block, as its node's events say it is."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.path: list[bytes] = []  # hashes by height, the genesis block's first
        self.news = 0  # height from which on the last change of the head brought other blocks
        self.final = 0  # height up to which it was compared with the others
        self._ahead = 0.0  # seconds

    def note_clock(self) -> None:
        """Remember how far ahead the host's clock is or ever was."""
        host = self.host
        self._ahead = max(self._ahead, host.wall_time() - host.world.wall_time())

    def latest_clock(self) -> float:
        """Unix seconds by the host's clock when it was furthest ahead: it may have been set back
        between the check of a header and its block's execution."""
        self.note_clock()
        return self.host.world.wall_time() + self._ahead

    def reopen(self, chain: Blockchain) -> None:
        """Read all anew: a crash may have cost blocks or their telling, and the headers before a
        state that was fetched are told of by no event."""
        before, self.path = self.path, _hashes(chain)
        self.news = next(
            (
                height
                for height, (old, new) in enumerate(zip(before, self.path, strict=False))
                if old != new
            ),
            min(len(before), len(self.path)),
        )

    def follow(self, event: HeadChanged, chain: Blockchain) -> str | None:
        """Go along with the head; what is wrong with how it moved, or None. The heights from
        `news` on are those that are new."""
        before = len(self.path) - 1
        fault = self._follow(event)
        if fault is None and event.head.height <= before:
            fault = f"left a chain of height {before} for one of {event.head.height}"
        if fault is not None or not self.path:
            self.reopen(chain)
        return fault

    def _follow(self, event: HeadChanged) -> str | None:
        path = self.path
        for height, block_hash in event.reverted:
            if height != len(path) - 1 or path[height] != block_hash:
                return f"reverted {height} {block_hash.hex()[:16]}, which was not its head"
            if height <= self.final:
                return f"undid {height}, which was final"
            path.pop()
        self.news = len(path)
        if event.applied and event.applied[0][0] > len(path):
            del path[:]  # a fetched state
            return None
        for height, block_hash in event.applied:
            if height != len(path):
                return f"applied {height} on a chain that ended at {len(path) - 1}"
            path.append(block_hash)
        if len(path) - 1 != event.head.height or path[-1] != event.head.hash:
            return f"its head {event.head.height} is not where its blocks lead"
        return None


def _hashes(chain: Blockchain) -> list[bytes]:
    """Of all blocks of the executed chain, by height."""
    found: list[bytes] = []
    while batch := HeaderBatch(chain.headers_range(len(found), HEADERS_AT_ONCE)):
        found += batch.hashes()
    return found
