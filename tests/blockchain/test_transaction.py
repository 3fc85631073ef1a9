"""Transactions: who sent them, what they cost, and every way to change one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderntensor.blockchain.crypto import CURVE_ORDER, KeyPair
from moderntensor.blockchain.transaction import (
    MAX_TRANSACTION_SIZE,
    MIN_TRANSACTION_SIZE,
    Transaction,
    TransactionReceipt,
    encode_receipt,
    identify,
    intrinsic_gas,
)
from moderntensor.errors import CryptoError, DecodeError, EncodeError, InvalidTransactionError

KEY = KeyPair.from_secret(b"\x15" * 32)
TO = KeyPair.from_secret(b"\x16" * 32).address
BLOCK_GAS = 30_000_000

u64s = st.integers(0, 2**64 - 1)
bytes32s = st.binary(min_size=32, max_size=32)
unsigned = {
    "chain_id": u64s,
    "nonce": u64s,
    "to": st.none() | st.binary(min_size=20, max_size=20),
    "value": st.integers(0, 2**128 - 1),
    "gas_price": u64s,
    "gas_limit": u64s,
    "data": st.binary(max_size=300),
}
transactions = st.builds(Transaction, **unsigned, v=st.integers(0, 1), r=bytes32s, s=bytes32s)


def transfer(**changes: Any) -> Transaction:
    values: dict[str, Any] = {"chain_id": 1, "nonce": 0, "to": TO, "value": 10}
    return Transaction.create(KEY, **(values | changes))


SIGNED = transfer(data=b"\0\x01")


@given(transactions)
def test_transactions_come_back_as_they_were(value: Transaction) -> None:
    encoded = value.encode()
    assert Transaction.decode(encoded) == value
    assert Transaction.decode(encoded).hash == value.hash
    assert Transaction.decode_hashed(encoded) == value
    assert Transaction.decode_hashed(encoded)._hash == value.hash
    size = MIN_TRANSACTION_SIZE + len(value.data) + (0 if value.to is None else 20)
    assert len(encoded) == size


@given(st.lists(transactions | st.builds(transfer, **unsigned), max_size=6))
def test_many_are_identified_as_each_alone(values: list[Transaction]) -> None:
    copies = [Transaction.decode(value.encode()) for value in values]
    identify(copies)
    for value, copy in zip(values, copies, strict=True):
        assert copy._hash == value.hash
        try:
            sender = value.sender
        except CryptoError as error:
            with pytest.raises(CryptoError, match=str(error)):
                _ = copy.sender
        else:
            assert copy._sender == sender


def test_what_is_known_is_not_computed_again() -> None:
    value = Transaction.decode(SIGNED.encode())
    object.__setattr__(value, "_sender", b"known")
    object.__setattr__(value, "_hash", b"too")
    identify([value])
    assert (value.sender, value.hash) == (b"known", b"too")


@given(st.fixed_dictionaries(unsigned))
def test_the_sender_is_whoever_signed(values: dict[str, Any]) -> None:
    value = Transaction.create(KEY, **values)
    assert value.sender == KEY.address
    assert Transaction.decode(value.encode()).sender == KEY.address
    assert value == Transaction.create(KEY, **values)  # no randomness


@given(st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    encoded = bytearray(SIGNED.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        changed = Transaction.decode(bytes(encoded))
    except DecodeError:
        return
    assert changed.hash != SIGNED.hash
    try:
        assert changed.sender != KEY.address
    except CryptoError:
        return


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_transaction_or_refused(data: bytes) -> None:
    try:
        value = Transaction.decode(data)
    except DecodeError:
        return
    assert value.encode() == data


@pytest.mark.parametrize("name", [name for name, _ in Transaction.__fields__])
def test_the_signature_covers_every_field(name: str) -> None:
    value = getattr(SIGNED, name)
    other = (
        1 - value if name == "v" else value + 1 if isinstance(value, int) else b"\x77" + value[1:]
    )
    changed = SIGNED.replace(**{name: other})
    assert changed.hash != SIGNED.hash
    assert (changed.signing_hash == SIGNED.signing_hash) == (name in "vrs")
    try:
        assert changed.sender != KEY.address
    except CryptoError:
        assert name in "rs"


def test_the_other_half_of_the_pair_is_refused() -> None:
    flipped = SIGNED.replace(
        v=1 - SIGNED.v, s=(CURVE_ORDER - int.from_bytes(SIGNED.s, "big")).to_bytes(32, "big")
    )
    with pytest.raises(CryptoError, match="upper half"):
        _ = flipped.sender


def test_v_is_one_bit() -> None:
    encoded = bytearray(SIGNED.encode())
    for v in (2, 27, 28, 255):
        encoded[-65] = v
        with pytest.raises(DecodeError, match=r"Transaction\.v"):
            Transaction.decode(bytes(encoded))
        with pytest.raises(EncodeError, match=r"Transaction\.v"):
            SIGNED.replace(v=v).encode()


def test_an_unsigned_transaction_has_no_sender() -> None:
    with pytest.raises(CryptoError):
        _ = Transaction(chain_id=1, nonce=0, gas_limit=53_000).sender


@pytest.mark.parametrize("size", [MAX_TRANSACTION_SIZE, MAX_TRANSACTION_SIZE + 1])
@pytest.mark.parametrize("to", [None, TO])
def test_the_largest_transaction(to: bytes | None, size: int) -> None:
    room = size - MIN_TRANSACTION_SIZE - (0 if to is None else 20)
    value = Transaction(chain_id=1, nonce=0, to=to, gas_limit=0, data=bytes(room))
    if size <= MAX_TRANSACTION_SIZE:
        assert Transaction.decode(value.encode()) == value
    elif to is None:
        with pytest.raises(EncodeError):
            value.encode()
    else:  # its bytes can be made, and nobody takes them
        with pytest.raises(DecodeError, match="at most 131068"):
            Transaction.decode(value.encode())
        with pytest.raises(InvalidTransactionError) as caught:
            value.validate(1, BLOCK_GAS)
        assert caught.value.rule == "encoding"


# --- gas and the rules without state -------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "data", "gas"),
    [
        (TO, b"", 21_000),
        (None, b"", 53_000),
        (TO, bytes(10), 21_040),
        (TO, b"\xff" * 10, 21_160),
        (None, b"\0\x01\0\x02", 53_000 + 2 * 4 + 2 * 16),
    ],
)
def test_intrinsic_gas(to: bytes | None, data: bytes, gas: int) -> None:
    assert intrinsic_gas(to, data) == gas
    value = Transaction.create(KEY, chain_id=1, nonce=0, to=to, data=data)
    assert value.intrinsic_gas == value.gas_limit == gas


def test_the_most_that_it_can_cost_is_exact() -> None:
    top = transfer(value=2**128 - 1, gas_price=2**64 - 1, gas_limit=2**64 - 1)
    assert top.max_cost == 2**128 - 1 + (2**64 - 1) ** 2


def test_a_valid_transaction_names_its_sender() -> None:
    assert SIGNED.validate(1, BLOCK_GAS) == KEY.address
    assert SIGNED.validate(1, SIGNED.intrinsic_gas) == KEY.address


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (transfer(chain_id=2), "chain_id"),
        (transfer(gas_price=0), "gas_price"),
        (transfer(gas_limit=20_999), "gas_limit"),
        (transfer(to=None, gas_limit=52_999), "gas_limit"),
        (transfer(data=b"\x01", gas_limit=21_015), "gas_limit"),
        (transfer(data=b"\x01" * 120_000), "block_gas"),
        (SIGNED.replace(s=b"\xff" * 32), "signature"),
        (SIGNED.replace(r=bytes(32)), "signature"),
        (SIGNED.replace(value=-1), "encoding"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_rule_without_state(value: Transaction, rule: str) -> None:
    with pytest.raises(InvalidTransactionError) as caught:
        value.validate(1, 1_000_000)
    assert caught.value.rule == rule
    assert caught.value.hash == (None if rule == "encoding" else value.hash)


# --- receipts ------------------------------------------------------------------------------


@given(bytes32s, u64s)
def test_receipts_come_back_as_they_were(transaction_hash: bytes, gas_used: int) -> None:
    value = TransactionReceipt(transaction_hash=transaction_hash, gas_used=gas_used)
    assert len(value.encode()) == 41
    assert TransactionReceipt.decode(value.encode()) == value
    assert encode_receipt(transaction_hash, gas_used) == value.encode()


@pytest.mark.parametrize("status", [0, 2, 255])
def test_a_receipt_has_one_status(status: int) -> None:
    with pytest.raises(EncodeError, match="status"):
        TransactionReceipt(transaction_hash=bytes(32), status=status, gas_used=1).encode()
    with pytest.raises(DecodeError, match="status"):
        TransactionReceipt.decode(bytes(32) + bytes([status]) + bytes(8))
