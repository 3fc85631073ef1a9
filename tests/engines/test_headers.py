"""Header batches on both twins: their bytes, fields, slices, and what is malformed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from types import ModuleType
from typing import Any

import pytest
from helpers.headers import (
    RawHeader,
    batch_bytes,
    chain,
)

from moderntensor.errors import DecodeError, EncodeError

VALIDATORS = tuple(bytes([n]) * 32 for n in range(1, 8))


@pytest.fixture
def headers(engine: Any) -> ModuleType:
    module: ModuleType = engine.headers
    return module


def batch_of(headers: ModuleType, items: list[RawHeader]) -> Any:
    return headers.HeaderBatch(batch_bytes(items))


def test_every_field_of_every_header(headers: ModuleType) -> None:
    items = [
        replace(
            header,
            state_root=bytes([n, 1]) * 16,
            txs_root=bytes([n, 2]) * 16,
            receipts_root=bytes([n, 3]) * 16,
            gas_used=n,
        )
        for n, header in enumerate(chain(70, validators=VALIDATORS))
    ]
    for batch in (
        batch_of(headers, items),
        headers.HeaderBatch.join(item.encode() for item in items),
        headers.HeaderBatch.from_concatenated(batch_bytes(items)[2:]),
    ):
        assert len(batch) == 70
        assert batch.encode() == batch_bytes(items)
        assert batch.hashes() == [item.hash for item in items]
        for i, item in enumerate(items):
            assert batch.raw(i) == item.encode()
            assert batch.hash(i) == item.hash == headers.header_hash(item.encode())
            signed = b"moderntensor/header/1" + item.unsigned
            assert batch.signing_hash(i) == sha256(signed).digest()
            for field in (
                "signature", "validator", "height", "timestamp", "previous_hash",
                "state_root", "txs_root", "receipts_root", "gas_used", "gas_limit",
            ):  # fmt: skip
                assert getattr(batch, field)(i) == getattr(item, field), field


def test_what_signatures_are_checked_by(headers: ModuleType) -> None:
    items = [
        replace(header, extra_data=b"x" * (n % 33), signature=bytes([n]) * 64)
        for n, header in enumerate(chain(40, validators=VALIDATORS))
    ]
    batch = batch_of(headers, items)
    packed = [
        item.validator + sha256(b"moderntensor/header/1" + item.unsigned).digest() + item.signature
        for item in items
    ]
    assert batch.signature_items() == b"".join(packed)
    assert batch[3:30].signature_items() == b"".join(packed[3:30])
    for start, stop in ((0, 7), (5, 40), (5, None), (38, 99), (-3, None), (7, 7), (9, 2), (50, 60)):
        assert batch.signature_items(start, stop) == b"".join(packed[start:stop])
        part = batch[10:]
        assert part.signature_items(start, stop) == b"".join(packed[10:][start:stop])
    assert batch_of(headers, []).signature_items() == b""
    with pytest.raises(TypeError):
        batch.signature_items("0")


def test_slices_share_what_is_known(headers: ModuleType) -> None:
    items = chain(20)
    batch = batch_of(headers, items)
    part = batch[5:15]
    assert len(part) == 10
    assert part.hash(0) == items[5].hash
    assert part[2:4].raw(1) == items[8].encode()
    assert part.encode() == batch_bytes(items[5:15])
    assert part[-3:].hashes() == [item.hash for item in items[12:15]]
    assert len(batch[15:5]) == len(batch[99:]) == len(batch[:0]) == 0
    assert batch[15:5].encode() == b"\0\0"
    del batch
    assert part.hashes() == [item.hash for item in items[5:15]]
    for wrong in (slice(None, None, 2), slice(None, None, -1)):
        with pytest.raises(ValueError, match="step 1 only"):
            part[wrong]
    with pytest.raises(TypeError, match="takes slices"):
        part[0]


def test_indexes_outside(headers: ModuleType) -> None:
    batch = batch_of(headers, chain(3))
    accessors: list[Callable[[Any], Any]] = [
        getattr(batch, name)
        for name in (
            "raw", "hash", "signing_hash", "signature", "validator", "height", "timestamp",
            "previous_hash", "state_root", "txs_root", "receipts_root", "gas_used", "gas_limit",
        )
    ]  # fmt: skip
    for accessor in accessors:
        assert accessor(-1) == accessor(2)
        assert accessor(-3) == accessor(0)
        for i in (3, -4, 2**31, -(2**31), 2**63, -(2**63) - 1, 2**200):
            with pytest.raises(IndexError, match="header index out of range"):
                accessor(i)
        with pytest.raises(TypeError):
            accessor("1")
    part = batch[1:2]
    for i in (1, -2):
        with pytest.raises(IndexError, match="header index out of range"):
            part.raw(i)


def test_empty_batches(headers: ModuleType) -> None:
    for batch in (
        headers.HeaderBatch(b"\0\0"),
        headers.HeaderBatch.join([]),
        headers.HeaderBatch.from_concatenated(b""),
    ):
        assert len(batch) == 0
        assert batch.encode() == b"\0\0"
        assert batch.hashes() == []
        with pytest.raises(IndexError):
            batch.raw(0)
    assert repr(headers.HeaderBatch(b"\0\0")) == "HeaderBatch(0 headers)"


ONE = RawHeader().encode()
LONG = RawHeader(extra_data=bytes(32)).encode()
TOO_LONG = RawHeader(extra_data=bytes(33)).encode()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "HeaderBatch: needs 2 bytes at offset 0, 0 left"),
        (b"\0", "HeaderBatch: needs 2 bytes at offset 0, 1 left"),
        (b"\0\0\0", "HeaderBatch: 1 trailing bytes"),
        (b"\0\1" + ONE[:-1], "HeaderBatch: 1 items need 261 bytes, 260 left"),
        (b"\xff\xff" + ONE, "HeaderBatch: 65535 items need 17104635 bytes, 261 left"),
        (b"\0\1" + ONE + b"x", "HeaderBatch: 1 trailing bytes"),
        (b"\0\1" + LONG[:-1], "HeaderBatch[0]: needs 293 bytes at offset 2, 292 left"),
        (b"\0\1" + TOO_LONG, "HeaderBatch[0].extra_data: 33 bytes, at most 32"),
        (b"\0\2" + LONG + LONG[:280], "HeaderBatch[1]: needs 293 bytes at offset 295, 280 left"),
        (b"\0\2" + LONG + ONE[:250], "HeaderBatch[1]: needs 261 bytes at offset 295, 250 left"),
        (b"\0\2" + LONG + ONE[:230], "HeaderBatch[1]: needs 261 bytes at offset 295, 230 left"),
        (b"\0\1" + ONE + ONE, "HeaderBatch: 261 trailing bytes"),
    ],
)
def test_malformed_lists(headers: ModuleType, data: bytes, text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        headers.HeaderBatch(data)
    assert str(caught.value) == text


def test_every_truncation_and_every_length_byte(headers: ModuleType) -> None:
    data = batch_bytes(chain(3))
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            headers.HeaderBatch(data[:size])
    for extra in range(256):
        raw = ONE[:196] + bytes([extra]) + ONE[197:]
        if extra:
            with pytest.raises(DecodeError):
                headers.HeaderBatch.join([raw])
        else:
            assert headers.HeaderBatch.join([raw]).raw(0) == ONE


def test_malformed_parts(headers: ModuleType) -> None:
    batch = headers.HeaderBatch
    with pytest.raises(
        DecodeError, match=r"^HeaderBatch\[1\]: needs 261 bytes at offset 0, 0 left"
    ):
        batch.join([ONE, b""])
    with pytest.raises(DecodeError, match=r"^HeaderBatch\[1\]: 261 trailing bytes$"):
        batch.join([ONE, ONE + ONE])
    with pytest.raises(
        DecodeError, match=r"^HeaderBatch\[1\]: needs 261 bytes at offset 261, 1 left"
    ):
        batch.from_concatenated(ONE + b"x")
    for make, value in ((batch, bytearray(2)), (batch.from_concatenated, "x"), (batch.join, [5])):
        with pytest.raises(TypeError, match="HeaderBatch needs bytes, not"):
            make(value)


def test_more_headers_than_a_list_can_say(headers: ModuleType) -> None:
    batch = headers.HeaderBatch.from_concatenated(ONE * 65_536)
    assert len(batch) == 65_536
    with pytest.raises(EncodeError, match="HeaderBatch: 65536 items, at most 65535"):
        batch.encode()
    assert batch[1:].encode() == b"\xff\xff" + ONE * 65_535


class Whole:
    """A layout that gives the height, and how much of the bytes it says it has read."""

    def __init__(self, size: int) -> None:
        self.size = size

    def unpack_from(self, data: bytes, offset: int = 0) -> tuple[int, int]:
        return int.from_bytes(data[offset + 4 : offset + 12], "big"), offset + self.size


def test_objects_on_demand(headers: ModuleType) -> None:
    batch = headers.HeaderBatch.join([ONE, replace(RawHeader(), height=7).encode()])
    assert batch.header(1, Whole(261)) == 7
    assert batch[1:].header(-1, Whole(261)) == 7
    with pytest.raises(DecodeError, match="not that of a header"):
        batch.header(0, Whole(260))
    with pytest.raises(IndexError):
        batch.header(2, Whole(261))
