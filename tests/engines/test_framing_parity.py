"""The twins of framing agree on every stream, good, mutated or arbitrary, however it is cut."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor._ext import framing as compiled
from moderntensor._pure import framing as pure

CAPS = {0: 40, 1: 8, 2: 0, 3: 5000, 255: 1}
TYPES = st.sampled_from([0, 0, 1, 1, 2, 3, 3, 255, 7])
FRAMES = st.lists(st.tuples(TYPES, st.binary(max_size=60)), max_size=12)
# One step of a decoder's life.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.integers(0, 90)),
        st.tuples(st.just("read"), st.integers(0, 32)),
        st.tuples(st.just("resume"), st.none()),
        st.tuples(st.just("pause_after"), st.sampled_from([-1, 0, 1, 3])),
        st.tuples(st.just("frames_left"), st.sampled_from([-1, 0, 1, 2, 5])),
        st.tuples(st.just("discard"), st.none()),
        st.tuples(
            st.just("cap"), st.tuples(TYPES, st.none() | st.integers(-1, 70) | st.just(2**31))
        ),
    ),
    max_size=40,
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Valid frames with, mostly, a few bytes changed, removed or put in."""
    stream = bytearray(pure.encode_frames(draw(FRAMES)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(stream)))
        match draw(st.sampled_from(["change", "remove", "insert"])):
            case "change" if at < len(stream):
                stream[at] = draw(st.integers(0, 255))
            case "remove":
                del stream[at : at + draw(st.integers(1, 6))]
            case _:
                stream[at:at] = draw(st.binary(max_size=6))
    return bytes(stream)


def outcome(action: Callable[[], Any]) -> Any:
    """What came of it, comparable between twins."""
    try:
        result = action()
    except Exception as error:
        return type(error), str(error), error.args
    if isinstance(result, list):
        return [repr(frame) for frame in result]
    return result


def state(decoder: Any) -> tuple[Any, ...]:
    error = decoder.error
    return (
        None if error is None else (type(error), str(error), error.args),
        decoder.paused,
        decoder.pending,
        decoder.held,
        decoder.expected,
        decoder.frames_decoded,
        decoder.bytes_decoded,
        decoder.pause_after,
        decoder.frames_left,
        [decoder.cap(frame_type) for frame_type in (0, 1, 2, 3, 7, 255)],
    )


def read(decoder: Any, data: bytes) -> Any:
    decoder.get_buffer(-1)[: len(data)] = data
    return decoder.buffer_updated(len(data))


def life(engine: ModuleType, stream: bytes, steps: list[tuple[str, Any]]) -> list[Any]:
    decoder = engine.FrameDecoder(CAPS, buffer_size=32, pause_after=0)
    seen: list[Any] = []
    at = 0
    for step, value in steps:
        if step in ("feed", "read"):
            chunk, at = stream[at : at + value], at + value
            call = decoder.feed if step == "feed" else lambda data: read(decoder, data)
            seen.append(outcome(lambda call=call, chunk=chunk: call(chunk)))
        elif step == "resume":
            seen.append(outcome(decoder.resume))
        elif step == "pause_after":
            decoder.pause_after = value
        elif step == "frames_left":
            decoder.frames_left = value
        elif step == "discard":
            decoder.discard()
        else:
            seen.append(outcome(lambda value=value: decoder.set_cap(*value)))
        seen.append(state(decoder))
    return seen


@settings(max_examples=400, deadline=None)
@given(streams() | st.binary(max_size=300), STEPS)
def test_twins_agree_on_every_step(stream: bytes, steps: list[tuple[str, Any]]) -> None:
    assert life(pure, stream, steps) == life(compiled, stream, steps)


@settings(max_examples=300, deadline=None)
@given(streams() | st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=12))
def test_no_split_changes_the_outcome(stream: bytes, cuts: list[int]) -> None:
    ends = [*sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    results = []
    for engine in (pure, compiled):
        for steps in (ends, ends[-1:], list(range(1, len(stream) + 1))):
            decoder = engine.FrameDecoder(CAPS)
            frames: list[Any] = []
            start = 0
            for end in steps:
                if decoder.error is None:
                    frames += decoder.feed(stream[start:end])
                start = end
            results.append(([repr(frame) for frame in frames], state(decoder)))
    assert all(result == results[0] for result in results)


ANYTHING = st.one_of(
    st.integers(-300, 300), st.none(), st.booleans(), st.floats(), st.text(max_size=3),
    st.binary(max_size=20), st.binary(max_size=5).map(bytearray), st.integers(),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.binary(max_size=40))
        | st.tuples(ANYTHING, ANYTHING)
        | ANYTHING,
        max_size=6,
    )
)
def test_twins_encode_alike(items: list[Any]) -> None:
    assert outcome(lambda: pure.encode_frames(items)) == outcome(
        lambda: compiled.encode_frames(items)
    )
    for item in items:
        if isinstance(item, tuple):
            assert outcome(lambda item=item: pure.encode_frame(*item)) == outcome(
                lambda item=item: compiled.encode_frame(*item)
            )
            assert outcome(lambda item=item: repr(pure.Frame(*item))) == outcome(
                lambda item=item: repr(compiled.Frame(*item))
            )


@given(st.binary(max_size=100))
def test_what_is_encoded_decodes(payload: bytes) -> None:
    for engine in (pure, compiled):
        decoder = engine.FrameDecoder({3: 100})
        assert decoder.feed(engine.encode_frame(3, payload)) == [engine.Frame(3, payload)]


@given(st.none() | st.integers() | st.text(max_size=2) | st.lists(st.integers(), max_size=2))
def test_twins_refuse_alike_what_is_no_bytes(data: Any) -> None:
    assert outcome(lambda: pure.FrameDecoder(CAPS).feed(data)) == outcome(
        lambda: compiled.FrameDecoder(CAPS).feed(data)
    )
