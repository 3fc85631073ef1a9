"""Chains of encoded headers, made by hand so that the tests of the engines need nothing else."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from hashlib import sha256

GENESIS_TIME = 1_700_000_000
BLOCK_TIME = 12
GAS_LIMIT = 30_000_000
GENESIS_HASH = sha256(b"genesis").digest()


@dataclass(frozen=True)
class RawHeader:
    """The fields of a header as the protocol orders them; `encode` trusts them."""

    version: int = 1
    height: int = 1
    timestamp: int = GENESIS_TIME + BLOCK_TIME
    previous_hash: bytes = GENESIS_HASH
    state_root: bytes = b"\x01" * 32
    txs_root: bytes = b"\x02" * 32
    receipts_root: bytes = b"\x03" * 32
    validator: bytes = b"\x04" * 32
    gas_used: int = 21_000
    gas_limit: int = GAS_LIMIT
    extra_data: bytes = b""
    signature: bytes = b"\x05" * 64

    @property
    def unsigned(self) -> bytes:
        return (
            struct.pack(">IQQ", self.version, self.height, self.timestamp)
            + self.previous_hash
            + self.state_root
            + self.txs_root
            + self.receipts_root
            + self.validator
            + struct.pack(">QQB", self.gas_used, self.gas_limit, len(self.extra_data))
            + self.extra_data
        )

    def encode(self) -> bytes:
        return self.unsigned + self.signature

    @property
    def hash(self) -> bytes:
        return sha256(self.encode()).digest()


def chain(
    count: int,
    *,
    validators: tuple[bytes, ...] = (),
    parent: bytes = GENESIS_HASH,
    height: int = 0,
    genesis_time: int = GENESIS_TIME,
    gap: int = 1,
) -> list[RawHeader]:
    """`count` headers after the given parent, one every `gap` slots, of growing extra_data."""
    made: list[RawHeader] = []
    for n in range(1, count + 1):
        slot = (height + n) * gap
        header = RawHeader(
            height=height + n,
            timestamp=genesis_time + slot * BLOCK_TIME + n % BLOCK_TIME,
            previous_hash=parent,
            validator=validators[slot % len(validators)] if validators else b"\x04" * 32,
            extra_data=bytes(n % 33),
            signature=bytes([n % 256]) * 64,
        )
        made.append(header)
        parent = header.hash
    return made


def relink(headers: list[RawHeader], parent: bytes = GENESIS_HASH) -> list[RawHeader]:
    """The same headers with every previous_hash set right again."""
    made = []
    for header in headers:
        made.append(replace(header, previous_hash=parent))
        parent = made[-1].hash
    return made


def batch_bytes(headers: list[RawHeader]) -> bytes:
    """The `list16[header]` encoding."""
    return len(headers).to_bytes(2, "big") + b"".join(header.encode() for header in headers)
