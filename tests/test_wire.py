"""The declaration language: from annotated classes to records with an encoding."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Annotated, Any, ClassVar

import pytest

from moderntensor.errors import DecodeError, EncodeError
from moderntensor.wire import (
    MESSAGES,
    Address20,
    Bytes16,
    Hash32,
    Key32,
    Max,
    Record,
    Signature64,
    U,
    bytes8,
    bytes16,
    bytes32,
    cached,
    list8,
    list16,
    list32,
    message,
    optional,
    raw,
    record,
    schema_of,
    sized32,
    str8,
    str16,
    u8,
    u16,
    u32,
    u64,
    u128,
    unsigned_layout,
)


@record
class Point(Record):
    """A place."""

    x: u16
    y: u16 = 7


@record
class Sheet(Record):
    """Every kind of field."""

    label: ClassVar[str] = "not a field"

    number: Annotated[int, U(2, lo=1, hi=2048)] = 192
    origin: Point
    hashes: Annotated[list8[Hash32], Max(2)] = ()
    pairs: list16[tuple[u8, str8]] = ()
    parent: optional[Hash32] = None
    boxed: sized32[Point]
    points: raw[Annotated[list16[Point], Max(3)]] = b"\0\0"
    signature: Signature64 = bytes(64)

    _digest: int = cached()

    @property
    def digest(self) -> int:
        """Counts how often it is worked out."""
        try:
            return self._digest
        except AttributeError:
            object.__setattr__(self, "_digest", self.number + 1)
            return self._digest

    def twice(self) -> int:
        return 2 * self.number


SHEET = Sheet(
    origin=Point(x=1),
    boxed=Point(x=3, y=4),
    pairs=((5, "a"), (6, "")),
    parent=b"\x11" * 32,
    points=bytes.fromhex("0001 0008 0009"),
)
ENCODED = bytes.fromhex(
    "00c0" "00010007" "00" "0002 05 01 61 06 00" + "01" + "11" * 32 + "00000004 00030004"
    "0001 00080009" + "00" * 64
)  # fmt: skip


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (u8, ("u", 1, 0, 255)),
        (u16, ("u", 2, 0, 65535)),
        (u32, ("u", 4, 0, (1 << 32) - 1)),
        (u64, ("u", 8, 0, (1 << 64) - 1)),
        (u128, ("u", 16, 0, (1 << 128) - 1)),
        (Annotated[int, U(2, lo=1, hi=9)], ("u", 2, 1, 9)),
        (Bytes16, ("fixed", 16)),
        (Address20, ("fixed", 20)),
        (Hash32, ("fixed", 32)),
        (Key32, ("fixed", 32)),
        (Signature64, ("fixed", 64)),
        (bytes8, ("bytes", 1, 0, 255)),
        (bytes16, ("bytes", 2, 0, 65535)),
        (bytes32, ("bytes", 4, 0, (1 << 32) - 1)),
        (Annotated[bytes8, Max(32)], ("bytes", 1, 0, 32)),
        (Annotated[bytes8, Max(999)], ("bytes", 1, 0, 255)),
        (str8, ("str", 1, 255)),
        (Annotated[str16, Max(256)], ("str", 2, 256)),
        (list8[u8], ("list", 1, 255, ("u", 1, 0, 255))),
        (list32[list16[str8]], ("list", 4, (1 << 32) - 1, ("list", 2, 65535, ("str", 1, 255)))),
        (Annotated[list8[Hash32], Max(64)], ("list", 1, 64, ("fixed", 32))),
        (
            list8[Annotated[bytes32, Max(5)]],
            ("list", 1, 255, ("bytes", 4, 0, 5)),
        ),
        (optional[Hash32], ("optional", ("fixed", 32))),
        (optional[list8[u8]], ("optional", ("list", 1, 255, ("u", 1, 0, 255)))),
        (tuple[u8, Hash32], ("tuple", (("u", 1, 0, 255), ("fixed", 32)))),
        (sized32[list8[u8]], ("sized", 4, (1 << 32) - 1, ("list", 1, 255, ("u", 1, 0, 255)))),
        (Annotated[sized32[Point], Max(9)], ("sized", 4, 9, ("record", Point, Point.__fields__))),
        (raw[list8[Hash32]], ("raw", ("list", 1, 255, ("fixed", 32)))),
        (Point, ("record", Point, Point.__fields__)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_schemas(annotation: Any, schema: Any) -> None:
    assert schema_of(annotation) == schema


@pytest.mark.parametrize(
    "annotation", [int, bytes, str, float, tuple[u8, ...], list[u8], Annotated[int, "a comment"]]
)
def test_what_does_not_say_its_encoding(annotation: Any) -> None:
    with pytest.raises(TypeError, match="does not say how it is encoded"):
        schema_of(annotation)


def test_a_bound_needs_something_to_bound() -> None:
    for annotation in (Annotated[int, Max(5)], Annotated[Hash32, Max(5)], Annotated[u8, Max(5)]):
        with pytest.raises(TypeError, match=r"^Max\(5\) needs something with a length or count"):
            schema_of(annotation)


def test_a_bad_field_is_named() -> None:
    with pytest.raises(TypeError, match=r"^Bad.y: <class 'int'> does not say how it is encoded$"):

        @record
        class Bad(Record):
            x: u8
            y: int


def test_encodes_in_the_order_of_declaration() -> None:
    assert SHEET.encode() == ENCODED
    assert Sheet.decode(ENCODED) == SHEET
    assert [name for name, _ in Sheet.__fields__] == list(Sheet.LAYOUT.names)
    assert Sheet.LAYOUT.names[:2] == ("number", "origin")


def test_errors_name_the_field() -> None:
    with pytest.raises(EncodeError, match=r"^Sheet.origin.y: 65536, at most 65535$"):
        SHEET.replace(origin=Point(x=0, y=65536)).encode()
    with pytest.raises(EncodeError, match=r"^Sheet.hashes: 3 items, at most 2$"):
        SHEET.replace(hashes=(bytes(32),) * 3).encode()
    with pytest.raises(EncodeError, match=r"^Sheet.points: needs at least 4 bytes for 1 item"):
        SHEET.replace(points=bytes.fromhex("0001 000800")).encode()
    with pytest.raises(EncodeError, match=r"^Sheet.points: 4 items, at most 3$"):
        SHEET.replace(points=bytes.fromhex("0004")).encode()
    with pytest.raises(DecodeError, match=r"^Sheet: 2 trailing bytes$"):
        Sheet.decode(ENCODED + b"\0\0")


def test_encode_and_decode_stand_in_front() -> None:
    """They are the engine's own functions, and found wherever methods are looked for."""
    assert Point.encode(Point(x=1)) == Point(x=1).encode() == b"\0\x01\0\x07"
    assert Point(x=1).decode(b"\0\x02\0\x03") == Point(x=2, y=3)
    assert "wire encoding" in (Point.encode.__doc__ or "")
    assert "DecodeError" in (Point.decode.__doc__ or "")
    with pytest.raises(TypeError, match=r"'Point' objects doesn't apply to a 'Sheet'"):
        Point.encode(SHEET)  # type: ignore[arg-type]


def test_a_record_may_have_its_own_encode_and_decode() -> None:
    @record
    class Marked(Record):
        x: u8

        def encode(self) -> bytes:
            return b"!" + self.LAYOUT.pack(self)

        @classmethod
        def decode(cls, data: bytes) -> Marked:
            return cls.LAYOUT.unpack(data[1:])  # type: ignore[no-any-return]

    assert Marked(x=1).encode() == b"!\x01"
    assert Marked.decode(b"!\x01") == Marked(x=1)


def test_a_record_may_say_how_large_it_is_at_most() -> None:
    @record
    class Short(Record):
        MAX_SIZE: ClassVar[int] = 3

        numbers: list8[u8] = ()

    assert Short.decode(b"\x02ab").numbers == (97, 98)
    with pytest.raises(DecodeError, match=r"^Short: 4 bytes, at most 3$"):
        Short.decode(b"\x03abc")
    assert Point.MAX_SIZE is None


def test_the_constructor() -> None:
    assert str(inspect.signature(Point)) == "(*, x, y=7)"
    with pytest.raises(TypeError):
        Point(1)  # type: ignore[misc]
    with pytest.raises(TypeError, match="'x'"):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'z'"):
        Point(x=1, z=2)  # type: ignore[call-arg]
    assert Point(x=-5).x == -5  # what cannot be encoded is found when it is encoded


def test_records_are_values() -> None:
    assert Point(x=1) == Point(x=1, y=7)
    assert Point(x=1) != Point(x=2)
    assert Point(x=1) != (1, 7)
    assert len({Point(x=1), Point(x=1), Point(x=2)}) == 2
    other: Any = record(type("Point", (Record,), {"__annotations__": {"x": u16, "y": u16}}))
    assert other(x=1, y=7) != Point(x=1)


def test_records_cannot_be_changed() -> None:
    point: Any = Point(x=1)
    for name in ("x", "z", "LAYOUT"):
        with pytest.raises(AttributeError, match=f"^Point is immutable, cannot set '{name}'$"):
            setattr(point, name, 5)
    with pytest.raises(AttributeError, match=r"^Point is immutable, cannot delete 'x'$"):
        del point.x
    assert point == Point(x=1)
    assert not hasattr(point, "__dict__")


def test_records_cannot_be_subclassed() -> None:
    with pytest.raises(TypeError, match=r"^records cannot be subclassed \(Worse\)$"):

        class Worse(Point):
            pass


def test_replace() -> None:
    assert Point(x=1).replace(y=9) == Point(x=1, y=9)
    with pytest.raises(TypeError, match=r"^Point has no field 'z'$"):
        Point(x=1).replace(z=9)


def test_cached_slots_are_not_on_the_wire() -> None:
    sheet = SHEET.replace(number=5)
    assert "_digest" not in dict(Sheet.__fields__)
    assert "_digest" not in inspect.signature(Sheet).parameters
    with pytest.raises(AttributeError):
        _ = sheet._digest
    assert sheet.digest == 6
    assert sheet._digest == 6
    assert sheet == SHEET.replace(number=5)  # and take no part in equality
    with pytest.raises(AttributeError):
        _ = Sheet.decode(sheet.encode())._digest
    with pytest.raises(AttributeError):
        _ = sheet.replace(number=7)._digest


def test_copies_and_pickles() -> None:
    sheet = SHEET.replace(number=5)
    assert sheet.digest == 6
    for made in (copy.copy(sheet), copy.deepcopy(sheet), pickle.loads(pickle.dumps(sheet))):  # noqa: S301
        assert made == sheet
        assert made.digest == 6
        assert type(made) is Sheet


def test_methods_docs_and_class_variables_stay() -> None:
    assert Sheet.__doc__ == "Every kind of field."
    assert Sheet.__module__ == __name__
    assert Sheet.__qualname__ == "Sheet"
    assert (SHEET.twice(), Sheet.label) == (384, "not a field")
    assert "label" not in dict(Sheet.__fields__)


def test_repr_is_short() -> None:
    assert repr(Point(x=1)) == "Point(x=1, y=7)"
    assert repr(SHEET.replace(hashes=(b"\xab" * 2,))).startswith(
        "Sheet(number=192, origin=Point(x=1, y=7), hashes=(0xabab,), pairs=((5, 'a'), (6, '')), "
    )
    large = SHEET.replace(points=bytes(100_000), hashes=(b"\1",) * 1000)
    assert len(repr(large)) < 600
    assert "points=0x0000000000000000…(100000 B)" in repr(large)
    assert "hashes=(0x01, 0x01, 0x01, 0x01, … 996 more)" in repr(large)


def test_without_the_base_it_is_added() -> None:
    @record
    class Bare:
        x: u8

    made: Any = Bare(x=5)
    assert isinstance(made, Record)
    assert made.encode() == b"\x05"


def test_unsigned_layout() -> None:
    part = unsigned_layout(Sheet)
    assert part.pack(SHEET) == ENCODED[:-64]
    assert unsigned_layout(Sheet, stop="hashes").pack(SHEET) == ENCODED[:6]
    with pytest.raises(ValueError, match="not in list"):
        unsigned_layout(Point)


def test_messages_are_registered_once() -> None:
    try:

        @message(0xE0, cap=99, reply=0xE1)
        class Ask(Record):
            x: u8

        assert MESSAGES[0xE0] is Ask
        made: Any = Ask
        assert (made.TYPE, made.CAP, made.REPLY) == (0xE0, 99, 0xE1)
        with pytest.raises(TypeError, match=r"^type 0xe0 is Ask already$"):

            @message(0xE0, cap=99)
            class Again(Record):
                x: u8
    finally:
        MESSAGES.pop(0xE0)
