"""Hypothesis holds the compiled layout engine to the pure one, results and words alike."""

from __future__ import annotations

from typing import Any

from helpers.schemas import One, record_schemas, same, schemas, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moderntensor._pure import layout as pure

EXAMPLES = settings(max_examples=100, deadline=None)


def encode(schema: Any, value: Any) -> bytes:
    """The encoding of one value, for raw parts; such a value must fit."""
    made = One()
    made.a = value  # type: ignore[attr-defined]
    try:
        return pure.Layout(One, (("a", schema),)).pack(made)
    except ValueError:  # a sized part that came out too large: any bytes will do
        return b""


def outcome(call: Any, *arguments: Any) -> tuple[Any, ...]:
    try:
        return ("value", call(*arguments))
    except Exception as error:  # compared, whatever it is
        return (type(error), str(error))


def both(twins: Any, schema: Any) -> tuple[Any, Any]:
    layouts = [engine.layout.Layout(*schema[1:]) for engine in twins]
    assert layouts[0].min_size == layouts[1].min_size
    assert layouts[0].names == layouts[1].names
    return layouts[0], layouts[1]


def agree(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    return left[0] == right[0] and same(left[1], right[1])


@EXAMPLES
@given(data=st.data(), schema=record_schemas)
def test_packing(twins: Any, data: Any, schema: Any) -> None:
    slow, fast = both(twins, schema)
    value = data.draw(values(schema, encode, faults=True))
    one, two = outcome(slow.pack, value), outcome(fast.pack, value)
    assert one == two


@EXAMPLES
@given(data=st.data(), schema=record_schemas)
def test_round_trip(twins: Any, data: Any, schema: Any) -> None:
    slow, fast = both(twins, schema)
    value = data.draw(values(schema, encode))
    packed = outcome(slow.pack, value)
    assert packed == outcome(fast.pack, value)
    assume(packed[0] == "value")  # a sized part may come out too large
    encoding = packed[1]
    for it in (slow, fast):
        assert same(it.unpack(encoding), value)
        assert it.pack(it.unpack(encoding)) == encoding


@EXAMPLES
@given(data=st.data(), schema=record_schemas)
def test_unpacking_mutated_encodings(twins: Any, data: Any, schema: Any) -> None:
    slow, fast = both(twins, schema)
    packed = outcome(slow.pack, data.draw(values(schema, encode)))
    assume(packed[0] == "value")
    mutated = bytearray(packed[1])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(mutated)))
        how = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if how == "set" and at < len(mutated):
            mutated[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del mutated[at:]
        else:
            mutated[at:at] = data.draw(st.binary(max_size=4))
    encoding = bytes(mutated)
    one, two = outcome(slow.unpack, encoding), outcome(fast.unpack, encoding)
    assert agree(one, two)
    if one[0] == "value":  # every value has exactly one encoding
        assert slow.pack(one[1]) == encoding
        assert fast.pack(two[1]) == encoding


@EXAMPLES
@given(schema=record_schemas, encoding=st.binary(max_size=60), offset=st.integers(-1, 61))
def test_unpacking_arbitrary_bytes(twins: Any, schema: Any, encoding: bytes, offset: int) -> None:
    slow, fast = both(twins, schema)
    assert agree(outcome(slow.unpack, encoding), outcome(fast.unpack, encoding))
    assert agree(
        outcome(slow.unpack_from, encoding, offset), outcome(fast.unpack_from, encoding, offset)
    )


@EXAMPLES
@given(data=st.data(), schema=schemas)
def test_compiling_damaged_schemas(twins: Any, data: Any, schema: Any) -> None:
    def damage(part: Any) -> Any:
        if not isinstance(part, tuple) or not part:
            wild = st.sampled_from([0, -1, 3, 256, True, None, "u", (), "raw", 1 << 70])
            return data.draw(wild)
        at = data.draw(st.integers(0, len(part) - 1))
        return (*part[:at], damage(part[at]), *part[at + 1 :])

    broken = damage(schema)
    results = [outcome(engine.layout.Layout, One, (("a", broken),)) for engine in twins]
    if results[0][0] == "value":
        assert results[1][0] == "value"
        assert results[0][1].min_size == results[1][1].min_size
    else:
        assert results[0] == results[1]
