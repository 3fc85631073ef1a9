"""What a chain is: its constants, its validators, its first balances, and the genesis block.

The genesis hash fixes all that the rules need: two nodes with the same genesis hash agree on
which blocks are valid. Only checkpoints, `assume_valid` and `max_reorg_depth`, which say what this
node believes and is willing to undo, stand outside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from ..backend import headers, merkle
from ..errors import ConfigError, CryptoError
from .block import Block, BlockHeader
from .crypto import sha256, validator_address
from .transaction import TRANSACTION_GAS

__all__ = ["GENESIS_DOMAIN", "ChainConfig"]

GENESIS_DOMAIN: Final = b"moderntensor/genesis/1"

MAX_VALIDATORS: Final = 65_535  # a list16 in what the genesis hash covers
MAX_SUPPLY: Final = 2**128 - 1  # so that no sum of balances can leave a u128
MAX_CHECKPOINTS: Final = 65_536  # one a day for 179 years
GENESIS_FILE_CAP: Final = 64 * 1024 * 1024  # some 700,000 balances
_U32: Final = 2**32 - 1
_U64: Final = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class ChainConfig:
    """The constants of one chain; immutable. ConfigError names the field that is wrong."""

    chain_id: int
    """In every transaction, so that none is valid on two chains; at least 1."""
    timestamp: int
    """Of the genesis block, Unix seconds: where slot 0 begins."""
    block_time: int = 12
    """Seconds per slot, at least 1."""
    gas_limit: int = 30_000_000
    """Of every block."""
    snapshot_interval: int = 1024
    """Blocks between states that nodes keep for others, at least 1."""
    validators: tuple[bytes, ...] = ()
    """x-only keys in slot order. None: an open network, where any key may sign a block."""
    alloc: Mapping[bytes, int] = field(default_factory=dict)
    """First balances by address, each at least 1, all together below 2¹²⁸."""
    state_root: bytes | None = None
    """Instead of `alloc`, of a first state that is too large for a file: 32 bytes. A node gets
    the accounts by fast sync, or by `blockchain.state_load.load_state`."""
    checkpoints: Mapping[int, bytes] = field(default_factory=dict)
    """Block hashes that heights must have. They cover what lies below them: while headers are
    synced up to one, no signatures of theirs are checked."""
    assume_valid: tuple[int, bytes] | None = None
    """Height and hash of a block: of a chain that has it, no signatures up to there are checked
    either. Unlike a checkpoint it forbids nothing: on another chain all are checked."""
    max_reorg_depth: int = 128
    """How many blocks this node is willing to undo."""

    def __post_init__(self) -> None:
        _need_int("chain_id", self.chain_id, 1, _U64)
        _need_int("timestamp", self.timestamp, 0, _U64)
        _need_int("block_time", self.block_time, 1, _U32)
        _need_int("gas_limit", self.gas_limit, TRANSACTION_GAS, _U64)
        _need_int("snapshot_interval", self.snapshot_interval, 1, _U32)
        _need_int("max_reorg_depth", self.max_reorg_depth, 1, _U32)
        if self.state_root is not None:
            _need_bytes("state_root", self.state_root, 32)
            if self.alloc:
                raise ConfigError("state_root: given beside alloc, which leads to its own")
        put = object.__setattr__
        put(self, "validators", _checked_validators(self.validators))
        put(self, "alloc", MappingProxyType(_checked_alloc(self.alloc)))
        put(self, "checkpoints", MappingProxyType(_checked_checkpoints(self.checkpoints)))
        if self.assume_valid is not None:
            put(self, "assume_valid", _checked_assumption(self.assume_valid))
        genesis = self.checkpoints.get(0)
        if genesis is not None and genesis != self.genesis_hash:
            raise ConfigError(
                f"checkpoints.0: {genesis.hex()}, but the genesis hash is {self.genesis_hash.hex()}"
            )

    def __hash__(self) -> int:
        return hash(self.genesis_hash)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_json, (self.to_json(),)  # the read-only views do not pickle

    # --- the genesis block -----------------------------------------------------------------

    @cached_property
    def genesis_header(self) -> BlockHeader:
        """Height 0, unsigned; its extra data commits to the constants above."""
        return BlockHeader(
            height=0,
            timestamp=self.timestamp,
            previous_hash=bytes(32),
            state_root=self._state_root(),
            validator=bytes(32),
            gas_limit=self.gas_limit,
            extra_data=sha256(
                GENESIS_DOMAIN
                + self.chain_id.to_bytes(8, "big")
                + self.block_time.to_bytes(4, "big")
                + self.gas_limit.to_bytes(8, "big")
                + self.snapshot_interval.to_bytes(4, "big")
                + len(self.validators).to_bytes(2, "big")
                + b"".join(self.validators)
            ),
        )

    @property
    def genesis_block(self) -> Block:
        """The genesis header with no transactions."""
        return Block(header=self.genesis_header)

    @property
    def genesis_hash(self) -> bytes:
        """32 bytes that name this chain and its rules."""
        return self.genesis_header.hash

    def _state_root(self) -> bytes:
        if self.state_root is not None:
            return self.state_root
        leaves = sorted(
            # key ‖ nonce ‖ balance ‖ storage root ‖ code hash; protocol, section 7
            sha256(address) + bytes(8) + balance.to_bytes(16, "big") + bytes(64)
            for address, balance in self.alloc.items()
        )
        root, _ = merkle.state_subtree(b"".join(leaves))
        return root

    # --- what follows for later blocks -----------------------------------------------------

    @cached_property
    def rules(self) -> headers.HeaderRules:
        """What the engine needs to check headers of this chain."""
        return headers.HeaderRules(
            self.timestamp, self.block_time, self.gas_limit, self.validators, self.checkpoints
        )

    @cached_property
    def covering_heights(self) -> frozenset[int]:
        """Of the checkpoints and of `assume_valid`: their hashes may cover signatures below."""
        assumed = () if self.assume_valid is None else self.assume_valid[:1]
        return frozenset((*self.checkpoints, *assumed))

    def slot_of(self, timestamp: int) -> int:
        """The slot that a Unix time falls into; negative before the genesis."""
        return (timestamp - self.timestamp) // self.block_time

    def validator_at(self, slot: int) -> bytes | None:
        """The x-only key whose slot this is; None where any key may sign."""
        return self.validators[slot % len(self.validators)] if self.validators else None

    def trusting(self, height: int, block_hash: bytes) -> ChainConfig:
        """The same chain with one more checkpoint: a block of which its owner knows from
        elsewhere. ConfigError where it contradicts one that is there."""
        known = self.checkpoints.get(height, block_hash)
        if known != block_hash:
            raise ConfigError(f"checkpoints.{height}: {known.hex()}, not {block_hash.hex()}")
        return replace(self, checkpoints={**self.checkpoints, height: block_hash})

    # --- files -----------------------------------------------------------------------------

    def to_json(self) -> str:
        """The genesis file. Balances are decimal strings: many readers round large numbers."""
        document: dict[str, Any] = {
            "chain_id": self.chain_id,
            "timestamp": self.timestamp,
            "block_time": self.block_time,
            "gas_limit": self.gas_limit,
            "snapshot_interval": self.snapshot_interval,
            "validators": [key.hex() for key in self.validators],
        }
        if self.state_root is None:
            balances = sorted(self.alloc.items())
            document["alloc"] = {f"0x{address.hex()}": str(n) for address, n in balances}
        else:
            document["state_root"] = self.state_root.hex()
        if self.checkpoints:
            document["checkpoints"] = {
                str(height): digest.hex() for height, digest in sorted(self.checkpoints.items())
            }
        if self.assume_valid is not None:
            height, digest = self.assume_valid
            document["assume_valid"] = {"height": height, "hash": digest.hex()}
        if self.max_reorg_depth != type(self).max_reorg_depth:
            document["max_reorg_depth"] = self.max_reorg_depth
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ChainConfig:
        """The chain that a genesis file describes; ConfigError names the field that is wrong."""
        try:
            document = json.loads(text, object_pairs_hook=_without_duplicates)
        except ConfigError:
            raise
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ConfigError("not a JSON object")
        known = cls.__dataclass_fields__
        for name in document:
            if name not in known:
                raise ConfigError(f"{name}: no such field (there are {', '.join(known)})")
        for name in ("chain_id", "timestamp"):
            if name not in document:
                raise ConfigError(f"{name}: missing")
        if "validators" in document:
            document["validators"] = tuple(
                _from_hex(f"validators[{i}]", key, 32)
                for i, key in enumerate(_need(document, "validators", list))
            )
        if "alloc" in document:
            document["alloc"] = _alloc_from_json(_need(document, "alloc", dict))
        if "state_root" in document:
            document["state_root"] = _from_hex("state_root", document["state_root"], 32)
        if "checkpoints" in document:
            document["checkpoints"] = {
                _from_decimal(f"checkpoints.{height}", height): _from_hex(
                    f"checkpoints.{height}", digest, 32
                )
                for height, digest in _need(document, "checkpoints", dict).items()
            }
        if "assume_valid" in document:
            document["assume_valid"] = _assumption_from_json(_need(document, "assume_valid", dict))
        return cls(**document)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ChainConfig:
        """Read a genesis file; ConfigError names the file and, where it can, the field."""
        target = Path(path)
        try:
            with target.open("rb") as file:
                data = file.read(GENESIS_FILE_CAP + 1)
        except OSError as error:
            raise ConfigError(f"genesis file {target}: {error.strerror or error}") from error
        try:
            if len(data) > GENESIS_FILE_CAP:
                raise ConfigError(f"over {GENESIS_FILE_CAP} bytes long")
            return cls.from_json(data.decode())
        except UnicodeDecodeError as error:
            raise ConfigError(f"genesis file {target}: not UTF-8 ({error.reason})") from error
        except ConfigError as error:
            raise ConfigError(f"genesis file {target}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a new genesis file; ConfigError if it exists or cannot be written."""
        target = Path(path)
        try:
            with target.open("x", encoding="utf-8") as file:
                file.write(self.to_json())
        except FileExistsError:
            raise ConfigError(f"genesis file {target}: exists and is not overwritten") from None
        except OSError as error:
            raise ConfigError(f"genesis file {target}: {error.strerror or error}") from error


# --- checks of values ----------------------------------------------------------------------


def _need_int(name: str, value: object, low: int, high: int) -> int:
    if type(value) is not int:
        raise ConfigError(f"{name}: {value!r} is not an integer")
    if not low <= value <= high:
        raise ConfigError(f"{name}: {value}, must be {low} to {high}")
    return value


def _need_bytes(name: str, value: object, size: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != size:
        raise ConfigError(f"{name}: needs {size} bytes")
    return value


def _checked_validators(keys: Iterable[bytes]) -> tuple[bytes, ...]:
    found: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        name = f"validators[{i}]"
        if i >= MAX_VALIDATORS:
            raise ConfigError(f"validators: more than {MAX_VALIDATORS}")
        if _need_bytes(name, key, 32) in found:
            raise ConfigError(f"{name}: the same key as validators[{found[key]}]")
        try:
            validator_address(key)
        except CryptoError as error:
            raise ConfigError(f"{name}: {error}") from error
        found[key] = i
    return tuple(found)


def _checked_alloc(alloc: Mapping[bytes, int]) -> dict[bytes, int]:
    supply = 0
    for address, balance in alloc.items():
        shown = f"0x{address.hex()}" if isinstance(address, bytes) else repr(address)
        _need_bytes(f"alloc.{shown}", address, 20)
        supply += _need_int(f"alloc.{shown}", balance, 1, MAX_SUPPLY)
    if supply > MAX_SUPPLY:
        raise ConfigError("alloc: all balances together are 2^128 or more")
    return dict(alloc)


def _checked_checkpoints(checkpoints: Mapping[int, bytes]) -> dict[int, bytes]:
    if len(checkpoints) > MAX_CHECKPOINTS:
        raise ConfigError(f"checkpoints: {len(checkpoints)}, at most {MAX_CHECKPOINTS}")
    for height, digest in checkpoints.items():
        _need_int(f"checkpoints.{height}", height, 0, _U64)
        _need_bytes(f"checkpoints.{height}", digest, 32)
    return dict(checkpoints)


def _checked_assumption(block: object) -> tuple[int, bytes]:
    if not isinstance(block, tuple) or len(block) != 2:
        raise ConfigError("assume_valid: needs a height and a hash")
    height, digest = block
    return (
        _need_int("assume_valid.height", height, 1, _U64),
        _need_bytes("assume_valid.hash", digest, 32),
    )


# --- reading JSON --------------------------------------------------------------------------


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A name given twice would silently mean its last value."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ConfigError(f"{name}: given twice")
        found[name] = value
    return found


def _need(document: dict[str, Any], name: str, kind: type) -> Any:
    if not isinstance(document[name], kind):
        raise ConfigError(f"{name}: must be a JSON {'array' if kind is list else 'object'}")
    return document[name]


def _from_hex(name: str, text: object, size: int) -> bytes:
    if isinstance(text, str):
        digits = text.removeprefix("0x")
        if len(digits) == 2 * size and all(c in "0123456789abcdefABCDEF" for c in digits):
            return bytes.fromhex(digits)
    raise ConfigError(f"{name}: {text!r} is not {2 * size} hex digits")


def _from_decimal(name: str, value: object) -> int:
    """An integer, as JSON number or as the digits of a string (at most a u128's)."""
    if type(value) is int:
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 39:
        return int(value)
    raise ConfigError(f"{name}: {value!r} is not an integer")


def _assumption_from_json(block: dict[str, Any]) -> tuple[int, bytes]:
    if set(block) != {"height", "hash"}:
        raise ConfigError("assume_valid: must have a height and a hash, and nothing else")
    return (
        _from_decimal("assume_valid.height", block["height"]),
        _from_hex("assume_valid.hash", block["hash"], 32),
    )


def _alloc_from_json(alloc: dict[str, Any]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for name, balance in alloc.items():
        address = _from_hex("alloc", name, 20)
        if address in found:  # in another case, or with and without 0x
            raise ConfigError(f"alloc.{name}: given twice")
        found[address] = _from_decimal(f"alloc.{name}", balance)
    return found
