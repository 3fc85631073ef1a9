"""Framing on both twins: golden bytes, every split, caps, pausing, errors that stay."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import random
import tracemalloc
from types import ModuleType
from typing import Any

import pytest

from moderntensor.errors import EncodeError, FrameError

GOLDEN = [
    (0x02, b"", "00000001 02"),
    (0x01, (7).to_bytes(8, "big"), "00000009 01 0000000000000007"),
    (0xFF, b"ab", "00000003 ff 6162"),
    (0x00, b"x" * 256, "00000101 00" + "78" * 256),
]
CAPS = {0x00: 2048, 0x01: 8, 0x02: 0, 0x11: 100_000, 0xFF: 2}


@pytest.fixture
def framing(engine: Any) -> ModuleType:
    return engine.framing


def pairs(frames: list[Any]) -> list[tuple[int, bytes]]:
    return [(frame.type, frame.payload) for frame in frames]


def feed_all(decoder: Any, stream: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    """What the decoder gives for `stream` cut at `cuts`; stops where it refuses to go on."""
    out: list[Any] = []
    for start, stop in itertools.pairwise([0, *sorted(cuts), len(stream)]):
        if decoder.error is not None:
            break
        out += decoder.feed(stream[start:stop])
    return pairs(out)


# --- encoding ------------------------------------------------------------------------------


@pytest.mark.parametrize(("frame_type", "payload", "wire"), GOLDEN)
def test_golden_bytes(framing: ModuleType, frame_type: int, payload: bytes, wire: str) -> None:
    encoded = bytes.fromhex(wire)
    assert framing.encode_frame(frame_type, payload) == encoded
    assert framing.encode_frames([(frame_type, payload)]) == encoded
    assert pairs(framing.FrameDecoder(CAPS).feed(encoded)) == [(frame_type, payload)]


def test_batch_is_the_frames_one_after_another(framing: ModuleType) -> None:
    items = [(frame_type, payload) for frame_type, payload, _ in GOLDEN]
    expected = b"".join(framing.encode_frame(*item) for item in items)
    assert framing.encode_frames(items) == expected
    assert framing.encode_frames(tuple(items)) == expected
    assert framing.encode_frames(item for item in items) == expected
    assert framing.encode_frames([]) == b""


@pytest.mark.parametrize(
    ("frame_type", "payload", "text"),
    [
        (-1, b"", "frame type must be from 0 to 255"),
        (256, b"", "frame type must be from 0 to 255"),
        (1 << 90, b"", "frame type must be from 0 to 255"),
        (True, b"", "frame type must be an int, not bool"),
        ("1", b"", "frame type must be an int, not str"),
        (None, b"", "frame type must be an int, not NoneType"),
        (1, "x", "frame payload must be bytes, not str"),
        (1, bytearray(b"x"), "frame payload must be bytes, not bytearray"),
        (1, None, "frame payload must be bytes, not NoneType"),
    ],
)
def test_what_no_frame_holds(framing: ModuleType, frame_type: Any, payload: Any, text: str) -> None:
    for attempt in (
        lambda: framing.encode_frame(frame_type, payload),
        lambda: framing.encode_frames([(1, b"fine"), (frame_type, payload)]),
        lambda: framing.Frame(frame_type, payload),
    ):
        with pytest.raises(EncodeError) as caught:
            attempt()
        assert str(caught.value) == text


def test_payload_maximum(framing: ModuleType) -> None:
    assert framing.MAX_PAYLOAD == 10 * 1024 * 1024
    largest = bytes(framing.MAX_PAYLOAD)
    assert len(framing.encode_frame(1, largest)) == framing.MAX_PAYLOAD + framing.HEADER_SIZE
    with pytest.raises(EncodeError, match=r"of 10485761 bytes is over the maximum of 10485760"):
        framing.encode_frame(1, largest + b"x")


@pytest.mark.parametrize("item", [(1,), (1, b"", b""), [1, b""], b"ab", None])
def test_batch_items_are_pairs(framing: ModuleType, item: Any) -> None:
    with pytest.raises(EncodeError, match="must be a tuple of type and payload"):
        framing.encode_frames([item])


# --- frames --------------------------------------------------------------------------------


def test_batch_names_the_first_at_fault(framing: ModuleType) -> None:
    faults: list[tuple[Any, str]] = [
        ((256, b""), "frame type must be from 0 to 255"),
        ((1, "text"), "frame payload must be bytes, not str"),
        ((1,), "frame must be a tuple of type and payload"),
        ((None, 5), "frame type must be an int, not NoneType"),
    ]
    for first, second in itertools.permutations(faults, 2):
        with pytest.raises(EncodeError, match=f"^{first[1]}$"):
            framing.encode_frames([(1, b"fine"), first[0], (2, b""), second[0]])


def test_frame_is_a_value(framing: ModuleType) -> None:
    frame = framing.Frame(1, b"ab")
    assert repr(frame) == "Frame(type=0x01, payload=b'ab')"
    assert (
        frame
        == framing.Frame(1, b"ab")
        == framing.FrameDecoder({1: 2}).feed(framing.encode_frame(1, b"ab")).pop()
    )
    assert frame != framing.Frame(2, b"ab")
    assert frame != framing.Frame(1, b"ac")
    assert frame != (1, b"ab")
    assert hash(frame) == hash(framing.Frame(1, b"ab"))
    assert copy.deepcopy(frame) == pickle.loads(pickle.dumps(frame)) == frame  # noqa: S301


def test_frame_cannot_be_changed(framing: ModuleType) -> None:
    frame = framing.Frame(1, b"ab")
    for change in (
        lambda: setattr(frame, "type", 2),
        lambda: setattr(frame, "payload", b""),
        lambda: delattr(frame, "payload"),
        lambda: setattr(frame, "other", 1),
        lambda: frame.__init__(2, b"cd"),
    ):
        with pytest.raises(AttributeError):
            change()
    assert (frame.type, frame.payload) == (1, b"ab")


def test_compiled_frame_costs_the_collector_nothing() -> None:
    from moderntensor._ext.framing import Frame, FrameDecoder

    assert not gc.is_tracked(Frame(1, b"ab"))
    with pytest.raises(TypeError):
        type("Sub", (Frame,), {})
    with pytest.raises(TypeError):
        type("Sub", (FrameDecoder,), {})


# --- decoding, however it is split ---------------------------------------------------------


def stream_of(framing: ModuleType) -> tuple[bytes, list[tuple[int, bytes]]]:
    chance = random.Random(5)
    items = [(frame_type, payload) for frame_type, payload, _ in GOLDEN]
    items += [(0x11, chance.randbytes(size)) for size in (0, 1, 1023, 1024, 1025, 5000, 70_000)]
    chance.shuffle(items)
    return framing.encode_frames(items), items


def test_whole_and_byte_by_byte(framing: ModuleType) -> None:
    stream, items = stream_of(framing)
    assert pairs(framing.FrameDecoder(CAPS).feed(stream)) == items
    decoder = framing.FrameDecoder(CAPS)
    assert feed_all(decoder, stream, list(range(1, len(stream)))) == items
    assert decoder.frames_decoded == len(items)
    assert decoder.bytes_decoded == len(stream)
    assert decoder.pending == decoder.expected == decoder.held == 0


def test_random_splits(framing: ModuleType) -> None:
    stream, items = stream_of(framing)
    chance = random.Random(6)
    for _ in range(100):
        cuts = [chance.randrange(len(stream) + 1) for _ in range(chance.randrange(1, 40))]
        assert feed_all(framing.FrameDecoder(CAPS), stream, cuts) == items


def test_every_two_way_split_of_small_frames(framing: ModuleType) -> None:
    items = [(frame_type, payload) for frame_type, payload, _ in GOLDEN[:3]]
    stream = framing.encode_frames(items)
    for cut in range(len(stream) + 1):
        assert feed_all(framing.FrameDecoder(CAPS), stream, [cut]) == items


def test_through_the_read_buffer(framing: ModuleType) -> None:
    stream, items = stream_of(framing)
    for size in (1, 3, 5, 64, 4096, framing.DEFAULT_BUFFER_SIZE):
        decoder = framing.FrameDecoder(CAPS, buffer_size=size)
        out: list[Any] = []
        for start in range(0, len(stream), size):
            chunk = stream[start : start + size]
            buffer = decoder.get_buffer(-1)
            assert len(buffer) == size
            buffer[: len(chunk)] = chunk
            out += decoder.buffer_updated(len(chunk))
        assert pairs(out) == items


def test_payloads_do_not_alias_the_read_buffer(framing: ModuleType) -> None:
    decoder = framing.FrameDecoder({1: 8})
    buffer = decoder.get_buffer(-1)
    wire = framing.encode_frame(1, b"original")
    buffer[: len(wire)] = wire
    (frame,) = decoder.buffer_updated(len(wire))
    buffer[: len(wire)] = bytes(len(wire))
    assert frame.payload == b"original"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_can_be_fed(framing: ModuleType, kind: Any) -> None:
    wire = framing.encode_frame(1, b"12345678")
    assert pairs(framing.FrameDecoder({1: 8}).feed(kind(wire))) == [(1, b"12345678")]


def test_strided_bytes_can_be_fed(framing: ModuleType) -> None:
    wire = framing.encode_frame(1, b"12345678")
    spread = bytes(b for byte in wire for b in (byte, 0xEE))
    assert pairs(framing.FrameDecoder({1: 8}).feed(memoryview(spread)[::2])) == [(1, b"12345678")]


def test_pending_and_expected(framing: ModuleType) -> None:
    decoder = framing.FrameDecoder({1: 1000})
    seen = []
    for byte in framing.encode_frame(1, bytes(300))[:8]:
        decoder.feed(bytes([byte]))
        seen.append((decoder.pending, decoder.expected))
    assert seen == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 300), (6, 300), (7, 300), (8, 300)]


# --- bad bytes -----------------------------------------------------------------------------

BAD = [
    ("00000000", FrameError("empty")),
    ("00000000 01", FrameError("empty")),
    ("00000001 07", FrameError("unknown", 7, 0, 0)),
    ("ffffffff 07", FrameError("unknown", 7, 0xFFFFFFFE, 0)),
    ("0000000a 01", FrameError("too-large", 1, 9, 8)),
    ("80000000 01", FrameError("too-large", 1, 0x7FFFFFFF, 8)),
    ("ffffffff 01", FrameError("too-large", 1, 0xFFFFFFFE, 8)),
    ("00000002 02", FrameError("too-large", 2, 1, 0)),
]


@pytest.mark.parametrize(("wire", "error"), BAD)
@pytest.mark.parametrize("step", [1, 2, 5, 1000])
def test_fault_comes_after_the_frames_before_it(
    framing: ModuleType, wire: str, error: FrameError, step: int
) -> None:
    good = framing.encode_frames([(1, b"12345678"), (2, b"")])
    stream = good + bytes.fromhex(wire) + b"what follows is not looked at"
    decoder = framing.FrameDecoder(CAPS)
    assert feed_all(decoder, stream, list(range(0, len(stream), step))) == [
        (1, b"12345678"),
        (2, b""),
    ]
    assert (str(decoder.error), decoder.error.args) == (str(error), error.args)
    assert decoder.pending == decoder.expected == 0
    for again in (lambda: decoder.feed(good), lambda: decoder.buffer_updated(0), decoder.resume):
        with pytest.raises(FrameError) as caught:
            again()
        assert caught.value is decoder.error
    assert decoder.frames_decoded == 2


def test_fault_is_found_at_the_fourth_and_fifth_byte(framing: ModuleType) -> None:
    decoder = framing.FrameDecoder(CAPS)
    decoder.feed(bytes(3))
    assert decoder.error is None
    decoder.feed(bytes(1))
    assert decoder.error.reason == "empty"

    decoder = framing.FrameDecoder(CAPS)
    decoder.feed(bytes.fromhex("7fffffff"))
    assert decoder.error is None
    decoder.feed(b"\x01")
    assert decoder.error.reason == "too-large"


def test_memory_is_not_allocated_by_promise(framing: ModuleType) -> None:
    before = framing.FrameDecoder({1: framing.MAX_PAYLOAD})
    announced = (framing.MAX_PAYLOAD + 1).to_bytes(4, "big") + b"\x01"
    tracemalloc.start()
    try:
        before.feed(announced + bytes(100))
        assert before.expected == framing.MAX_PAYLOAD
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
        chunk = bytes(65_536)
        tracemalloc.reset_peak()
        for _ in range(4):
            before.feed(chunk)
        assert before.pending == 5 + 100 + 4 * len(chunk)
        # Grown by doubling: never more than a few times of what has arrived.
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()


# --- caps ----------------------------------------------------------------------------------


def test_caps_change_at_any_time(framing: ModuleType) -> None:
    decoder = framing.FrameDecoder({1: 4})
    assert (decoder.cap(1), decoder.cap(2)) == (4, None)
    wire = framing.encode_frame(2, b"abc")
    decoder.set_cap(2, 3)
    decoder.feed(wire[:6])
    decoder.set_cap(2, None)
    assert decoder.cap(2) is None
    # Admitted when its header came: it is read to its end. The next one is not.
    assert pairs(decoder.feed(wire[6:])) == [(2, b"abc")]
    assert decoder.feed(wire) == []
    assert decoder.error.reason == "unknown"


def test_cap_is_inclusive(framing: ModuleType) -> None:
    for cap in (0, 1, 255, 4096):
        decoder = framing.FrameDecoder({9: cap})
        assert pairs(decoder.feed(framing.encode_frame(9, bytes(cap)))) == [(9, bytes(cap))]
        decoder.feed(framing.encode_frame(9, bytes(cap + 1)))
        assert decoder.error.args == ("too-large", 9, cap + 1, cap)


@pytest.mark.parametrize(
    ("frame_type", "cap"), [(1, -1), (1, 10 * 1024 * 1024 + 1), (-1, 1), (256, 1), (1, 10**30)]
)
def test_caps_out_of_range(framing: ModuleType, frame_type: int, cap: int) -> None:
    with pytest.raises(ValueError, match="must be from 0 to"):
        framing.FrameDecoder({frame_type: cap})
    with pytest.raises(ValueError, match="must be from 0 to"):
        framing.FrameDecoder({}).set_cap(frame_type, cap)


@pytest.mark.parametrize("size", [0, -1, 16 * 1024 * 1024 + 1])
def test_buffer_size_out_of_range(framing: ModuleType, size: int) -> None:
    with pytest.raises(ValueError, match="buffer_size must be from 1 to 16777216"):
        framing.FrameDecoder({}, buffer_size=size)


def test_more_than_the_buffer_holds(framing: ModuleType) -> None:
    decoder = framing.FrameDecoder({}, buffer_size=8)
    with pytest.raises(ValueError, match="more bytes than the read buffer holds"):
        decoder.buffer_updated(1)  # nothing was read into it yet
    decoder.get_buffer(-1)
    for n in (-1, 9):
        with pytest.raises(ValueError, match="more bytes than the read buffer holds"):
            decoder.buffer_updated(n)


# --- pausing -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_pause_lets_caps_change_before_what_is_glued_behind(framing: ModuleType, step: int) -> None:
    stream = framing.encode_frames([(0, b"hello"), (1, b"one"), (0, b"again"), (2, b"")])
    decoder = framing.FrameDecoder({0: 100}, pause_after=0)
    first = feed_all(decoder, stream, list(range(0, len(stream), step)))
    assert first == [(0, b"hello")]
    assert decoder.paused
    assert decoder.error is None
    assert decoder.held == len(stream) - 10
    assert decoder.pending == 0
    decoder.set_cap(1, 8)
    decoder.set_cap(2, 0)
    assert pairs(decoder.resume()) == [(1, b"one"), (0, b"again"), (2, b"")]
    assert not decoder.paused
    assert decoder.held == 0
    assert decoder.resume() == []


def test_pause_can_be_asked_for_again(framing: ModuleType) -> None:
    stream = framing.encode_frames([(0, b"a"), (1, b"b"), (0, b"c"), (1, b"d")])
    decoder = framing.FrameDecoder({0: 9, 1: 9}, pause_after=0)
    assert pairs(decoder.feed(stream)) == [(0, b"a")]
    assert decoder.pause_after == -1
    decoder.pause_after = 1
    assert pairs(decoder.resume()) == [(1, b"b")]
    assert decoder.paused
    assert pairs(decoder.resume()) == [(0, b"c"), (1, b"d")]


def test_pause_holds_a_bounded_amount(framing: ModuleType) -> None:
    hello = framing.encode_frame(0, b"hello")
    for step in (1, 7, 1000):
        decoder = framing.FrameDecoder({0: 100}, buffer_size=50, pause_after=0)
        stream = hello + bytes(50)
        assert feed_all(decoder, stream, list(range(0, len(stream), step))) == [(0, b"hello")]
        assert (decoder.error, decoder.held) == (None, 50)
        assert decoder.feed(b"x") == []
        assert decoder.error.args == ("too-large", 0, 51, 50)
        assert decoder.held == 0

    decoder = framing.FrameDecoder({0: 100}, buffer_size=50, pause_after=0)
    assert pairs(decoder.feed(hello + bytes(51))) == [(0, b"hello")]
    assert decoder.error.args == ("too-large", 0, 51, 50)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_no_more_frames_come_than_are_left(framing: ModuleType, step: int) -> None:
    items = [(number % 3, bytes(number % 3)) for number in range(10)]
    stream = framing.encode_frames(items)
    decoder = framing.FrameDecoder({0: 9, 1: 9, 2: 9})
    out: list[Any] = []
    for start in range(0, len(stream), step):
        decoder.frames_left = 4
        frames = decoder.feed(stream[start : start + step])
        while True:
            assert len(frames) <= 4
            assert decoder.frames_left == 4 - len(frames)
            out += pairs(frames)
            if not decoder.paused:
                break
            decoder.frames_left = 4
            frames = decoder.resume()
    assert out == items
    assert (decoder.held, decoder.error) == (0, None)


def test_the_last_that_is_left_pauses_only_before_others(framing: ModuleType) -> None:
    whole = framing.encode_frames([(0, b"a"), (0, b"b")])
    decoder = framing.FrameDecoder({0: 9}, buffer_size=8)
    decoder.frames_left = 2
    assert pairs(decoder.feed(whole)) == [(0, b"a"), (0, b"b")]
    assert not decoder.paused
    assert decoder.feed(whole[:4]) == []
    assert (decoder.paused, decoder.held, decoder.pending) == (True, 4, 0)
    assert decoder.feed(bytes(12)) == []
    assert (decoder.error, decoder.held) == (None, 16)
    decoder.feed(b"x")
    assert decoder.error.args == ("too-large", 0, 17, 16)


def test_what_is_discarded_is_held_no_more(framing: ModuleType) -> None:
    decoder = framing.FrameDecoder({0: 1 << 20}, pause_after=1)
    decoder.feed(framing.encode_frame(0, bytes(1 << 20))[:-1])
    assert decoder.pending == (1 << 20) + 4
    decoder.discard()
    assert (decoder.pending, decoder.expected, decoder.held) == (0, 0, 0)
    decoder.set_cap(1, 0)
    decoder.feed(framing.encode_frame(1, b"") + b"glued")
    assert decoder.held == 5
    decoder.discard()
    assert decoder.held == 0


def test_pause_inside_the_read_buffer(framing: ModuleType) -> None:
    stream = framing.encode_frames([(0, b"hello"), (1, b"one")])
    decoder = framing.FrameDecoder({0: 9, 1: 9}, pause_after=0)
    buffer = decoder.get_buffer(-1)
    buffer[: len(stream)] = stream
    assert pairs(decoder.buffer_updated(len(stream))) == [(0, b"hello")]
    buffer[: len(stream)] = bytes(len(stream))  # the socket reads over it
    assert pairs(decoder.resume()) == [(1, b"one")]
