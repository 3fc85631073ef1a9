"""Batches of headers as HEADERS carries them, and the rules that they are checked by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from helpers.headers import (
    BLOCK_TIME,
    GAS_LIMIT,
    GENESIS_HASH,
    GENESIS_TIME,
    RawHeader,
    batch_bytes,
    chain,
    relink,
)

from moderntensor.blockchain.block import BlockHeader

from ..reader import Reader
from ..twins import Engines, same
from . import Target
from .messages import layouts_of

VALIDATORS = tuple(bytes([n]) * 32 for n in range(3))
_LAYOUTS = layouts_of(BlockHeader)
_FIELDS = (
    "raw", "hash", "signing_hash", "signature", "validator", "height", "timestamp",
    "previous_hash", "state_root", "txs_root", "receipts_root", "gas_used", "gas_limit",
)  # fmt: skip


def _everything(engines: Engines, batch: Any) -> list[Any]:
    """All that a batch says of its headers, and of slices of it."""
    count = len(batch)
    layout = _LAYOUTS[engines.name]
    rows = [[getattr(batch, name)(i) for name in _FIELDS] for i in range(count)]
    objects = [batch.header(i, layout) for i in range(count)]
    assert [layout.pack(header) for header in objects] == [row[0] for row in rows]
    part = batch[1 : count - 1]
    return [count, batch.encode(), batch.hashes(), rows, batch.signature_items(), part.encode()]


def header_batch(data: bytes) -> None:
    def read(engines: Engines) -> Any:
        batch = engines.headers.HeaderBatch(data)
        found = _everything(engines, batch)
        assert batch.encode() == data, "another encoding of the same"
        return found

    same(read)
    for part in (data, data[2:]):
        same(lambda e, part=part: _everything(e, e.headers.HeaderBatch.from_concatenated(part)))
    at = 261 + (data[0] if data else 0) % 40
    parts = [data[2:at], data[at:]]
    same(lambda e: _everything(e, e.headers.HeaderBatch.join(parts)))


@lru_cache(64)
def _good(count: int, ordered: bool) -> tuple[RawHeader, ...]:
    return tuple(chain(count, validators=VALIDATORS if ordered else ()))


def _number(reader: Reader, near: int) -> int:
    """A number around `near`, at an end of the u64, or any."""
    match reader.below(4):
        case 0 | 1:
            return max(near + reader.below(256) - 128, 0)
        case 2:
            return reader.pick((0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1, 2**64))
    return reader.number(8)


def _changed(reader: Reader, header: RawHeader) -> RawHeader:  # noqa: PLR0911 - one for each
    match reader.below(8):
        case 0:
            return replace(header, version=reader.number(4))
        case 1:
            return replace(header, height=min(_number(reader, header.height), 2**64 - 1))
        case 2:
            return replace(header, timestamp=min(_number(reader, header.timestamp), 2**64 - 1))
        case 3:
            return replace(header, previous_hash=reader.pick((GENESIS_HASH, bytes(32))))
        case 4:
            return replace(header, validator=reader.pick(VALIDATORS))
        case 5:
            return replace(header, gas_used=min(_number(reader, GAS_LIMIT), 2**64 - 1))
        case 6:
            return replace(header, gas_limit=min(_number(reader, GAS_LIMIT), 2**64 - 1))
    return replace(header, extra_data=reader.chunk()[:32])


def header_rules(data: bytes) -> None:
    """A good chain with a few fields changed, under rules that mostly are the chain's."""
    reader = Reader(data)
    count, ordered = reader.below(14), reader.flag()
    items = list(_good(count, ordered))
    for _ in range(reader.below(4) if items else 0):
        at = reader.below(len(items))
        items[at] = _changed(reader, items[at])
    if reader.flag():
        items = relink(items)
    made: dict[str, Any] = {
        "genesis_timestamp": GENESIS_TIME,
        "block_time": BLOCK_TIME,
        "gas_limit": GAS_LIMIT,
        "validators": VALIDATORS if ordered else (),
        "checkpoints": {},
        "max_drift": 15,
    }
    anchor: tuple[Any, ...] = (GENESIS_HASH, 0, GENESIS_TIME)
    now: Any = GENESIS_TIME + 400
    match reader.below(6):
        case 1:
            field = reader.pick(("genesis_timestamp", "block_time", "gas_limit", "max_drift"))
            made[field] = _number(reader, made[field])
        case 2:
            made["checkpoints"] = {
                _number(reader, 4): reader.fixed(32) for _ in range(reader.below(4))
            }
        case 3 if items:
            at = items[reader.below(len(items))]
            made["checkpoints"] = {at.height: at.hash}
        case 4:
            anchor = (reader.pick((GENESIS_HASH, bytes(32), b"short")), _number(reader, 0), 0)
            anchor = (*anchor[:2], _number(reader, GENESIS_TIME))
        case 5:
            now = _number(reader, GENESIS_TIME + 100)
    start = reader.below(len(items) + 1)
    encoded = batch_bytes(items)

    def check(engines: Engines) -> Any:
        rules = engines.headers.HeaderRules(**made)
        batch = engines.headers.HeaderBatch(encoded)
        good, rule = batch.check_prefix(engines.headers.Anchor(*anchor), rules, now)
        assert 0 <= good <= len(batch), "more good headers than there are"
        assert (rule is None) == (good == len(batch)), "good, and yet breaks a rule"
        part = batch[start:].check_prefix(engines.headers.Anchor(*anchor), rules, now)
        batch.check(engines.headers.Anchor(*anchor), rules, now)
        return good, rule, part

    same(check)


def _batch_seeds() -> Iterator[bytes]:
    yield batch_bytes([])
    for count in (1, 2, 5, 11):
        yield batch_bytes(chain(count, validators=VALIDATORS))


def _rule_seeds() -> Iterator[bytes]:
    for ordered in (0, 1):
        yield bytes([12, ordered, 0, 0, 0, 0])
        for kind in range(6):
            yield bytes([9, ordered, 0, 1, kind, 0, 1, 130, 2, 3, 4, 5])
        for field in range(8):
            for how in (0, 2, 3):
                yield bytes([8, ordered, 1, 3, field, how, 129, 0, 0, 0, 1, 1, 0, 0])


TARGETS = {
    "header-batch": Target(header_batch, _batch_seeds),
    "header-rules": Target(header_rules, _rule_seeds, longest=256),
}
