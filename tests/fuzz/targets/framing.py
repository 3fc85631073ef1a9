"""The frame decoder: any stream, however it is cut, with caps that change and pauses between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from helpers.message_vectors import VECTORS

from ..reader import Reader, chunk
from ..twins import Engines, outcome, same
from . import Target

CAPS = {0: 40, 1: 8, 2: 0, 3: 5000, 255: 1}
BUFFER = 64
MOST_STEPS = 300


def _state(decoder: Any) -> tuple[Any, ...]:
    error = decoder.error
    return (
        None if error is None else (type(error).__name__, str(error), error.args),
        decoder.paused,
        decoder.pending,
        decoder.held,
        decoder.expected,
        decoder.frames_decoded,
        decoder.bytes_decoded,
        decoder.pause_after,
    )


def _read(decoder: Any, data: bytes) -> Any:
    decoder.get_buffer(-1)[: len(data)] = data
    return decoder.buffer_updated(len(data))


def _life(framing: ModuleType, data: bytes) -> list[Any]:
    """All that a decoder says while it is used as the input tells."""
    steps = Reader(data)
    caps, pause_after = (CAPS, 0) if steps.flag() else (dict.fromkeys(range(32), 5000), -1)
    decoder = framing.FrameDecoder(caps, buffer_size=BUFFER, pause_after=pause_after)
    seen: list[Any] = []

    def note(action: Callable[[], Any]) -> None:
        kind, value = outcome(action, ValueError)
        frames = [(f.type, f.payload) for f in value] if isinstance(value, list) else value
        seen.append((kind, frames, _state(decoder)))

    while steps.left and len(seen) < MOST_STEPS:
        match steps.below(7):
            case 0 | 1:
                part = steps.chunk()
                note(lambda part=part: decoder.feed(part))
            case 2:
                part = steps.chunk(2)
                note(lambda part=part: decoder.feed(part))
            case 3:
                part = steps.chunk()
                note(lambda part=part[:BUFFER]: _read(decoder, part))
            case 4:
                note(decoder.resume)
            case 5 if steps.below(8) == 1:
                decoder.discard()
            case 5:
                decoder.pause_after = steps.number(1) - 1
            case _:
                kind, cap = steps.number(1), steps.number(2) - 1
                note(lambda kind=kind, cap=cap: decoder.set_cap(kind, cap if cap else None))
        assert decoder.held <= BUFFER, "more is kept of a paused stream than its bound"
        assert decoder.pending <= 5 + 2**16, "more is kept of a frame than any cap here"
    return seen


def frames(data: bytes) -> None:
    same(lambda engines: _life(engines.framing, data))


def _all_of(framing: ModuleType, stream: bytes, cuts: list[int]) -> Any:
    decoder = framing.FrameDecoder(CAPS)
    found: list[Any] = []
    start = 0
    for end in [*cuts, len(stream)]:
        if decoder.error is None:
            found += [(f.type, f.payload) for f in decoder.feed(stream[start:end])]
        start = end
    return found, _state(decoder)


def splits(data: bytes) -> None:
    """One stream whole, cut in places, and byte by byte: one outcome."""
    reader = Reader(data)
    places = reader.chunk()
    stream = reader.rest()
    cuts = sorted(place * (len(stream) + 1) // 256 for place in places)

    def every_way(engines: Engines) -> Any:
        whole = _all_of(engines.framing, stream, [])
        assert whole == _all_of(engines.framing, stream, cuts), "a split changed the outcome"
        if len(stream) <= 256:
            single = list(range(1, len(stream)))
            assert whole == _all_of(engines.framing, stream, single), "single bytes changed it"
        return whole

    same(every_way)


def _frame_seeds() -> Iterator[bytes]:
    for vector in VECTORS:
        if len(vector.frame) < 3000:
            half = len(vector.frame) // 2
            yield b"\0\2" + chunk(vector.frame, 2)
            if half < 256 <= 2 * BUFFER + half:
                yield b"\0\0" + chunk(vector.frame[:half]) + b"\0" + chunk(vector.frame[half:])
    small = b"\0\0\0\x03\x01ab" + b"\0\0\0\1\2" + b"\0\0\0\5\0abcd" + b"\0\0\0\2\3x"
    yield b"\1\0" + chunk(small) + b"\4\4\5\4\3" + chunk(small) + b"\6\3\0\x02\0" + chunk(small)
    yield b"\1\3" + chunk(small) + b"\3" + chunk(small) + b"\3" + chunk(small) + b"\4\3\0"


def _stream_seeds() -> Iterator[bytes]:
    frames = [b"\0\0\0\x03\x01ab", b"\0\0\0\1\2", b"\0\0\0\x28\0" + b"x" * 39, b"\0\0\0\5\3abcd"]
    yield chunk(b"") + b"".join(frames)
    yield chunk(b"\x20\x40\x80\xf0") + b"".join(frames * 4)
    for bad in (b"\0\0\0\0", b"\0\0\0\3\2ab", b"\0\0\0\3\7ab", b"\xff\xff\xff\xff\3"):
        yield chunk(b"\x80") + frames[0] + bad + frames[1]


TARGETS = {"frames": Target(frames, _frame_seeds), "splits": Target(splits, _stream_seeds)}
