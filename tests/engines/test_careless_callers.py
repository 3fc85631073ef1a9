"""What a caller does with what it was given, or gives, never reaches foreign memory.

On the compiled twin a failure here may be a crash; `.ci/sanitize` finds the quiet ones.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from helpers.schemas import One, fill

from moderntensor.errors import DecodeError, EncodeError

ZERO = bytes(32)
U8 = ("u", 1, 0, 255)


class Liar(int):
    """Keeps its value, but says that it lies within any bounds."""

    def __lt__(self, other: object) -> bool:
        return True

    __le__ = __gt__ = __ge__ = __lt__


# --- framing -------------------------------------------------------------------------------


def test_a_released_read_buffer_is_not_read(engine: Any) -> None:
    framing = engine.framing
    decoder = framing.FrameDecoder({1: 8}, buffer_size=1 << 20)
    with decoder.get_buffer(-1) as view:
        view[:6] = framing.encode_frame(1, b"x")
    for n in (0, 6):
        with pytest.raises(ValueError, match="released memoryview"):
            decoder.buffer_updated(n)
    assert decoder.feed(framing.encode_frame(1, b"y")) == [framing.Frame(1, b"y")]


def test_no_bytes_change_nothing(engine: Any) -> None:
    framing = engine.framing
    decoder = framing.FrameDecoder({1: 8}, buffer_size=8)
    frames = []
    for byte in framing.encode_frame(1, b"x"):
        for empty in (b"", memoryview(b""), bytearray()):
            assert decoder.feed(empty) == decoder.buffer_updated(0) == []
        frames += decoder.feed(bytes([byte]))
    assert frames == [framing.Frame(1, b"x")]


def test_a_list_of_frames_that_lies(engine: Any) -> None:
    """What it says when it is asked counts, and that it changes meanwhile does no harm."""

    class Frames(list[Any]):
        def __iter__(self) -> Any:
            yield (1, b"said")
            self.clear()
            yield (2, b"more")

    framing = engine.framing
    said = framing.encode_frames([(1, b"said"), (2, b"more")])
    assert framing.encode_frames(Frames([(9, b"hidden")] * 100)) == said


def test_frame_types_that_lie(engine: Any) -> None:
    framing = engine.framing
    for value in (0, 7, 255):
        wire = framing.encode_frame(value, b"x")
        assert framing.encode_frame(Liar(value), b"x") == wire
        assert framing.encode_frames([(Liar(value), b"x")]) == wire
        assert framing.Frame(Liar(value), b"x").type == value


# --- layout --------------------------------------------------------------------------------


def test_an_offset_that_lies(engine: Any) -> None:
    layout = engine.layout.Layout(One, (("a", U8),))
    for wrong in (-1, -(1 << 40), 6, 1 << 40, 1 << 70):
        with pytest.raises(ValueError, match=f"^offset {wrong} is outside of 5 bytes$"):
            layout.unpack_from(b"12345", Liar(wrong))
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        layout.unpack_from(b"12345", None)


def test_raw_bytes_of_any_size(engine: Any) -> None:
    """Also where all that is valid has one size: what is wrong may exceed any buffer."""
    long = b"\x01" * 70_000
    for schema, value, text in [
        (("raw", U8), long, "One.a: 69999 trailing bytes"),
        (("raw", ("tuple", (U8, ("fixed", 2)))), long, "One.a: 69997 trailing bytes"),
        (
            ("tuple", (U8, ("raw", ("sized", 1, 1, U8)))),
            (1, long),
            "One.a[1]: 69998 trailing bytes",
        ),
    ]:
        layout = engine.layout.Layout(One, (("a", schema),))
        with pytest.raises(EncodeError, match=rf"^{re.escape(text)}$"):
            layout.pack(fill(One, (value,)))


def test_a_declaration_changed_after_it_was_compiled(engine: Any) -> None:
    inner = type("Inner", (), {"__slots__": ("".join(("long", "name")),)})
    field = ["".join(("long", "name")), U8]
    layout = engine.layout.Layout(One, (("a", ("record", inner, (field,))),))
    field.clear()
    others = ["".join(("long", f"{n:04}")) for n in range(1000)]  # one would take its place
    with pytest.raises(DecodeError, match=r"^One.a.longname: needs 1 byte at offset 0, 0 left$"):
        layout.unpack(b"")
    del others


# --- merkle --------------------------------------------------------------------------------


def test_a_depth_that_lies(engine: Any) -> None:
    merkle = engine.merkle
    for depth in (-(1 << 31), -1, 257, 1 << 31, 1 << 70):
        with pytest.raises(DecodeError, match=rf"^depth: {depth}, must be 0 to 256$"):
            merkle.state_subtree(b"", Liar(depth))
        with pytest.raises(DecodeError, match=rf"^depth: {depth}, must be 0 to 256$"):
            merkle.state_nodes(bytes(240), Liar(depth))
        with pytest.raises(DecodeError, match=rf"^depth: {depth}, must be 0 to 256$"):
            merkle.state_records(bytes(216), Liar(depth))
    for call in (merkle.state_nodes, merkle.state_records):
        with pytest.raises(DecodeError, match=r"^threshold: 0, must be 1 to"):
            call(b"", 0, ZERO, Liar(0))


class Undecided:
    """Is neither true nor false."""

    def __bool__(self) -> bool:
        raise OSError("ask again")


def test_rows_that_are_neither_wanted_nor_not(engine: Any) -> None:
    record = bytes(20) + bytes(7) + b"\1" + bytes(80)
    with pytest.raises(OSError, match="ask again"):
        engine.merkle.state_records(record, rows=Undecided())


def test_positions_that_lie(engine: Any) -> None:
    merkle = engine.merkle
    for index in (-1, 3, 1 << 70):
        with pytest.raises(IndexError):
            merkle.list_proof([b"a", b"b", b"c"], Liar(index))
        assert not merkle.verify_list_proof(ZERO, b"", Liar(index), 3, [])
    for count in (-1, 1, 1 << 70):
        assert not merkle.verify_list_proof(ZERO, b"", 1, Liar(count), [])
