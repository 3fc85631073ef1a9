"""Trees whose hashes are computed many at a time: sizes at the seams, on every SHA-256 there is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.state_reference import account, pack

from moderntensor._ext import merkle as compiled
from moderntensor._pure import merkle as pure

# Around one chunk of leaves and several, with full and ragged ends.
COUNTS = (0, 1, 2, 3, 16, 17, 33, 255, 256, 257, 511, 512, 513, 768, 800, 1025)
# Leaves that just fill their SHA-256 blocks and just do not, up to more than are put together.
SIZES = (0, 1, 53, 54, 55, 117, 118, 119, 181, 182, 183, 245, 246, 247, 248, 1000)


@pytest.fixture(params=compiled.sha256_implementations())
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    compiled._force_sha256(request.param)
    yield request.param
    compiled._force_sha256(None)


def encode_body(items: list[bytes]) -> bytes:
    return len(items).to_bytes(4, "big") + b"".join(
        len(item).to_bytes(4, "big") + item for item in items
    )


@pytest.mark.parametrize("count", COUNTS)
def test_lists_of_any_length(count: int, implementation: str) -> None:
    rng = random.Random(count)
    leaves = [rng.randbytes(rng.choice(SIZES) if n % 5 == 0 else 60) for n in range(count)]
    root = pure.list_root(leaves)
    assert compiled.list_root(leaves) == root
    assert compiled.body_root(encode_body(leaves)) == (root, count)
    for index in {0, count // 2, count - 1} & set(range(count)):
        proof = compiled.list_proof(leaves, index)
        assert proof == pure.list_proof(leaves, index)
        assert compiled.verify_list_proof(root, leaves[index], index, count, proof)


def test_leaves_of_any_length(implementation: str) -> None:
    for before, size in ((b"", 0), (b"x" * 60, 60), (b"x" * 1000, 1000)):
        leaves = [before, *(bytes([size % 251]) * size for size in SIZES), b"y" * size]
        assert compiled.list_root(leaves) == pure.list_root(leaves)
        assert compiled.body_root(encode_body(leaves)) == pure.body_root(encode_body(leaves))


def crowded(rng: random.Random, count: int) -> list[tuple[bytes, bytes]]:
    """Accounts of which half share long prefixes, so that many nodes have an empty half."""
    found: dict[bytes, bytes] = {}
    base = rng.randbytes(32)
    while len(found) < count:
        key, keep = rng.randbytes(32), rng.choice((0, 1, 2, 4, 20, 31))
        found[base[:keep] + key[keep:]] = account(len(found), 7)
    return sorted(found.items())


@pytest.mark.parametrize("count", [1, 2, 15, 17, 127, 128, 129, 300, 700])
def test_states_of_any_size(count: int, implementation: str) -> None:
    packed = pack(crowded(random.Random(count), count))
    for threshold in (1, 16, 200):
        found: Any = compiled.state_nodes(packed, threshold=threshold)
        assert found == pure.state_nodes(packed, threshold=threshold)
        assert found[:2] == compiled.state_subtree(packed)
    key = packed[120 * (count // 2) :][:32]
    assert compiled.state_proof(packed, key) == pure.state_proof(packed, key)
