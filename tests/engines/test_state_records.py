"""`state_records` on both twins: golden subtrees, the same errors, and no altered one passes."""

from __future__ import annotations

import json
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import state_reference as reference
from helpers.parity import outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor._ext import merkle as compiled
from moderntensor._pure import merkle as pure
from moderntensor.errors import DecodeError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "state_tree.json").read_text())
ZERO = bytes(32)
SIZE = 108
State = dict[bytes, bytes]


@pytest.fixture
def merkle(engine: Any) -> ModuleType:
    module: ModuleType = engine.merkle
    return module


def same(*args: Any, **kwargs: Any) -> Any:
    """The outcome on both twins, which must be one."""
    first = outcome(pure.state_records, *args, **kwargs)
    assert first == outcome(compiled.state_records, *args, **kwargs)
    return first


@cache
def pool() -> list[bytes]:
    """Addresses of which many have keys that share up to 43 leading bits."""
    numbers = [number for group in reference.SHARED.values() for number in group]
    return [number.to_bytes(20, "big") for number in [*range(1, 150), *numbers]]


def state_of(rng: random.Random, size: int) -> State:
    return {
        address: reference.account(rng.randrange(3), rng.randrange(1, 2**100))
        for address in rng.sample(pool(), size)
    }


def under(state: State, depth: int, prefix: bytes) -> State:
    low = int.from_bytes(prefix, "big")
    return {
        address: value
        for address, value in state.items()
        if int.from_bytes(sha256(address).digest(), "big") >> 256 - depth == low >> 256 - depth
    }


def cut(key: bytes, depth: int) -> bytes:
    return (int.from_bytes(key, "big") >> 256 - depth << 256 - depth).to_bytes(32, "big")


# --- what they are ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", VECTORS["records"], ids=lambda case: case["name"])
def test_golden_records(merkle: ModuleType, case: dict[str, Any]) -> None:
    records = b"".join(map(bytes.fromhex, case["records"]))
    place = case["depth"], bytes.fromhex(case["prefix"]), case["threshold"]
    digest, count, nodes, rows = merkle.state_records(records, *place)
    assert (digest.hex(), count) == (case["hash"], case["count"])
    assert len(nodes) == case["nodes"]
    assert sha256(b"".join(key + node for key, node in nodes)).hexdigest() == case["nodes_sha256"]
    assert b"".join(record for _, record in rows) == records
    assert [key for key, _ in rows] == [sha256(record[:20]).digest() for _, record in rows]
    assert merkle.state_records(records, *place, rows=False) == (digest, count, nodes, [])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0, 1, 2, 15, 40, 179]), st.integers(1, 40))
def test_any_subtree_is_what_its_packed_accounts_are(seed: int, size: int, threshold: int) -> None:
    rng = random.Random(seed)
    whole = state_of(rng, size)
    depth = rng.choice([0, 0, 1, 4, 20, 43, 256])
    prefix = cut(sha256(rng.choice([*whole, b"nobody"])).digest(), depth)
    state = under(whole, depth, prefix)
    records = reference.records(state)
    kind, found = same(records, depth, prefix, threshold)
    assert kind == "value"
    packed = reference.pack(reference.keyed(state))
    digest, count, nodes = pure.state_nodes(packed, depth, prefix, threshold)
    assert found[:2] == (digest, count)
    assert found[2] == sorted((bytes([level]) + start, node) for level, start, node in nodes)
    assert found[3] == [
        (key, records[at * SIZE : (at + 1) * SIZE])
        for at, (key, _) in enumerate(reference.keyed(state))
    ]


@pytest.mark.parametrize("count", [15, 16, 17, 127, 128, 129, 1000])
def test_sizes_at_the_seams_on_every_sha256(count: int) -> None:
    state = {n.to_bytes(20, "big"): reference.account(n, n + 1) for n in range(count)}
    expected = pure.state_records(reference.records(state))
    try:
        for name in compiled.sha256_implementations():
            compiled._force_sha256(name)
            assert compiled.state_records(reference.records(state)) == expected
    finally:
        compiled._force_sha256(None)


@pytest.mark.parametrize(
    "case", VECTORS["proofs"], ids=lambda case: f"{case['tree']}, {case['key']}"
)
def test_golden_proofs(merkle: ModuleType, case: dict[str, Any]) -> None:
    tree = next(tree for tree in VECTORS["cases"] if tree["name"] == case["tree"])
    packed = b"".join(
        bytes.fromhex(a["key"]) + reference.account(a["nonce"], int(a["balance"]))
        for a in tree["accounts"]
    )
    key = bytes.fromhex(case["key"])
    proof = merkle.state_proof(packed, key)
    assert len(proof) == case["items"]
    assert sha256(b"".join(proof)).hexdigest() == case["sha256"]
    if case["proof"] is not None:
        assert [item.hex() for item in proof] == case["proof"]
    account = None if case["account"] is None else bytes.fromhex(case["account"])
    root = bytes.fromhex(tree["hash"])
    assert merkle.verify_state_proof(root, key, account, proof)
    for claim in {None, account, reference.account(5, 5)} - {account}:
        assert not merkle.verify_state_proof(root, key, claim, proof)


# --- what they are not -----------------------------------------------------------------------

FEW = {n.to_bytes(20, "big"): reference.account(1, n) for n in range(1, 6)}
GOOD = reference.records(FEW)


def with_account(at: int, account: bytes) -> bytes:
    return GOOD[: at * SIZE + 20] + account + GOOD[(at + 1) * SIZE :]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((GOOD[:-1],), "records: 539 bytes, must be a multiple of 108"),
        ((GOOD, 257), "depth: 257, must be 0 to 256"),
        ((GOOD, 0, ZERO[1:]), "prefix: 31 bytes, must be 32"),
        ((GOOD, 1, b"\x40" + ZERO[1:]), "prefix: bits beyond depth 1 must be zero"),
        ((GOOD, 0, ZERO, 0), f"threshold: 0, must be 1 to {2**64 - 1}"),
        ((GOOD, 0, ZERO, 2**64), f"threshold: {2**64}, must be 1 to {2**64 - 1}"),
        ((GOOD, 256), "records[0]: key lies outside the prefix"),
        ((GOOD + GOOD[-SIZE:],), "records[5]: keys must ascend strictly"),
        ((GOOD[SIZE:] + GOOD[:SIZE],), "records[4]: keys must ascend strictly"),
        (
            (with_account(3, bytes(88)),),
            "records[3]: an account of nonce 0 and balance 0 does not exist",
        ),
        (
            (with_account(4, bytes(87) + b"\1"),),
            "records[4]: an account of nonce 0 and balance 0 does not exist",
        ),
        (
            (with_account(2, reference.account(1, 1)[:-1] + b"\1"),),
            "records[2]: storage_root and code_hash must be zero",
        ),
        (
            (with_account(0, reference.account(1, 0)[:24] + b"\x80" + bytes(63)),),
            "records[0]: storage_root and code_hash must be zero",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(merkle: ModuleType, arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        merkle.state_records(*arguments)
    assert str(caught.value) == text


def test_the_first_fault_is_named() -> None:
    many = reference.records(state_of(random.Random(5), 60))
    nothing = many[: 40 * SIZE + 20] + bytes(88) + many[41 * SIZE :]
    for at in (0, 10, 39, 40, 41, 58):
        swapped = bytearray(nothing)
        swapped[at * SIZE : (at + 2) * SIZE] = (
            nothing[(at + 1) * SIZE : (at + 2) * SIZE] + nothing[at * SIZE : (at + 1) * SIZE]
        )
        assert same(bytes(swapped))[0] == "DecodeError"


@pytest.mark.parametrize(
    "arguments",
    [(bytearray(108),), (None,), (GOOD, "0"), (GOOD, 0, None), (GOOD, 0, ZERO, 1.5), ()],
)
def test_wrong_types_fail_alike(arguments: tuple[Any, ...]) -> None:
    if arguments:
        assert same(*arguments)[0] == "TypeError"
    else:
        for twin in (pure, compiled):
            with pytest.raises(TypeError):
                twin.state_records()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=3 * SIZE + 1), st.integers(-1, 257), st.binary(max_size=33), st.data())
def test_arbitrary_input_ends_alike(
    tail: bytes, depth: int, prefix: bytes, data: st.DataObject
) -> None:
    same(data.draw(st.sampled_from([GOOD, GOOD[: 2 * SIZE], b""])) + tail, depth, prefix)
    same(tail.ljust(2 * SIZE, b"\0")[: 2 * SIZE], 0, ZERO, depth)


def test_no_altered_bit_passes() -> None:
    state = reference.shared_state(20)
    records = reference.records(state)
    prefix = cut(min(sha256(address).digest() for address in state), 20)
    proved = compiled.state_records(records, 20, prefix, rows=False)[:2]
    rng = random.Random(9)
    for at in range(len(records) * 8):
        bad = bytearray(records)
        bad[at // 8] ^= 1 << at % 8
        kind, found = outcome(compiled.state_records, bytes(bad), 20, prefix, rows=False)
        assert kind == "DecodeError" or found[:2] != proved
        if not rng.randrange(100):
            same(bytes(bad), 20, prefix)


ALTERATIONS = ["missing", "extra", "changed", "address", "swapped", "twice", "bit", "cut", "grown"]


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from(ALTERATIONS), st.integers(1, 179))
def test_no_alteration_of_a_served_subtree_passes(seed: int, kind: str, size: int) -> None:
    rng = random.Random(seed)
    whole = state_of(rng, size)
    depth = rng.choice([0, 0, 1, 3, 20])
    prefix = cut(sha256(rng.choice([*whole])).digest(), depth)
    state = under(whole, depth, prefix)
    served = reference.records(state)
    proved = compiled.state_records(served, depth, prefix)[:2]
    victim = rng.choice([*state])
    altered = dict(state)
    at = rng.randrange(len(state)) * SIZE
    bad = served
    match kind:
        case "missing":
            del altered[victim]
            bad = reference.records(altered)
        case "extra":
            altered[rng.randbytes(20)] = reference.account(0, 1)
            bad = reference.records(altered)
        case "changed":
            altered[victim] = reference.account(9, rng.randrange(2**128))
            bad = reference.records(altered)
        case "address":
            altered[rng.randbytes(20)] = altered.pop(victim)
            bad = reference.records(altered)
        case "swapped":
            other = rng.randrange(len(state)) * SIZE
            parts = [served[i : i + SIZE] for i in range(0, len(served), SIZE)]
            first, second = at // SIZE, other // SIZE
            parts[first], parts[second] = parts[second], parts[first]
            bad = b"".join(parts)
        case "twice":
            bad = served[: at + SIZE] + served[at:]
        case "bit":
            flipped = bytearray(served)
            flipped[rng.randrange(len(served))] ^= 1 << rng.randrange(8)
            bad = bytes(flipped)
        case "cut":
            bad = served[: rng.randrange(len(served))]
        case "grown":
            bad = served + rng.randbytes(rng.choice([1, SIZE]))
    if bad == served:  # swapped with itself
        return
    how, found = same(bad, depth, prefix)
    assert how == "DecodeError" or found[:2] != proved


def test_a_count_cannot_be_claimed() -> None:
    """The count is in the hash: no other count goes with a node that the root proves."""
    state = {n.to_bytes(20, "big"): reference.account(1, n) for n in range(1, 30)}
    root, _, nodes, _ = compiled.state_records(reference.records(state), threshold=1)
    node = dict(nodes)[bytes(33)]
    left, right = (node[at : at + 32] for at in (0, 40))
    counts = [int.from_bytes(node[at : at + 8], "big") for at in (32, 72)]
    assert compiled.state_node(left, counts[0], right, counts[1]) == root
    for change in (-1, 1):
        claimed = left, counts[0] + change, right, counts[1] - change
        assert compiled.state_node(*claimed) != root


# --- threads ---------------------------------------------------------------------------------


def test_other_threads_run_while_it_hashes() -> None:
    """With an endless switch interval another thread gets the GIL only from one that gives it."""
    records = reference.records(
        {n.to_bytes(20, "big"): reference.account(1, 1) for n in range(999)}
    )
    ran: list[bool] = []
    gate = threading.Lock()
    gate.acquire()

    def other() -> None:
        with gate:
            ran.append(True)

    thread = threading.Thread(target=other)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread.start()
        gate.release()
        for _ in range(2000):
            compiled.state_records(records)
            if ran:
                break
        seen = bool(ran)
    finally:
        sys.setswitchinterval(before)
        thread.join()
    assert seen


def test_threads_do_not_disturb_each_other() -> None:
    states = [state_of(random.Random(seed), 179) for seed in range(8)]
    expected = [pure.state_records(reference.records(state), threshold=1) for state in states]

    def verify(turn: int) -> bool:
        state = states[turn % 8]
        return compiled.state_records(reference.records(state), threshold=1) == expected[turn % 8]

    with ThreadPoolExecutor(4) as workers:
        assert all(workers.map(verify, range(64)))
