"""Block headers and blocks."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, TypeAlias

from ..errors import DecodeError
from ..wire import (
    Hash32,
    Key32,
    Max,
    Record,
    Signature64,
    bytes8,
    cached,
    list32,
    record,
    sized32,
    u32,
    u64,
    unsigned_layout,
)
from .crypto import KeyPair, sha256, verify_signature
from .transaction import MAX_TRANSACTION_SIZE, MIN_TRANSACTION_SIZE, Transaction

__all__ = [
    "EMPTY_BODY",
    "HEADER_DOMAIN",
    "MAX_BLOCK_SIZE",
    "MAX_BLOCK_TRANSACTIONS",
    "MAX_HEADER_SIZE",
    "MIN_HEADER_SIZE",
    "ZERO_HASH",
    "ZERO_SIGNATURE",
    "Block",
    "BlockHeader",
    "decode_body",
    "encode_body",
]

ZERO_HASH: Final = bytes(32)
ZERO_SIGNATURE: Final = bytes(64)
HEADER_DOMAIN: Final = b"moderntensor/header/1"

MAX_EXTRA_DATA: Final = 32  # protocol, section 5
MIN_HEADER_SIZE: Final = 261  # no extra data
MAX_HEADER_SIZE: Final = 293  # as much extra data as there may be: still five SHA-256 blocks
MAX_BLOCK_SIZE: Final = 2 * 1024 * 1024  # protocol, section 6: header and body, encoded
# What fits in a block of the smallest transactions, each behind its length.
MAX_BLOCK_TRANSACTIONS: Final = (MAX_BLOCK_SIZE - MIN_HEADER_SIZE - 4) // (4 + MIN_TRANSACTION_SIZE)
EMPTY_BODY: Final = bytes(4)
"""The body without transactions: a count of zero."""

_Transactions: TypeAlias = Annotated[
    list32[Annotated[sized32[Transaction], Max(MAX_TRANSACTION_SIZE)]],
    Max(MAX_BLOCK_TRANSACTIONS),
]


@record
class BlockHeader(Record):
    """What a block commits to, and the signature of its validator; 261 to 293 bytes.

    A header is a value: nothing is checked when it is made. The rules that it must obey are in
    `moderntensor.blockchain.validation`.
    """

    version: u32 = 1
    height: u64
    timestamp: u64
    """Unix seconds."""
    previous_hash: Hash32
    state_root: Hash32
    """The state after this block."""
    txs_root: Hash32 = ZERO_HASH
    receipts_root: Hash32 = ZERO_HASH
    validator: Key32
    """x-only public key."""
    gas_used: u64 = 0
    gas_limit: u64
    extra_data: Annotated[bytes8, Max(MAX_EXTRA_DATA)] = b""
    signature: Signature64 = ZERO_SIGNATURE
    """BIP-340, over `signing_hash`, under `validator`."""

    _hash: bytes = cached()

    @property
    def hash(self) -> bytes:
        """SHA-256 of the encoded header, signature included: names exactly these bytes."""
        try:
            return self._hash
        except AttributeError:
            value = sha256(self.encode())
            object.__setattr__(self, "_hash", value)
            return value

    @property
    def signing_hash(self) -> bytes:
        """The 32 bytes that the validator signs."""
        return sha256(HEADER_DOMAIN + _UNSIGNED.pack(self))

    def verify_signature(self) -> bool:
        """Whether `signature` is that of `validator`. Whether it may validate is not asked."""
        return verify_signature(self.validator, self.signing_hash, self.signature)

    def sign(self, key: KeyPair) -> BlockHeader:
        """This header with `key` as its validator, and signed by it."""
        unsigned = self.replace(validator=key.public_key, signature=ZERO_SIGNATURE)
        return unsigned.replace(signature=key.sign(unsigned.signing_hash))


_UNSIGNED: Final = unsigned_layout(BlockHeader)


@record
class Block(Record):
    """A header and its transactions; at most 2 MiB encoded."""

    MAX_SIZE: ClassVar[int] = MAX_BLOCK_SIZE

    header: BlockHeader
    transactions: _Transactions = ()

    @property
    def hash(self) -> bytes:
        """The hash of the header, which commits to the transactions."""
        return self.header.hash

    @property
    def height(self) -> int:
        """Blocks between this one and the genesis block, which has height 0."""
        return self.header.height

    @property
    def body(self) -> bytes:
        """The encoded transactions, count first: what follows the header in `encode()`."""
        return encode_body(self.transactions)

    @classmethod
    def assemble(cls, header: bytes, body: bytes) -> Block:
        """The block of an encoded header and an encoded body.

        DecodeError if either is malformed or both together are over 2 MiB. That they belong
        together (txs_root) is not checked here.
        """
        _check_size(len(header) + len(body))
        return cls(header=BlockHeader.decode(header), transactions=decode_body(body))


def _check_size(size: int) -> None:
    if size > MAX_BLOCK_SIZE:
        raise DecodeError(f"Block: {size} bytes, at most {MAX_BLOCK_SIZE}")


@record
class _Body(Record):
    transactions: _Transactions


def encode_body(transactions: tuple[Transaction, ...] | list[Transaction]) -> bytes:
    """``list32[bytes32 tx]``; EncodeError if a transaction or their number is too large."""
    return _Body(transactions=tuple(transactions)).encode()


def decode_body(body: bytes) -> tuple[Transaction, ...]:
    """The transactions of an encoded body; DecodeError if it is not exactly one."""
    _check_size(len(body))
    return _Body.decode(body).transactions
