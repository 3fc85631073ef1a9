"""Header check: a reply of 2,000 headers, from its bytes to "all rules hold"."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.headers import BLOCK_TIME, GAS_LIMIT, GENESIS_HASH, GENESIS_TIME, batch_bytes, chain

COUNT = 2000
VALIDATORS = tuple(bytes([n]) * 32 for n in range(21))


@pytest.fixture(scope="module")
def payload() -> bytes:
    return batch_bytes(chain(COUNT, validators=VALIDATORS))


@pytest.mark.benchmark(group="header check, 2,000 headers")
def test_check(engine: Any, benchmark: Any, payload: bytes) -> None:
    headers = engine.headers
    rules = headers.HeaderRules(GENESIS_TIME, BLOCK_TIME, GAS_LIMIT, VALIDATORS)
    anchor = headers.Anchor(GENESIS_HASH, 0, GENESIS_TIME)

    def check() -> None:
        headers.HeaderBatch(payload).check(anchor, rules, GENESIS_TIME + COUNT * BLOCK_TIME)

    benchmark(check)
    if benchmark.stats:  # none where benchmarks only run as tests
        benchmark.extra_info["headers_per_second"] = round(COUNT / benchmark.stats["min"])


@pytest.mark.benchmark(group="header hashes, 2,000 headers")
def test_hashes(engine: Any, benchmark: Any, payload: bytes) -> None:
    benchmark(lambda: engine.headers.HeaderBatch(payload).hashes())


@pytest.mark.benchmark(group="what signature checks need, 2,000 headers")
def test_signing_hashes(engine: Any, benchmark: Any, payload: bytes) -> None:
    batch = engine.headers.HeaderBatch(payload)

    def collect() -> list[tuple[bytes, bytes, bytes]]:
        return [
            (batch.validator(i), batch.signing_hash(i), batch.signature(i))
            for i in range(len(batch))
        ]

    benchmark(collect)


@pytest.mark.benchmark(group="sha256, 64 KiB")
def test_sha256(engine: Any, benchmark: Any) -> None:
    benchmark(engine.headers.sha256, bytes(65_536))
