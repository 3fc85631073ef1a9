"""The same chain of headers as bytes, as `rlp` records and in the plain design."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Final

from moderntensor.backend import headers as engine
from moderntensor.blockchain.block import BlockHeader

from .plain.headers import PlainHeader, PlainRules

GENESIS_TIME: Final = 1_700_000_000
BLOCK_TIME: Final = 12
GAS_LIMIT: Final = 30_000_000
VALIDATORS: Final = tuple(bytes((n,)) * 32 for n in range(21))
ANCHOR: Final = engine.Anchor(bytes(32), 0, GENESIS_TIME)


@dataclass(frozen=True, slots=True)
class Chain:
    """`count` headers after the anchor, every rule obeyed, signatures random."""

    encoded: tuple[bytes, ...]

    @property
    def now(self) -> int:
        """Unix seconds at which the last header is not ahead of time."""
        return GENESIS_TIME + (len(self.encoded) + 1) * BLOCK_TIME

    def joined(self) -> bytes:
        """One after another, without a count."""
        return b"".join(self.encoded)

    def payload(self) -> bytes:
        """As the protocol's `list16`."""
        return len(self.encoded).to_bytes(2, "big") + self.joined()

    def padded(self) -> bytes:
        """Each header with the padding that SHA-256 puts behind it: 320 bytes, five blocks."""
        return b"".join(
            raw + b"\x80" + bytes(311 - len(raw)) + (8 * len(raw)).to_bytes(8, "big")
            for raw in self.encoded
        )


def _headers() -> Iterator[BlockHeader]:
    """Headers without end, one in each slot, with 0 to 32 bytes of extra data."""
    rng = random.Random(1)
    parent, height = ANCHOR.hash, 0
    while True:
        height += 1
        header = BlockHeader(
            height=height,
            timestamp=GENESIS_TIME + height * BLOCK_TIME + rng.randrange(BLOCK_TIME),
            previous_hash=parent,
            state_root=rng.randbytes(32),
            txs_root=rng.randbytes(32),
            receipts_root=rng.randbytes(32),
            validator=VALIDATORS[height % len(VALIDATORS)],
            gas_used=rng.randrange(GAS_LIMIT),
            gas_limit=GAS_LIMIT,
            extra_data=rng.randbytes(rng.randrange(33)),
            signature=rng.randbytes(64),
        )
        yield header
        parent = header.hash


def headers(count: int) -> list[BlockHeader]:
    """The first of the chain, as objects."""
    return list(islice(_headers(), count))


@cache
def chain(count: int) -> Chain:
    """The first of the chain."""
    return Chain(tuple(header.encode() for header in islice(_headers(), count)))


def plain_headers(count: int) -> list[PlainHeader]:
    """The same fields in the plain design, linked by its own hashes."""
    made: list[PlainHeader] = []
    previous = ANCHOR.hash.hex()
    for header in islice(_headers(), count):
        plain = PlainHeader(
            version=header.version,
            height=header.height,
            timestamp=header.timestamp,
            previous_hash=previous,
            state_root=header.state_root.hex(),
            txs_root=header.txs_root.hex(),
            receipts_root=header.receipts_root.hex(),
            validator=header.validator.hex(),
            gas_used=header.gas_used,
            gas_limit=header.gas_limit,
            extra_data=header.extra_data.hex(),
            signature=header.signature.hex(),
        )
        made.append(plain)
        previous = plain.hash
    return made


PLAIN_RULES: Final = PlainRules(
    GENESIS_TIME, BLOCK_TIME, GAS_LIMIT, tuple(key.hex() for key in VALIDATORS)
)
