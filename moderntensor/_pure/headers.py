"""Batches of block headers over the bytes they came in, and the rules that need no state.

A header on the wire is 261 to 293 bytes: 197 fixed bytes (the last of them is the length of
`extra_data`), up to 32 bytes of `extra_data`, and 64 bytes of signature. This is the reference
that `ext/headers.pyx` equals, results and errors included.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import sha256 as _sha256
from operator import index as _index
from typing import Final, Protocol, SupportsIndex, TypeVar, final

from ..errors import DecodeError, EncodeError, HeaderChainError
from .header_rules import RULES, U64_MAX, Anchor, HeaderRules, hash32, number

__all__ = [
    "RULES",
    "Anchor",
    "HeaderBatch",
    "HeaderRules",
    "header_hash",
    "sha256",
    "sha256_implementation",
    "sha256_implementations",
]

T_co = TypeVar("T_co", covariant=True)

_VERSION: Final = 1
_FIXED: Final = 197
_SIGNATURE: Final = 64
_MIN_SIZE: Final = _FIXED + _SIGNATURE
_MAX_EXTRA: Final = 32
_MAX_ENCODED: Final = 65_535  # what the count of a list16 can say
_SIGNING_TAG: Final = b"moderntensor/header/1"

# version, height, timestamp, previous_hash, validator, gas_used, gas_limit
_CHECKED: Final = struct.Struct(">IQQ32s96x32sQQ")
_U64: Final = struct.Struct(">Q")


def sha256(data: bytes | bytearray | memoryview) -> bytes:
    """SHA-256 of any contiguous bytes, 32 bytes."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"sha256 needs bytes, not {type(data).__name__}")
    return _sha256(data).digest()


def header_hash(raw: bytes) -> bytes:
    """The hash of one encoded header, signature included, 32 bytes."""
    return sha256(raw)


def sha256_implementation() -> str:
    """The SHA-256 in use: ``"hashlib"`` here, ``"avx512"``, ``"sha-ni"``, ``"avx2"``, ``"armv8"``
    or ``"portable"`` when compiled."""
    return "hashlib"


def sha256_implementations() -> tuple[str, ...]:
    """Every SHA-256 that works on this machine, best first."""
    return ("hashlib",)


def _force_sha256(name: str | None) -> None:
    """For `backend.force_sha256`: what this engine hashes with; the best again with None."""
    if name not in (None, "hashlib"):
        raise ValueError(f"no SHA-256 implementation {name!r} on this machine")


class HeaderLayout(Protocol[T_co]):
    """The part of a `Layout` that `HeaderBatch.header` uses."""

    def unpack_from(self, data: bytes, offset: int = 0) -> tuple[T_co, int]: ...


def _header_end(data: bytes, offset: int, i: int) -> int:
    """Where the header that starts at `offset` ends; `i` names it in errors."""
    left = len(data) - offset
    if left < _MIN_SIZE:
        raise DecodeError(
            f"HeaderBatch[{i}]: needs {_MIN_SIZE} bytes at offset {offset}, {left} left"
        )
    extra = data[offset + _FIXED - 1]
    if extra > _MAX_EXTRA:
        raise DecodeError(f"HeaderBatch[{i}].extra_data: {extra} bytes, at most {_MAX_EXTRA}")
    if left < _MIN_SIZE + extra:
        raise DecodeError(
            f"HeaderBatch[{i}]: needs {_MIN_SIZE + extra} bytes at offset {offset}, {left} left"
        )
    return offset + _MIN_SIZE + extra


def _need_bytes(data: bytes) -> None:
    if type(data) is not bytes:
        raise TypeError(f"HeaderBatch needs bytes, not {type(data).__name__}")


@final
class HeaderBatch:
    """A run of headers over one `bytes` object, which slices share together with the hashes
    already computed. Nothing is made per header until somebody asks for it.

    `HeaderBatch(data)` reads a `list16[header]`: a u16 count and the headers. DecodeError if
    malformed or if bytes are left over. Indexes count from the start of the slice, negative
    ones from its end; IndexError outside.
    """

    __slots__ = ("_data", "_hashes", "_offsets", "_start", "_stop")

    _data: bytes
    _offsets: list[int]  # of each header, and the end of the last
    _hashes: list[bytes | None]
    _start: int
    _stop: int

    def __init__(self, data: bytes) -> None:
        _need_bytes(data)
        if len(data) < 2:
            raise DecodeError(f"HeaderBatch: needs 2 bytes at offset 0, {len(data)} left")
        count = int.from_bytes(data[:2], "big")
        if count * _MIN_SIZE > len(data) - 2:
            raise DecodeError(
                f"HeaderBatch: {count} items need {count * _MIN_SIZE} bytes, {len(data) - 2} left"
            )
        offsets = [2]
        for i in range(count):
            offsets.append(_header_end(data, offsets[-1], i))
        if offsets[-1] != len(data):
            raise DecodeError(f"HeaderBatch: {len(data) - offsets[-1]} trailing bytes")
        self._set(data, offsets)

    def _set(self, data: bytes, offsets: list[int]) -> None:
        self._data = data
        self._offsets = offsets
        self._hashes = [None] * (len(offsets) - 1)
        self._start = 0
        self._stop = len(offsets) - 1

    @classmethod
    def from_concatenated(cls, data: bytes) -> HeaderBatch:
        """From headers one after another, without a count. DecodeError if malformed."""
        _need_bytes(data)
        offsets = [0]
        while offsets[-1] != len(data):
            offsets.append(_header_end(data, offsets[-1], len(offsets) - 1))
        batch = cls.__new__(cls)
        batch._set(data, offsets)
        return batch

    @classmethod
    def join(cls, headers: Iterable[bytes]) -> HeaderBatch:
        """From encoded headers, one `bytes` each. DecodeError if one is malformed."""
        parts = list(headers)
        offsets = [0]
        for i, raw in enumerate(parts):
            _need_bytes(raw)
            end = _header_end(raw, 0, i)
            if end != len(raw):
                raise DecodeError(f"HeaderBatch[{i}]: {len(raw) - end} trailing bytes")
            offsets.append(offsets[-1] + end)
        batch = cls.__new__(cls)
        batch._set(b"".join(parts), offsets)
        return batch

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, where: slice) -> HeaderBatch:
        """A slice of step 1, sharing the bytes and the hashes."""
        if not isinstance(where, slice):
            raise TypeError("HeaderBatch takes slices; raw(i) or header(i, layout) give one header")
        start, stop, step = where.indices(len(self))
        if step != 1:
            raise ValueError("HeaderBatch takes slices of step 1 only")
        part = HeaderBatch.__new__(HeaderBatch)
        part._data = self._data
        part._offsets = self._offsets
        part._hashes = self._hashes
        part._start = self._start + start
        part._stop = self._start + max(start, stop)
        return part

    def __repr__(self) -> str:
        return f"HeaderBatch({len(self)} headers)"

    def encode(self) -> bytes:
        """The `list16[header]` encoding of this slice. EncodeError over 65,535 headers."""
        if len(self) > _MAX_ENCODED:
            raise EncodeError(f"HeaderBatch: {len(self)} items, at most {_MAX_ENCODED}")
        start, stop = self._offsets[self._start], self._offsets[self._stop]
        return len(self).to_bytes(2, "big") + self._data[start:stop]

    # --- one header -----------------------------------------------------------------------

    def _at(self, i: SupportsIndex) -> int:
        """The place of header `i` in the shared lists."""
        n = _index(i)
        if n < 0:
            n += len(self)
        if not 0 <= n < len(self):
            raise IndexError("header index out of range")
        return self._start + n

    def _bytes(self, i: SupportsIndex, start: int, size: int) -> bytes:
        at = self._offsets[self._at(i)] + start
        return self._data[at : at + size]

    def _u64(self, i: SupportsIndex, start: int) -> int:
        value: int = _U64.unpack_from(self._data, self._offsets[self._at(i)] + start)[0]
        return value

    def _digest(self, at: int) -> bytes:
        digest = self._hashes[at]
        if digest is None:
            raw = self._data[self._offsets[at] : self._offsets[at + 1]]
            digest = self._hashes[at] = _sha256(raw).digest()
        return digest

    def raw(self, i: SupportsIndex) -> bytes:
        """The bytes of header `i`, signature included."""
        at = self._at(i)
        return self._data[self._offsets[at] : self._offsets[at + 1]]

    def hash(self, i: SupportsIndex) -> bytes:
        """The hash of header `i`, 32 bytes; computed once."""
        return self._digest(self._at(i))

    def hashes(self) -> list[bytes]:
        """The hashes of all headers of this slice."""
        return [self._digest(at) for at in range(self._start, self._stop)]

    def signing_hash(self, i: SupportsIndex) -> bytes:
        """What the signature of header `i` signs, 32 bytes."""
        at = self._at(i)
        unsigned = self._data[self._offsets[at] : self._offsets[at + 1] - _SIGNATURE]
        return _sha256(_SIGNING_TAG + unsigned).digest()

    def signature(self, i: SupportsIndex) -> bytes:
        """The signature of header `i`, 64 bytes."""
        end = self._offsets[self._at(i) + 1]
        return self._data[end - _SIGNATURE : end]

    def signature_items(self, start: int = 0, stop: int | None = None) -> bytes:
        """What the signatures of headers `start` … `stop` - 1 are checked by, as in a slice.

        128 bytes each, for `signatures.verify_many`: validator ‖ signing hash ‖ signature.
        """
        part = self[start:stop]
        return b"".join(
            part.validator(i) + part.signing_hash(i) + part.signature(i) for i in range(len(part))
        )

    def height(self, i: SupportsIndex) -> int:
        """The height of header `i`."""
        return self._u64(i, 4)

    def timestamp(self, i: SupportsIndex) -> int:
        """The timestamp of header `i`, Unix seconds."""
        return self._u64(i, 12)

    def previous_hash(self, i: SupportsIndex) -> bytes:
        """The previous_hash of header `i`, 32 bytes."""
        return self._bytes(i, 20, 32)

    def state_root(self, i: SupportsIndex) -> bytes:
        """The state_root of header `i`, 32 bytes."""
        return self._bytes(i, 52, 32)

    def txs_root(self, i: SupportsIndex) -> bytes:
        """The txs_root of header `i`, 32 bytes."""
        return self._bytes(i, 84, 32)

    def receipts_root(self, i: SupportsIndex) -> bytes:
        """The receipts_root of header `i`, 32 bytes."""
        return self._bytes(i, 116, 32)

    def validator(self, i: SupportsIndex) -> bytes:
        """The validator's key of header `i`, 32 bytes."""
        return self._bytes(i, 148, 32)

    def gas_used(self, i: SupportsIndex) -> int:
        """The gas_used of header `i`."""
        return self._u64(i, 180)

    def gas_limit(self, i: SupportsIndex) -> int:
        """The gas_limit of header `i`."""
        return self._u64(i, 188)

    def header(self, i: SupportsIndex, layout: HeaderLayout[T_co]) -> T_co:
        """Header `i` as an object of the layout's class. DecodeError if the layout disagrees."""
        at = self._at(i)
        found, end = layout.unpack_from(self._data, self._offsets[at])
        if end != self._offsets[at + 1]:
            raise DecodeError("HeaderBatch: the layout is not that of a header")
        return found

    # --- the rules ------------------------------------------------------------------------

    def check(self, anchor: Anchor, rules: HeaderRules, now: int) -> None:
        """Every rule that needs neither state nor signatures, for every header in order.

        `now` is Unix seconds. Raises HeaderChainError for the first header that breaks a rule.
        """
        good, rule = self.check_prefix(anchor, rules, now)
        if rule is not None:
            raise HeaderChainError(good, anchor[1] + 1 + good, rule)

    def check_prefix(self, anchor: Anchor, rules: HeaderRules, now: int) -> tuple[int, str | None]:
        """(how many headers obey all rules, the rule that the next one breaks or None)."""
        if type(rules) is not HeaderRules:
            raise TypeError(f"check needs HeaderRules, not {type(rules).__name__}")
        parent, height, timestamp = anchor
        hash32("Anchor.hash", parent, EncodeError)
        number("Anchor.height", height, 0, U64_MAX, EncodeError)
        number("Anchor.timestamp", timestamp, 0, U64_MAX, EncodeError)
        latest = number("now", now, 0, U64_MAX, EncodeError) + rules.max_drift
        genesis, block_time = rules.genesis_timestamp, rules.block_time
        validators, checkpoints = rules.validators, rules.checkpoints
        parent_slot = (timestamp - genesis) // block_time if timestamp >= genesis else -1
        for at in range(self._start, self._stop):
            version, found, timestamp, previous, validator, gas_used, gas_limit = (
                _CHECKED.unpack_from(self._data, self._offsets[at])
            )
            height += 1
            slot = (timestamp - genesis) // block_time
            if version != _VERSION:
                rule = "version"
            elif gas_limit != rules.gas_limit:
                rule = "gas_limit"
            elif gas_used > gas_limit:
                rule = "gas_used"
            elif found != height:
                rule = "height"
            elif previous != parent:
                rule = "previous_hash"
            elif slot <= parent_slot:  # negative before genesis, so never greater
                rule = "slot"
            elif timestamp > latest:
                rule = "future"
            elif height in checkpoints and checkpoints[height] != self._digest(at):
                rule = "checkpoint"
            elif validators and validators[slot % len(validators)] != validator:
                rule = "validator"
            else:
                parent, parent_slot = self._digest(at), slot
                continue
            return at - self._start, rule
        return len(self), None
