"""Records to bytes and back: a HELLO, a GET_HEADERS with twelve hashes, a transaction."""

from __future__ import annotations

from typing import Any

import pytest

from moderntensor.blockchain.transaction import Transaction
from moderntensor.network.messages import GetHeadersMessage, HelloMessage
from moderntensor.wire import Record

RECORDS: dict[str, Record] = {
    "HELLO": HelloMessage(
        genesis_hash=b"\x01" * 32,
        best_height=123_456,
        best_hash=b"\x02" * 32,
        listen_port=30303,
        node_id=b"\x03" * 32,
        capabilities=("sync/1", "relay/1", "state/1"),
        user_agent="moderntensor/0.1.0",
        observed_ip=bytes(10) + b"\xff\xff\x7f\x00\x00\x01",
        observed_port=40_000,
        nonce=0x0123456789ABCDEF,
    ),
    "GET_HEADERS, 12 hashes": GetHeadersMessage(
        request_id=77, locator=tuple(bytes([n]) * 32 for n in range(12))
    ),
    "transaction": Transaction(
        chain_id=1,
        nonce=42,
        to=b"\x04" * 20,
        value=10**18,
        gas_limit=21_000,
        v=1,
        r=b"\x05" * 32,
        s=b"\x06" * 32,
    ),
}


def cases(verb: str) -> Any:
    return pytest.mark.parametrize(
        "value",
        [
            pytest.param(value, marks=pytest.mark.benchmark(group=f"{verb} {name}"), id=name)
            for name, value in RECORDS.items()
        ],
    )


@cases("encode")
def test_encode(engine: Any, benchmark: Any, value: Record) -> None:
    pack = engine.layout.Layout(type(value), value.__fields__).pack
    assert benchmark(pack, value) == value.encode()


@cases("decode")
def test_decode(engine: Any, benchmark: Any, value: Record) -> None:
    unpack = engine.layout.Layout(type(value), value.__fields__).unpack
    assert benchmark(unpack, value.encode()) == value
