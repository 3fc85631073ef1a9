"""The layout engine itself: any schema, any bytes under it, values that nearly fit."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from helpers.schemas import CLASSES, fill
from helpers.schemas import same as equal

from ..reader import Reader
from ..twins import Engines, TwinsDisagreeError, same
from . import Target

Schema = tuple[Any, ...]

DEEPEST = 5
ODD = (None, True, -1, 1 << 70, 1 << 128, 1.5, "a\x7f", b"", b"x" * 300, bytearray(2), [1], (), {})


def _schema(reader: Reader, depth: int) -> Schema:  # noqa: PLR0911 - one for each kind
    """A schema, mostly one that makes sense."""
    kind = reader.below(6 if depth >= DEEPEST else 12)
    width = reader.pick((1, 2, 4, 1, 2, 3))
    match kind:
        case 0 | 1:
            size = reader.pick((1, 2, 4, 8, 16, 1, 5))
            top = (1 << (8 * size)) - 1
            lo = reader.pick((0, 0, 0, 1, 2))
            return ("u", size, lo, reader.pick((top, top, top - 1, lo, top + 1)))
        case 2:
            return ("fixed", reader.pick((1, 2, 20, 32, 0)))
        case 3 | 4:
            lo = reader.pick((0, 0, 1, 3))
            return ("bytes", width, lo, lo + reader.below(40))
        case 5:
            return ("str", width, reader.below(60))
        case 6 | 7:
            return ("list", width, reader.below(20), _schema(reader, depth + 1))
        case 8:
            return ("optional", _schema(reader, depth + 1))
        case 9:
            return ("tuple", tuple(_schema(reader, depth + 1) for _ in range(reader.below(4))))
        case 10:
            return _record(reader, depth + 1)
        case _:
            inner = _schema(reader, depth + 1)
            return ("raw", inner) if reader.flag() else ("sized", width, reader.below(90), inner)


def _record(reader: Reader, depth: int) -> Schema:
    cls = CLASSES[reader.pick((1, 2, 4))]
    fields = tuple((name, _schema(reader, depth)) for name in cls.__slots__)  # type: ignore[attr-defined]
    return ("record", cls, fields)


def _value(schema: Schema, reader: Reader) -> Any:  # noqa: PLR0911 - one for each kind
    """A value for `schema`; now and then one that does not fit."""
    kind, *rest = schema
    if reader.below(16) == 1:
        return reader.pick(ODD)
    match kind:
        case "u":
            return min(max(reader.number(min(rest[0], 8)), rest[1]), rest[2])
        case "fixed":
            return reader.fixed(rest[0])
        case "bytes":
            return reader.chunk()[: rest[2]].ljust(rest[1])
        case "str":
            return "".join(chr(0x20 + byte % 0x5F) for byte in reader.chunk()[: rest[1]])
        case "list":
            count = reader.below(rest[1] + 1)
            made = [_value(rest[2], reader) for _ in range(count)]
            return made if reader.flag() else tuple(made)
        case "optional":
            return _value(rest[0], reader) if reader.flag() else None
        case "tuple":
            return tuple(_value(item, reader) for item in rest[0])
        case "sized":
            return _value(rest[2], reader)
        case "raw":
            return reader.chunk()
    return fill(rest[0], [_value(field, reader) for _, field in rest[1]])


class _Same:
    """A value that equals another of the twins where its parts do."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and equal(self.value, other.value)

    __hash__ = None  # type: ignore[assignment]


def layouts(data: bytes) -> None:
    reader = Reader(data)
    schema = _record(reader, 0)
    made = SimpleNamespace()

    def compile_it(engines: Engines) -> Any:
        layout = engines.layout.Layout(*schema[1:])
        setattr(made, engines.name, layout)
        return layout.min_size, layout.names, repr(layout)

    if same(compile_it, TypeError, ValueError)[0] != "value":
        return

    def layout(engines: Engines) -> Any:
        return getattr(made, engines.name)

    if reader.flag():
        value = _value(schema, reader)
        kind, packed = same(lambda engines: layout(engines).pack(value), TypeError)
        if kind == "value":
            again = same(lambda engines: _Same(layout(engines).unpack(packed)))
            if again[0] == "value" and not equal(again[1].value, value):
                raise TwinsDisagreeError(f"{value!r} came back as {again[1].value!r}")
        return
    encoding = reader.rest()
    kind, found = same(lambda engines: _Same(layout(engines).unpack(encoding)))
    if kind == "value":
        packed = same(lambda engines: layout(engines).pack(found.value))
        assert packed == ("value", encoding), "two encodings of one value"
    for offset in (0, 1, len(encoding), len(encoding) + 1):
        same(
            lambda engines, at=offset: _Same(layout(engines).unpack_from(encoding, at)), ValueError
        )


def _seeds() -> Iterator[bytes]:
    for kind in range(12):
        body = bytes([0, kind, 0, 0, 0, 0, 0, 0])
        yield body + b"\0" + bytes(range(40))
        yield body + b"\1" + bytes(range(40))
    yield bytes([2, 6, 1, 5, 0, 1, 0, 0, 3, 0, 0, 9, 5, 1, 9, 8, 0, 2, 0, 0]) + bytes(60)
    yield bytes([1, 10, 0, 1, 9, 0, 3, 0, 0, 3, 0, 0, 11, 0, 0, 0, 2, 0, 0, 0]) + b"\1" * 60


TARGETS = {"layouts": Target(layouts, _seeds, longest=1024)}
