"""The twins of merkle agree, in results and in errors, on valid, mutated and arbitrary input."""

from __future__ import annotations

from typing import Any

from helpers.parity import outcome
from helpers.state_reference import account, pack
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor._ext import merkle as compiled
from moderntensor._pure import merkle as pure

ZERO = bytes(32)
DIGESTS = st.sampled_from([ZERO, b"\1" * 32]) | st.binary(min_size=32, max_size=32)
COUNTS = st.integers(-1, 3) | st.sampled_from([2**63, 2**64 - 1, 2**64]) | st.integers(0, 2**65)
# Keys that crowd together, so that deep paths and near misses are common.
KEYS = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 255).map(lambda n: bytes(31) + bytes([n])),
    st.integers(0, 255).map(lambda n: (1 << n).to_bytes(32, "big")),
)
ACCOUNTS = st.dictionaries(
    KEYS, st.builds(account, st.integers(0, 3), st.integers(0, 9)), max_size=12
).map(lambda held: sorted(held.items()))


def same(name: str, *args: Any, **kwargs: Any) -> Any:
    """The outcome of a function of both twins, which must be one."""
    first = outcome(getattr(pure, name), *args, **kwargs)
    assert first == outcome(getattr(compiled, name), *args, **kwargs)
    return first


@st.composite
def mutated(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "cut", "insert"])):
            case "change" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at:]
            case _:
                data[at:at] = draw(st.binary(max_size=4))
    return bytes(data)


def encode_body(transactions: list[bytes]) -> bytes:
    return len(transactions).to_bytes(4, "big") + b"".join(
        len(tx).to_bytes(4, "big") + tx for tx in transactions
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=150), max_size=20), st.integers(-2, 21), st.data())
def test_lists(leaves: list[bytes], index: int, data: st.DataObject) -> None:
    _, root = same("list_root", leaves)
    kind, proof = same("list_proof", leaves, index)
    if kind == "value":
        assert same("verify_list_proof", root, leaves[index], index, len(leaves), proof)[1] is True
        proof = [data.draw(mutated(st.just(item))) for item in proof]
    else:
        proof = data.draw(st.lists(DIGESTS, max_size=5))
    leaf = data.draw(st.sampled_from([*leaves, b"other"]))
    count = data.draw(st.just(len(leaves)) | COUNTS)
    same("verify_list_proof", root, leaf, data.draw(st.just(index) | COUNTS), count, proof)


@settings(max_examples=200, deadline=None)
@given(
    mutated(st.lists(st.binary(max_size=70), max_size=9).map(encode_body))
    | mutated(st.lists(st.binary(min_size=65, max_size=150), max_size=4).map(encode_body))
    | st.binary(max_size=60)
)
def test_bodies(body: bytes) -> None:
    same("body_root", body)
    same("body_digests", body, b"id", b"signing")


def test_digests_of_a_body_need_bytes() -> None:
    for bad in (("", b"", b""), (b"", "", b""), (b"", b"", "")):
        assert same("body_digests", *bad)[0] == "TypeError"


@settings(max_examples=150, deadline=None)
@given(DIGESTS, COUNTS, DIGESTS, COUNTS, st.binary(max_size=90))
def test_nodes(left: bytes, left_count: int, right: bytes, right_count: int, odd: bytes) -> None:
    same("state_node", left, left_count, right, right_count)
    same("state_node", left, left_count, odd, right_count)
    same("state_leaf", left, odd)
    same("state_leaf", left, odd.ljust(88, b"\0")[:88])
    same("state_leaf", odd, account(1, 1))


@settings(max_examples=200, deadline=None)
@given(ACCOUNTS, st.data())
def test_trees(accounts: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, 4) | COUNTS)
    same("state_nodes", pack(accounts), threshold=threshold)
    if accounts:  # the subtree around one of them
        depth = data.draw(st.integers(0, 256))
        key = int.from_bytes(data.draw(st.sampled_from(accounts))[0], "big")
        low = key >> (256 - depth) << (256 - depth)
        high = low + (1 << (256 - depth))
        under = [a for a in accounts if low <= int.from_bytes(a[0], "big") < high]
        prefix = low.to_bytes(32, "big")
        kind, found = same("state_subtree", pack(under), depth, prefix)
        assert kind == "value"
        assert found[1] == len(under)
    packed = data.draw(mutated(st.just(pack(accounts))))
    same("state_subtree", packed)
    same("state_nodes", packed, data.draw(st.integers(-1, 257)), data.draw(KEYS), threshold)


@settings(max_examples=80, deadline=None)
@given(ACCOUNTS, KEYS, st.data())
def test_state_proofs(accounts: list[tuple[bytes, bytes]], key: bytes, data: st.DataObject) -> None:
    packed, held = pack(accounts), dict(accounts)
    root = pure.state_subtree(packed)[0]
    key = data.draw(st.sampled_from([key, *held]))
    _, proof = same("state_proof", packed, key)
    assert same("verify_state_proof", root, key, held.get(key), proof) == ("value", True)
    claim = data.draw(st.sampled_from([None, account(7, 7), *held.values()]))
    found = same("verify_state_proof", root, key, claim, proof)
    assert found == ("value", claim == held.get(key))
    at = data.draw(st.integers(0, len(proof)))
    bad = [*proof[:at], data.draw(mutated(st.sampled_from([*proof, b"", bytes(80)])))]
    same("verify_state_proof", root, key, claim, [*bad, *proof[at + 1 :]])
    same("verify_state_proof", root, data.draw(KEYS), held.get(key), proof)
    same("state_proof", data.draw(mutated(st.just(packed))), key)
