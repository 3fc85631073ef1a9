"""Signatures: what bounds a sync once everything else is fast. Batches of 500 per thread.

"each" calls the curve library once per signature, "many" once per batch. "busy" is beside a
thread that computes in Python without pause, as an event loop or the writer may: each call into
the library gives the GIL up and then has to wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from moderntensor.blockchain.block import encode_body
from moderntensor.blockchain.crypto import (
    KeyPair,
    address_of,
    recover_addresses,
    recover_public_key,
    sha256,
    verify_signature,
    verify_signatures,
)
from moderntensor.blockchain.prepared import decode_body, prepare_bodies
from moderntensor.blockchain.transaction import Transaction

COUNT = 500
KEYS = [KeyPair.from_secret(bytes((n,)) * 32) for n in range(1, 21)]
MESSAGES = [sha256(n.to_bytes(4, "big")) for n in range(COUNT)]


@pytest.fixture(params=[1, 2], ids=lambda count: f"{count} threads")
def threads(request: pytest.FixtureRequest) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    with ThreadPoolExecutor(request.param) as pool:
        yield pool, request.param


@pytest.fixture(params=["alone", "busy"])
def beside(request: pytest.FixtureRequest) -> Iterator[str]:
    stop = False

    def compute() -> None:
        n = 0
        while not stop:
            n += 1

    thread = threading.Thread(target=compute)
    if request.param == "busy":
        thread.start()
    try:
        yield request.param
    finally:
        stop = True
        if thread.ident is not None:
            thread.join()


def measure(benchmark: Any, threads: Any, beside: str, work: Callable[[int], bool]) -> None:
    pool, count = threads
    rounds = 3 if beside == "busy" else 10
    done = benchmark.pedantic(
        lambda: list(pool.map(work, range(count))), rounds=rounds, warmup_rounds=1
    )
    assert all(done)
    if benchmark.stats:  # none where benchmarks only run as tests
        benchmark.extra_info["per second"] = round(count * COUNT / benchmark.stats.stats.min)


@pytest.mark.parametrize("way", ["each", "many"])
@pytest.mark.benchmark(group="BIP-340, 500 per thread")
def test_verify(way: str, threads: Any, beside: str, benchmark: Any) -> None:
    signed = [
        (key.public_key, message, key.sign(message))
        for key, message in zip(KEYS * (COUNT // len(KEYS)), MESSAGES, strict=True)
    ]
    packed = b"".join(b"".join(parts) for parts in signed)

    def each(_: int) -> bool:
        return all(verify_signature(*parts) for parts in signed)

    def many(_: int) -> bool:
        return verify_signatures(packed) is None

    measure(benchmark, threads, beside, {"each": each, "many": many}[way])


@pytest.mark.parametrize("way", ["each", "many"])
@pytest.mark.benchmark(group="recovery, 500 per thread")
def test_recover(way: str, threads: Any, beside: str, benchmark: Any) -> None:
    signed = [
        (message, *key.sign_recoverable(message))
        for key, message in zip(KEYS * (COUNT // len(KEYS)), MESSAGES, strict=True)
    ]
    packed = b"".join(message + bytes((v,)) + r + s for message, v, r, s in signed)

    def each(_: int) -> bool:
        return all(recover_public_key(*parts) for parts in signed)

    def many(_: int) -> bool:
        return all(recover_addresses(packed))

    measure(benchmark, threads, beside, {"each": each, "many": many}[way])


@pytest.mark.parametrize("way", ["each", "many"])
@pytest.mark.benchmark(group="prepared bodies, 500 transfers per thread")
def test_prepare(way: str, threads: Any, beside: str, benchmark: Any) -> None:
    to = bytes(20)
    bodies = [
        encode_body([Transaction.create(key, chain_id=1, nonce=n, to=to, value=1) for key in KEYS])
        for n in range(COUNT // 20)
    ]

    def each(_: int) -> bool:
        return all(
            tx.sender and tx.hash for body in bodies for tx in decode_body(body).transactions
        )

    def many(_: int) -> bool:
        return len(prepare_bodies(bodies)) == len(bodies)

    measure(benchmark, threads, beside, {"each": each, "many": many}[way])


@pytest.mark.benchmark(group="address of a key that is not cached")
def test_keccak(benchmark: Any) -> None:
    assert len(benchmark(address_of, KEYS[0].public_key64)) == 20
