"""The twins of headers agree, in results and in errors, on valid, mutated and arbitrary input."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
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
from helpers.parity import outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor._ext import headers as compiled
from moderntensor._pure import headers as pure

VALIDATORS = tuple(bytes([n]) * 32 for n in range(3))
U64 = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]),
)
# Around what a chain of a few headers uses, and anywhere.
TIMES = st.one_of(st.integers(GENESIS_TIME - 30, GENESIS_TIME + 300), U64)
HASHES = st.sampled_from([GENESIS_HASH, bytes(32), b"\xff" * 32]) | st.binary(
    min_size=32, max_size=32
)
CHANGES: dict[str, st.SearchStrategy[Any]] = {
    "version": st.integers(0, 3) | st.just(2**32 - 1),
    "height": st.integers(0, 12) | U64,
    "timestamp": TIMES,
    "previous_hash": HASHES,
    "validator": st.sampled_from(VALIDATORS),
    "gas_used": st.integers(GAS_LIMIT - 1, GAS_LIMIT + 1) | U64,
    "gas_limit": st.integers(GAS_LIMIT - 1, GAS_LIMIT + 1) | U64,
    "extra_data": st.binary(max_size=40),
}


@st.composite
def header_lists(draw: st.DrawFn, most: int = 20) -> list[RawHeader]:
    """A valid chain with, mostly, a few fields changed, and mostly linked again after that."""
    items = chain(draw(st.integers(0, most)), validators=VALIDATORS)
    for _ in range(draw(st.integers(0, 2)) if items else 0):
        at = draw(st.integers(0, len(items) - 1))
        field = draw(st.sampled_from(sorted(CHANGES)))
        items[at] = replace(items[at], **{field: draw(CHANGES[field])})
    return relink(items) if draw(st.booleans()) else items


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    data = bytearray(batch_bytes(draw(header_lists(3))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "cut", "remove", "insert"])):
            case "change" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at:]
            case "remove":
                del data[at : at + draw(st.integers(1, 4))]
            case _:
                data[at:at] = draw(st.binary(max_size=4))
    return bytes(data)


def everything(batch: Any) -> list[Any]:
    """All that a batch says of its headers."""
    names = (
        "raw", "hash", "signing_hash", "signature", "validator", "height", "timestamp",
        "previous_hash", "state_root", "txs_root", "receipts_root", "gas_used", "gas_limit",
    )  # fmt: skip
    rows = [[getattr(batch, name)(i) for name in names] for i in range(len(batch))]
    return [len(batch), batch.encode(), batch.hashes(), rows, batch.signature_items()]


def read(module: ModuleType, data: bytes) -> list[Any]:
    return everything(module.HeaderBatch(data))


def read_joined(module: ModuleType, parts: list[bytes]) -> list[Any]:
    return everything(module.HeaderBatch.join(parts))


def read_concatenated(module: ModuleType, data: bytes) -> list[Any]:
    return everything(module.HeaderBatch.from_concatenated(data))


@settings(max_examples=200, deadline=None)
@given(streams() | st.binary(max_size=700))
def test_reading(data: bytes) -> None:
    for how in (read, read_concatenated):
        assert outcome(how, pure, data) == outcome(how, compiled, data)
    tail = data[2:]
    assert outcome(read_concatenated, pure, tail) == outcome(read_concatenated, compiled, tail)
    parts = [data[2:263], data[263:]]
    assert outcome(read_joined, pure, parts) == outcome(read_joined, compiled, parts)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9), st.lists(st.integers(-12, 12) | st.none(), min_size=4, max_size=4))
def test_slicing(count: int, bounds: list[int | None]) -> None:
    data = batch_bytes(chain(count))
    first, second = slice(*bounds[:2]), slice(*bounds[2:])

    def cut(module: ModuleType) -> list[Any]:
        return everything(module.HeaderBatch(data)[first][second])

    assert outcome(cut, pure) == outcome(cut, compiled)
    assert cut(compiled)[3] == read(pure, data)[3][first][second]


@st.composite
def rule_settings(draw: st.DrawFn) -> dict[str, Any]:
    """Those of the chain, mostly; else anything, out of range too."""
    made: dict[str, Any] = {
        "genesis_timestamp": GENESIS_TIME,
        "block_time": BLOCK_TIME,
        "gas_limit": GAS_LIMIT,
        "validators": draw(st.sampled_from([VALIDATORS, (), VALIDATORS[:1]])),
        "checkpoints": {},
        "max_drift": 15,
    }
    if draw(st.integers(0, 3)) == 0:
        field = draw(st.sampled_from(["genesis_timestamp", "block_time", "gas_limit", "max_drift"]))
        made[field] = draw(U64 | st.integers(-1, 20) | st.sampled_from([None, 1.5, True, 2**64]))
    if draw(st.integers(0, 3)) == 0:
        made["checkpoints"] = draw(st.dictionaries(st.integers(0, 12) | U64, HASHES, max_size=3))
    if draw(st.integers(0, 9)) == 0:
        made["validators"] = draw(st.lists(st.binary(min_size=31, max_size=33), max_size=2))
    return made


@settings(max_examples=400, deadline=None)
@given(header_lists(), rule_settings(), st.data())
def test_checking(items: list[RawHeader], made: dict[str, Any], data: st.DataObject) -> None:
    usual = data.draw(st.integers(0, 3))
    parent = (GENESIS_HASH, 0, GENESIS_TIME)
    now = GENESIS_TIME + 400
    if usual == 0:
        parent = data.draw(st.tuples(HASHES, st.integers(0, 3) | U64, TIMES))
    if usual == 1:
        now = data.draw(st.integers(GENESIS_TIME, GENESIS_TIME + 250) | U64 | st.just(-1))
    if items and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(items) - 1))
        made["checkpoints"] = {**made["checkpoints"], items[at].height: items[at].hash}

    def check(module: ModuleType, form: str) -> Any:
        rules = module.HeaderRules(**made)
        batch = module.HeaderBatch(batch_bytes(items))
        return getattr(batch, form)(module.Anchor(*parent), rules, now)

    for form in ("check", "check_prefix"):
        assert outcome(check, pure, form) == outcome(check, compiled, form)
