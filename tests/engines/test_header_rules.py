"""What a batch is checked against: every rule broken on its own, the extremes, the threads."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
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

from moderntensor.errors import ConfigError, EncodeError, HeaderChainError

U64_MAX = 2**64 - 1
NOW = GENESIS_TIME + 10**9
VALIDATORS = tuple(bytes([n]) * 32 for n in range(1, 8))


@pytest.fixture
def headers(engine: Any) -> ModuleType:
    module: ModuleType = engine.headers
    return module


def rules_of(headers: ModuleType, **changes: Any) -> Any:
    settings = {
        "genesis_timestamp": GENESIS_TIME,
        "block_time": BLOCK_TIME,
        "gas_limit": GAS_LIMIT,
        "validators": VALIDATORS,
        **changes,
    }
    return headers.HeaderRules(**settings)


def genesis(headers: ModuleType) -> Any:
    return headers.Anchor(GENESIS_HASH, 0, GENESIS_TIME)


def batch_of(headers: ModuleType, items: list[RawHeader]) -> Any:
    return headers.HeaderBatch(batch_bytes(items))


# --- the rules -------------------------------------------------------------------------------


def broken(headers: ModuleType, items: list[RawHeader], **changes: Any) -> tuple[int, int, str]:
    """(index, height, rule) of the error of a batch after genesis, alike in both forms."""
    now = changes.pop("now", NOW)
    anchor = changes.pop("anchor", None) or genesis(headers)
    rules = rules_of(headers, **changes)
    batch = batch_of(headers, items)
    with pytest.raises(HeaderChainError) as caught:
        batch.check(anchor, rules, now)
    error = caught.value
    assert batch.check_prefix(anchor, rules, now) == (error.index, error.rule)
    return error.index, error.height, error.rule


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33, 300])
def test_good_chains(headers: ModuleType, count: int) -> None:
    items = chain(count, validators=VALIDATORS)
    batch = batch_of(headers, items)
    points = {1: items[0].hash, count: items[-1].hash, 10**9: bytes(32), 0: bytes(32)}
    rules = rules_of(headers, checkpoints=points)
    assert batch.check(genesis(headers), rules, NOW) is None
    assert batch.check_prefix(genesis(headers), rules, NOW) == (count, None)
    if count > 2:
        anchor = headers.Anchor(items[1].hash, 2, items[1].timestamp)
        assert batch[2:].check_prefix(anchor, rules, NOW) == (count - 2, None)
        assert batch.check_prefix(anchor, rules, NOW) == (0, "height")


def test_an_empty_batch_breaks_nothing(headers: ModuleType) -> None:
    assert batch_of(headers, []).check_prefix(genesis(headers), rules_of(headers), 0) == (0, None)


@pytest.mark.parametrize("index", [0, 1, 15, 16, 39])
@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("version", {"version": 0}),
        ("version", {"version": 2}),
        ("version", {"version": 2**32 - 1}),
        ("gas_limit", {"gas_limit": GAS_LIMIT - 1}),
        ("gas_limit", {"gas_limit": GAS_LIMIT + 1}),
        ("gas_limit", {"gas_limit": U64_MAX}),
        ("gas_used", {"gas_used": GAS_LIMIT + 1}),
        ("gas_used", {"gas_used": U64_MAX}),
        ("height", {"height": 0}),
        ("height", {"height": U64_MAX}),
        ("previous_hash", {"previous_hash": GENESIS_HASH[:-1] + b"\0"}),
        ("slot", {"timestamp": 0}),
        ("slot", {"timestamp": GENESIS_TIME - 1}),
        ("slot", {"timestamp": GENESIS_TIME}),
        ("future", {"timestamp": NOW + 16}),
        ("future", {"timestamp": U64_MAX}),
        ("validator", {"validator": bytes(32)}),
    ],
)
def test_each_rule(headers: ModuleType, index: int, rule: str, change: dict[str, Any]) -> None:
    items = chain(40, validators=VALIDATORS)
    items[index] = replace(items[index], **change)
    assert broken(headers, items) == (index, index + 1, rule)


def test_heights_next_to_the_right_one(headers: ModuleType) -> None:
    for wrong in (4, 6):
        items = chain(9, validators=VALIDATORS)
        items[4] = replace(items[4], height=wrong)
        assert broken(headers, items) == (4, 5, "height")


def test_earlier_rules_win(headers: ModuleType) -> None:
    """A header that breaks all rules is named by the first; mended one by one, by the next."""
    good = chain(3, validators=VALIDATORS)
    points = {3: good[2].hash}
    bad = replace(
        good[2], version=9, gas_limit=1, gas_used=U64_MAX, height=9, previous_hash=bytes(32),
        timestamp=0, validator=bytes(32),
    )  # fmt: skip
    seen = []
    mend = ["version", "gas_limit", "gas_used", "height", "previous_hash", "timestamp", "timestamp"]
    for field in mend:
        seen.append(broken(headers, [*good[:2], bad], checkpoints=points, now=NOW)[2])
        late = field == "timestamp" and bad.timestamp == 0
        value = NOW + 16 if late else getattr(good[2], field)
        bad = replace(bad, **{field: value})
    seen.append(broken(headers, [*good[:2], bad], checkpoints=points)[2])
    seen.append(broken(headers, [*good[:2], bad])[2])
    assert tuple(seen) == headers.RULES


def test_two_headers_in_one_slot(headers: ModuleType) -> None:
    items = chain(6)
    slot_start = GENESIS_TIME + 3 * BLOCK_TIME
    items[2] = replace(items[2], timestamp=slot_start)
    for timestamp in (slot_start, slot_start + BLOCK_TIME - 1, slot_start - 1):
        items[3] = replace(items[3], timestamp=timestamp)
        assert broken(headers, relink(items), validators=()) == (3, 4, "slot")
    items[3] = replace(items[3], timestamp=slot_start + BLOCK_TIME)
    batch = batch_of(headers, relink(items))
    batch[:4].check(genesis(headers), rules_of(headers, validators=()), NOW)


def test_slots_may_be_left_out(headers: ModuleType) -> None:
    items = chain(50, validators=VALIDATORS, gap=5)
    batch_of(headers, items).check(genesis(headers), rules_of(headers), NOW)


def test_slots_next_to_each_other_and_far_apart(headers: ModuleType) -> None:
    """Whose turn it is comes out the same whether slots are counted or worked out."""
    slot, items = 0, []
    for n, header in enumerate(chain(60)):
        slot += (1, 1, 1, 2, 1, 7, 8, 1, 1, 30)[n % 10]
        timestamp = GENESIS_TIME + slot * BLOCK_TIME + (0, BLOCK_TIME - 1, 5)[n % 3]
        validator = VALIDATORS[slot % len(VALIDATORS)]
        items.append(replace(header, timestamp=timestamp, validator=validator))
    items = relink(items)
    now = items[-1].timestamp
    rules = rules_of(headers)
    batch = batch_of(headers, items)
    batch.check(genesis(headers), rules, now)
    for at in range(1, 60):
        before = items[at - 1]
        batch[at:].check(headers.Anchor(before.hash, at, before.timestamp), rules, now)
        wrong = replace(
            items[at], validator=VALIDATORS[(VALIDATORS.index(items[at].validator) + 1) % 7]
        )
        found = broken(headers, [*items[:at], wrong], now=now)
        assert found == (at, at + 1, "validator")


def test_the_anchor_counts_as_a_parent(headers: ModuleType) -> None:
    items = chain(2, validators=VALIDATORS)
    other = headers.Anchor(GENESIS_HASH, 0, items[0].timestamp)
    assert broken(headers, items, anchor=other) == (0, 1, "slot")
    assert broken(headers, items, anchor=headers.Anchor(GENESIS_HASH, 5, 0)) == (0, 6, "height")
    assert broken(headers, items, anchor=headers.Anchor(bytes(32), 0, 0)) == (0, 1, "previous_hash")


def test_an_anchor_before_genesis_precedes_every_slot(headers: ModuleType) -> None:
    first = RawHeader(timestamp=GENESIS_TIME)  # slot 0
    batch = batch_of(headers, [first])
    rules = rules_of(headers, validators=())
    batch.check(headers.Anchor(GENESIS_HASH, 0, GENESIS_TIME - 1), rules, NOW)
    batch.check(headers.Anchor(GENESIS_HASH, 0, 0), rules, NOW)
    early = replace(first, timestamp=GENESIS_TIME - 1)
    anchor = headers.Anchor(GENESIS_HASH, 0, GENESIS_TIME - 100)
    assert broken(headers, [early], anchor=anchor, validators=()) == (0, 1, "slot")


def test_drift(headers: ModuleType) -> None:
    item = RawHeader(timestamp=NOW)
    rules = rules_of(headers, validators=(), max_drift=15)
    batch = batch_of(headers, [item])
    assert batch.check_prefix(genesis(headers), rules, NOW - 15) == (1, None)
    assert batch.check_prefix(genesis(headers), rules, NOW - 16) == (0, "future")
    assert batch.check_prefix(genesis(headers), rules, 0) == (0, "future")
    none = rules_of(headers, validators=(), max_drift=0)
    assert batch.check_prefix(genesis(headers), none, NOW) == (1, None)
    assert batch.check_prefix(genesis(headers), none, NOW - 1) == (0, "future")


def test_checkpoints(headers: ModuleType) -> None:
    items = chain(40, validators=VALIDATORS)
    for height in (1, 16, 17, 40):
        wrong = {**{h: items[h - 1].hash for h in range(1, 41)}, height: bytes(32)}
        found = broken(headers, items, checkpoints=wrong)
        assert found == (height - 1, height, "checkpoint")
    # One that lies at or below the anchor was passed before.
    anchor = headers.Anchor(items[9].hash, 10, items[9].timestamp)
    rules = rules_of(headers, checkpoints={5: bytes(32), 10: bytes(32)})
    batch_of(headers, items[10:]).check(anchor, rules, NOW)
    points = {5: bytes(32), 10: bytes(32), 12: bytes(32)}
    found = broken(headers, items[10:], anchor=anchor, checkpoints=points)
    assert found == (1, 12, "checkpoint")


def test_an_open_network_takes_any_validator(headers: ModuleType) -> None:
    items = relink([replace(h, validator=bytes([n] * 32)) for n, h in enumerate(chain(9))])
    batch_of(headers, items).check(genesis(headers), rules_of(headers, validators=()), NOW)
    assert broken(headers, items) == (0, 1, "validator")


def test_a_validator_out_of_its_slot(headers: ModuleType) -> None:
    items = chain(10, validators=VALIDATORS)
    items[6] = replace(items[6], timestamp=items[6].timestamp + BLOCK_TIME)
    assert broken(headers, items) == (6, 7, "validator")


# --- extremes --------------------------------------------------------------------------------


def test_the_end_of_time_and_height(headers: ModuleType) -> None:
    rules = headers.HeaderRules(0, 1, GAS_LIMIT)
    last = RawHeader(height=U64_MAX, timestamp=U64_MAX)
    anchor = headers.Anchor(GENESIS_HASH, U64_MAX - 1, U64_MAX - 1)
    batch = batch_of(headers, [last])
    for now in (U64_MAX, U64_MAX - 15):
        assert batch.check_prefix(anchor, rules, now) == (1, None)
    assert batch.check_prefix(anchor, rules, U64_MAX - 16) == (0, "future")
    end = headers.Anchor(GENESIS_HASH, U64_MAX, U64_MAX - 1)
    for height in (0, U64_MAX):  # nothing follows the last height
        batch = batch_of(headers, [replace(last, height=height)])
        with pytest.raises(HeaderChainError) as caught:
            batch.check(end, rules, U64_MAX)
        assert (caught.value.height, caught.value.rule) == (2**64, "height")
    stuck = headers.Anchor(GENESIS_HASH, U64_MAX - 1, U64_MAX)
    assert batch_of(headers, [last]).check_prefix(stuck, rules, U64_MAX) == (0, "slot")


@pytest.mark.parametrize(
    ("start", "block_time", "at", "timestamp"),
    [
        (0, 12, 2**64 - 16, 0),
        (0, 12, 2**64 - 4, 19),
        (GENESIS_TIME, 1_897_136_051, 2**64 - 1_867_531_458, GENESIS_TIME + 13),
        (GENESIS_TIME, 2**32 - 1, 2**64 - 1, GENESIS_TIME + 2**32),
    ],
)
def test_a_slot_is_not_after_one_at_the_end_of_time(
    headers: ModuleType, start: int, block_time: int, at: int, timestamp: int
) -> None:
    """What lies between them is less than nothing, not the next slot round the corner."""
    parent = headers.Anchor(GENESIS_HASH, 0, at)
    items = [RawHeader(timestamp=timestamp)]
    rules = {"genesis_timestamp": start, "block_time": block_time, "validators": ()}
    assert broken(headers, items, anchor=parent, **rules) == (0, 1, "slot")


def test_large_rules(headers: ModuleType) -> None:
    rules = headers.HeaderRules(
        U64_MAX, 2**32 - 1, U64_MAX, checkpoints={U64_MAX: bytes(32)}, max_drift=2**32 - 1
    )
    item = RawHeader(timestamp=U64_MAX, gas_limit=U64_MAX, gas_used=U64_MAX, height=U64_MAX)
    anchor = headers.Anchor(GENESIS_HASH, U64_MAX - 1, 0)
    batch = batch_of(headers, [item])
    assert batch.check_prefix(anchor, rules, U64_MAX) == (0, "checkpoint")
    assert batch.check_prefix(anchor, rules, 0) == (0, "future")


def test_rules_are_immutable_and_readable(headers: ModuleType) -> None:
    points = {7: bytes(32)}
    rules = rules_of(headers, checkpoints=points, max_drift=3)
    points[8] = bytes(32)
    assert rules.checkpoints == {7: bytes(32)}
    assert rules.validators == VALIDATORS
    assert (rules.genesis_timestamp, rules.block_time, rules.gas_limit, rules.max_drift) == (
        GENESIS_TIME, BLOCK_TIME, GAS_LIMIT, 3,
    )  # fmt: skip
    with pytest.raises(AttributeError, match=r"HeaderRules\.gas_limit cannot be changed"):
        rules.gas_limit = 5
    with pytest.raises(AttributeError, match=r"HeaderRules\.gas_limit cannot be changed"):
        del rules.gas_limit
    with pytest.raises(TypeError):
        rules.checkpoints[9] = bytes(32)
    assert repr(rules) == (
        "HeaderRules(genesis_timestamp=1700000000, block_time=12, gas_limit=30000000, "
        "validators=7, checkpoints=1, max_drift=3)"
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"block_time": 0}, "HeaderRules.block_time: 0, must be 1 to 4294967295"),
        ({"genesis_timestamp": -1}, f"HeaderRules.genesis_timestamp: -1, must be 0 to {U64_MAX}"),
        ({"gas_limit": 2**64}, f"HeaderRules.gas_limit: {2**64}, must be 0 to {U64_MAX}"),
        ({"max_drift": 2**32}, "HeaderRules.max_drift: 4294967296, must be 0 to 4294967295"),
        ({"validators": [bytes(31)]}, "HeaderRules.validators[0]: 31 bytes, must be 32"),
        (
            {"validators": [bytes(32)] * 65_536},
            "HeaderRules.validators: 65536 items, at most 65535",
        ),
        ({"checkpoints": {5: bytes(33)}}, "HeaderRules.checkpoints[5]: 33 bytes, must be 32"),
        ({"checkpoints": {-1: bytes(32)}}, f"HeaderRules.checkpoints: -1, must be 0 to {U64_MAX}"),
    ],
)
def test_settings_out_of_range(headers: ModuleType, change: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rules_of(headers, **change)
    assert str(caught.value) == text


def test_wrong_arguments_of_a_check(headers: ModuleType) -> None:
    batch, rules = batch_of(headers, chain(1)), rules_of(headers)
    with pytest.raises(TypeError, match="check needs HeaderRules, not dict"):
        batch.check(genesis(headers), {}, NOW)
    with pytest.raises(TypeError, match="now needs an int, not float"):
        batch.check(genesis(headers), rules, 1.5)
    with pytest.raises(EncodeError, match="now: -1, must be 0 to"):
        batch.check(genesis(headers), rules, -1)
    with pytest.raises(EncodeError, match=r"Anchor\.hash: 31 bytes, must be 32"):
        batch.check(headers.Anchor(bytes(31), 0, 0), rules, NOW)
    with pytest.raises(EncodeError, match=r"Anchor\.height: -1, must be 0 to"):
        batch.check(headers.Anchor(bytes(32), -1, 0), rules, NOW)
    with pytest.raises(TypeError, match=r"Anchor\.timestamp needs an int, not bool"):
        batch.check(headers.Anchor(bytes(32), 0, True), rules, NOW)


def test_threads_may_check_one_batch_at_once(headers: ModuleType) -> None:
    items = chain(600, validators=VALIDATORS)
    batch, rules = batch_of(headers, items), rules_of(headers)
    found: list[Any] = []

    def work(start: int) -> None:
        before = items[start - 1]
        anchor = headers.Anchor(before.hash, start, before.timestamp)
        found.append((batch[start:].check_prefix(anchor, rules, NOW), batch.hashes()))

    threads = [threading.Thread(target=work, args=(start,)) for start in (1, 50, 100, 299)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hashes = [item.hash for item in items]
    assert sorted(n for (n, _), _ in found) == [301, 500, 550, 599]
    assert all(rule is None and seen == hashes for (_, rule), seen in found)


def test_the_compiled_check_lets_other_threads_run() -> None:
    """With an endless switch interval another thread gets the GIL only from one that gives it."""
    import moderntensor._ext.headers as compiled

    data = batch_bytes(chain(1000, validators=VALIDATORS))
    rules, anchor = rules_of(compiled), genesis(compiled)
    ran: list[bool] = []
    gate = threading.Lock()
    gate.acquire()

    def other() -> None:
        with gate:
            ran.append(True)

    thread = threading.Thread(target=other)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread.start()
        gate.release()
        for _ in range(2000):
            compiled.HeaderBatch(data).check(anchor, rules, NOW)
            if ran:
                break
        seen = bool(ran)
    finally:
        sys.setswitchinterval(before)
        thread.join()
    assert seen
