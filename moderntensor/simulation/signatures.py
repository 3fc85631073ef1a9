"""Signatures that many simulated nodes are shown, checked once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Generic, TypeVar

from ..blockchain.crypto import recover_addresses, verify_signatures

__all__ = ["SharedSignatures"]

SIGNATURES_KEPT: Final = 1 << 16
"""Of either kind, with their keys and messages: some 20 MiB where both are full."""

_HEADER_ITEM: Final = 128  # as `verify_signatures` has them
_TRANSACTION_ITEM: Final = 97  # as `recover_addresses` has them

T = TypeVar("T")


class SharedSignatures:
    """What the curve said of signatures, for all nodes of one process (`Runtime.signatures`).

    A verdict is kept under the whole of what was checked, key, message and signature, so that
    nothing else can be taken for it; the oldest are forgotten. It takes nothing from what a
    simulation shows but the time: the nodes would come to the same.
    """

    def __init__(self, limit: int = SIGNATURES_KEPT) -> None:
        """At most `limit` verdicts of each kind, one at least, are kept."""
        self._good = _Verdicts(limit, _HEADER_ITEM, _check)
        self._addresses = _Verdicts(limit, _TRANSACTION_ITEM, recover_addresses)

    @property
    def checked(self) -> int:
        """How many signatures the curve was asked about."""
        return self._good.computed + self._addresses.computed

    def first_bad(self, items: bytes) -> int | None:
        """As `verify_signatures`."""
        if len(items) % _HEADER_ITEM:
            return verify_signatures(items)  # says what is wrong
        verdicts = self._good.of(items)
        return next((i for i, good in enumerate(verdicts) if not good), None)

    def addresses(self, items: bytes) -> list[bytes | None]:
        """As `recover_addresses`."""
        if len(items) % _TRANSACTION_ITEM:
            return recover_addresses(items)
        return self._addresses.of(items)


def _check(items: bytes) -> list[bool]:
    """Whether each signature is good: all at once, and from a bad one on again."""
    verdicts: list[bool] = []
    while len(verdicts) * _HEADER_ITEM < len(items):
        rest = items[len(verdicts) * _HEADER_ITEM :]
        bad = verify_signatures(rest)
        verdicts += [True] * (len(rest) // _HEADER_ITEM if bad is None else bad)
        if bad is not None:
            verdicts.append(False)
    return verdicts


class _Verdicts(Generic[T]):
    """What a function says of items of one size, remembered for the last `limit` of them."""

    def __init__(self, limit: int, size: int, function: Callable[[bytes], list[T]]) -> None:
        self._limit = limit
        self._size = size
        self._function = function
        self._known: dict[bytes, T] = {}  # in the order in which they came
        self.computed = 0

    def of(self, items: bytes) -> list[T]:
        known = self._known
        keys = list(self._split(items))
        new = [key for key in dict.fromkeys(keys) if key not in known]
        if not new:
            return [known[key] for key in keys]
        self.computed += len(new)
        fresh = dict(zip(new, self._function(b"".join(new)), strict=True))
        found = [fresh[key] if key in fresh else known[key] for key in keys]
        known |= fresh
        excess = len(known) - self._limit
        if excess > 0:  # some more at a time: to find the oldest, a dict walks over what is gone
            for oldest in tuple(islice(known, excess + self._limit // 16)):
                del known[oldest]
        return found

    def _split(self, items: bytes) -> Iterator[bytes]:
        for at in range(0, len(items), self._size):
            yield items[at : at + self._size]
