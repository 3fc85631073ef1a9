"""Headers as dataclasses; their hash is SHA-256 of their JSON with sorted keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .codec import CodecError


@dataclass
class PlainHeader:
    """The fields of a header, hashes in hexadecimal."""

    version: int
    height: int
    timestamp: int
    previous_hash: str
    state_root: str
    txs_root: str
    receipts_root: str
    validator: str
    gas_used: int
    gas_limit: int
    extra_data: str
    signature: str

    @property
    def hash(self) -> str:
        """In hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass
class PlainRules:
    """What the rules of a chain take."""

    genesis_timestamp: int
    block_time: int
    gas_limit: int
    validators: Sequence[str] = ()
    max_drift: int = 15


class HeaderError(ValueError):
    """A header that breaks a rule."""


def encode_headers(headers: Sequence[PlainHeader]) -> bytes:
    """The payload of a reply."""
    return json.dumps([header.to_dict() for header in headers]).encode()


def decode_headers(payload: bytes) -> list[PlainHeader]:
    """The headers of a reply."""
    try:
        return [PlainHeader(**fields) for fields in json.loads(payload)]
    except (ValueError, TypeError) as error:
        raise CodecError(f"no headers: {error}") from error


def check_headers(
    headers: Sequence[PlainHeader],
    anchor_hash: str,
    anchor_height: int,
    anchor_timestamp: int,
    rules: PlainRules,
    now: int,
) -> None:
    """Every rule of a header but its signature, from the first header after the anchor on."""
    previous_hash = anchor_hash
    height = anchor_height
    slot = (anchor_timestamp - rules.genesis_timestamp) // rules.block_time
    for header in headers:
        height += 1
        if header.version != 1:
            raise HeaderError(f"{height}: version")
        if header.gas_limit != rules.gas_limit:
            raise HeaderError(f"{height}: gas_limit")
        if header.gas_used > header.gas_limit:
            raise HeaderError(f"{height}: gas_used")
        if header.height != height:
            raise HeaderError(f"{height}: height")
        if header.previous_hash != previous_hash:
            raise HeaderError(f"{height}: previous_hash")
        previous_slot = slot
        slot = (header.timestamp - rules.genesis_timestamp) // rules.block_time
        if slot <= previous_slot:
            raise HeaderError(f"{height}: slot")
        if header.timestamp > now + rules.max_drift:
            raise HeaderError(f"{height}: future")
        if rules.validators and header.validator != rules.validators[slot % len(rules.validators)]:
            raise HeaderError(f"{height}: validator")
        previous_hash = header.hash
