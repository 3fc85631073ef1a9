"""Signatures: what bounds a sync once everything else is fast. Batches of 500."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from moderntensor.blockchain.crypto import (
    KeyPair,
    recover_public_key,
    sha256,
    verify_signature,
)

KEY = KeyPair.from_secret(b"\x01" * 32)
MESSAGES = [sha256(n.to_bytes(4, "big")) for n in range(500)]


@pytest.fixture(params=[1, 2], ids=lambda count: f"{count} threads")
def threads(request: pytest.FixtureRequest) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    with ThreadPoolExecutor(request.param) as pool:
        yield pool, request.param


@pytest.mark.benchmark(group="BIP-340, 500 per thread")
def test_verify(threads: Any, benchmark: Any) -> None:
    pool, count = threads
    signed = [(message, KEY.sign(message)) for message in MESSAGES]

    def verify(_: int) -> bool:
        return all(verify_signature(KEY.public_key, *pair) for pair in signed)

    assert all(benchmark(lambda: list(pool.map(verify, range(count)))))


@pytest.mark.benchmark(group="recovery, 500 per thread")
def test_recover(threads: Any, benchmark: Any) -> None:
    pool, count = threads
    signed = [(message, *KEY.sign_recoverable(message)) for message in MESSAGES]

    def recover(_: int) -> bool:
        return all(recover_public_key(*parts) == KEY.public_key64 for parts in signed)

    assert all(benchmark(lambda: list(pool.map(recover, range(count)))))
