"""Hashes, signatures, recovery and addresses, against what others have published."""

from __future__ import annotations

import csv
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moderntensor.backend import signatures
from moderntensor.blockchain import crypto
from moderntensor.blockchain.crypto import (
    CURVE_ORDER,
    HALF_ORDER,
    KeyPair,
    address_of,
    keccak256,
    recover_public_key,
    sha256,
    validator_address,
    verify_signature,
)
from moderntensor.errors import CryptoError, DecodeError
from moderntensor.runtime import Runtime

VECTORS = Path(__file__).parent.parent / "vectors"
ETHEREUM: dict[str, list[dict[str, Any]]] = json.loads((VECTORS / "ethereum.json").read_text())
with (VECTORS / "bip340.csv").open(newline="") as _file:
    BIP340 = list(csv.DictReader(_file))
FIELD = 2**256 - 2**32 - 977
KEY = KeyPair.from_secret(bytes(31) + b"\x07")
MESSAGE = sha256(b"a message")


def of(records: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", records, ids=lambda v: v["source"])


# --- hashes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "digest"),
    [  # FIPS 180-4 examples, and the empty string of NIST's SHA256ShortMsg
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
    ],
)
def test_sha256_of_nist(data: bytes, digest: str) -> None:
    assert sha256(data).hex() == digest


@of(ETHEREUM["keccak256"])
def test_keccak256_as_published(vector: dict[str, Any]) -> None:
    assert keccak256(bytes.fromhex(vector["data"])).hex() == vector["digest"]


def test_keccak256_is_not_sha3() -> None:
    assert keccak256(b"") != hashlib.sha3_256(b"").digest()


# --- BIP-340 -------------------------------------------------------------------------------


def test_all_rows_of_bip340_are_there() -> None:
    assert [int(row["index"]) for row in BIP340] == list(range(19))


@pytest.mark.parametrize("row", BIP340, ids=lambda row: f"row{row['index']}")
def test_bip340_verification(row: dict[str, str]) -> None:
    public_key, message, signature = (
        bytes.fromhex(row[name]) for name in ("public key", "message", "signature")
    )
    expected = {"TRUE": True, "FALSE": False}[row["verification result"]]
    assert verify_signature(public_key, message, signature) is expected
    assert verify_signature(public_key, message, signature) is expected  # the key is cached now


@pytest.mark.parametrize(
    "row",
    [row for row in BIP340 if row["secret key"] and len(row["message"]) == 64],
    ids=lambda row: f"row{row['index']}",
)
def test_bip340_signing(row: dict[str, str]) -> None:
    key = KeyPair.from_secret(bytes.fromhex(row["secret key"]))
    assert key.public_key.hex() == row["public key"].lower()
    signature = key.sign(bytes.fromhex(row["message"]), aux=bytes.fromhex(row["aux_rand"]))
    assert signature.hex() == row["signature"].lower()


def test_signing_without_aux_is_signing_with_zeros() -> None:
    assert KEY.sign(MESSAGE) == KEY.sign(MESSAGE, aux=bytes(32))


@given(st.binary(min_size=32, max_size=32), st.data())
def test_every_changed_bit_breaks_a_signature(message: bytes, data: st.DataObject) -> None:
    signature = KEY.sign(message)
    assert verify_signature(KEY.public_key, message, signature) is True
    parts = [KEY.public_key, message, signature]
    which = data.draw(st.integers(0, 2))
    bit = data.draw(st.integers(0, len(parts[which]) * 8 - 1))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << (bit % 8)
    parts[which] = bytes(changed)
    assert verify_signature(*parts) is False


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_false(size: int) -> None:
    assert verify_signature(bytes(size), MESSAGE, KEY.sign(MESSAGE)) is False


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_of_another_size_is_false(size: int) -> None:
    assert verify_signature(KEY.public_key, MESSAGE, KEY.sign(MESSAGE).ljust(size)[:size]) is False


@pytest.mark.parametrize("position", [0, 1, 2])
def test_only_bytes_are_verified(position: int) -> None:
    parts: list[Any] = [KEY.public_key, MESSAGE, KEY.sign(MESSAGE)]
    parts[position] = bytearray(parts[position])
    with pytest.raises(TypeError):
        verify_signature(*parts)


def test_parsed_keys_are_bounded_and_stay_right() -> None:
    cache = crypto._ParsedKeys(8)
    keys = [KeyPair.from_secret((n + 1).to_bytes(32, "big")) for n in range(40)]
    for key in keys:
        assert cache.get(key.public_key) is not None
        assert len(cache) <= 16
    newest = cache.get(keys[-1].public_key)
    assert cache.get(keys[-1].public_key) is newest
    assert cache.get(bytes(32)) is None
    assert cache.get(b"short") is None


def test_threads_check_beside_each_other() -> None:
    signed = [(message := sha256(bytes([n])), KEY.sign(message)) for n in range(100)]

    def check(turn: int) -> list[bool]:
        return [
            verify_signature(KEY.public_key, message, signature if n % 3 else signature[::-1])
            for n, (message, signature) in enumerate(signed, turn)
        ]

    with ThreadPoolExecutor(4) as pool:
        for turn, results in enumerate(pool.map(check, range(12))):
            assert results == [n % 3 != 0 for n in range(turn, turn + 100)]


# --- recovery ------------------------------------------------------------------------------


@of(ETHEREUM["recovery"])
def test_recovery_as_published(vector: dict[str, Any]) -> None:
    message, r, s = (bytes.fromhex(vector[name]) for name in ("message", "r", "s"))
    public_key = recover_public_key(message, vector["v"], r, s)
    if "public_key" in vector:
        assert public_key.hex() == vector["public_key"]
    if "address" in vector:
        assert address_of(public_key).hex() == vector["address"]
    assert recover_public_key(message, 1 - vector["v"], r, s) != public_key


def test_signing_gives_the_published_signature() -> None:
    vector = ETHEREUM["recovery"][0]
    key = KeyPair.from_secret(b"\x46" * 32)
    assert key.secret == b"\x46" * 32  # its public key has an even y already
    v, r, s = key.sign_recoverable(bytes.fromhex(vector["message"]))
    assert (v, r.hex(), s.hex()) == (vector["v"], vector["r"], vector["s"])


@of(ETHEREUM["high_s"])
@pytest.mark.parametrize("v", [0, 1])
def test_a_published_high_s_is_refused(vector: dict[str, Any], v: int) -> None:
    message, r, s = (bytes.fromhex(vector[name]) for name in ("message", "r", "s"))
    with pytest.raises(CryptoError, match="upper half"):
        recover_public_key(message, v, r, s)
    low = (CURVE_ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    assert len(recover_public_key(message, v, r, low)) == 64


@given(st.binary(min_size=32, max_size=32), st.integers(1, CURVE_ORDER - 1))
@example(b"\xff" * 32, 1)
def test_what_is_signed_is_recovered(message: bytes, secret: int) -> None:
    key = KeyPair.from_secret(secret.to_bytes(32, "big"))
    v, r, s = key.sign_recoverable(message)
    assert v in (0, 1)
    assert 0 < int.from_bytes(s, "big") <= HALF_ORDER
    assert recover_public_key(message, v, r, s) == key.public_key64
    high = (CURVE_ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
    for other in (0, 1):  # the other half of the malleable pair, whatever its v
        with pytest.raises(CryptoError):
            recover_public_key(message, other, r, high)


@given(st.data())
def test_a_changed_signature_gives_another_key_or_none(data: st.DataObject) -> None:
    v, r, s = KEY.sign_recoverable(MESSAGE)
    parts = [MESSAGE, r, s]
    which, bit = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 255))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << (bit % 8)
    parts[which] = bytes(changed)
    try:
        found = recover_public_key(parts[0], v, parts[1], parts[2])
    except CryptoError:
        return
    assert found != KEY.public_key64


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"v": 2}, "v is 2"),
        ({"v": 27}, "v is 27"),
        ({"v": -1}, "v is -1"),
        ({"r": bytes(32)}, "no public key"),
        ({"s": bytes(32)}, "no public key"),
        ({"r": CURVE_ORDER.to_bytes(32, "big")}, "group order"),
        ({"s": CURVE_ORDER.to_bytes(32, "big")}, "upper half"),
        ({"s": (HALF_ORDER + 1).to_bytes(32, "big")}, "upper half"),
        ({"message": MESSAGE[:31]}, "32 bytes"),
        ({"r": bytes(33)}, "32 bytes"),
        ({"s": b""}, "32 bytes"),
    ],
)
def test_impossible_signatures_are_refused(change: dict[str, Any], match: str) -> None:
    v, r, s = KEY.sign_recoverable(MESSAGE)
    arguments: dict[str, Any] = {"message": MESSAGE, "v": v, "r": r, "s": s, **change}
    with pytest.raises(CryptoError, match=match):
        recover_public_key(**arguments)


def test_half_the_order_is_still_low() -> None:
    # s at the very edge: some key has this signature, and its number is admitted
    _, r, _ = KEY.sign_recoverable(MESSAGE)
    assert len(recover_public_key(MESSAGE, 0, r, HALF_ORDER.to_bytes(32, "big"))) == 64


# --- many at once --------------------------------------------------------------------------


def test_many_signatures_at_once() -> None:
    messages = [sha256(bytes((n,))) for n in range(9)]
    items = bytearray(b"".join(KEY.public_key + m + KEY.sign(m) for m in messages))
    assert crypto.verify_signatures(bytes(items)) is None
    items[128 * 6 + 40] ^= 1
    assert crypto.verify_signatures(bytes(items)) == 6
    with pytest.raises(DecodeError, match="verify_many: 130 bytes"):
        crypto.verify_signatures(bytes(130))


def test_many_addresses_at_once() -> None:
    keys = [KeyPair.from_secret(bytes((n,)) * 32) for n in (1, 2, 3)] * 3
    items = []
    for n, key in enumerate(keys):
        message = sha256(bytes((n,)))
        v, r, s = key.sign_recoverable(message)
        items.append(message + bytes((v,)) + r + s)
    nobody = bytes(97)
    found = crypto.recover_addresses(b"".join([*items[:4], nobody, *items[4:]]))
    addresses: list[bytes | None] = [key.address for key in keys]
    assert found == [*addresses[:4], None, *addresses[4:]]
    with pytest.raises(DecodeError, match="recover_many: 98 bytes"):
        crypto.recover_addresses(bytes(98))


@pytest.mark.parametrize("struct", list(signatures.STRUCT_SIZES))
def test_a_library_with_other_structs_is_refused(
    monkeypatch: pytest.MonkeyPatch, struct: str
) -> None:
    size = signatures.STRUCT_SIZES[struct]
    monkeypatch.setitem(signatures.STRUCT_SIZES, struct, size + 1)
    with pytest.raises(CryptoError, match=f"{struct} has {size} bytes, not {size + 1}"):
        crypto._curve()


def test_a_function_of_another_signature_is_refused() -> None:
    # as secp256k1_schnorrsig_verify was before messages of any length
    data = "const unsigned char *"
    with pytest.raises(CryptoError, match="secp256k1_schnorrsig_verify is int"):
        crypto._address(
            "secp256k1_schnorrsig_verify", f"{data}, {data}, const secp256k1_xonly_pubkey *"
        )


# --- addresses and keys --------------------------------------------------------------------


def negated(public_key64: bytes) -> bytes:
    y = int.from_bytes(public_key64[32:], "big")
    return public_key64[:32] + (FIELD - y).to_bytes(32, "big")


@of(ETHEREUM["addresses"])
def test_addresses_of_known_keys(vector: dict[str, Any]) -> None:
    secret = bytes.fromhex(vector["secret"])
    key = KeyPair.from_secret(secret)
    if key.secret == secret:
        assert key.address.hex() == vector["address"]
    else:  # the known key has an odd y, and ours is its negative
        assert int.from_bytes(key.secret, "big") + int.from_bytes(secret, "big") == CURVE_ORDER
        assert address_of(negated(key.public_key64)).hex() == vector["address"]


def test_both_parities_are_among_the_known_keys() -> None:
    secrets = [bytes.fromhex(vector["secret"]) for vector in ETHEREUM["addresses"]]
    assert {KeyPair.from_secret(secret).secret == secret for secret in secrets} == {True, False}


@given(st.integers(1, CURVE_ORDER - 1))
def test_a_key_and_its_negative_are_one(secret: int) -> None:
    key = KeyPair.from_secret(secret.to_bytes(32, "big"))
    other = KeyPair.from_secret((CURVE_ORDER - secret).to_bytes(32, "big"))
    assert key == other
    assert hash(key) == hash(other)
    assert key.secret == other.secret
    assert key.public_key64[63] % 2 == 0
    assert key.public_key == key.public_key64[:32]
    assert key.address == validator_address(key.public_key) == address_of(key.public_key64)
    x, y = (int.from_bytes(key.public_key64[i : i + 32], "big") for i in (0, 32))
    assert (y * y - x * x * x - 7) % FIELD == 0


@pytest.mark.parametrize(
    "secret",
    [bytes(32), CURVE_ORDER.to_bytes(32, "big"), b"\xff" * 32, b"", bytes(31), b"\x01" * 33],
)
def test_secrets_outside_the_group_are_refused(secret: bytes) -> None:
    with pytest.raises(CryptoError):
        KeyPair.from_secret(secret)


@pytest.mark.parametrize("public_key", [bytes(32), b"\xff" * 32, b"", KEY.public_key64])
def test_no_address_without_a_key(public_key: bytes) -> None:
    with pytest.raises(CryptoError):
        validator_address(public_key)


@pytest.mark.parametrize("size", [0, 32, 33, 63, 65])
def test_an_address_needs_a_full_key(size: int) -> None:
    with pytest.raises(CryptoError):
        address_of(bytes(size))


def test_keys_come_from_the_entropy_they_are_given() -> None:
    assert KeyPair.generate(lambda size: b"\x05" * size) == KeyPair.from_secret(b"\x05" * 32)
    runtime = Runtime()
    assert KeyPair.generate(runtime) != KeyPair.generate(runtime)
    assert KeyPair.generate() != KeyPair.generate()
    with pytest.raises(CryptoError):
        KeyPair.generate(bytes)  # a broken source gives zeros


def test_a_key_does_not_show_its_secret() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert KEY.address.hex() in repr(KEY)
    assert KEY.secret != KEY


@pytest.mark.parametrize("size", [0, 31, 33])
def test_only_32_bytes_are_signed(size: int) -> None:
    with pytest.raises(CryptoError):
        KEY.sign(bytes(size))
    with pytest.raises(CryptoError):
        KEY.sign_recoverable(bytes(size))
    with pytest.raises(CryptoError):
        KEY.sign(MESSAGE, aux=bytes(size))
