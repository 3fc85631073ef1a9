# What the headers of a chain are checked against, as in the pure twin; the keys
# and checkpoints lie flat besides, for the walk without the GIL.

from collections import namedtuple
from types import MappingProxyType

from moderntensor.errors import ConfigError

cdef enum Rule:
    R_VERSION, R_GAS_LIMIT, R_GAS_USED, R_HEIGHT, R_PREVIOUS_HASH, R_SLOT, R_FUTURE
    R_CHECKPOINT, R_VALIDATOR, R_NONE

# In the order of the enumeration, which is that of the checks.
RULES = (
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

cdef enum:
    CHECKPOINT = 40  # height u64, hash
    MAX_VALIDATORS = 65535  # genesis commits to them as a list16

cdef object U32_MAX = (1 << 32) - 1
cdef object U64_MAX = (1 << 64) - 1


cdef number(str where, value, low, high, error):
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{where} needs an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise error(f"{where}: {value}, must be {low} to {high}")
    return int(value)


cdef hash32(str where, value, error):
    if type(value) is not bytes:
        raise TypeError(f"{where} needs bytes, not {type(value).__name__}")
    if len(value) != 32:
        raise error(f"{where}: {len(value)} bytes, must be 32")
    return value


cdef setting(str name, value, low, high):
    return number(f"HeaderRules.{name}", value, low, high, ConfigError)


Anchor = namedtuple("Anchor", ("hash", "height", "timestamp"), module=__name__)
Anchor.__doc__ = (
    "What a batch attaches to: the hash, height and timestamp of the header before it."
)


@cython.final
cdef class HeaderRules:
    """What the headers of one chain obey; immutable.

    Times are Unix seconds. `validators` are 32-byte keys in slot order (none: an open network,
    any key may sign). `checkpoints` maps heights to the 32-byte hashes they must have.
    `max_drift` is how far a timestamp may lie ahead of `now`. ConfigError if out of range.
    """

    cdef readonly uint64_t genesis_timestamp
    cdef readonly uint32_t block_time
    cdef readonly uint64_t gas_limit
    cdef readonly tuple validators
    cdef readonly object checkpoints
    cdef readonly uint32_t max_drift
    cdef bytes keys  # the validators, 32 bytes each
    cdef bytes points  # the checkpoints by height, 40 bytes each

    def __cinit__(
        self,
        genesis_timestamp,
        block_time,
        gas_limit,
        validators=(),
        checkpoints=MappingProxyType({}),
        *,
        max_drift=15,
    ):
        self.genesis_timestamp = setting("genesis_timestamp", genesis_timestamp, 0, U64_MAX)
        self.block_time = setting("block_time", block_time, 1, U32_MAX)
        self.gas_limit = setting("gas_limit", gas_limit, 0, U64_MAX)
        keys = tuple(validators)
        if len(keys) > MAX_VALIDATORS:
            raise ConfigError(
                f"HeaderRules.validators: {len(keys)} items, at most {MAX_VALIDATORS}"
            )
        for i, key in enumerate(keys):
            hash32(f"HeaderRules.validators[{i}]", key, ConfigError)
        self.validators = keys
        points = dict(checkpoints)
        for height, digest in points.items():
            setting("checkpoints", height, 0, U64_MAX)
            hash32(f"HeaderRules.checkpoints[{height}]", digest, ConfigError)
        self.checkpoints = MappingProxyType(points)
        self.max_drift = setting("max_drift", max_drift, 0, U32_MAX)
        self.keys = b"".join(keys)
        self.points = b"".join(
            [height.to_bytes(8, "big") + points[height] for height in sorted(points)]
        )

    def __setattr__(self, name, value):
        raise AttributeError(f"HeaderRules.{name} cannot be changed")

    def __delattr__(self, name):
        raise AttributeError(f"HeaderRules.{name} cannot be changed")

    def __repr__(self):
        return (
            f"HeaderRules(genesis_timestamp={self.genesis_timestamp}, "
            f"block_time={self.block_time}, gas_limit={self.gas_limit}, "
            f"validators={len(self.validators)}, checkpoints={len(self.checkpoints)}, "
            f"max_drift={self.max_drift})"
        )
