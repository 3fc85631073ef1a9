"""Many signatures at once: both twins against published vectors, each other and the library."""

from __future__ import annotations

import csv
import ctypes
import hashlib
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.parity import outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor._ext import signatures as compiled
from moderntensor._pure import signatures as pure
from moderntensor.blockchain.crypto import CURVE, CURVE_ORDER, HALF_ORDER, KeyPair, sha256
from moderntensor.errors import DecodeError

VECTORS = Path(__file__).parent.parent / "vectors"
with (VECTORS / "bip340.csv").open(newline="") as _file:
    # A header signs 32 bytes: the vectors over messages of other lengths are `crypto`'s.
    BIP340 = [row for row in csv.DictReader(_file) if len(row["message"]) == 64]
ETHEREUM: dict[str, list[dict[str, Any]]] = json.loads((VECTORS / "ethereum.json").read_text())
RECOVERY = ETHEREUM["recovery"]
HIGH_S = ETHEREUM["high_s"]

KEYS = [KeyPair.from_secret(n.to_bytes(32, "big")) for n in range(1, 301)]
MESSAGES = [sha256(n.to_bytes(4, "big")) for n in range(300)]


def signed(key: KeyPair, message: bytes) -> bytes:
    return key.public_key + message + key.sign(message)


def recoverable(key: KeyPair, message: bytes) -> bytes:
    v, r, s = key.sign_recoverable(message)
    return message + bytes((v,)) + r + s


GOOD = [signed(key, message) for key, message in zip(KEYS, MESSAGES, strict=True)]
RECOVERABLE = [recoverable(key, message) for key, message in zip(KEYS, MESSAGES, strict=True)]


@pytest.fixture
def signatures(engine: Any) -> ModuleType:
    module: ModuleType = engine.signatures
    return module


# --- BIP-340 -------------------------------------------------------------------------------


def test_bip340_vectors_alone_and_behind_good_ones(signatures: ModuleType) -> None:
    assert len(BIP340) == 15
    good = []
    for row in BIP340:
        item = bytes.fromhex(row["public key"] + row["message"] + row["signature"])
        is_good = row["verification result"] == "TRUE"
        if is_good:
            good.append(item)
        assert signatures.verify_many(CURVE, item) == (None if is_good else 0), row["index"]
        run = b"".join([*good, item, GOOD[0]])
        assert signatures.verify_many(CURVE, run) == (None if is_good else len(good))


def test_nothing_to_check_is_good(signatures: ModuleType) -> None:
    assert signatures.verify_many(CURVE, b"") is None
    assert signatures.recover_many(CURVE, b"") == []


@pytest.mark.parametrize("bad", [0, 1, 149, 299])
def test_the_first_bad_one_is_named(signatures: ModuleType, bad: int) -> None:
    items = bytearray(b"".join(GOOD))
    assert signatures.verify_many(CURVE, bytes(items)) is None
    for at in (bad, 299):
        items[128 * at + 127] ^= 1
    if bad == 299:
        items[128 * bad + 127] ^= 1  # changed twice: as it was
        items[128 * bad] ^= 1
    assert signatures.verify_many(CURVE, bytes(items)) == bad


def test_keys_that_share_a_slot_of_the_table(signatures: ModuleType) -> None:
    by_slot: dict[int, list[KeyPair]] = {}
    for key in KEYS:
        by_slot.setdefault(key.public_key[31], []).append(key)
    one, other = max(by_slot.values(), key=len)[:2]
    good = [signed(key, MESSAGES[0]) for key in (one, other, one, one, other)]
    assert signatures.verify_many(CURVE, b"".join(good)) is None
    # What one signed is not the other's, whichever of them was parsed last.
    for first in (one, other):
        swapped = other.public_key + signed(one, MESSAGES[0])[32:]
        run = [signed(first, MESSAGES[1]), swapped]
        assert signatures.verify_many(CURVE, b"".join(run)) == 1
    # A key of the same slot that is not on the curve (BIP-340's x = field size is none).
    none = b"\xff" * 31 + one.public_key[31:]
    run = [good[0], none + good[0][32:], good[0]]
    assert signatures.verify_many(CURVE, b"".join(run)) == 1


# --- many in one equation ------------------------------------------------------------------

FEWEST, CHUNK, PER_KEY = 64, 1024, 4  # as in ext/signatures_batch.pxi

# What the library is asked for one equation, and with how many arguments.
EQUATION = {
    "ec_pubkey_parse": 4,
    "ec_pubkey_combine": 4,
    "ec_pubkey_create": 3,
    "ec_pubkey_cmp": 3,
    "ec_pubkey_tweak_mul": 3,
    "ec_seckey_tweak_mul": 3,
    "ec_seckey_tweak_add": 3,
    "tagged_sha256": 6,
}
NUMBER = {name: (i, i + 32) for name, i in (("key", 0), ("message", 32), ("r", 64), ("s", 96))}


@cache
def run_of(count: int, keys: int = 5) -> bytes:
    """Good signatures of a few keys in turns."""
    return b"".join(signed(KEYS[i % keys], MESSAGES[i % 300]) for i in range(count))


def refusing(result: int, arguments: int) -> tuple[Any, int]:
    """A function of the library that does nothing; to be kept alive, and its address."""
    function = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * arguments)(lambda *_: result)
    return function, ctypes.cast(function, ctypes.c_void_p).value or 0


@pytest.mark.parametrize(
    ("count", "keys", "together"),
    [
        (FEWEST - 1, 1, False),
        (FEWEST, 1, True),
        (FEWEST, FEWEST // PER_KEY, True),
        (FEWEST, FEWEST // PER_KEY + 1, False),
        (FEWEST + 1, 5, True),
        (CHUNK, CHUNK // PER_KEY, True),
        (CHUNK, CHUNK // PER_KEY + 1, False),
        (CHUNK + FEWEST, 16, True),
        (CHUNK + FEWEST - 1, 5, False),
    ],
)
def test_many_of_few_keys_need_no_verification_alone(count: int, keys: int, together: bool) -> None:
    kept, never = refusing(0, 5)
    curve = CURVE._replace(schnorrsig_verify=never)
    found = compiled.verify_many(curve, run_of(count, keys))
    assert found == (None if together else CHUNK if count > CHUNK else 0)
    assert kept is not None


@pytest.mark.parametrize("name", EQUATION)
def test_what_the_library_refuses_is_no_verdict(name: str) -> None:
    items = run_of(FEWEST)
    bad = bytearray(items)
    bad[128 * 50 + 100] ^= 4
    for result in (0, -1, 1) if name == "ec_pubkey_cmp" else (0,):
        kept, address = refusing(result, EQUATION[name])
        curve = CURVE._replace(**{name: address})
        assert compiled.verify_many(curve, items) is None
        if (name, result) != ("ec_pubkey_cmp", 0):  # where 0 is "equal"
            assert compiled.verify_many(curve, bytes(bad)) == 50
        assert kept is not None


@pytest.mark.parametrize(
    ("field", "count"),
    [*product(NUMBER, [FEWEST, 193]), ("s", CHUNK + FEWEST + 1)],
)
def test_the_first_bad_one_among_many(field: str, count: int) -> None:
    start, stop = NUMBER[field]
    places = {0, 63, count // 2, count - 1} if count < CHUNK else {CHUNK - 1, CHUNK}
    for bad in places:
        items = bytearray(run_of(count))
        for at in {bad, count - 1}:
            items[128 * at + start + at % (stop - start)] ^= 1 << at % 8
        assert compiled.verify_many(CURVE, bytes(items)) == bad


@pytest.mark.parametrize("field", ["r", "s", "key", "message"])
@pytest.mark.parametrize(
    "value", [0, 1, CURVE_ORDER - 1, CURVE_ORDER, 2**256 - 2**32 - 977, 2**256 - 1]
)
def test_numbers_at_their_edges_among_many(signatures: ModuleType, field: str, value: int) -> None:
    items = bytearray(run_of(FEWEST))
    start, stop = NUMBER[field]
    items[128 * 40 + start : 128 * 40 + stop] = value.to_bytes(32, "big")
    assert signatures.verify_many(CURVE, bytes(items)) == 40


def test_bip340_vectors_among_many(signatures: ModuleType) -> None:
    head, tail = run_of(FEWEST - 20), run_of(20)
    for row in BIP340:
        item = bytes.fromhex(row["public key"] + row["message"] + row["signature"])
        bad = None if row["verification result"] == "TRUE" else FEWEST - 20
        assert signatures.verify_many(CURVE, head + item + tail) == bad, row["index"]


def test_errors_that_cancel_each_other_out_are_found(signatures: ModuleType) -> None:
    """The plain sum of all equations would hold for each of these."""

    def shift(items: bytearray, at: int, by: int) -> None:
        s = int.from_bytes(items[128 * at + 96 : 128 * at + 128], "big")
        items[128 * at + 96 : 128 * at + 128] = ((s + by) % CURVE_ORDER).to_bytes(32, "big")

    for one, other in ((3, 8), (3, 4), (0, 63), (62, 63)):  # of one key, and of two
        items = bytearray(run_of(FEWEST))
        shift(items, one, 1)
        shift(items, other, -1)
        assert signatures.verify_many(CURVE, bytes(items)) == one
    # R and s of two signatures swapped: the sum of both stays.
    items = bytearray(run_of(FEWEST))
    first, second = (items[128 * at + 64 : 128 * at + 128] for at in (10, 20))
    items[128 * 10 + 64 : 128 * 11], items[128 * 20 + 64 : 128 * 21] = second, first
    assert signatures.verify_many(CURVE, bytes(items)) == 10


def test_the_factors_come_out_of_everything() -> None:
    """Whoever knows them before he has to name all bytes can make errors that cancel out."""
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 6)
    hashed: dict[bytes, list[bytes]] = {}

    @kind
    def note(_: int, out: int, tag: int, tag_size: int, data: int, size: int) -> int:
        name, content = ctypes.string_at(tag, tag_size), ctypes.string_at(data, size)
        start = hashlib.sha256(name).digest()
        ctypes.memmove(out, hashlib.sha256(start + start + content).digest(), 32)
        hashed.setdefault(name, []).append(content)
        return 1

    count = 301  # odd, and their numbers take two bytes
    items = run_of(count)
    address = ctypes.cast(note, ctypes.c_void_p).value
    assert compiled.verify_many(CURVE._replace(tagged_sha256=address), items) is None
    assert hashed.pop(b"moderntensor/batch") == [items]
    tag = hashlib.sha256(b"moderntensor/batch").digest()
    seed = hashlib.sha256(tag + tag + items).digest()
    assert hashed.pop(b"moderntensor/batch/factors") == [
        seed + i.to_bytes(2, "big") for i in range(0, count, 2)
    ]
    assert len(hashed.pop(b"BIP0340/challenge")) == count
    assert not hashed


def test_one_signature_many_times(signatures: ModuleType) -> None:
    """All buckets hold the same point: sums double, and the keys' table has one."""
    item = signed(KEYS[0], MESSAGES[0])
    assert signatures.verify_many(CURVE, item * 200) is None
    assert signatures.verify_many(CURVE, item * 100 + bytes(128) + item * 99) == 100


# --- recovery ------------------------------------------------------------------------------


def test_recovery_as_published(signatures: ModuleType) -> None:
    items = b"".join(
        bytes.fromhex(vector["message"])
        + bytes((vector["v"],))
        + bytes.fromhex(vector["r"] + vector["s"])
        for vector in RECOVERY
    )
    found = signatures.recover_many(CURVE, items)
    assert len(found) == len(RECOVERY)
    for vector, key in zip(RECOVERY, found, strict=True):
        assert len(key) == 64
        assert vector.get("public_key", key.hex()) == key.hex()


def test_a_published_high_s_has_no_key(signatures: ModuleType) -> None:
    for vector in HIGH_S:
        tail = bytes.fromhex(vector["r"] + vector["s"])
        items = b"".join(bytes.fromhex(vector["message"]) + bytes((v,)) + tail for v in (0, 1))
        assert signatures.recover_many(CURVE, items) == [None, None]


def test_the_impossible_ones_among_good_ones(signatures: ModuleType) -> None:
    item = RECOVERABLE[0]
    order = CURVE_ORDER.to_bytes(32, "big")
    edge, over = (n.to_bytes(32, "big") for n in (HALF_ORDER, HALF_ORDER + 1))
    bad = [
        item[:32] + b"\x02" + item[33:],
        item[:32] + b"\xff" + item[33:],
        item[:33] + bytes(32) + item[65:],
        item[:33] + order + item[65:],
        item[:65] + bytes(32),
        item[:65] + over,
        item[:65] + order,
    ]
    run = [part for wrong in bad for part in (item, wrong)]
    key = KEYS[0].public_key64
    assert signatures.recover_many(CURVE, b"".join(run)) == [key, None] * len(bad)
    assert signatures.recover_many(CURVE, item[:65] + edge)[0] is not None


def test_many_senders(signatures: ModuleType) -> None:
    found = signatures.recover_many(CURVE, b"".join(RECOVERABLE))
    assert found == [key.public_key64 for key in KEYS]


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("extra", [1, 96, 98, 127, 129])
@pytest.mark.parametrize("name", ["verify_many", "recover_many"])
def test_a_part_of_an_item_is_refused(signatures: ModuleType, name: str, extra: int) -> None:
    call = getattr(signatures, name)
    with pytest.raises(DecodeError, match=rf"^{name}: {extra} bytes are no whole number"):
        call(CURVE, bytes(extra))


@pytest.mark.parametrize("items", [bytearray(128 * 97), memoryview(b""), None, "", [b""]])
@pytest.mark.parametrize("name", ["verify_many", "recover_many"])
def test_only_bytes_are_read(signatures: ModuleType, name: str, items: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} needs bytes, not {type(items).__name__}$"):
        getattr(signatures, name)(CURVE, items)


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, OverflowError), (2**64, OverflowError)]
)
def test_an_address_that_is_none_is_not_called(value: int, error: type[Exception]) -> None:
    for name in ("context", "xonly_pubkey_parse", "schnorrsig_verify", *EQUATION):
        with pytest.raises(error):
            compiled.verify_many(CURVE._replace(**{name: value}), GOOD[0])
    for name in (
        "context", "recoverable_signature_parse_compact", "ecdsa_recover", "ec_pubkey_serialize"
    ):  # fmt: skip
        with pytest.raises(error):
            compiled.recover_many(CURVE._replace(**{name: value}), RECOVERABLE[0])


# --- parity --------------------------------------------------------------------------------


def test_the_twins_have_the_same_sizes() -> None:
    for name in ("VERIFY_SIZE", "RECOVERY_SIZE", "STRUCT_SIZES"):
        assert getattr(pure, name) == getattr(compiled, name)


@st.composite
def runs(draw: st.DrawFn, good: list[bytes]) -> bytes:
    """Good items with, mostly, a few bits or bytes of them changed, items swapped or cut."""
    size = len(good[0])
    items = draw(st.lists(st.sampled_from(good) | st.binary(min_size=size, max_size=size)))
    data = bytearray(b"".join(items))
    for _ in range(draw(st.integers(0, 3))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["bit", "byte", "field", "cut"])):
            case "bit":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "byte":
                data[at] = draw(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF]))
            case "field":  # at the edges of what a number may be
                edges = (0, HALF_ORDER, HALF_ORDER + 1, CURVE_ORDER - 1, CURVE_ORDER, 2**256 - 1)
                start = at - at % size + draw(st.sampled_from([0, 32, 33, 64, 65, 96]))
                edge = draw(st.sampled_from(edges)).to_bytes(32, "big")
                data[start : start + 32] = edge[: max(0, len(data) - start)]
            case _:
                del data[at:]
    return bytes(data)


@settings(max_examples=150)
@given(runs(GOOD[:6] + GOOD[250:253]))
def test_verification_parity(items: bytes) -> None:
    assert outcome(compiled.verify_many, CURVE, items) == outcome(pure.verify_many, CURVE, items)


@settings(max_examples=25)
@given(runs(GOOD[:2]), st.integers(0, FEWEST))
def test_verification_parity_among_many(some: bytes, at: int) -> None:
    items = run_of(FEWEST)[: 128 * at] + some + run_of(FEWEST)[128 * at :]
    assert outcome(compiled.verify_many, CURVE, items) == outcome(pure.verify_many, CURVE, items)


@settings(max_examples=150)
@given(runs(RECOVERABLE[:6]))
def test_recovery_parity(items: bytes) -> None:
    assert outcome(compiled.recover_many, CURVE, items) == outcome(pure.recover_many, CURVE, items)


# --- threads -------------------------------------------------------------------------------


def test_threads_check_beside_each_other(signatures: ModuleType) -> None:
    def check(turn: int) -> tuple[int | None, bool]:
        items = bytearray(b"".join(GOOD[:40]))
        items[128 * turn + 64] ^= 1
        found = signatures.recover_many(CURVE, b"".join(RECOVERABLE[turn : turn + 9]))
        right = [key.public_key64 for key in KEYS[turn : turn + 9]]
        return signatures.verify_many(CURVE, bytes(items)), found == right

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(check, range(24))) == [(turn, True) for turn in range(24)]


@pytest.mark.parametrize(
    ("call", "items"),
    [
        (compiled.verify_many, b"".join(GOOD) * 4),
        (compiled.recover_many, b"".join(RECOVERABLE) * 4),
    ],
    ids=["verify", "recover"],
)
def test_python_runs_meanwhile(call: Any, items: bytes) -> None:
    """Nobody may take the GIL by force here: who gets it was given it by the engine."""
    turns = 0
    stop = threading.Event()

    def other() -> None:
        nonlocal turns
        while not stop.is_set():
            turns += 1
            time.sleep(0)  # gives the GIL back

    thread = threading.Thread(target=other)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(600)
    try:
        thread.start()
        before = turns
        call(CURVE, items)
        assert turns > before
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()
