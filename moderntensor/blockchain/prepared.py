"""Bodies made ready for execution off the writing thread: decoded, hashed, senders recovered."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Final

from ..backend import merkle
from ..errors import DecodeError
from ..runtime import SignatureMemo
from .block import EMPTY_BODY, ZERO_HASH, Block
from .block import decode_body as decode_transactions
from .crypto import recover_addresses
from .transaction import SIGNING_DOMAIN, TRANSACTION_DOMAIN, Transaction, keep_identities


class PreparedBody:
    """A body and everything about it that needs no state.

    `root` is its txs_root, None where the bytes are no body at all. Where they are one and its
    items are not all transactions, `transactions` is empty. `fault` says what is wrong then.
    """

    __slots__ = ("fault", "raw", "root", "transactions")

    def __init__(
        self,
        raw: bytes,
        root: bytes | None,
        transactions: tuple[Transaction, ...] = (),
        fault: str | None = None,
    ) -> None:
        self.raw = raw
        self.root = root
        self.transactions = transactions
        self.fault = fault

    def __len__(self) -> int:
        return len(self.transactions)


__all__ = [
    "PreparedBody",
    "body_of_block",
    "decode_body",
    "prepare_bodies",
    "prepare_body",
    "split_body",
]

_EMPTY: Final = PreparedBody(EMPTY_BODY, ZERO_HASH)


def prepare_bodies(
    bodies: Iterable[bytes], memo: SignatureMemo | None = None
) -> list[PreparedBody]:
    """Decode bodies and recover the senders of all. Never raises for what a peer may have sent.

    A bad signature stays unrecovered; execution names it. Runs on any thread and releases the
    GIL for most of its time, once for all bodies: the more there are, the less it has to wait
    for a thread that is busy. `memo` as for `recover_addresses`.
    """
    prepared = [decode_body(body) for body in bodies]
    hashes: list[bytes] = []
    signed = []
    for body in prepared:
        if body.transactions:
            ids, items = merkle.body_digests(body.raw, TRANSACTION_DOMAIN, SIGNING_DOMAIN)
            hashes += ids
            signed.append(items)
    senders = recover_addresses(b"".join(signed), memo)
    keep_identities(chain.from_iterable(body.transactions for body in prepared), hashes, senders)
    return prepared


def prepare_body(body: bytes) -> PreparedBody:
    """`prepare_bodies` for one."""
    return prepare_bodies((body,))[0]


def decode_body(body: bytes) -> PreparedBody:
    """As `prepare_body`, leaving the senders to be recovered when they are needed."""
    if body == EMPTY_BODY:
        return _EMPTY
    try:
        root, _ = merkle.body_root(body)
    except DecodeError as error:
        return PreparedBody(body, None, (), str(error))
    try:
        return PreparedBody(body, root, decode_transactions(body))
    except DecodeError as error:
        return PreparedBody(body, root, (), str(error))


def body_of_block(block: Block) -> PreparedBody:
    """The body of a block that has been decoded already."""
    if not block.transactions:
        return _EMPTY
    raw = block.body
    root, _ = merkle.body_root(raw)
    return PreparedBody(raw, root, block.transactions)


def split_body(body: bytes) -> list[bytes]:
    """The encoded transactions of a body that is known to be well-formed."""
    found = []
    at, size = 4, len(body)
    while at < size:
        start = at + 4
        at = start + int.from_bytes(body[at:start], "big")
        found.append(body[start:at])
    return found
