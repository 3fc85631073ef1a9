"""Transactions and their receipts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Final

from ..errors import CryptoError, EncodeError, InvalidTransactionError
from ..runtime import SignatureMemo
from ..wire import (
    Address20,
    Hash32,
    Max,
    Record,
    U,
    bytes32,
    cached,
    optional,
    record,
    u64,
    u128,
    unsigned_layout,
)
from .crypto import KeyPair, address_of, recover_addresses, recover_public_key, sha256

__all__ = [
    "MAX_TRANSACTION_SIZE",
    "MIN_TRANSACTION_SIZE",
    "RECEIPT_SUCCESS",
    "SIGNING_DOMAIN",
    "TRANSACTION_DOMAIN",
    "Transaction",
    "TransactionReceipt",
    "encode_receipt",
    "identify",
    "intrinsic_gas",
    "keep_identities",
]

SIGNING_DOMAIN: Final = b"moderntensor/tx-sign/1"
TRANSACTION_DOMAIN: Final = b"moderntensor/tx-id/1"

MAX_TRANSACTION_SIZE: Final = 131_068  # protocol, section 6: with its length, 128 KiB
MIN_TRANSACTION_SIZE: Final = 118  # neither a recipient nor data
SIGNATURE_SIZE: Final = 65  # v, r and s: the end of every transaction

# Gas, with the figures of Ethereum's yellow paper (and EIP-2028 for data).
TRANSACTION_GAS: Final = 21_000
CREATION_GAS: Final = 32_000
ZERO_BYTE_GAS: Final = 4
DATA_BYTE_GAS: Final = 16

RECEIPT_SUCCESS: Final = 1


def intrinsic_gas(to: bytes | None, data: bytes) -> int:
    """What a transaction costs, in gas; there is no VM that could make it cost more."""
    gas = TRANSACTION_GAS if to is not None else TRANSACTION_GAS + CREATION_GAS
    if data:
        zeros = data.count(0)
        gas += ZERO_BYTE_GAS * zeros + DATA_BYTE_GAS * (len(data) - zeros)
    return gas


@record
class Transaction(Record):
    """A signed transfer of value; 118 to 131,068 bytes.

    It does not say who sends it: that is recovered from the signature. A transaction is a
    value: nothing is checked when it is made, see `validate`.
    """

    MAX_SIZE: ClassVar[int] = MAX_TRANSACTION_SIZE

    chain_id: u64
    nonce: u64
    """How many transactions its sender sent before this one."""
    to: optional[Address20] = None
    """None creates nothing yet: it only burns its gas."""
    value: u128 = 0
    gas_price: u64 = 1
    gas_limit: u64
    data: Annotated[bytes32, Max(MAX_TRANSACTION_SIZE - MIN_TRANSACTION_SIZE)] = b""
    v: Annotated[int, U(1, hi=1)] = 0
    """Whether the y of the signature's nonce point is odd."""
    r: Hash32 = bytes(32)
    s: Hash32 = bytes(32)
    """In the lower half of the group order, so that nobody else can make a second signature."""

    _hash: bytes = cached()
    _sender: bytes = cached()

    @classmethod
    def create(
        cls,
        key: KeyPair,
        *,
        chain_id: int,
        nonce: int,
        to: bytes | None,
        value: int = 0,
        gas_price: int = 1,
        gas_limit: int | None = None,
        data: bytes = b"",
    ) -> Transaction:
        """A transaction signed by `key`; `gas_limit` defaults to just what it costs."""
        unsigned = cls(
            chain_id=chain_id,
            nonce=nonce,
            to=to,
            value=value,
            gas_price=gas_price,
            gas_limit=intrinsic_gas(to, data) if gas_limit is None else gas_limit,
            data=data,
        )
        v, r, s = key.sign_recoverable(unsigned.signing_hash)
        signed = unsigned.replace(v=v, r=r, s=s)
        object.__setattr__(signed, "_sender", key.address)  # what would be recovered, at a price
        return signed

    @classmethod
    def decode_hashed(cls, data: bytes) -> Transaction:
        """As `decode`, with the hash taken from `data`, for who wants it: it need not be encoded
        again."""
        tx = cls.decode(data)
        object.__setattr__(tx, "_hash", sha256(TRANSACTION_DOMAIN + data))
        return tx

    @property
    def hash(self) -> bytes:
        """Names this transaction, signature included."""
        try:
            return self._hash
        except AttributeError:
            value = sha256(TRANSACTION_DOMAIN + self.encode())
            object.__setattr__(self, "_hash", value)
            return value

    @property
    def signing_hash(self) -> bytes:
        """The 32 bytes that the sender signs."""
        return sha256(SIGNING_DOMAIN + _UNSIGNED.pack(self))

    @property
    def sender(self) -> bytes:
        """The 20-byte address that signed; recovered once, then kept.

        CryptoError if the signature is nobody's, or its s is high.
        """
        try:
            return self._sender
        except AttributeError:
            public_key = recover_public_key(self.signing_hash, self.v, self.r, self.s)
            value = address_of(public_key)
            object.__setattr__(self, "_sender", value)
            return value

    @property
    def intrinsic_gas(self) -> int:
        """What it uses of the block's gas, and pays for."""
        return intrinsic_gas(self.to, self.data)

    @property
    def max_cost(self) -> int:
        """What the sender must own: value and all of the gas limit. Can exceed 128 bits."""
        return self.value + self.gas_limit * self.gas_price

    def validate(self, chain_id: int, block_gas_limit: int) -> bytes:
        """Check every rule that needs no state, cheapest first, and return the sender.

        InvalidTransactionError with rule "encoding", "chain_id", "gas_price", "gas_limit",
        "block_gas" or "signature": on this chain the transaction never becomes valid.
        """
        try:
            size = len(self.encode())
        except EncodeError as error:
            raise InvalidTransactionError("encoding", str(error)) from error
        if size > MAX_TRANSACTION_SIZE:
            raise self._invalid("encoding", f"{size} bytes, at most {MAX_TRANSACTION_SIZE}")
        if self.chain_id != chain_id:
            raise self._invalid("chain_id", f"{self.chain_id}, this chain is {chain_id}")
        if self.gas_price < 1:
            raise self._invalid("gas_price", "0, at least 1")
        gas = self.intrinsic_gas
        if self.gas_limit < gas:
            raise self._invalid("gas_limit", f"{self.gas_limit}, needs {gas}")
        if gas > block_gas_limit:
            raise self._invalid("block_gas", f"{gas}, a block has {block_gas_limit}")
        try:
            return self.sender
        except CryptoError as error:
            raise self._invalid("signature", str(error)) from error

    def _invalid(self, rule: str, detail: str) -> InvalidTransactionError:
        return InvalidTransactionError(rule, detail, self.hash)


_UNSIGNED: Final = unsigned_layout(Transaction, stop="v")


def identify(transactions: Iterable[Transaction], memo: SignatureMemo | None = None) -> None:
    """Compute the hash and recover the sender of each, which keeps both: `hash` and `sender`
    cost nothing afterwards.

    All signatures are worked through at once, without the GIL. Where one is nobody's, `sender`
    still raises CryptoError. EncodeError for a transaction that cannot be encoded. `memo` as for
    `recover_addresses`.
    """
    waiting = []
    items = []
    for transaction in transactions:
        encoded = transaction.encode()
        if not hasattr(transaction, "_hash"):
            object.__setattr__(transaction, "_hash", sha256(TRANSACTION_DOMAIN + encoded))
        if not hasattr(transaction, "_sender"):
            waiting.append(transaction)
            items.append(sha256(SIGNING_DOMAIN + encoded[:-SIGNATURE_SIZE]))
            items.append(encoded[-SIGNATURE_SIZE:])
    senders = recover_addresses(b"".join(items), memo)
    for transaction, sender in zip(waiting, senders, strict=True):
        if sender is not None:
            object.__setattr__(transaction, "_sender", sender)


def keep_identities(
    transactions: Iterable[Transaction], hashes: Iterable[bytes], senders: Iterable[bytes | None]
) -> None:
    """Tell transactions their hashes, and the senders that were recovered, for them to keep."""
    keep = object.__setattr__
    for transaction, tx_hash, sender in zip(transactions, hashes, senders, strict=True):
        keep(transaction, "_hash", tx_hash)
        if sender is not None:
            keep(transaction, "_sender", sender)


@record
class TransactionReceipt(Record):
    """What became of a transaction in its block; 41 bytes, a leaf of receipts_root."""

    transaction_hash: Hash32
    status: Annotated[int, U(1, lo=RECEIPT_SUCCESS, hi=RECEIPT_SUCCESS)] = RECEIPT_SUCCESS
    """1: done. A transaction that fails makes its whole block invalid."""
    gas_used: u64


def encode_receipt(transaction_hash: bytes, gas_used: int) -> bytes:
    """A `TransactionReceipt` encoded, without making it: execution needs one for every transfer."""
    return transaction_hash + b"\1" + gas_used.to_bytes(8, "big")
