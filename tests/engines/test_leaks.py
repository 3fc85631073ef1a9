"""Nothing stays behind, on both twins of every engine: after good calls, after calls that fail
half way, after what was begun and then dropped."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from helpers.headers import GAS_LIMIT, GENESIS_HASH, GENESIS_TIME, batch_bytes, chain
from helpers.leaks import COUNTS_C, LIBC, leaves_nothing
from helpers.schemas import One, Two, fill
from helpers.state_reference import account, pack, records

from moderntensor.blockchain.block import BlockHeader
from moderntensor.blockchain.crypto import CURVE, KeyPair, sha256
from moderntensor.errors import ModernTensorError

U8 = ("u", 1, 0, 255)
PAIR = ("record", Two, (("a", U8), ("b", ("fixed", 2))))
RANDOM = random.Random(7)


def refused(call: Callable[..., object], *arguments: object) -> None:
    """A call that has to fail."""
    try:
        call(*arguments)
    except (ModernTensorError, TypeError, ValueError, IndexError):
        return
    raise AssertionError(f"{call} took what it has to refuse")


# --- what finds leaks finds them -----------------------------------------------------------


def test_a_leak_of_each_kind_is_found() -> None:
    thing = object()
    kept: list[object] = []
    with pytest.raises(AssertionError, match="references to <object object"):
        leaves_nothing(lambda: kept.append(thing), thing)
    if sys.getallocatedblocks():
        with pytest.raises(AssertionError, match="blocks"):
            leaves_nothing(lambda: kept.append(object()))
    if COUNTS_C:
        with pytest.raises(AssertionError, match="times 16 bytes of C"):
            leaves_nothing(lambda: LIBC.malloc(24))
    leaves_nothing(lambda: [object(), bytes(5000)], thing)


# --- framing -------------------------------------------------------------------------------


def test_frames(engine: Any) -> None:
    framing = engine.framing
    payload = RANDOM.randbytes(700)
    items = [(1, payload), (2, b""), (1, payload)]

    def work() -> None:
        framing.encode_frame(1, payload)
        framing.encode_frames(items)
        framing.encode_frames(item for item in items)
        frame = framing.Frame(1, payload)
        assert frame == framing.Frame(1, payload)
        refused(framing.encode_frame, 300, payload)
        refused(framing.Frame, 1, bytearray(payload))
        refused(framing.encode_frames, [*items, (1, None)])
        refused(framing.encode_frames, [*items, None])
        refused(framing.encode_frames, [*items, (1 << 70, payload)])

    leaves_nothing(work, payload, items, items[0], framing.Frame, None)


def test_a_stream(engine: Any) -> None:
    framing = engine.framing
    wire = framing.encode_frames([(0, b"hello"), (1, bytes(3000)), (2, b""), (1, bytes(9000))])
    faults = [b"\0\0\0\0", b"\0\0\0\1\x09", b"\0\xff\0\0\1"]  # empty, unknown, too large

    def work() -> None:
        for end in (len(wire), len(wire) - 1, len(wire) - 8000, 7):
            decoder = framing.FrameDecoder({0: 9, 1: 9000, 2: 0}, buffer_size=16_384)
            frames = decoder.feed(wire)
            decoder.get_buffer(-1)[:end] = wire[:end]
            frames += decoder.buffer_updated(end)
            frames += decoder.feed(memoryview(wire)[end:])
            assert len(frames) == 8
        for fault in faults:
            decoder = framing.FrameDecoder({0: 9, 1: 9000, 2: 0})
            assert len(decoder.feed(wire + fault + wire)) == 4
            refused(decoder.feed, b"")
            refused(decoder.buffer_updated, 0)
        refused(framing.FrameDecoder, {1: -1})
        refused(framing.FrameDecoder, {1: 1}, 5)

    leaves_nothing(work, wire, framing.FrameDecoder, framing.Frame, None)


def test_a_stream_dropped_in_the_middle(engine: Any) -> None:
    framing = engine.framing
    wire = framing.encode_frame(1, bytes(100_000))
    hello = framing.encode_frame(0, b"hello")

    def work() -> None:
        for end in (0, 3, 5, 6, 2000, 60_000, len(wire) - 1):
            decoder = framing.FrameDecoder({0: 9, 1: 100_000})
            assert decoder.feed(wire[:end]) == []
            assert decoder.pending == end
        paused = framing.FrameDecoder({0: 9, 1: 100_000}, pause_after=0, buffer_size=65_536)
        assert len(paused.feed(hello + wire[:50_000])) == 1
        assert paused.held == 50_000
        resumed = framing.FrameDecoder({0: 9, 1: 100_000}, pause_after=0)
        resumed.feed(hello + wire[:50_000])
        assert resumed.resume() == []
        overrun = framing.FrameDecoder({0: 9, 1: 9}, pause_after=0, buffer_size=64)
        overrun.feed(hello + bytes(100))
        refused(overrun.resume)

    leaves_nothing(work, wire, hello)


def test_references_of_frames(engine: Any) -> None:
    framing = engine.framing
    payload = RANDOM.randbytes(10_000)
    decoder = framing.FrameDecoder({1: 100_000})
    wire = framing.encode_frame(1, payload)
    decoder.feed(wire[:50])
    (collected,) = decoder.feed(wire[50:])
    (whole,) = decoder.feed(wire)
    made = framing.Frame(1, bytes(bytearray(payload)))
    counts = set()
    for frame in (made, collected, whole):
        held = frame.payload
        assert held == payload
        counts.add((sys.getrefcount(frame), sys.getrefcount(held)))
    assert len(counts) == 1


# --- layout --------------------------------------------------------------------------------


def test_packing_and_unpacking(engine: Any) -> None:
    schema = ("tuple", (
        ("list", 1, 9, PAIR), ("optional", ("str", 1, 99)), ("u", 16, 1 << 70, (1 << 128) - 1),
        ("sized", 1, 99, ("list", 1, 9, ("fixed", 2))), ("raw", ("list", 1, 9, U8)),
        ("bytes", 2, 0, 9000),
    ))  # fmt: skip
    it = engine.layout.Layout(One, (("a", schema),))
    pair = fill(Two, (1, b"ab"))
    parts = [(pair, pair), "hello", 1 << 90, (b"ab", b"cd"), b"\x01\x07", bytes(5000)]
    good = fill(One, (tuple(parts),))
    data = it.pack(good)
    wrongs = [
        fill(One, ((*parts[:index], wrong, *parts[index + 1 :]),))
        for index in range(len(parts))
        for wrong in (5.0, (None,), -1, "é", b"\xff" * 9001, 1 << 200)
    ]
    truncated = [data[:size] for size in range(54)]
    flipped = [data[:at] + b"\xff" + data[at + 1 :] for at in (0, 7, 8, 9, 30, 31, 36, 38)]
    unset = One()

    def work() -> None:
        it.pack(good)
        it.unpack(data)
        it.unpack_from(data + b"more", 0)
        refused(it.unpack, data + b"more")
        refused(it.unpack_from, data, len(data) + 1)
        refused(it.pack, unset)
        refused(it.pack, pair)
        for wrong in wrongs:
            refused(it.pack, wrong)
        for bad in (*truncated, *flipped):
            refused(it.unpack, bad)

    leaves_nothing(work, pair, good, data, None, One, Two, parts[5], *wrongs, times=20)


def test_layouts_themselves(engine: Any) -> None:
    fields = (("a", ("list", 1, 9, PAIR)), ("b", ("optional", ("str", 2, 300))))
    bad = [
        (("a", U8), ("b", ("list", 1, 9, ("fixed", 0)))),
        (("a", ("tuple", (PAIR, PAIR, ("nonsense",)))),),
        (("a", PAIR), ("c", U8)),
    ]

    def work() -> None:
        engine.layout.Layout(Two, fields)
        for wrong in bad:
            refused(engine.layout.Layout, Two, wrong)
        cls: Any = type("Passing", (), {"__slots__": ("a",)})
        cls.LAYOUT = engine.layout.Layout(cls, (("a", U8),))
        cls.encode = engine.layout.encode_method(cls)
        cls.decode = cls.LAYOUT.unpack
        assert cls.decode(b"\x07").encode() == b"\x07"
        refused(cls().encode)

    leaves_nothing(work, Two, fields, *bad, times=20)


# --- headers -------------------------------------------------------------------------------


def test_headers(engine: Any) -> None:
    headers = engine.headers
    encoded = [header.encode() for header in chain(12)]
    wire = batch_bytes(chain(12))
    now = GENESIS_TIME + 10_000
    rules = headers.HeaderRules(GENESIS_TIME, 12, GAS_LIMIT)
    anchor = headers.Anchor(GENESIS_HASH, 0, GENESIS_TIME)
    late = headers.Anchor(GENESIS_HASH, 5, GENESIS_TIME)
    record = engine.layout.Layout(BlockHeader, BlockHeader.__fields__)
    other = engine.layout.Layout(One, (("a", ("fixed", 60_000)),))
    broken = [wire[:end] for end in (0, 1, 2, 200, 263, len(wire) - 1)]
    broken += [wire + b"\0", wire[:198] + b"\xff" + wire[199:]]

    def work() -> None:
        batch = headers.HeaderBatch(wire)
        assert headers.HeaderBatch.join(encoded).encode() == wire
        part = batch[3:9][1:]
        del batch
        assert len(part) == 5
        assert part.hashes()[0] == part.hash(0)
        part.raw(1), part.signing_hash(1), part.signature_items(), part.validator(4)
        part.height(1), part.gas_limit(1), part.previous_hash(1), part.signature(1)
        refused(part.hash, 9)
        whole = headers.HeaderBatch.from_concatenated(b"".join(encoded))
        whole.header(0, record)
        refused(whole.header, 0, other)
        whole.check(anchor, rules, now)
        refused(whole.check, late, rules, now)
        refused(whole.check, anchor, rules, 0)
        whole.check_prefix(late, rules, now)
        for bad in broken:
            refused(headers.HeaderBatch, bad)
        refused(headers.HeaderBatch.join, [*encoded, b"short"])
        refused(headers.HeaderBatch.join, [*encoded, None])

    leaves_nothing(
        work, wire, encoded[0], encoded[11], rules, anchor, record, other, None, times=20
    )


def test_header_rules(engine: Any) -> None:
    headers = engine.headers
    validators = [bytes([n]) * 32 for n in range(1, 6)]
    checkpoints = {5: b"\1" * 32, 9: b"\2" * 32}

    def work() -> None:
        rules = headers.HeaderRules(GENESIS_TIME, 12, GAS_LIMIT, validators, checkpoints)
        assert rules.validators == tuple(validators)
        assert dict(rules.checkpoints) == checkpoints
        refused(headers.HeaderRules, GENESIS_TIME, 0, GAS_LIMIT)
        refused(headers.HeaderRules, GENESIS_TIME, 12, GAS_LIMIT, [*validators, b"short"])
        refused(headers.HeaderRules, GENESIS_TIME, 12, GAS_LIMIT, validators, {5: b"short"})

    leaves_nothing(work, *validators, checkpoints, checkpoints[5])


# --- merkle --------------------------------------------------------------------------------


def test_lists(engine: Any) -> None:
    merkle = engine.merkle
    leaves = [RANDOM.randbytes(20 + n) for n in range(23)]
    body = len(leaves).to_bytes(4, "big") + b"".join(
        len(leaf).to_bytes(4, "big") + leaf for leaf in leaves
    )

    def work() -> None:
        root = merkle.list_root(leaves)
        assert merkle.body_root(body) == (root, 23)
        proof = merkle.list_proof(leaves, 9)
        assert merkle.verify_list_proof(root, leaves[9], 9, 23, proof)
        assert not merkle.verify_list_proof(root, leaves[8], 9, 23, proof)
        assert not merkle.verify_list_proof(root, leaves[9], 9, 23, [*proof, b"short"])
        refused(merkle.list_root, [*leaves, None])
        refused(merkle.list_proof, leaves, 23)
        for end in (0, 3, 10, len(body) - 1):
            refused(merkle.body_root, body[:end])

    leaves_nothing(work, leaves, leaves[0], leaves[8], leaves[9], body, None)


def test_states(engine: Any) -> None:
    merkle = engine.merkle
    held = {sha256(bytes([n]) * 20): account(n, 5) for n in range(40)}
    packed = pack(list(held.items()))
    key = max(held)

    def work() -> None:
        root, count = merkle.state_subtree(packed)
        assert count == 40
        merkle.state_nodes(packed, threshold=4)
        proof = merkle.state_proof(packed, key)
        assert merkle.verify_state_proof(root, key, held[key], proof)
        assert not merkle.verify_state_proof(root, key, None, proof)
        refused(merkle.state_subtree, packed[:-1])
        refused(merkle.state_subtree, packed[120:] + packed[:120])
        refused(merkle.state_nodes, packed, 257)
        refused(merkle.state_proof, packed, b"short")

    leaves_nothing(work, packed, key, held[key], times=20)


def test_records_of_a_state(engine: Any) -> None:
    merkle = engine.merkle
    held = {bytes([n]) * 20: account(n, 5) for n in range(40)}
    data = records(held)
    wrong = [data[:-1], data[108:] + data[:108], data[:20] + bytes(88) + data[108:]]

    def work() -> None:
        digest, count, nodes, rows = merkle.state_records(data, threshold=1)
        assert count == len(rows) == 40
        assert len(nodes) > 30
        assert merkle.state_records(data, rows=False)[0] == digest
        for bad in wrong:
            refused(merkle.state_records, bad)
        refused(merkle.state_records, data, 256)
        refused(merkle.state_records, data, 0, bytes(32), 0)

    leaves_nothing(work, data, *wrong, times=20)


class UnreadableError(Exception):
    """What a store may raise."""


def test_a_state_tree(engine: Any) -> None:
    changes = {bytes([n]) * 20: account(n, 5) for n in range(40)}
    gone: dict[bytes, bytes | None] = dict.fromkeys(changes)

    def none(*_: object) -> Any:
        return ()

    def broken(*_: object) -> Any:
        raise UnreadableError

    def work() -> None:
        tree = engine.merkle.StateTree(0, lambda _: None, none)
        tree.apply(changes)
        tree.take_changes()
        tree.apply(gone)
        refused(tree.apply, {b"short": b""})
        dropped = engine.merkle.StateTree(0, lambda _: None, none)
        dropped.apply(changes)
        del dropped  # with its changes
        with pytest.raises(UnreadableError):
            engine.merkle.StateTree(100, broken, broken).apply(changes)
        refused(engine.merkle.StateTree, -1, none, none)

    leaves_nothing(work, changes, none, broken, next(iter(changes)), None, times=20)


# --- signatures ----------------------------------------------------------------------------


def test_signatures(engine: Any) -> None:
    signatures = engine.signatures
    keys = [KeyPair.from_secret(bytes([n]) * 32) for n in (1, 2)]
    message = sha256(b"message")
    good = b"".join(key.public_key + message + key.sign(message) for key in keys)
    wrong = good[:-1] + bytes([good[-1] ^ 1])
    no_key = b"\xff" * 32 + good[32:]
    many = good * 32  # enough to be checked together
    v, r, s = keys[0].sign_recoverable(message)
    signed = message + bytes([v]) + r + s
    nobody = message + bytes([v]) + bytes(64)

    def work() -> None:
        assert signatures.verify_many(CURVE, good) is None
        assert signatures.verify_many(CURVE, wrong) == 1
        assert signatures.verify_many(CURVE, many) is None
        assert signatures.verify_many(CURVE, many + wrong) == 65
        assert signatures.verify_many(CURVE, no_key) == 0
        assert signatures.recover_many(CURVE, nobody + signed)[0] is None
        refused(signatures.verify_many, CURVE, good[:-1])
        refused(signatures.recover_many, CURVE, signed[:-1])
        refused(signatures.verify_many, CURVE, None)

    leaves_nothing(work, good, wrong, no_key, many, signed, CURVE, None, times=20)
