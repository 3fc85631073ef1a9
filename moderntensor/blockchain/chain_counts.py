"""What a chain has done since it was opened, in numbers."""

from __future__ import annotations

__all__ = ["ChainCounts"]


class ChainCounts:
    """Only ever grow. Written by whoever commits, read by anybody at any time."""

    __slots__ = ("blocks", "deepest", "reorganisations", "reverted", "transactions")

    def __init__(self) -> None:
        self.blocks = 0
        """Executed; one that a reorganisation brings back counts again."""
        self.transactions = 0
        """In those blocks."""
        self.reorganisations = 0
        """Commits that took blocks off the chain."""
        self.reverted = 0
        """Blocks that were taken off."""
        self.deepest = 0
        """The most blocks that one reorganisation took off."""

    def executed(self, blocks: int, transactions: int) -> None:
        """So much was executed in one commit."""
        self.blocks += blocks
        self.transactions += transactions

    def reorganised(self, reverted: int) -> None:
        """One commit took so many blocks off."""
        self.reorganisations += 1
        self.reverted += reverted
        self.deepest = max(self.deepest, reverted)
