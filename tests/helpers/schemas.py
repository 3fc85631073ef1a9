"""Hypothesis strategies for layouts: schemas, values that fit them, values that nearly do."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from hypothesis import strategies as st

Schema = tuple[Any, ...]


class One:
    __slots__ = ("a",)


class Two:
    __slots__ = ("a", "b")


class Four:
    __slots__ = ("a", "b", "c", "d")


class Colour(IntEnum):
    RED = 1
    GREEN = 200


CLASSES = {1: One, 2: Two, 4: Four}

widths = st.sampled_from([1, 2, 4])


def top(width: int) -> int:
    return (1 << (8 * width)) - 1


@st.composite
def uints(draw: st.DrawFn) -> Schema:
    size = draw(st.sampled_from([1, 2, 4, 8, 16]))
    ends = [0, 1, top(size) - 1, top(size)]
    bound = st.sampled_from(ends) | st.integers(0, top(size))
    lo, hi = sorted((draw(bound), draw(bound)))
    return ("u", size, lo, hi)


leaves = st.one_of(
    uints(),
    st.builds(lambda n: ("fixed", n), st.sampled_from([1, 2, 20, 32])),
    st.builds(lambda w, lo, n: ("bytes", w, lo, lo + n), widths, st.integers(0, 2), st.just(40)),
    st.builds(lambda w, hi: ("str", w, hi), widths, st.integers(0, 40)),
)


def _grow(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.one_of(
        st.builds(lambda w, hi, item: ("list", w, hi, item), widths, st.integers(0, 4), inner),
        st.builds(
            lambda item: item if item[0] == "optional" else ("optional", item),
            inner,
        ),
        st.builds(lambda items: ("tuple", tuple(items)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda w, hi, item: ("sized", w, hi, item), widths, st.integers(0, 90), inner),
        st.builds(lambda item: ("raw", item), inner),
        records_of(inner),
    )


def records_of(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    def build(items: list[Schema]) -> Schema:
        cls = CLASSES[len(items)]
        return ("record", cls, tuple(zip(cls.__slots__, items, strict=True)))

    return st.sampled_from([1, 2, 4]).flatmap(
        lambda n: st.lists(inner, min_size=n, max_size=n).map(build)
    )


schemas = st.recursive(leaves, _grow, max_leaves=8)
record_schemas = records_of(schemas)

wild = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 300),
    st.sampled_from([-(1 << 70), 1 << 64, 1 << 128, 10**5000, Colour.RED, Colour.GREEN]),
    st.binary(max_size=40),
    st.binary(max_size=3).map(bytearray),
    st.text(max_size=5),
    st.just(1.5),
    st.lists(st.integers(0, 300), max_size=5),
    st.builds(One),
)


def values(schema: Schema, encode: Any, *, faults: bool = False) -> st.SearchStrategy[Any]:
    """Values that fit `schema`; with `faults`, some part may be anything.

    `encode(schema, value)` gives the bytes for raw parts.
    """
    good = _values(schema, encode, faults)
    return st.one_of(good, good, good, good, wild) if faults else good


def _values(schema: Schema, encode: Any, faults: bool) -> st.SearchStrategy[Any]:  # noqa: PLR0911
    kind, *rest = schema
    match kind:
        case "u":
            return st.integers(rest[1], rest[2])
        case "fixed":
            return st.binary(min_size=rest[0], max_size=rest[0])
        case "bytes":
            return st.binary(min_size=rest[1], max_size=min(rest[2], rest[1] + 8))
        case "str":
            printable = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
            return st.text(printable, max_size=rest[1])
        case "list":
            items = st.lists(values(rest[2], encode, faults=faults), max_size=rest[1])
            return items.flatmap(lambda made: st.sampled_from([tuple(made), made]))
        case "optional":
            return st.none() | values(rest[0], encode, faults=faults)
        case "tuple":
            return st.tuples(*(values(item, encode, faults=faults) for item in rest[0]))
        case "sized":
            return values(rest[2], encode, faults=faults)
        case "raw":
            return values(rest[0], encode).map(lambda value: encode(rest[0], value))
        case "record":
            return st.builds(
                lambda *parts: fill(rest[0], parts),
                *(values(field, encode, faults=faults) for _, field in rest[1]),
            )
    raise AssertionError(kind)


def fill(cls: type, parts: Any) -> Any:
    made = cls()
    for name, part in zip(cls.__slots__, parts, strict=True):  # type: ignore[attr-defined]
        setattr(made, name, part)
    return made


def same(left: Any, right: Any) -> bool:
    """Equality through slotted objects and across lists and tuples, types included."""
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if type(left) is not type(right):
        return isinstance(left, int) and isinstance(right, int) and left == right
    if type(left) in CLASSES.values():
        return all(same(getattr(left, n), getattr(right, n)) for n in type(left).__slots__)
    return bool(left == right)
