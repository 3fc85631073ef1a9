"""Proofs of accounts as documents: they hold, they survive the way, and nothing else is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor.backend import merkle
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.crypto import sha256
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.proofs import (
    MAX_PATH,
    MAX_PROOF_SIZE,
    PROOF_FORMAT,
    AccountProof,
    prove_account,
)
from moderntensor.blockchain.state import Account
from moderntensor.blockchain.state_load import load_state
from moderntensor.blockchain.tables import ACCOUNTS, META, META_HEAD, TABLES
from moderntensor.errors import DecodeError, StateMissingError, StorageError
from moderntensor.storage import Store, open_store

RICH = [number.to_bytes(20, "big") for number in range(1, 60)]
NOBODY = b"\xee" * 20
CONFIG = ChainConfig(
    chain_id=1,
    timestamp=1_700_000_000,
    alloc={address: int.from_bytes(address, "big") << 90 for address in RICH},
)


@pytest.fixture
def store() -> Store:
    store = open_store(None, TABLES)
    Blockchain(store, CONFIG)
    return store


def proofs(store: Store) -> list[AccountProof]:
    return [prove_account(store, address) for address in (RICH[0], RICH[40], NOBODY)]


def test_an_account_or_its_absence_is_proved(store: Store) -> None:
    root = CONFIG.genesis_header.state_root
    for proof in proofs(store):
        balance = CONFIG.alloc.get(proof.address)
        assert proof.account == (None if balance is None else Account(balance=balance))
        assert (proof.height, proof.block_hash) == (0, CONFIG.genesis_hash)
        assert proof.state_root == root
        assert proof.verify(root)
        assert not proof.verify(bytes(32))
        read = AccountProof.from_json(proof.to_json())
        assert read == proof
        assert read.verify(root)


def test_the_state_of_no_account_at_all() -> None:
    config = ChainConfig(chain_id=1, timestamp=1, alloc={RICH[0]: 1})
    with open_store(None, TABLES) as store:
        Blockchain(store, config)
        alone = prove_account(store, RICH[0])
        other = prove_account(store, NOBODY)
    assert alone.path == ()
    assert alone.verify(config.genesis_header.state_root)
    assert [len(item) for item in other.path] == [120]
    assert other.verify(config.genesis_header.state_root)


def test_another_claim_does_not_hold(store: Store) -> None:
    root = CONFIG.genesis_header.state_root
    there, _, absent = proofs(store)
    for other in (Account(balance=1), Account(nonce=1, balance=1 << 90), None):
        claim = AccountProof(there.address, other, there.header, there.path)
        assert not claim.verify(root)
    for proof in (there, absent):
        assert not AccountProof(RICH[3], proof.account, proof.header, proof.path).verify(root)
        for at in range(len(proof.path)):
            item = proof.path[at]
            path = (*proof.path[:at], bytes([item[0] ^ 1]) + item[1:], *proof.path[at + 1 :])
            assert not AccountProof(proof.address, proof.account, proof.header, path).verify(root)
    header = there.header.replace(state_root=merkle.state_leaf(bytes(32), bytes(88)))
    forged = AccountProof(there.address, there.account, header, there.path)
    assert not forged.verify(root)  # it is about a block whose state is another
    assert not forged.verify(header.state_root)


def test_a_store_that_cannot_prove_says_why(store: Store) -> None:
    with open_store(None, TABLES) as bare, pytest.raises(StorageError, match="holds no chain"):
        prove_account(bare, NOBODY)
    with store.write() as txn:
        key, value = txn.range(ACCOUNTS)[0]
        txn.put(ACCOUNTS, key, value[:-70] + b"\1" + value[-69:])
    wrong = value[:20]
    with pytest.raises(StorageError, match="do not lead to the state root of block 0"):
        prove_account(store, wrong)
    with store.write() as txn:
        txn.delete_range(ACCOUNTS)
    with pytest.raises(StateMissingError, match="not here yet"):
        prove_account(store, wrong)
    with store.write() as txn:
        txn.delete(META, META_HEAD)
    with pytest.raises(StorageError, match="holds no chain"):
        prove_account(store, wrong)


def test_a_state_that_came_later_is_proved_where_it_is() -> None:
    records = b"".join(
        address + Account(balance=CONFIG.alloc[address]).encode()
        for address in sorted(RICH, key=sha256)
    )
    root = merkle.state_records(records)[0]
    config = ChainConfig(chain_id=1, timestamp=1, state_root=root)
    with open_store(None, TABLES) as store:
        Blockchain(store, config)
        with pytest.raises(StateMissingError, match="not here yet"):
            prove_account(store, RICH[3])
        load_state(store, config, [records])
        proof = prove_account(store, RICH[3])
    assert proof.account == Account(balance=CONFIG.alloc[RICH[3]])
    assert proof.verify(root)


# --- documents -----------------------------------------------------------------------------


def test_the_longest_path_fits_into_a_document(store: Store) -> None:
    good = prove_account(store, NOBODY)
    long = AccountProof(
        NOBODY,
        Account(nonce=2**64 - 1, balance=2**128 - 1),
        good.header.replace(extra_data=bytes(32)),
        (*[bytes(80)] * (MAX_PATH - 1), bytes(120)),
    )
    text = long.to_json()
    assert len(text) < MAX_PROOF_SIZE
    assert AccountProof.from_json(text) == long


def test_a_document_looks_like_this(store: Store) -> None:
    there, _, absent = (json.loads(proof.to_json()) for proof in proofs(store))
    assert there["format"] == PROOF_FORMAT
    assert there["address"] == "0x" + RICH[0].hex()
    assert there["account"] == {"nonce": 0, "balance": str(1 << 90)}
    assert there["block"]["hash"] == CONFIG.genesis_hash.hex()
    assert absent["account"] is None


def put(*names: str) -> Callable[[dict[str, Any], Any], None]:
    def change(document: dict[str, Any], value: Any) -> None:
        for name in names[:-1]:
            document = document[name]
        document[names[-1]] = value

    return change


BAD: list[tuple[Callable[[dict[str, Any], Any], None], Any, str]] = [
    (put("format"), "moderntensor/account-proof/2", "format: is not"),
    (put("more"), 1, "the proof: no such field: 'more'"),
    (put("x" * 500), 1, "the proof: no such field: 'xxx"),
    (put("address"), "ab" * 20, "address: .* does not begin with 0x"),
    (put("address"), "0x" + "AB" * 20, "address: .* is not 40 lower-case hex digits"),
    (put("address"), 5, "address: 5 does not begin with 0x"),
    (put("account"), [], "account: must be a JSON object"),
    (put("account"), {"nonce": 1}, "account: balance is missing"),
    (put("account"), {"nonce": 0, "balance": "0"}, "does not exist; it must be null"),
    (put("account", "nonce"), True, "account.nonce: True is not an integer"),
    (put("account", "nonce"), -1, "account.nonce: -1 is not an integer"),
    (put("account", "nonce"), 1 << 64, "account.nonce: .* is not an integer"),
    (put("account", "nonce"), float("nan"), "account.nonce: nan is not an integer"),
    (put("account", "balance"), 5, "account.balance: 5 is not the digits"),
    (put("account", "balance"), "05", "account.balance: '05' is not the digits"),
    (put("account", "balance"), "-5", "account.balance: '-5' is not the digits"),
    (put("account", "balance"), "٣", "account.balance: .* is not the digits"),
    (put("account", "balance"), "", "account.balance: '' is not the digits"),
    (put("account", "balance"), str(1 << 128), "account.balance: .* is not the digits"),
    (put("block"), None, "block: must be a JSON object"),
    (put("block", "height"), 1, "block.height: is not the header's"),
    (put("block", "height"), False, "block.height: is not the header's"),
    (put("block", "hash"), "00" * 32, "block.hash: is not the header's"),
    (put("block", "state_root"), "00" * 32, "block.state_root: is not the header's"),
    (put("block", "state_root"), None, "block.state_root: None is not 64"),
    (put("block", "header"), "00" * 999, "block.header: must be at most"),
    (put("block", "header"), "00" * 9, "block.header: "),
    (put("block", "header"), "0", "block.header: .* lower-case hex digits"),
    (put("path"), {}, "path: must be a JSON array"),
    (put("path"), [""] * 258, "path: 258 items, at most 257"),
    (put("path"), ["00" * 80, "00" * 81], r"path\[1\]: .* is not 160 or 240 lower-case"),
    (put("path"), [None], r"path\[0\]: None is not"),
]


@pytest.mark.parametrize(("change", "value", "text"), BAD)
def test_what_is_no_proof_is_named(
    store: Store, change: Callable[[dict[str, Any], Any], None], value: Any, text: str
) -> None:
    document = json.loads(prove_account(store, RICH[0]).to_json())
    change(document, value)
    with pytest.raises(DecodeError, match=text) as caught:
        AccountProof.from_json(json.dumps(document))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('{"format": 1, "format": 1}', "'format': given twice"),
        ("[" * 50_000, "not JSON"),
        ("9" * 5_000, "not JSON"),
        (" " * (MAX_PROOF_SIZE + 1), f"at most {MAX_PROOF_SIZE}"),
        ('{"format": "x"}', "address is missing"),
    ],
)
def test_other_documents_are_refused(text: str, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        AccountProof.from_json(text)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.characters(max_codepoint=0x17F))
def test_no_document_with_another_character_proves_another_account(at: int, letter: str) -> None:
    with open_store(None, TABLES) as store:
        Blockchain(store, CONFIG)
        proof = prove_account(store, RICH[7])
    text = proof.to_json()
    at %= len(text)
    try:
        read = AccountProof.from_json(text[:at] + letter + text[at + 1 :])
    except DecodeError:
        return
    assert read == proof or not read.verify(proof.state_root)


def test_a_proof_is_made_from_the_disk(tmp_path: Path) -> None:
    with open_store(tmp_path / "chain", TABLES, map_size=1 << 28) as store:
        Blockchain(store, CONFIG)
    with open_store(tmp_path / "chain", TABLES, map_size=1 << 28) as store:
        assert prove_account(store, RICH[5]).verify(CONFIG.genesis_header.state_root)
