"""Headers and blocks: signing, hashing, sizes, and every way to change one."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderntensor.blockchain.block import (
    EMPTY_BODY,
    MAX_BLOCK_SIZE,
    MAX_HEADER_SIZE,
    MIN_HEADER_SIZE,
    Block,
    BlockHeader,
    decode_body,
    encode_body,
)
from moderntensor.blockchain.crypto import KeyPair
from moderntensor.blockchain.transaction import Transaction
from moderntensor.errors import DecodeError, EncodeError

KEY = KeyPair.from_secret(b"\x0b" * 32)
OTHER = KeyPair.from_secret(b"\x0c" * 32)

u64s = st.integers(0, 2**64 - 1)
hashes = st.binary(min_size=32, max_size=32)
headers = st.builds(
    BlockHeader,
    version=st.integers(0, 2**32 - 1),
    height=u64s,
    timestamp=u64s,
    previous_hash=hashes,
    state_root=hashes,
    txs_root=hashes,
    receipts_root=hashes,
    validator=hashes,
    gas_used=u64s,
    gas_limit=u64s,
    extra_data=st.binary(max_size=32),
    signature=st.binary(min_size=64, max_size=64),
)


def header(**changes: Any) -> BlockHeader:
    values: dict[str, Any] = {
        "height": 5,
        "timestamp": 1_700_000_060,
        "previous_hash": b"\x01" * 32,
        "state_root": b"\x02" * 32,
        "validator": KEY.public_key,
        "gas_limit": 30_000_000,
    }
    return BlockHeader(**(values | changes))


SIGNED = header().sign(KEY)
TRANSFER = Transaction.create(KEY, chain_id=1, nonce=0, to=OTHER.address, value=1)


@given(headers)
def test_headers_come_back_as_they_were(value: BlockHeader) -> None:
    encoded = value.encode()
    assert MIN_HEADER_SIZE <= len(encoded) <= MAX_HEADER_SIZE
    assert len(encoded) == MIN_HEADER_SIZE + len(value.extra_data)
    assert BlockHeader.decode(encoded) == value
    assert BlockHeader.decode(encoded).hash == value.hash


@given(headers, headers)
def test_a_hash_names_one_header(one: BlockHeader, other: BlockHeader) -> None:
    assert (one == other) == (one.hash == other.hash) == (one.encode() == other.encode())


@given(st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    encoded = bytearray(SIGNED.encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        changed = BlockHeader.decode(bytes(encoded))
    except DecodeError:
        assert at == MIN_HEADER_SIZE - 65  # the length of extra_data, the only structure
        return
    assert changed.hash != SIGNED.hash
    assert changed.verify_signature() is False


@given(st.binary(max_size=MAX_HEADER_SIZE + 8))
def test_arbitrary_bytes_are_a_header_or_refused(data: bytes) -> None:
    try:
        value = BlockHeader.decode(data)
    except DecodeError:
        return
    assert value.encode() == data


@given(headers)
def test_whoever_signs_becomes_the_validator(value: BlockHeader) -> None:
    signed = value.sign(KEY)
    assert signed.validator == KEY.public_key
    assert signed.verify_signature() is True
    assert signed.replace(validator=OTHER.public_key).verify_signature() is False
    assert signed == value.sign(KEY)  # no randomness
    assert signed.replace(validator=value.validator, signature=value.signature) == value


def test_an_unsigned_header_does_not_verify() -> None:
    assert header().verify_signature() is False
    assert header(validator=bytes(32)).verify_signature() is False


@pytest.mark.parametrize("name", [name for name, _ in BlockHeader.__fields__])
def test_the_signature_covers_every_field(name: str) -> None:
    value = getattr(SIGNED, name)
    other = value + 1 if isinstance(value, int) else value[:-1] + b"\x77"
    changed = SIGNED.replace(**{name: other})
    assert changed.verify_signature() is False
    assert changed.hash != SIGNED.hash
    assert (changed.signing_hash == SIGNED.signing_hash) == (name == "signature")


def test_headers_are_immutable_and_hashed_once() -> None:
    with pytest.raises(AttributeError):
        SIGNED.height = 6  # type: ignore[misc]
    assert SIGNED.hash is SIGNED.hash
    assert SIGNED.replace(height=6).hash != SIGNED.hash


def test_copies_and_pickles_are_equal() -> None:
    block = Block(header=SIGNED, transactions=(TRANSFER,))
    for other in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):  # noqa: S301
        assert other == block
        assert other.hash == block.hash


@pytest.mark.parametrize(
    "changes",
    [
        {"version": -1},
        {"version": 2**32},
        {"height": 2**64},
        {"timestamp": 1.5},
        {"gas_used": True},
        {"previous_hash": bytes(31)},
        {"validator": bytes(33)},
        {"extra_data": bytes(33)},
        {"signature": bytes(63)},
        {"state_root": "00" * 16},
    ],
)
def test_what_is_no_header_is_not_encoded(changes: dict[str, Any]) -> None:
    value = header(**changes)
    with pytest.raises(EncodeError, match=f"BlockHeader.{next(iter(changes))}"):
        value.encode()
    with pytest.raises(EncodeError):
        _ = value.hash


def test_too_much_extra_data_is_refused() -> None:
    encoded = header(extra_data=bytes(32)).encode()
    at = MIN_HEADER_SIZE - 65
    assert encoded[at] == 32
    with pytest.raises(DecodeError, match="at most 32"):
        BlockHeader.decode(encoded[:at] + b"\x21" + bytes(33) + bytes(64))


# --- blocks --------------------------------------------------------------------------------


def test_a_block_is_its_header_and_its_body() -> None:
    block = Block(header=SIGNED, transactions=(TRANSFER, TRANSFER))
    assert block.encode() == SIGNED.encode() + block.body
    assert block.hash == SIGNED.hash
    assert block.height == 5
    assert Block.decode(block.encode()) == block == Block.assemble(SIGNED.encode(), block.body)
    assert decode_body(block.body) == block.transactions


def test_the_empty_body() -> None:
    assert Block(header=SIGNED).body == EMPTY_BODY == encode_body(())
    assert decode_body(EMPTY_BODY) == ()
    assert Block.assemble(SIGNED.encode(), EMPTY_BODY) == Block(header=SIGNED)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(3),
        bytes(5),
        b"\0\0\0\1",
        b"\xff\xff\xff\xff",
        b"\0\0\0\1" + bytes(4),
        b"\0\0\0\1\0\0\0\x8a" + TRANSFER.encode()[:-1],
        b"\0\0\0\1\0\0\0\x89" + TRANSFER.encode(),
        b"\0\0\0\1\0\0\0\x8b" + TRANSFER.encode() + b"\0",
        b"\0\0\0\1\xff\xff\xff\xff" + TRANSFER.encode(),
    ],
)
def test_what_is_no_body_is_refused(body: bytes) -> None:
    for decode in (
        lambda: decode_body(body),
        lambda: Block.assemble(SIGNED.encode(), body),
        lambda: Block.decode(SIGNED.encode() + body),
    ):
        with pytest.raises(DecodeError):
            decode()


def test_a_block_is_at_most_2_mib() -> None:
    big = Transaction.create(KEY, chain_id=1, nonce=0, to=None, data=bytes(130_950))
    assert len(big.encode()) == 131_068
    fits = Block(header=SIGNED, transactions=(big,) * 15)
    assert Block.decode(fits.encode()) == fits
    over = Block(header=SIGNED, transactions=(big,) * 16)
    assert len(over.encode()) > MAX_BLOCK_SIZE
    with pytest.raises(DecodeError, match="at most 2097152"):
        Block.decode(over.encode())
    with pytest.raises(DecodeError, match="at most 2097152"):
        Block.assemble(SIGNED.encode(), over.body)
    with pytest.raises(DecodeError, match="at most 2097152"):
        decode_body(over.body + bytes(10_000))
