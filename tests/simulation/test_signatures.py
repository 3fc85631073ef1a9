"""Signatures that are checked once for all nodes of a simulation."""

from __future__ import annotations

import pytest

from moderntensor.blockchain.crypto import KeyPair, recover_addresses, verify_signatures
from moderntensor.blockchain.transaction import Transaction, identify
from moderntensor.errors import CryptoError, DecodeError
from moderntensor.runtime import Runtime
from moderntensor.simulation.signatures import SharedSignatures

KEYS = [KeyPair.from_secret(bytes([n + 1]) * 32) for n in range(3)]
MESSAGES = [bytes([n]) * 32 for n in range(8)]


def header_item(n: int) -> bytes:
    key = KEYS[n % 3]
    return key.public_key + MESSAGES[n] + key.sign(MESSAGES[n])


def transaction_item(n: int) -> bytes:
    v, r, s = KEYS[n % 3].sign_recoverable(MESSAGES[n])
    return MESSAGES[n] + bytes([v]) + r + s


def broken(item: bytes, at: int) -> bytes:
    return item[:at] + bytes([item[at] ^ 1]) + item[at + 1 :]


def test_a_signature_is_checked_once() -> None:
    memo = SharedSignatures()
    items = b"".join(map(header_item, range(4)))
    assert memo.first_bad(items) is None
    assert memo.checked == 4
    assert memo.first_bad(items) is None
    assert memo.first_bad(header_item(2)) is None
    assert memo.checked == 4
    assert memo.first_bad(header_item(3) + header_item(4)) is None
    assert memo.checked == 5


@pytest.mark.parametrize("at", [0, 31, 32, 63, 64, 127])
def test_each_byte_of_what_was_checked_counts(at: int) -> None:
    """Neither another key nor another message nor another signature passes for a good one."""
    memo = SharedSignatures()
    assert memo.first_bad(header_item(0)) is None
    assert memo.first_bad(broken(header_item(0), at)) == 0
    assert memo.first_bad(broken(header_item(0), at)) == 0  # and a bad one stays bad
    assert memo.first_bad(header_item(0)) is None
    assert memo.checked == 2


def test_verdicts_are_those_of_the_curve() -> None:
    items = [header_item(n) for n in range(8)]
    items[2], items[5] = broken(items[2], 100), broken(items[5], 40)
    memo = SharedSignatures()
    for start in (3, 0, 6, 2):
        run = b"".join(items[start:])
        assert memo.first_bad(run) == verify_signatures(run) == verify_signatures(run, memo)
    assert memo.first_bad(b"") is None
    signed = [transaction_item(n) for n in range(6)]
    signed[1], signed[4] = broken(signed[1], 50), signed[4][:32] + b"\2" + signed[4][33:]
    run = b"".join(signed)
    assert memo.addresses(run) == recover_addresses(run) == recover_addresses(run, memo)
    assert memo.addresses(run)[4] is None


def test_what_is_no_whole_number_of_items_is_refused() -> None:
    for ask in (SharedSignatures().first_bad, SharedSignatures().addresses):
        with pytest.raises(DecodeError):
            ask(bytes(100))


def test_it_is_bounded() -> None:
    memo = SharedSignatures(limit=4)
    for n in range(8):
        assert memo.first_bad(header_item(n)) is None
    assert memo.first_bad(header_item(7)) is None
    assert memo.checked == 8
    assert memo.first_bad(header_item(0)) is None  # forgotten, and checked again
    assert memo.checked == 9
    assert memo.first_bad(b"".join(map(header_item, range(8)))) is None  # more than it keeps


def test_transactions_get_their_senders_from_it() -> None:
    memo = SharedSignatures()
    raw = Transaction.create(KEYS[0], chain_id=1, nonce=0, to=bytes(20), value=5).encode()
    for _ in range(3):
        copy = Transaction.decode(raw)
        identify([copy], memo)
        assert copy.sender == KEYS[0].address
    assert memo.checked == 1
    forged = Transaction.decode(raw).replace(s=b"\xff" * 32)
    identify([forged], memo)
    with pytest.raises(CryptoError):
        _ = forged.sender


def test_a_real_node_has_none() -> None:
    assert Runtime().signatures is None
