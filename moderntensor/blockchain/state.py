"""Accounts, and the store that they live in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ..backend import merkle
from ..storage import DEFAULT_MAP_SIZE, ReadTransaction, Store, WriteTransaction, open_store
from ..wire import Hash32, Record, record, u64, u128
from .crypto import sha256
from .state_slots import active
from .state_tree import ACCOUNT_SIZE, StateTree, prove, state_root
from .tables import TABLES

__all__ = [
    "EMPTY_ACCOUNT",
    "Account",
    "StateDB",
    "StateTree",
    "apply_changes",
    "read_account",
    "state_root",
    "verify_account",
]


@record
class Account(Record):
    """What an address has: 88 bytes. One with nonce 0 and balance 0 does not exist."""

    nonce: u64 = 0
    balance: u128 = 0
    storage_root: Hash32 = bytes(32)  # zero: there are no contracts yet
    code_hash: Hash32 = bytes(32)

    @property
    def is_empty(self) -> bool:
        """Whether it is the same as no account at all."""
        return self.nonce == 0 and self.balance == 0


EMPTY_ACCOUNT: Final = Account()
_NO_STATE: Final = bytes(32)  # the root over no accounts
_NO_CONTRACT: Final = bytes(64)  # storage_root and code_hash of every account, so far


def read_account(txn: ReadTransaction, address: bytes) -> Account:
    """The account of a 20-byte address; `EMPTY_ACCOUNT` where there is none."""
    found = read_encoded(txn, address)
    return EMPTY_ACCOUNT if found is None else Account.decode(found)


def read_encoded(txn: ReadTransaction, address: bytes) -> bytes | None:
    """As `read_account`, its 88 bytes; None where there is none."""
    return read_encoded_from(txn, active(txn).accounts, address)


def state_is_here(txn: ReadTransaction, root: bytes) -> bool:
    """Whether the accounts under the root of the executed head are here at all: they are not
    while a genesis that gives nothing but their root waits for them."""
    return root == _NO_STATE or txn.first(active(txn).accounts) is not None


def read_encoded_from(txn: ReadTransaction, accounts: str, address: bytes) -> bytes | None:
    """As `read_encoded`, for who reads many and has asked once which table they are in."""
    found = txn.get(accounts, sha256(address))
    return None if found is None else found[-ACCOUNT_SIZE:]


def decode_funds(account: bytes | None) -> tuple[int, int]:
    """Nonce and balance of an encoded account, (0, 0) of none; without making an `Account`."""
    if account is None:
        return 0, 0
    return int.from_bytes(account[:8], "big"), int.from_bytes(account[8:24], "big")


def encode_funds(nonce: int, balance: int) -> bytes | None:
    """The account of a nonce and a balance, encoded; None if it does not exist.

    OverflowError for what does not fit; execution never gets there.
    """
    if not nonce and not balance:
        return None
    return nonce.to_bytes(8, "big") + balance.to_bytes(16, "big") + _NO_CONTRACT


def encode_changes(changes: Mapping[bytes, Account | None]) -> dict[bytes, bytes | None]:
    """What `StateTree.apply` wants: each account as bytes, None for one that does not exist."""
    return {
        address: None if account is None or account.is_empty else account.encode()
        for address, account in changes.items()
    }


def apply_changes(txn: WriteTransaction, changes: Mapping[bytes, Account | None]) -> bytes:
    """Set accounts by address (None: it is gone) and return the new state root.

    Only the paths to them are read and written. For many blocks in one transaction a
    `StateTree` kept over all of them writes each node once.
    """
    tree = StateTree(txn)
    root = tree.apply(encode_changes(changes))
    tree.flush()
    return root


def verify_account(
    root: bytes, address: bytes, account: Account | None, proof: Sequence[bytes]
) -> bool:
    """Whether `address` has `account` (None or an empty one: none) in the state under `root`.

    Needs nothing but the arguments. `proof` is what `StateDB.prove` gave.
    """
    encoded = None if account is None or account.is_empty else account.encode()
    return merkle.verify_state_proof(root, sha256(address), encoded, proof)


class StateDB:
    """The accounts of a chain as its last commit left them, and the store under them.

    Addresses are 20 bytes. Safe to use from several threads; each call sees one commit.
    """

    def __init__(
        self, storage: str | Path | Store | None = None, *, map_size: int = DEFAULT_MAP_SIZE
    ) -> None:
        """Open the store in a directory (made if missing), or in memory (None), or use a
        given one, which then stays open when this object is closed.

        `map_size`: see `open_store`. StorageError if the store cannot be opened.
        """
        self._owns_store = not isinstance(storage, Store)
        self.store: Store = (
            storage
            if isinstance(storage, Store)
            else open_store(storage, TABLES, map_size=map_size)
        )

    def get_account(self, address: bytes) -> Account:
        """The account; `EMPTY_ACCOUNT` where there is none."""
        with self.store.read() as txn:
            return read_account(txn, address)

    def balance(self, address: bytes) -> int:
        return self.get_account(address).balance

    def nonce(self, address: bytes) -> int:
        """How many transactions the address has sent."""
        return self.get_account(address).nonce

    @property
    def root(self) -> bytes:
        """The state root of the last commit; 32 zero bytes while there is no account."""
        with self.store.read() as txn:
            return state_root(txn)

    @property
    def account_count(self) -> int:
        with self.store.read() as txn:
            return txn.count(active(txn).accounts)

    def prove(self, address: bytes) -> tuple[Account, list[bytes]]:
        """The account, or `EMPTY_ACCOUNT`, and the proof that it is so under `root`.

        `verify_account` checks it. At most 257 items of at most 120 bytes; around log2 of the
        number of accounts in practice.
        """
        with self.store.read() as txn:
            return read_account(txn, address), prove(txn, sha256(address))

    def close(self) -> None:
        """Close the store, if this object opened it. Idempotent."""
        if self._owns_store:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
