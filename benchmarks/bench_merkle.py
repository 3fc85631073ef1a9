"""Trees: the root of a block's body, and a state subtree as fast sync rebuilds it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from helpers.state_reference import account, pack


@pytest.mark.benchmark(group="body_root, 100 transactions of 180 bytes")
def test_body_root(engine: Any, benchmark: Any) -> None:
    rng = random.Random(1)
    body = (100).to_bytes(4, "big") + b"".join(
        (180).to_bytes(4, "big") + rng.randbytes(180) for _ in range(100)
    )
    assert benchmark(engine.merkle.body_root, body)[1] == 100


@pytest.mark.benchmark(group="state_subtree, 10,000 accounts")
def test_state_subtree(engine: Any, benchmark: Any) -> None:
    rng = random.Random(2)
    packed = pack([(rng.randbytes(32), account(n, n)) for n in range(10_000)])
    assert benchmark(engine.merkle.state_subtree, packed)[1] == 10_000


@pytest.mark.benchmark(group="state_proof and its verification, 1,000 accounts")
def test_state_proof(engine: Any, benchmark: Any) -> None:
    rng = random.Random(3)
    accounts = [(rng.randbytes(32), account(n, n)) for n in range(1000)]
    packed, (key, value) = pack(accounts), accounts[0]
    root = engine.merkle.state_subtree(packed)[0]

    def prove() -> bool:
        proof = engine.merkle.state_proof(packed, key)
        verified: bool = engine.merkle.verify_state_proof(root, key, value, proof)
        return verified

    assert benchmark(prove)


@pytest.mark.benchmark(group="StateTree.apply, 20 of 10,000 accounts, in memory")
def test_state_update(engine: Any, benchmark: Any) -> None:
    rng = random.Random(4)
    addresses = [rng.randbytes(20) for _ in range(10_000)]
    tree = engine.merkle.StateTree(0, None, None)
    tree.apply({address: account(1, 1) for address in addresses})
    numbers = iter(range(2, 1 << 30))

    def block() -> bytes:
        changed = account(next(numbers), 1)
        root: bytes = tree.apply(dict.fromkeys(rng.sample(addresses, 20), changed))
        return root

    assert len(benchmark(block)) == 32
    assert tree.count == 10_000
