"""Address books without a node: clocks that stand until they are turned, chance from a seed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from moderntensor.config import NodeConfig
from moderntensor.network.addressbook import AddressBook, KnownAddress
from moderntensor.runtime import Runtime

OWN_ID = b"me" * 16
SOMEONE = b"x" * 32


class TurnedClock(Runtime):
    """A runtime whose clocks stand until they are turned, and whose chance is repeatable."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(workers=1)
        self.random = random.Random(seed)
        self.now = 1_000_000_000.0

    def loop_time(self) -> float:
        return self.now

    def wall_time(self) -> float:
        return self.now

    def entropy(self, size: int) -> bytes:
        return self.random.randbytes(size)


def make_book(
    *, seed: int = 1, directory: Path | None = None, **changes: Any
) -> tuple[AddressBook, TurnedClock]:
    """A book with the default settings but for `changes`."""
    clock = TurnedClock(seed)
    return AddressBook(NodeConfig(**changes), clock, OWN_ID, directory), clock


def anyone(_: KnownAddress) -> bool:
    return True


def public(number: int, first: int = 20) -> str:
    """The `number`-th of many public IPv4 addresses, those of each /16 one after the other."""
    return f"{first + (number >> 24)}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def far(number: int) -> str:
    """The `number`-th of many public IPv4 addresses, each of another /16 (up to 25,600)."""
    return f"{20 + number % 100}.{number // 100 % 256}.{number // 25600 + 1}.7"
