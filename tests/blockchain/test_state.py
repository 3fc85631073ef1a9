"""Accounts and the state database."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from moderntensor.blockchain.state import (
    EMPTY_ACCOUNT,
    Account,
    StateDB,
    apply_changes,
    decode_funds,
    encode_funds,
    read_account,
    read_encoded,
    verify_account,
)
from moderntensor.blockchain.tables import TABLES, prefix_end
from moderntensor.errors import DecodeError, EncodeError, StorageError
from moderntensor.storage import open_store

ALICE, BOB = b"a" * 20, b"b" * 20


def test_an_account_is_88_bytes() -> None:
    account = Account(nonce=7, balance=1 << 100)
    encoded = account.encode()
    assert encoded == bytes(7) + b"\7" + (1 << 100).to_bytes(16, "big") + bytes(64)
    assert Account.decode(encoded) == account
    with pytest.raises(DecodeError):
        Account.decode(encoded[:-1])
    with pytest.raises(EncodeError):
        Account(balance=1 << 128).encode()
    assert EMPTY_ACCOUNT.is_empty
    assert not Account(nonce=1).is_empty
    assert not Account(balance=1).is_empty


@pytest.mark.parametrize(("nonce", "balance"), [(0, 1), (1, 0), (2**64 - 1, 2**128 - 1), (0, 0)])
def test_funds_are_encoded_as_accounts_are(nonce: int, balance: int) -> None:
    encoded = encode_funds(nonce, balance)
    account = Account(nonce=nonce, balance=balance)
    assert encoded == (None if account.is_empty else account.encode())
    assert decode_funds(encoded) == (nonce, balance)
    for too_much in ((2**64, 0), (0, 2**128)):
        with pytest.raises(OverflowError):
            encode_funds(*too_much)


def test_accounts_live_in_the_store(tmp_path: Path) -> None:
    with StateDB(tmp_path / "state", map_size=1 << 30) as state:
        assert state.root == bytes(32)
        assert state.get_account(ALICE) is EMPTY_ACCOUNT
        with state.store.write() as txn:
            root = apply_changes(txn, {ALICE: Account(nonce=1, balance=5), BOB: Account(balance=9)})
            assert read_account(txn, ALICE).balance == 5
            assert read_encoded(txn, ALICE) == Account(nonce=1, balance=5).encode()
            assert read_encoded(txn, b"n" * 20) is None
        assert state.root == root != bytes(32)
    with StateDB(str(tmp_path / "state"), map_size=1 << 30) as state:
        assert state.root == root
        assert state.get_account(ALICE) == Account(nonce=1, balance=5)
        assert (state.nonce(ALICE), state.balance(BOB), state.account_count) == (1, 9, 2)
    with pytest.raises(StorageError, match="closed"):
        state.balance(ALICE)


def test_an_empty_account_does_not_exist() -> None:
    with StateDB() as state:
        with state.store.write() as txn:
            root = apply_changes(txn, {ALICE: Account(balance=1)})
            apply_changes(txn, {BOB: Account(balance=2)})
            assert apply_changes(txn, {BOB: Account(), b"c" * 20: Account()}) == root
            assert apply_changes(txn, {ALICE: None}) == bytes(32)
        assert state.account_count == 0


def test_a_given_store_stays_open() -> None:
    with open_store(None, TABLES) as store:
        with StateDB(store) as state:
            assert state.store is store
        with store.read() as txn:
            assert txn.count("accounts") == 0


def test_the_root_alone_proves_an_account_or_that_there_is_none() -> None:
    rng = random.Random(6)
    accounts = {rng.randbytes(20): Account(nonce=n, balance=n + 1) for n in range(500)}
    with StateDB() as state:
        with state.store.write() as txn:
            root = apply_changes(txn, accounts)
        for address in [*list(accounts)[:10], ALICE, BOB]:
            account, proof = state.prove(address)
            assert account == accounts.get(address, EMPTY_ACCOUNT)
            assert verify_account(root, address, account, proof)
            assert not verify_account(root, address, Account(balance=10**9), proof)
            assert not verify_account(root, b"x" * 20, account, proof)
            assert not verify_account(root, address, account, proof[:-1])
            assert not verify_account(rng.randbytes(32), address, account, proof)
        assert verify_account(root, ALICE, None, state.prove(ALICE)[1])


def test_prefix_end() -> None:
    assert prefix_end(b"\x01\x02") == b"\x01\x03"
    assert prefix_end(b"\x01\xff\xff") == b"\x02"
    assert prefix_end(b"\xff\xff") is None
