"""The layout engine: every kind, every bound, every text, on both twins."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.schemas import Colour, One, Two, fill

from moderntensor.errors import DecodeError, EncodeError

MAX64 = (1 << 64) - 1
MAX128 = (1 << 128) - 1
U8 = ("u", 1, 0, 255)
PAIR = ("record", Two, (("a", U8), ("b", ("fixed", 2))))


def layout(engine: Any, schema: Any) -> Any:
    """A layout of one field `a`."""
    return engine.layout.Layout(One, (("a", schema),))


def one(value: Any) -> One:
    return fill(One, (value,))


def numbered(rows: list[Any]) -> list[str]:
    """Ids that do not print the values, some of which are immense."""
    return [f"{index}-{row[0][0] if row[0] else ''}" for index, row in enumerate(rows)]


# (schema, value, encoding)
GOOD: list[tuple[Any, Any, str]] = [
    (U8, 0, "00"),
    (U8, 255, "ff"),
    (U8, Colour.GREEN, "c8"),
    (("u", 2, 0, 0xFFFF), 0x1234, "1234"),
    (("u", 4, 0, 0xFFFFFFFF), 0xFFFFFFFF, "ffffffff"),
    (("u", 8, 0, MAX64), 1, "0000000000000001"),
    (("u", 8, 0, MAX64), 0x3FFFFFFF, "000000003fffffff"),
    (("u", 8, 0, MAX64), 0x40000000, "0000000040000000"),
    (("u", 8, 0, MAX64), MAX64, "ff" * 8),
    (("u", 16, 0, MAX128), MAX64, "00" * 8 + "ff" * 8),
    (("u", 16, 0, MAX128), 1 << 64, "00" * 7 + "01" + "00" * 8),
    (("u", 16, 0, MAX128), MAX128, "ff" * 16),
    (("u", 2, 1, 2048), 1, "0001"),
    (("u", 2, 1, 2048), 2048, "0800"),
    (("u", 16, 5 << 64, 6 << 64), 5 << 64, "00" * 7 + "05" + "00" * 8),
    (("fixed", 3), b"abc", "616263"),
    (("bytes", 1, 0, 255), b"", "00"),
    (("bytes", 1, 0, 255), bytes(255), "ff" + "00" * 255),
    (("bytes", 2, 1, 9), b"x", "000178"),
    (("bytes", 4, 0, 9), b"xy", "000000027879"),
    (("str", 1, 255), "", "00"),
    (("str", 2, 40), " ~azAZ09 and more", "0011" + b" ~azAZ09 and more".hex()),
    (("list", 1, 255, U8), (), "00"),
    (("list", 2, 9, U8), (1, 2), "00020102"),
    (("list", 4, 9, ("fixed", 2)), (b"ab", b"cd"), "0000000261626364"),
    (("list", 1, 9, ("list", 1, 9, U8)), ((1,), ()), "02010100"),
    (("optional", U8), None, "00"),
    (("optional", U8), 0, "0100"),
    (("tuple", (U8, ("fixed", 1))), (7, b"z"), "077a"),
    (("sized", 4, 99, ("list", 1, 9, U8)), (5,), "000000020105"),
    (("raw", ("list", 2, 9, ("fixed", 2))), bytes.fromhex("000161ff"), "000161ff"),
    (("raw", ("optional", ("str", 1, 5))), bytes.fromhex("01024142"), "01024142"),
]


@pytest.mark.parametrize(("schema", "value", "encoding"), GOOD, ids=numbered(GOOD))
def test_packs_and_unpacks(engine: Any, schema: Any, value: Any, encoding: str) -> None:
    it = layout(engine, schema)
    data = bytes.fromhex(encoding)
    assert it.pack(one(value)) == data
    decoded = it.unpack(data)
    assert type(decoded) is One
    assert decoded.a == value
    assert it.min_size <= len(data)
    if isinstance(value, tuple):
        assert it.pack(one(list(value))) == data


@pytest.mark.parametrize(("schema", "value", "encoding"), GOOD, ids=numbered(GOOD))
def test_refuses_every_truncation_and_trailing_byte(
    engine: Any, schema: Any, value: Any, encoding: str
) -> None:
    it = layout(engine, schema)
    data = bytes.fromhex(encoding)
    for size in range(len(data)):
        with pytest.raises(DecodeError, match=r"^One.a.*(left|trailing)"):
            it.unpack(data[:size])
    with pytest.raises(DecodeError, match=r"^One: 1 trailing byte$"):
        it.unpack(data + b"\0")
    # The same content behind other bytes, and verified without objects.
    assert it.unpack_from(b"xyz" + data + b"z", 3)[1] == 3 + len(data)
    raw = layout(engine, ("raw", schema))
    assert raw.unpack(data).a == data
    assert raw.pack(one(data)) == data


# (schema, value, text)
UNPACKABLE: list[tuple[Any, Any, str]] = [
    (U8, -1, "One.a: -1, at least 0"),
    (U8, 256, "One.a: 256, at most 255"),
    (U8, True, "One.a: must be int, not bool"),
    (U8, 1.0, "One.a: must be int, not float"),
    (U8, None, "One.a: must be int, not NoneType"),
    (U8, "1", "One.a: must be int, not str"),
    (("u", 2, 1, 2048), 0, "One.a: 0, at least 1"),
    (("u", 2, 1, 2048), 2049, "One.a: 2049, at most 2048"),
    (("u", 8, 0, MAX64), MAX64 + 1, f"One.a: {MAX64 + 1}, at most {MAX64}"),
    (("u", 8, 0, MAX64), 10**5000, "One.a: an int of 16610 bits, at most 18446744073709551615"),
    (("u", 8, 0, MAX64), -(10**5000), "One.a: an int of 16610 bits, at least 0"),
    (("u", 16, 0, MAX128), MAX128 + 1, f"One.a: an int of 129 bits, at most {MAX128}"),
    (("u", 16, 0, MAX128), -1, "One.a: -1, at least 0"),
    (("u", 16, 0, MAX128), -(1 << 64), f"One.a: -{1 << 64}, at least 0"),
    (("u", 16, 5 << 64, 6 << 64), (5 << 64) - 1, f"One.a: {(5 << 64) - 1}, at least {5 << 64}"),
    (("u", 16, 5 << 64, 6 << 64), (6 << 64) + 1, f"One.a: {(6 << 64) + 1}, at most {6 << 64}"),
    (("fixed", 3), b"ab", "One.a: 2 bytes, must be 3"),
    (("fixed", 3), b"a", "One.a: 1 byte, must be 3"),
    (("fixed", 3), bytearray(3), "One.a: must be bytes, not bytearray"),
    (("bytes", 1, 2, 4), b"a", "One.a: 1 byte, at least 2"),
    (("bytes", 1, 2, 4), b"abcde", "One.a: 5 bytes, at most 4"),
    (("bytes", 1, 2, 4), "ab", "One.a: must be bytes, not str"),
    (("str", 1, 4), "abcde", "One.a: 5 characters, at most 4"),
    (("str", 1, 4), b"abc", "One.a: must be str, not bytes"),
    (("str", 1, 99), "a\n", "One.a: character 0x0a at 1 is not printable ASCII"),
    (("str", 1, 99), "0123456789\x7f", "One.a: character 0x7f at 10 is not printable ASCII"),
    (("str", 1, 99), "01234567é", "One.a: character 0xe9 at 8 is not printable ASCII"),
    (("str", 1, 99), "\U0001f600", "One.a: character 0x1f600 at 0 is not printable ASCII"),
    (("list", 1, 2, U8), (1, 2, 3), "One.a: 3 items, at most 2"),
    (("list", 1, 2, U8), {1, 2}, "One.a: must be tuple or list, not set"),
    (("list", 1, 9, U8), (1, 2, 300), "One.a[2]: 300, at most 255"),
    (("list", 1, 9, ("fixed", 2)), (b"ab", b"a"), "One.a[1]: 1 byte, must be 2"),
    (("list", 1, 9, ("fixed", 2)), (b"ab", None), "One.a[1]: must be bytes, not NoneType"),
    (("tuple", (U8, U8)), (1,), "One.a: 1 item, must be 2"),
    (("tuple", (U8, U8)), (1, -1), "One.a[1]: -1, at least 0"),
    (("tuple", (U8, U8)), 5, "One.a: must be tuple or list, not int"),
    (("optional", U8), "x", "One.a: must be int, not str"),
    (PAIR, one(1), "One.a: must be Two, not One"),
    (PAIR, fill(Two, (1, b"x")), "One.a.b: 1 byte, must be 2"),
    (PAIR, Two(), "One.a.a: is not set"),
    (("list", 1, 9, PAIR), (fill(Two, (1, b"ab")), Two()), "One.a[1].a: is not set"),
    (("sized", 1, 3, ("bytes", 1, 0, 99)), b"abc", "One.a: 4 bytes, at most 3"),
    (
        ("raw", ("list", 1, 9, U8)),
        b"\x02\x01",
        "One.a: needs at least 2 bytes for 2 items at offset 1, 1 left",
    ),
    (("raw", ("list", 1, 9, U8)), b"\x01\x01\x01", "One.a: 1 trailing byte"),
    (("raw", ("list", 1, 1, U8)), (), "One.a: must be bytes, not tuple"),
    (
        ("raw", ("list", 1, 9, PAIR)),
        b"\x01\x01a",
        "One.a: needs at least 3 bytes for 1 item at offset 1, 2 left",
    ),
]


@pytest.mark.parametrize(("schema", "value", "text"), UNPACKABLE, ids=numbered(UNPACKABLE))
def test_names_what_cannot_be_packed(engine: Any, schema: Any, value: Any, text: str) -> None:
    with pytest.raises(EncodeError) as caught:
        layout(engine, schema).pack(one(value))
    assert str(caught.value) == text


# (schema, bytes, text)
UNREADABLE: list[tuple[Any, str, str]] = [
    (U8, "", "One.a: needs 1 byte at offset 0, 0 left"),
    (("u", 8, 0, MAX64), "000102", "One.a: needs 8 bytes at offset 0, 3 left"),
    (("u", 2, 1, 2048), "0000", "One.a: 0, at least 1"),
    (("u", 2, 1, 2048), "0801", "One.a: 2049, at most 2048"),
    (("u", 16, 5 << 64, 6 << 64), "ff" * 16, f"One.a: {MAX128}, at most {6 << 64}"),
    (("u", 16, 5 << 64, 6 << 64), "00" * 16, f"One.a: 0, at least {5 << 64}"),
    (("fixed", 32), "00" * 31, "One.a: needs 32 bytes at offset 0, 31 left"),
    (("bytes", 2, 0, 9), "00", "One.a: needs 2 bytes at offset 0, 1 left"),
    (("bytes", 2, 0, 9), "000a", "One.a: 10 bytes, at most 9"),
    (("bytes", 2, 2, 9), "000141", "One.a: 1 byte, at least 2"),
    (("bytes", 2, 0, 9), "000341", "One.a: needs 3 bytes at offset 2, 1 left"),
    (("bytes", 4, 0, 0xFFFFFFFF), "ffffffff", "One.a: needs 4294967295 bytes at offset 4, 0 left"),
    (("str", 1, 9), "01", "One.a: needs 1 byte at offset 1, 0 left"),
    (("str", 1, 9), "0a", "One.a: 10 characters, at most 9"),
    (("str", 1, 9), "021b5b", "One.a: character 0x1b at 0 is not printable ASCII"),
    (("str", 1, 9), "0941414141414141417f", "One.a: character 0x7f at 8 is not printable ASCII"),
    (("list", 1, 64, ("fixed", 32)), "46", "One.a: 70 items, at most 64"),
    (("list", 1, 64, U8), "0301", "One.a: needs at least 3 bytes for 3 items at offset 1, 1 left"),
    (("list", 4, 0xFFFFFFFF, ("fixed", 32)), "ffffffff00",
     "One.a: needs at least 137438953440 bytes for 4294967295 items at offset 4, 1 left"),
    (("list", 1, 9, ("bytes", 1, 0, 1)), "02000242", "One.a[1]: 2 bytes, at most 1"),
    (("list", 1, 9, ("tuple", (U8, ("u", 1, 0, 1)))), "02000000ff", "One.a[1][1]: 255, at most 1"),
    (("optional", U8), "02", "One.a: presence byte 2, must be 0 or 1"),
    (("optional", U8), "01", "One.a: needs 1 byte at offset 1, 0 left"),
    (PAIR, "0041", "One.a.b: needs 2 bytes at offset 1, 1 left"),
    (("sized", 1, 9, U8), "0a", "One.a: 10 bytes, at most 9"),
    (("sized", 1, 9, U8), "0200", "One.a: needs 2 bytes at offset 1, 1 left"),
    (("sized", 1, 9, U8), "00", "One.a: needs 1 byte at offset 1, 0 left"),
    (("sized", 1, 9, U8), "03000000", "One.a: 2 trailing bytes"),
    (("sized", 1, 9, U8), "000000", "One.a: needs 1 byte at offset 1, 0 left"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "encoding", "text"), UNREADABLE, ids=numbered(UNREADABLE))
def test_names_what_cannot_be_read(engine: Any, schema: Any, encoding: str, text: str) -> None:
    data = bytes.fromhex(encoding)
    with pytest.raises(DecodeError) as caught:
        layout(engine, schema).unpack(data)
    assert str(caught.value) == text
    with pytest.raises(DecodeError) as caught:  # verified without objects: the same words
        layout(engine, ("raw", schema)).unpack(data)
    assert str(caught.value) == text


# (schema, exception, text)
SENSELESS: list[tuple[Any, type[Exception], str]] = [
    ("u", ValueError, "not a schema: 'u'"),
    ((), ValueError, "not a schema: ()"),
    (("float", 8), ValueError, "not a schema: ('float', 8)"),
    (("u", 1), ValueError, "u: 1 arguments, must be 3"),
    (("u", 3, 0, 1), ValueError, "u: width 3 is not one of (1, 2, 4, 8, 16)"),
    (("u", 1, 0, 256), ValueError, "u: bounds 0..256 do not fit a width of 1"),
    (("u", 1, 2, 1), ValueError, "u: bounds 2..1 do not fit a width of 1"),
    (("u", 1, -1, 1), ValueError, "u: bounds -1..1 do not fit a width of 1"),
    (("u", 1, 0, True), ValueError, "u: bounds 0..True do not fit a width of 1"),
    (("fixed", 0), ValueError, "fixed: size 0 is not within 1..65535"),
    (("fixed", "1"), ValueError, "fixed: size '1' is not within 1..65535"),
    (("bytes", 8, 0, 1), ValueError, "bytes: width 8 is not one of (1, 2, 4)"),
    (("bytes", 1, 0, 256), ValueError, "bytes: bounds 0..256 do not fit a width of 1"),
    (("str", 1, 256), ValueError, "str: bounds 0..256 do not fit a width of 1"),
    (("list", 1, 256, U8), ValueError, "list: bounds 0..256 do not fit a width of 1"),
    (("list", 1, 9, 5), ValueError, "not a schema: 5"),
    (("sized", 1, 256, U8), ValueError, "sized: bounds 0..256 do not fit a width of 1"),
    (("tuple", ()), ValueError, "tuple: no items in ()"),
    (("tuple", [U8]), ValueError, "tuple: no items in [('u', 1, 0, 255)]"),
    (("optional", ("optional", U8)), ValueError,
     "optional: an optional item would have two ways to be None"),
    (("record", 5, ()), TypeError, "record: 5 is not a class"),
    (("record", Two, ()), ValueError, "Two: no fields in ()"),
    (("record", Two, (("x", U8),)), TypeError, "Two.x: is not a slot of this class"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "error", "text"), SENSELESS, ids=numbered(SENSELESS))
def test_refuses_schemas_without_sense(
    engine: Any, schema: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        layout(engine, schema)
    assert type(caught.value) is error
    assert str(caught.value) == text


def test_bounds_the_depth_of_schemas(engine: Any) -> None:
    def nested(depth: int) -> Any:
        schema: Any = U8
        for _ in range(depth):
            schema = ("tuple", (schema,))
        return schema

    deepest = engine.layout.MAX_DEPTH - 1
    value: Any = 7
    for _ in range(deepest):
        value = (value,)
    assert layout(engine, nested(deepest)).pack(one(value)) == b"\x07"
    with pytest.raises(ValueError, match="nest at most 16 deep"):
        layout(engine, nested(deepest + 1))
