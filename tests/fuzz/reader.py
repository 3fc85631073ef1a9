"""Decisions out of bytes: what a structured target takes from the fuzzer's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Reader:
    """Reads `data` from the front; behind its end everything is zero or empty.

    Small changes of the input make small changes of the decisions, so that a mutation of a good
    input stays near it.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """The next `size` bytes, or as many as there are."""
        start = self._at
        self._at = min(start + size, len(self._data))
        return self._data[start : self._at]

    def fixed(self, size: int) -> bytes:
        """Exactly `size` bytes, zeros where there are no more."""
        return self.take(size).ljust(size, b"\0")

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)

    def number(self, size: int) -> int:
        """A big-endian integer of `size` bytes."""
        return int.from_bytes(self.fixed(size), "big")

    def below(self, bound: int) -> int:
        """0 to `bound` - 1, of one byte."""
        return self.number(1) % bound

    def flag(self) -> bool:
        """Yes or no."""
        return self.below(2) == 1

    def chunk(self, width: int = 1) -> bytes:
        """Bytes behind their length of `width` bytes."""
        return self.take(self.number(width))

    def pick(self, options: Sequence[T]) -> T:
        """One of up to 256 options."""
        return options[self.below(len(options))]


def chunk(data: bytes, width: int = 1) -> bytes:
    """What `Reader.chunk` reads as `data`, for seeds."""
    return len(data).to_bytes(width, "big") + data
