"""The handshake and its ciphers against the published vectors, and against who means harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from moderntensor.errors import SecureChannelError
from moderntensor.network.noise import CipherState, XXHandshake

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "noise_xx.json").read_text(encoding="utf-8")
)["vectors"]
# Points of order 1, 2, 4 and 8 (RFC 7748, section 7, and its usual list), in their encodings.
P = 2**255 - 19
LOW_ORDER = [
    (0).to_bytes(32, "little"),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (P - 1).to_bytes(32, "little"),
    P.to_bytes(32, "little"),
    (P + 1).to_bytes(32, "little"),
]


def secret(number: int) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def public(number: int) -> bytes:
    return secret(number).public_key().public_bytes_raw()


def given(data: bytes) -> Callable[[int], bytes]:
    def entropy(size: int) -> bytes:
        assert size == len(data)
        return data

    return entropy


def pair(
    prologue: bytes = b"", other_prologue: bytes | None = None
) -> tuple[XXHandshake, XXHandshake]:
    one = XXHandshake(secret(1), initiator=True, entropy=given(b"\x03" * 32), prologue=prologue)
    other = XXHandshake(
        secret(2),
        initiator=False,
        entropy=given(b"\x04" * 32),
        prologue=prologue if other_prologue is None else other_prologue,
    )
    return one, other


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["protocol_name"])
def test_published_vectors(vector: dict[str, Any]) -> None:
    """Every message that either role writes, and what the other reads of it."""

    def side(name: str, *, initiator: bool) -> XXHandshake:
        return XXHandshake(
            X25519PrivateKey.from_private_bytes(bytes.fromhex(vector[f"{name}_static"])),
            initiator=initiator,
            entropy=given(bytes.fromhex(vector[f"{name}_ephemeral"])),
            prologue=bytes.fromhex(vector[f"{name}_prologue"]),
        )

    sides = side("init", initiator=True), side("resp", initiator=False)
    messages = [
        (bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]
    ]
    assert len(messages) == 6
    for number, (payload, ciphertext) in enumerate(messages[:3]):
        writer, reader = sides[number % 2], sides[1 - number % 2]
        assert not writer.done
        assert writer.write(payload) == ciphertext
        assert reader.read(ciphertext) == payload
    for one, other in (sides, sides[::-1]):
        assert one.done
        assert one.hash.hex() == vector["handshake_hash"]
        assert one.remote_static == other._static.public_key().public_bytes_raw()
    states = [one.split() for one in sides]
    for number, (payload, ciphertext) in enumerate(messages[3:], 3):
        writer, reader = number % 2, 1 - number % 2
        assert states[writer][0].encrypt(payload, b"") == ciphertext
        assert states[reader][1].decrypt(ciphertext, b"") == payload


def test_what_is_on_the_wire_without_payloads() -> None:
    one, other = pair()
    first = one.write()
    assert first == public(3)
    assert other.read(first) == b""
    second = other.write()
    assert second.startswith(public(4))
    assert public(2) not in second
    assert one.read(second) == b""
    third = one.write()
    assert other.read(third) == b""
    assert public(1) not in third
    assert (len(first), len(second), len(third)) == (32, 96, 64)
    assert (one.remote_static, other.remote_static) == (public(2), public(1))


def run_until(number: int) -> tuple[XXHandshake, bytes]:
    """Who reads the message of this number, and the message."""
    one, other = pair()
    writer, reader = one, other
    for _ in range(number):
        reader.read(writer.write())
        writer, reader = reader, writer
    return reader, writer.write()


@pytest.mark.parametrize("number", range(3))
def test_a_message_of_another_length(number: int) -> None:
    for change in (lambda m: m[:-1], lambda m: m + b"\0", lambda m: b"", lambda m: bytes(65536)):
        reader, message = run_until(number)
        if number == 0 and change(message)[:32] == message:
            assert reader.read(change(message)) == b"\0"  # an open payload, which nobody sealed
            continue
        with pytest.raises(SecureChannelError):
            reader.read(change(message))


@pytest.mark.parametrize("number", [1, 2])
def test_a_tampered_message(number: int) -> None:
    for position in range(96 if number == 1 else 64):
        reader, message = run_until(number)
        changed = bytearray(message)
        changed[position] ^= 1
        with pytest.raises(SecureChannelError):
            reader.read(bytes(changed))


def test_a_tampered_first_message_shows_in_the_second() -> None:
    one, other = pair()
    changed = bytearray(one.write())
    changed[7] ^= 1
    other.read(bytes(changed))
    with pytest.raises(SecureChannelError, match="authentication"):
        one.read(other.write())


def test_another_prologue() -> None:
    one, other = pair(b"moderntensor/1", b"moderntensor/2")
    other.read(one.write())
    with pytest.raises(SecureChannelError, match="authentication"):
        one.read(other.write())


@pytest.mark.parametrize("key", LOW_ORDER, ids=lambda key: key.hex()[:8])
@pytest.mark.parametrize("high_bit", [0, 0x80])
def test_low_order_keys(key: bytes, high_bit: int) -> None:
    """Whoever sends one would know the secret without a key of his own."""
    bad = key[:31] + bytes([key[31] | high_bit])
    _, other = pair()
    other.read(bad)
    with pytest.raises(SecureChannelError, match="low-order"):
        other.write()
    one, _ = pair()
    one.write()
    with pytest.raises(SecureChannelError, match="low-order"):
        one.read(bad + bytes(64))


def test_messages_out_of_turn() -> None:
    one, other = pair()
    with pytest.raises(SecureChannelError, match="turn"):
        one.read(bytes(32))
    with pytest.raises(SecureChannelError, match="turn"):
        other.write()
    one.write()
    with pytest.raises(SecureChannelError, match="turn"):
        one.write()


def test_a_reflected_handshake() -> None:
    """Our own words as theirs: the lengths of the messages alone rule it out."""
    one, _ = pair()
    with pytest.raises(SecureChannelError):
        one.read(one.write())


def test_ciphers_refuse_what_does_not_come_in_its_turn() -> None:
    key = bytes(range(32))
    sender, receiver = CipherState(key), CipherState(key)
    sealed = [sender.encrypt(b"message %d" % number, b"ad") for number in range(3)]
    for wrong in (sealed[1], sealed[0][:-1], sealed[0] + b"\0", b"", sealed[0][::-1]):
        with pytest.raises(SecureChannelError, match="authentication failed"):
            receiver.decrypt(wrong, b"ad")
    with pytest.raises(SecureChannelError, match="authentication failed"):
        receiver.decrypt(sealed[0], b"other")
    assert receiver.nonce == 0
    assert receiver.decrypt(memoryview(sealed[0]), b"ad") == b"message 0"
    with pytest.raises(SecureChannelError, match="authentication failed"):
        receiver.decrypt(sealed[0], b"ad")  # replayed
    assert receiver.decrypt(sealed[1], b"ad") == b"message 1"


def test_rekeying() -> None:
    """Noise, section 4.2: the first 32 bytes of what the highest nonce makes of 32 zeros."""
    key = bytes(range(32))
    sender, receiver, stays = CipherState(key), CipherState(key), CipherState(key)
    for state in (sender, receiver):
        state.nonce = 7
        state.rekey()
        assert state.nonce == 7
    sealed = sender.encrypt(b"after", b"")
    stays.nonce = 7
    with pytest.raises(SecureChannelError):
        stays.decrypt(sealed, b"")
    assert receiver.decrypt(sealed, b"") == b"after"
    fresh = CipherState(key)
    fresh.nonce = 2**64 - 2
    fresh.encrypt(b"", b"")
    for use in (fresh.encrypt, fresh.decrypt):
        with pytest.raises(SecureChannelError, match="nonce"):
            use(bytes(32), b"")
