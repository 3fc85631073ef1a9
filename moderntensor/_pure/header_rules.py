"""What the headers of a chain are checked against, and what a batch of them attaches to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn, final

from ..errors import ConfigError

__all__ = ["RULES", "U64_MAX", "Anchor", "HeaderRules", "hash32", "number"]

#: The rules of `HeaderBatch.check`, in the order in which they are tried on each header.
RULES: Final = (
    "version",
    "gas_limit",
    "gas_used",
    "height",
    "previous_hash",
    "slot",
    "future",
    "checkpoint",
    "validator",
)

_MAX_VALIDATORS: Final = 65_535  # genesis commits to them as a list16
U32_MAX: Final = (1 << 32) - 1
U64_MAX: Final = (1 << 64) - 1


def number(where: str, value: int, low: int, high: int, error: type[ValueError]) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{where} needs an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise error(f"{where}: {value}, must be {low} to {high}")
    return int(value)


def hash32(where: str, value: bytes, error: type[ValueError]) -> bytes:
    if type(value) is not bytes:
        raise TypeError(f"{where} needs bytes, not {type(value).__name__}")
    if len(value) != 32:
        raise error(f"{where}: {len(value)} bytes, must be 32")
    return value


def _setting(name: str, value: int, low: int, high: int) -> int:
    return number(f"HeaderRules.{name}", value, low, high, ConfigError)


class Anchor(NamedTuple):
    """What a batch attaches to: the hash, height and timestamp of the header before it."""

    hash: bytes
    height: int
    timestamp: int


@final
class HeaderRules:
    """What the headers of one chain obey; immutable.

    Times are Unix seconds. `validators` are 32-byte keys in slot order (none: an open network,
    any key may sign). `checkpoints` maps heights to the 32-byte hashes they must have.
    `max_drift` is how far a timestamp may lie ahead of `now`. ConfigError if out of range.
    """

    __slots__ = (
        "block_time",
        "checkpoints",
        "gas_limit",
        "genesis_timestamp",
        "max_drift",
        "validators",
    )

    genesis_timestamp: int
    block_time: int
    gas_limit: int
    validators: tuple[bytes, ...]
    checkpoints: Mapping[int, bytes]
    max_drift: int

    def __init__(
        self,
        genesis_timestamp: int,
        block_time: int,
        gas_limit: int,
        validators: Iterable[bytes] = (),
        checkpoints: Mapping[int, bytes] = MappingProxyType({}),
        *,
        max_drift: int = 15,
    ) -> None:
        put = object.__setattr__
        put(self, "genesis_timestamp", _setting("genesis_timestamp", genesis_timestamp, 0, U64_MAX))
        put(self, "block_time", _setting("block_time", block_time, 1, U32_MAX))
        put(self, "gas_limit", _setting("gas_limit", gas_limit, 0, U64_MAX))
        keys = tuple(validators)
        if len(keys) > _MAX_VALIDATORS:
            raise ConfigError(
                f"HeaderRules.validators: {len(keys)} items, at most {_MAX_VALIDATORS}"
            )
        for i, key in enumerate(keys):
            hash32(f"HeaderRules.validators[{i}]", key, ConfigError)
        put(self, "validators", keys)
        points = dict(checkpoints)
        for height, digest in points.items():
            _setting("checkpoints", height, 0, U64_MAX)
            hash32(f"HeaderRules.checkpoints[{height}]", digest, ConfigError)
        put(self, "checkpoints", MappingProxyType(points))
        put(self, "max_drift", _setting("max_drift", max_drift, 0, U32_MAX))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"HeaderRules.{name} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"HeaderRules.{name} cannot be changed")

    def __repr__(self) -> str:
        return (
            f"HeaderRules(genesis_timestamp={self.genesis_timestamp}, "
            f"block_time={self.block_time}, gas_limit={self.gas_limit}, "
            f"validators={len(self.validators)}, checkpoints={len(self.checkpoints)}, "
            f"max_drift={self.max_drift})"
        )
