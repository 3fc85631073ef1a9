"""Lists and the state tree on both twins: published roots, golden trees, proofs, altered ones."""

from __future__ import annotations

import json
import random
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import state_reference as reference

from moderntensor.errors import DecodeError

VECTORS = Path(__file__).parents[1] / "vectors"
ZERO = bytes(32)

# The reference leaves and roots of Certificate Transparency (RFC 6962 and 9162).
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# The inclusion proof of leaf 5 of 8 of the same source.
PROOF_5_OF_8 = [
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]


@pytest.fixture
def merkle(engine: Any) -> ModuleType:
    module: ModuleType = engine.merkle
    return module


def encode_body(transactions: list[bytes]) -> bytes:
    return len(transactions).to_bytes(4, "big") + b"".join(
        len(tx).to_bytes(4, "big") + tx for tx in transactions
    )


# --- lists -----------------------------------------------------------------------------------


def test_published_roots(merkle: ModuleType) -> None:
    assert merkle.list_root([]) == ZERO
    for n, root in enumerate(ROOTS, 1):
        assert merkle.list_root(LEAVES[:n]).hex() == root
        assert merkle.body_root(encode_body(LEAVES[:n])) == (bytes.fromhex(root), n)


def test_published_proof(merkle: ModuleType) -> None:
    assert [item.hex() for item in merkle.list_proof(LEAVES, 5)] == PROOF_5_OF_8


def test_a_last_leaf_twice_is_another_list(merkle: ModuleType) -> None:
    assert merkle.list_root(LEAVES[:3]) != merkle.list_root([*LEAVES[:3], LEAVES[2]])


def naive_root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return sha256(b"\1" + naive_root(leaves[:half]) + naive_root(leaves[half:])).digest()


def test_roots_and_proofs_of_every_small_size(merkle: ModuleType) -> None:
    rng = random.Random(3)
    for n in range(1, 40):
        leaves = [rng.randbytes(rng.randrange(200)) for _ in range(n)]
        root = merkle.list_root(leaves)
        assert root == naive_root(leaves) == merkle.list_root(tuple(leaves))
        for i, leaf in enumerate(leaves):
            proof = merkle.list_proof(leaves, i)
            assert merkle.verify_list_proof(root, leaf, i, n, proof)
            assert not merkle.verify_list_proof(root, leaf + b"\0", i, n, proof)
            assert not merkle.verify_list_proof(root, leaf, i, n, [*proof, ZERO])
            assert not merkle.verify_list_proof(root, leaf, n, n, proof)
            assert not merkle.verify_list_proof(root, leaf, -1, n, proof)
            if proof:
                assert not merkle.verify_list_proof(root, leaf, i, n, proof[:-1])
                assert not merkle.verify_list_proof(root, leaf, i, n, proof[1:])


def test_every_altered_bit_of_a_proof_is_seen(merkle: ModuleType) -> None:
    root = merkle.list_root(LEAVES)
    proof = merkle.list_proof(LEAVES, 5)
    for item in range(len(proof)):
        for at in range(256):
            bad = list(proof)
            bad[item] = flipped(bad[item], at)
            assert not merkle.verify_list_proof(root, LEAVES[5], 5, 8, bad)
    for index in (0, 1, 4, 6, 7):
        assert not merkle.verify_list_proof(root, LEAVES[5], index, 8, proof)
    for sizes in ([31, 32, 32], [32, 33, 32], [0, 32, 32]):
        bad = [bytes(size) for size in sizes]
        assert not merkle.verify_list_proof(root, LEAVES[5], 5, 8, bad)
    assert not merkle.verify_list_proof(root[:31], LEAVES[5], 5, 8, proof)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("count", [2**64 - 1, 2**64, 2**70])
def test_counts_at_the_edge_of_64_bits(merkle: ModuleType, count: int) -> None:
    """A list of 2**64 - 1 items has proofs of up to 64 hashes; larger lists do not exist."""
    node = sha256(b"\0leaf").digest()
    siblings = [bytes([n]) * 32 for n in range(64)]
    for sibling in siblings:
        node = sha256(b"\1" + node + sibling).digest()
    good = merkle.verify_list_proof(node, b"leaf", 0, count, siblings)
    assert good == (count < 2**64)
    assert not merkle.verify_list_proof(node, b"leaf", 0, count, siblings[:-1])
    assert not merkle.verify_list_proof(node, b"leaf", count, count, siblings)


def test_wrong_types_and_indexes(merkle: ModuleType) -> None:
    with pytest.raises(TypeError, match="leaf needs bytes, not str"):
        merkle.list_root(["text"])
    for index in (-1, 8, 2**80):
        with pytest.raises(IndexError, match="leaf index out of range"):
            merkle.list_proof(LEAVES, index)
    with pytest.raises(TypeError, match="index needs an int, not str"):
        merkle.list_proof(LEAVES, "1")
    with pytest.raises(TypeError, match="proof needs bytes, not int"):
        merkle.verify_list_proof(ZERO, b"", 0, 1, [5])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "body: needs 4 bytes at offset 0, 0 left"),
        (b"\0\0\0", "body: needs 4 bytes at offset 0, 3 left"),
        (b"\0\0\0\0\0", "body: 1 trailing bytes"),
        (b"\0\0\0\1", "body: 1 items need 4 bytes, 0 left"),
        (b"\xff" * 8, "body: 4294967295 items need 17179869180 bytes, 4 left"),
        (b"\0\0\0\1\0\0\0\1", "body[0]: needs 1 bytes at offset 8, 0 left"),
        (encode_body([b"a"])[:-1] + b"", "body[0]: needs 1 bytes at offset 8, 0 left"),
        (b"\0\0\0\2\0\0\0\1a\0\0\0", "body[1]: needs 4 bytes at offset 9, 3 left"),
        (b"\0\0\0\1\xff\xff\xff\xff", "body[0]: 4294967295 bytes, at most 131068"),
        (encode_body([bytes(131_069)]), "body[0]: 131069 bytes, at most 131068"),
        (encode_body([b"a", b""]) + b"xy", "body: 2 trailing bytes"),
    ],
)
def test_malformed_bodies(merkle: ModuleType, body: bytes, text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        merkle.body_root(body)
    assert str(caught.value) == text


def test_bodies(merkle: ModuleType) -> None:
    assert merkle.body_root(bytes(4)) == (ZERO, 0)
    rng = random.Random(4)
    transactions = [rng.randbytes(n) for n in (131_068, 0, 1, 200, 55, 63, 64, 119)]
    assert merkle.body_root(encode_body(transactions)) == (merkle.list_root(transactions), 8)
    with pytest.raises(TypeError, match="body needs bytes, not bytearray"):
        merkle.body_root(bytearray(4))


# --- state -----------------------------------------------------------------------------------

CASES = json.loads((VECTORS / "state_tree.json").read_text())["cases"]


def test_the_golden_file_is_what_the_definition_gives() -> None:
    assert json.loads((VECTORS / "state_tree.json").read_text()) == reference.vectors()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden_trees(merkle: ModuleType, case: dict[str, Any]) -> None:
    packed = b"".join(
        bytes.fromhex(a["key"]) + reference.account(a["nonce"], int(a["balance"]))
        for a in case["accounts"]
    )
    depth, prefix = case["depth"], bytes.fromhex(case["prefix"])
    expected = (bytes.fromhex(case["hash"]), case["count"])
    assert merkle.state_subtree(packed, depth, prefix) == expected
    root, count, nodes = merkle.state_nodes(packed, depth, prefix)
    assert (root, count) == expected
    assert len(nodes) == case["nodes_over_16"]


def accounts_of(seed: int, count: int) -> reference.Accounts:
    """Accounts whose keys crowd together: some differ only in late bits."""
    rng = random.Random(seed)
    keys = {rng.randbytes(32) for _ in range(count)}
    for key in sorted(keys)[: count // 4]:
        keys.add(flipped(key, rng.randrange(256)))
    return sorted((key, reference.account(rng.randrange(99), rng.randrange(2**90))) for key in keys)


@pytest.mark.parametrize("count", [2, 3, 10, 60])
def test_trees_and_their_nodes_follow_the_definition(merkle: ModuleType, count: int) -> None:
    accounts = accounts_of(count, count)
    packed = reference.pack(accounts)
    assert merkle.state_subtree(packed) == reference.subtree(accounts)
    for threshold in (1, 2, 16):
        root, total, nodes = merkle.state_nodes(packed, threshold=threshold)
        assert (root, total) == reference.subtree(accounts)
        assert nodes == reference.nodes(accounts, 0, threshold)
    for depth, prefix, node in nodes:
        halves = node[:32], int.from_bytes(node[32:40], "big"), node[40:72]
        under = [a for a in accounts if shares(a[0], prefix, depth)]
        digest = merkle.state_node(*halves, int.from_bytes(node[72:], "big"))
        assert merkle.state_subtree(reference.pack(under), depth, prefix) == (digest, len(under))


def shares(key: bytes, prefix: bytes, depth: int) -> bool:
    away = int.from_bytes(key, "big") ^ int.from_bytes(prefix, "big")
    return 256 - away.bit_length() >= depth


def test_leaf_and_node(merkle: ModuleType) -> None:
    key, value = b"k" * 32, reference.account(1, 2)
    leaf = merkle.state_leaf(key, value)
    assert leaf == sha256(b"\0" + key + value).digest()
    made = merkle.state_node(leaf, 1, ZERO[:31] + b"\1", 2**64 - 2)
    packed = leaf + (1).to_bytes(8, "big") + ZERO[:31] + b"\1" + (2**64 - 2).to_bytes(8, "big")
    assert made == sha256(b"\1" + packed).digest()


@pytest.mark.parametrize(
    ("left", "left_count", "right", "right_count"),
    [
        (b"a" * 32, 0, b"b" * 32, 2),
        (ZERO, 1, b"b" * 32, 1),
        (b"a" * 32, 2, ZERO, 1),
        (b"a" * 32, 2, b"b" * 32, 0),
        (b"a" * 32, 1, ZERO, 0),
        (ZERO, 0, ZERO, 0),
        (b"a" * 32, 2**64 - 1, b"b" * 32, 1),
        (b"a" * 32, 2**63, b"b" * 32, 2**63),
        (b"a" * 32, 2**64 - 1, b"b" * 32, 3),
    ],
)
def test_nodes_that_cannot_be(
    merkle: ModuleType, left: bytes, left_count: int, right: bytes, right_count: int
) -> None:
    with pytest.raises(DecodeError, match="do not go with the hashes"):
        merkle.state_node(left, left_count, right, right_count)


@pytest.mark.parametrize(
    ("packed", "depth", "prefix", "text"),
    [
        (bytes(119), 0, ZERO, "packed: 119 bytes, must be a multiple of 120"),
        (bytes(121), 0, ZERO, "packed: 121 bytes, must be a multiple of 120"),
        (bytes(240), 0, ZERO, "packed[1]: keys must ascend strictly"),
        (b"\1" + bytes(239), 0, ZERO, "packed[1]: keys must ascend strictly"),
        (b"\x80" + bytes(119), 1, ZERO, "packed[0]: key lies outside the prefix"),
        (bytes(120) + b"\x40" + bytes(119), 2, ZERO, "packed[1]: key lies outside the prefix"),
        (bytes(120), 256, ZERO[:31] + b"\1", "packed[0]: key lies outside the prefix"),
        (b"", 3, b"\x10" + ZERO[1:], "prefix: bits beyond depth 3 must be zero"),
        (b"", 255, ZERO[:31] + b"\1", "prefix: bits beyond depth 255 must be zero"),
        (b"", 257, ZERO, "depth: 257, must be 0 to 256"),
        (b"", -1, ZERO, "depth: -1, must be 0 to 256"),
        (b"", 2**70, ZERO, f"depth: {2**70}, must be 0 to 256"),
        (b"", 0, bytes(31), "prefix: 31 bytes, must be 32"),
    ],
)
def test_what_is_no_subtree(
    merkle: ModuleType, packed: bytes, depth: int, prefix: bytes, text: str
) -> None:
    for function in (merkle.state_subtree, merkle.state_nodes):
        with pytest.raises(DecodeError) as caught:
            function(packed, depth, prefix)
        assert str(caught.value) == text


def test_subtrees_at_the_last_depth(merkle: ModuleType) -> None:
    key, value = b"\xff" * 32, reference.account(3, 4)
    assert merkle.state_subtree(key + value, 256, key) == (merkle.state_leaf(key, value), 1)
    assert merkle.state_subtree(b"", 256, key) == (ZERO, 0)


# --- state proofs ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3, 60])
def test_inclusion_and_absence_are_proved(merkle: ModuleType, count: int) -> None:
    accounts = accounts_of(7 + count, count)
    packed = reference.pack(accounts)
    root = merkle.state_subtree(packed)[0]
    other = reference.account(500, 500)
    for key, value in accounts:
        proof = merkle.state_proof(packed, key)
        assert merkle.verify_state_proof(root, key, value, proof)
        assert not merkle.verify_state_proof(root, key, other, proof)
        assert not merkle.verify_state_proof(root, key, None, proof)
        assert not merkle.verify_state_proof(root, key, None, [*proof, key + value])
    rng = random.Random(8)
    absent = [rng.randbytes(32) for _ in range(20)]
    absent += [flipped(key, rng.randrange(256)) for key, _ in accounts]
    for key in {*absent} - {key for key, _ in accounts}:
        proof = merkle.state_proof(packed, key)
        assert merkle.verify_state_proof(root, key, None, proof)
        assert not merkle.verify_state_proof(root, key, other, proof)
        assert not merkle.verify_state_proof(root, key, None, proof[:-1]) or not proof


def test_every_altered_bit_of_a_state_proof_is_seen(merkle: ModuleType) -> None:
    accounts = accounts_of(11, 12)
    packed = reference.pack(accounts)
    root = merkle.state_subtree(packed)[0]
    held = dict(accounts)
    for key in (accounts[3][0], flipped(accounts[3][0], 255), flipped(accounts[8][0], 7)):
        proof = merkle.state_proof(packed, key)
        assert merkle.verify_state_proof(root, key, held.get(key), proof)
        for item in range(len(proof)):
            for at in range(len(proof[item]) * 8):
                bad = list(proof)
                bad[item] = flipped(bad[item], at)
                assert not merkle.verify_state_proof(root, key, held.get(key), bad)
        for bad in (proof[1:], proof[::-1], [*proof, bytes(80)], [*proof, bytes(120)], [b""]):
            if bad != proof:
                assert not merkle.verify_state_proof(root, key, held.get(key), bad)
        assert not merkle.verify_state_proof(flipped(root, 0), key, held.get(key), proof)


def test_a_root_cannot_lie_about_counts_or_places(merkle: ModuleType) -> None:
    """Nodes that hash rightly but break the verifier's duties."""
    key, value = ZERO, reference.account(1, 1)
    leaf = merkle.state_leaf(key, value)

    def rooted(left: bytes, left_count: int, right: bytes, right_count: int) -> tuple[bytes, bytes]:
        node = left + left_count.to_bytes(8, "big") + right + right_count.to_bytes(8, "big")
        return sha256(b"\1" + node).digest(), node

    root, node = rooted(leaf, 2, b"r" * 32, 1)  # one account counted twice
    assert not merkle.verify_state_proof(root, key, value, [node])
    root, node = rooted(leaf, 1, ZERO, 0)  # a node over one account
    assert not merkle.verify_state_proof(root, key, value, [node])
    root, node = rooted(leaf, 1, b"r" * 32, 2**64 - 1)  # a sum over 64 bits
    assert not merkle.verify_state_proof(root, key, value, [node])
    root, node = rooted(ZERO, 1, b"r" * 32, 1)  # an empty half with a count
    assert not merkle.verify_state_proof(root, key, None, [node])
    inner, low = rooted(leaf, 1, b"s" * 32, 1)
    root, top = rooted(inner, 3, b"r" * 32, 1)  # a count other than the half's own
    assert not merkle.verify_state_proof(root, key, value, [top, low])
    root, top = rooted(inner, 2, b"r" * 32, 1)
    assert merkle.verify_state_proof(root, key, value, [top, low])
    stray = b"\x80" + ZERO[1:] + value  # its key does not lie on the left
    root, node = rooted(sha256(b"\0" + stray).digest(), 1, b"r" * 32, 1)
    assert not merkle.verify_state_proof(root, key, None, [node, stray])


def test_a_path_to_the_last_bit(merkle: ModuleType) -> None:
    """Two keys that differ in their last bit need all 256 nodes."""
    accounts = [(ZERO, reference.account(1, 1)), (ZERO[:31] + b"\1", reference.account(2, 2))]
    packed = reference.pack(accounts)
    root = merkle.state_subtree(packed)[0]
    for key, value in accounts:
        proof = merkle.state_proof(packed, key)
        assert len(proof) == 256
        assert merkle.verify_state_proof(root, key, value, proof)
        assert not merkle.verify_state_proof(root, key, value, [proof[0], *proof])


def test_wrong_sizes_in_state_proofs(merkle: ModuleType) -> None:
    with pytest.raises(DecodeError, match="key: 31 bytes, must be 32"):
        merkle.state_proof(b"", bytes(31))
    with pytest.raises(DecodeError, match="root: 33 bytes, must be 32"):
        merkle.verify_state_proof(bytes(33), ZERO, None, [])
    with pytest.raises(DecodeError, match="account: 87 bytes, must be 88"):
        merkle.verify_state_proof(ZERO, ZERO, bytes(87), [])
    with pytest.raises(TypeError, match="proof needs bytes, not NoneType"):
        merkle.verify_state_proof(ZERO, ZERO, None, [None])
    with pytest.raises(DecodeError, match="threshold: 0, must be 1 to"):
        merkle.state_nodes(b"", threshold=0)
