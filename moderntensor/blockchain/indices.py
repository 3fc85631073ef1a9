"""Where transactions are: the rows of the index by hash and of the one by address."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..storage import WriteTransaction
from . import tables
from .prepared import split_body
from .transaction import Transaction

# Values of the address index.
_SENDER: Final = bytes((tables.ROLE_SENDER,))
_RECIPIENT: Final = bytes((tables.ROLE_RECIPIENT,))
_BOTH: Final = bytes((tables.ROLE_SENDER | tables.ROLE_RECIPIENT,))


class IndexRows:
    """Rows of many blocks, written together in the order of their keys, which meets each page of
    the tables once."""

    def __init__(self) -> None:
        self._by_hash: list[tuple[bytes, bytes]] = []
        self._by_address: list[tuple[bytes, bytes]] = []

    def add(self, height: int, transactions: Iterable[Transaction]) -> None:
        """The rows of a block. CryptoError where a signature is nobody's."""
        by_hash, by_address = self._by_hash, self._by_address
        for position, transaction in enumerate(transactions):
            place = tables.location(height, position)
            by_hash.append((transaction.hash, place))
            sender, to = transaction.sender, transaction.to
            if to == sender:
                by_address.append((sender + place, _BOTH))
                continue
            by_address.append((sender + place, _SENDER))
            if to is not None:
                by_address.append((to + place, _RECIPIENT))

    def write(self, txn: WriteTransaction) -> None:
        """Bring all of them to the store."""
        txn.put_many(tables.TX_INDEX, sorted(self._by_hash))
        txn.put_many(tables.ADDRESS_INDEX, sorted(self._by_address))


def unindex(txn: WriteTransaction, height: int, body: bytes) -> None:
    """Remove the rows of a block that leaves the chain."""
    for position, encoded in enumerate(split_body(body)):
        transaction = Transaction.decode(encoded)
        txn.delete(tables.TX_INDEX, transaction.hash)
        for address in dict.fromkeys((transaction.sender, transaction.to)):
            if address is not None:
                txn.delete(tables.ADDRESS_INDEX, tables.address_key(address, height, position))
