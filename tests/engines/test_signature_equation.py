"""Many signatures in one equation, with factors that the test chooses: what the equation takes
in, and what becomes of sums that are no point or no number.

Only here can errors be made that cancel each other out; in use, the factors come out of a hash of
everything (`test_signatures.py`).
"""

from __future__ import annotations

import ctypes
import hashlib
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from moderntensor._ext import signatures as compiled
from moderntensor.blockchain.crypto import CURVE, CURVE_ORDER, KeyPair, sha256

COUNT = 65  # one more than the fewest, and odd: the last hash gives one factor
RANDOM = random.Random(340)
KEYS = [KeyPair.generate(RANDOM.randbytes) for _ in range(5)]

CALLED = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 5)
HASH = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 6)


def tagged(tag: bytes, data: bytes) -> bytes:
    start = hashlib.sha256(tag).digest()
    return hashlib.sha256(start + start + data).digest()


def challenge(item: bytes) -> int:
    return int.from_bytes(tagged(b"BIP0340/challenge", item[64:96] + item[:64]), "big")


def made(key: KeyPair, nonce: KeyPair, n: int) -> bytes:
    """A signature with a nonce of our choice. KeyPair makes both even."""
    start = key.public_key + sha256(n.to_bytes(4, "big")) + nonce.public_key
    d, k = (int.from_bytes(pair.secret, "big") for pair in (key, nonce))
    s = (k + challenge(start) * d) % CURVE_ORDER
    return start + s.to_bytes(32, "big")


@cache
def good() -> list[bytes]:
    nonces = (KeyPair.generate(RANDOM.randbytes) for _ in range(COUNT))
    return [made(KEYS[n % len(KEYS)], nonce, n) for n, nonce in enumerate(nonces)]


def run_of(errors: dict[int, int] | None = None, nonces: Sequence[KeyPair] = ()) -> list[bytes]:
    """`COUNT` signatures, the first with these nonces, some with an error in their s."""
    items = [made(KEYS[n % len(KEYS)], nonce, n) for n, nonce in enumerate(nonces)]
    items += good()[len(nonces) :]
    for n, error in (errors or {}).items():
        s = int.from_bytes(items[n][96:], "big") + error
        items[n] = items[n][:96] + (s % CURVE_ORDER).to_bytes(32, "big")
    return items


def verdicts(items: list[bytes], factors: list[int]) -> tuple[bool, int | None]:
    """Whether the equation with these factors shows them good, and what `verify_many` finds."""
    drawn = b"".join(factor.to_bytes(16, "big") for factor in factors) + bytes(16)
    alone = False

    def hashed(_: int, out: int, tag: int, tag_size: int, data: int, size: int) -> int:
        name, content = ctypes.string_at(tag, tag_size), ctypes.string_at(data, size)
        at = 16 * int.from_bytes(content[32:34], "big")
        is_factor = name == b"moderntensor/batch/factors"
        ctypes.memmove(out, drawn[at : at + 32] if is_factor else tagged(name, content), 32)
        return 1

    def noted(*arguments: int) -> int:
        nonlocal alone
        alone = True
        return int(verify(*arguments))

    verify: Any = ctypes.cast(CURVE.schnorrsig_verify, CALLED)
    choose, note = HASH(hashed), CALLED(noted)
    curve = CURVE._replace(
        tagged_sha256=ctypes.cast(choose, ctypes.c_void_p).value or 0,
        schnorrsig_verify=ctypes.cast(note, ctypes.c_void_p).value or 0,
    )
    found = compiled.verify_many(curve, b"".join(items))
    return not alone, found


FACTORS = {
    "random": [RANDOM.randrange(1, 2**128) for _ in range(COUNT)],
    "all one": [1] * COUNT,
    "all the greatest": [2**128 - 1] * COUNT,
    "a bit each": [1 << (2 * n) % 128 for n in range(COUNT)],
    "a digit each": [(n % 15 + 1) << 4 * (n % 32) for n in range(COUNT)],
    "nothing at the ends": [RANDOM.randrange(1, 2**60) << 30 for _ in range(COUNT)],
}


@pytest.mark.parametrize("factors", FACTORS.values(), ids=FACTORS)
def test_each_error_counts_by_its_whole_factor(factors: list[int]) -> None:
    assert verdicts(run_of(), factors) == (True, None)
    assert verdicts(run_of({40: 1}), factors) == (False, 40)
    for one, other in ((0, 5), (63, 64)):  # of one key, and of two
        # a1 x = -a2 y: the one pair of errors that goes unseen, and any other does not.
        x = 12345
        y = -x * factors[one] * pow(factors[other], -1, CURVE_ORDER)
        items = run_of({one: x, other: y})
        assert verdicts(items, factors) == (True, None)
        assert verdicts(run_of({one: x, other: y + 1}), factors) == (False, one)
        for bit in (1, 64, 127):
            changed = factors.copy()
            changed[one] ^= 1 << bit
            assert verdicts(items, changed) == (False, one)


@pytest.mark.parametrize("places", [(0, 1, 2), (7, 31, 64)])
def test_points_that_sum_to_none(places: tuple[int, int, int]) -> None:
    """Whoever signs three times can have the nonces R + R' + R'' = 0: good signatures all."""
    first = KEYS[0]
    second = third = first
    secret = b""
    while third.secret != secret:  # until the point that is missing is even as it is
        second = KeyPair.generate(RANDOM.randbytes)
        both = sum(int.from_bytes(pair.secret, "big") for pair in (first, second))
        secret = (-both % CURVE_ORDER).to_bytes(32, "big")
        third = KeyPair.from_secret(secret)
    items = run_of(nonces=(first, second, third))
    for at, place in enumerate(places):
        items[at], items[place] = items[place], items[at]
    # In one bucket their sum is no point. With others it is nothing, and does no harm.
    alone_in_it = [1 if n in places else 2 for n in range(COUNT)]
    assert verdicts(items, alone_in_it) == (False, None)
    assert verdicts(items, [3] * COUNT) == (True, None)
    items[50] = items[51][:64] + items[50][64:]
    assert verdicts(items, alone_in_it) == (False, 50)


def test_one_nonce_of_many_keys() -> None:
    """Equal points in a bucket and as doubled totals; a nonce that is a key, too."""
    for nonces in ([KEYS[0]] * COUNT, KEYS * (COUNT // len(KEYS))):
        items = run_of(nonces=nonces)
        for factors in FACTORS.values():
            assert verdicts(items, factors) == (True, None)
        items[9] = items[9][:127] + bytes((items[9][127] ^ 1,))
        assert verdicts(items, FACTORS["random"]) == (False, 9)


def test_numbers_that_are_zero_are_no_verdict() -> None:
    items = run_of()
    for at in (0, 30, COUNT - 1):  # a factor
        factors = FACTORS["random"].copy()
        factors[at] = 0
        assert verdicts(items, factors) == (False, None)
        wrong = items.copy()
        wrong[at] = items[at][:96] + bytes(32)  # which its factor would hide
        assert verdicts(wrong, factors) == (False, at)
    # a s + a' s' = 0, the sum of the first two; the third makes up for it.
    s = [int.from_bytes(item[96:], "big") for item in items[:2]]
    error = -s[0] - s[1]
    items = run_of({1: error, 2: -error})
    assert verdicts(items, [1] * COUNT) == (False, 1)
