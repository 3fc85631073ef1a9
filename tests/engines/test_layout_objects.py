"""What the layout engine does with classes, slots and references, on both twins."""

from __future__ import annotations

import gc
import inspect
import sys
import types
import weakref
from typing import Any

import pytest
from helpers.schemas import Four, One, Two, fill

from moderntensor.errors import DecodeError, EncodeError

MAX128 = (1 << 128) - 1
U8 = ("u", 1, 0, 255)
PAIR = ("record", Two, (("a", U8), ("b", ("fixed", 2))))


def layout(engine: Any, schema: Any) -> Any:
    """A layout of one field `a`."""
    return engine.layout.Layout(One, (("a", schema),))


def one(value: Any) -> One:
    return fill(One, (value,))


class WithDict:
    pass


class Derived(One):
    __slots__ = ("b",)


class OnBytes(int):
    __slots__ = ()


class Property:
    __slots__ = ()

    @property
    def a(self) -> int:
        return 1


def test_refuses_classes_whose_slots_it_cannot_reach(engine: Any) -> None:
    make = engine.layout.Layout
    for cls, text in [
        (WithDict, "WithDict: has a __dict__, records have slots only"),
        (Derived, "Derived.a: is not a slot of this class"),
        (OnBytes, "OnBytes: is built on int"),
        (Property, "Property.a: is not a slot of this class"),
        (types.FunctionType, "function: is built on function"),
        (object, "object.a: is not a slot of this class"),
    ]:
        with pytest.raises(TypeError) as caught:
            make(cls, (("a", U8),))
        assert str(caught.value) == text


def test_a_slot_moved_from_another_class_is_refused(engine: Any) -> None:
    cls = type("Moved", (), {"__slots__": ("b",)})
    cls.a = Two.__dict__["b"]  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"^Moved.a: is not a slot of this class$"):
        engine.layout.Layout(cls, (("a", U8),))


def test_packs_exactly_its_class(engine: Any) -> None:
    it = layout(engine, U8)
    for other in (None, 5, Two(), Derived()):
        with pytest.raises(TypeError) as caught:
            it.pack(other)
        assert str(caught.value) == f"must be One, not {type(other).__name__}"


def test_an_unset_or_deleted_field_is_an_error(engine: Any) -> None:
    it = engine.layout.Layout(Two, (("a", U8), ("b", U8)))
    made = fill(Two, (1, 2))
    assert it.pack(made) == b"\x01\x02"
    del made.b
    with pytest.raises(EncodeError, match=r"^Two.b: is not set$"):
        it.pack(made)
    with pytest.raises(EncodeError, match=r"^Two.a: is not set$"):
        it.pack(Two())


def test_only_exact_builtin_types_and_ints_like_enums(engine: Any) -> None:
    class Bytes(bytes):
        pass

    class Str(str):
        __slots__ = ()

    class Tuple(tuple[int, ...]):
        __slots__ = ()

    for schema, value, text in [
        (("fixed", 1), Bytes(b"a"), "One.a: must be bytes, not Bytes"),
        (("str", 1, 9), Str("a"), "One.a: must be str, not Str"),
        (("list", 1, 9, U8), Tuple((1,)), "One.a: must be tuple or list, not Tuple"),
        (("raw", U8), Bytes(b"a"), "One.a: must be bytes, not Bytes"),
    ]:
        with pytest.raises(EncodeError) as caught:
            layout(engine, schema).pack(one(value))
        assert str(caught.value) == text
    with pytest.raises(TypeError, match=r"^data must be bytes, not Bytes$"):
        layout(engine, U8).unpack(Bytes(b"a"))
    with pytest.raises(TypeError, match=r"^data must be bytes, not memoryview$"):
        layout(engine, U8).unpack_from(memoryview(b"a"))


def test_an_int_subclass_cannot_run_code(engine: Any) -> None:
    class Hostile(int):
        def boom(self, *args: Any) -> Any:
            raise AssertionError("ran code of the subclass")

        __lt__ = __le__ = __gt__ = __ge__ = __int__ = __index__ = boom  # type: ignore[assignment]
        __rshift__ = __and__ = __str__ = __repr__ = to_bytes = bit_length = boom  # type: ignore[assignment]

    assert layout(engine, U8).pack(one(Hostile(7))) == b"\x07"
    wide = layout(engine, ("u", 16, 0, MAX128))
    assert wide.pack(one(Hostile(1 << 100))) == (1 << 100).to_bytes(16, "big")
    with pytest.raises(EncodeError, match=r"^One.a: 300, at most 255$"):
        layout(engine, U8).pack(one(Hostile(300)))


def test_a_prefix_of_the_fields_packs_only(engine: Any) -> None:
    fields = (("a", U8), ("b", U8), ("c", ("fixed", 1)))
    cls: Any = type("Signed", (), {"__slots__": ("a", "b", "c"), "__fields__": fields})
    whole = engine.layout.Layout(cls, fields)
    part = engine.layout.Layout(cls, fields[:2])
    made = whole.unpack(b"\x01\x02z")
    assert part.pack(made) == b"\x01\x02"
    assert part.names == ("a", "b")
    for call in (part.unpack, part.unpack_from):
        with pytest.raises(TypeError) as caught:
            call(b"\x01\x02")
        assert (
            str(caught.value)
            == "Signed: this layout covers only its first 2 fields and cannot unpack"
        )
    with pytest.raises(ValueError, match=r"^Signed: fields differ from its declaration$"):
        engine.layout.Layout(cls, fields[1:])
    with pytest.raises(ValueError, match=r"^Signed: fields differ from its declaration$"):
        layout(engine, ("record", cls, fields[:2]))


def test_what_it_says_of_itself(engine: Any) -> None:
    it = engine.layout.Layout(Two, (("a", U8), ("b", ("list", 2, 9, U8))))
    assert (it.cls, it.names, it.min_size) == (Two, ("a", "b"), 3)
    assert repr(it) == "<Layout of Two: a, b>"


def test_unpacks_from_an_offset(engine: Any) -> None:
    it = layout(engine, ("u", 2, 0, 0xFFFF))
    data = b"\x00\x01\x00\x02\x00"
    first, offset = it.unpack_from(data)
    second, offset = it.unpack_from(data, offset)
    assert (first.a, second.a, offset) == (1, 2, 4)
    with pytest.raises(DecodeError, match=r"^One.a: needs 2 bytes at offset 4, 1 left$"):
        it.unpack_from(data, offset)
    for wrong in (-1, 6, 1 << 70):
        with pytest.raises(ValueError, match=f"^offset {wrong} is outside of 5 bytes$"):
            it.unpack_from(data, wrong)


def test_refuses_more_bytes_than_its_most(engine: Any) -> None:
    fields = (("a", ("list", 1, 9, U8)),)
    it = engine.layout.Layout(One, fields, 4)
    assert (it.max_size, engine.layout.Layout(One, fields).max_size) == (4, None)
    assert it.unpack(b"\x03\x01\x02\x03").a == (1, 2, 3)
    for data in (b"\x04\x01\x02\x03\x04", b"\x01\x01\x01\x01\x01"):
        with pytest.raises(DecodeError, match=r"^One: 5 bytes, at most 4$"):
            it.unpack(data)
    with pytest.raises(TypeError, match=r"^data must be bytes, not bytearray$"):
        it.unpack(bytearray(9))


def test_a_method_that_encodes(engine: Any) -> None:
    def declare(name: str, limit: int) -> Any:
        cls: Any = type(name, (), {"__slots__": ("a",)})
        cls.LAYOUT = engine.layout.Layout(cls, (("a", ("u", 1, 0, limit)),))
        cls.encode = engine.layout.encode_method(cls)
        return cls

    one, other = declare("Small", 9), declare("Large", 255)
    assert fill(one, (7,)).encode() == one.encode(fill(one, (7,))) == b"\x07"
    assert [fill(other, (n,)).encode() for n in (8, 255)] == [b"\x08", b"\xff"]
    assert "wire encoding" in one.encode.__doc__
    assert (one.encode.__name__, one.encode.__qualname__) == ("encode", "Small.encode")
    assert list(inspect.signature(one.encode).parameters) == ["self"]
    with pytest.raises(EncodeError, match=r"^Small.a: 10, at most 9$"):
        fill(one, (10,)).encode()
    with pytest.raises(EncodeError, match=r"^Small.a: is not set$"):
        one().encode()
    for wrong in (fill(other, (1,)), None):
        with pytest.raises(TypeError) as caught:
            one.encode(wrong)
        assert str(caught.value) == (
            f"descriptor 'encode' for 'Small' objects doesn't apply to a "
            f"'{type(wrong).__name__}' object"
        )


def test_a_method_that_encodes_asks_what_layout_there_is(engine: Any) -> None:
    class Other:
        def pack(self, obj: Any) -> bytes:
            return b"packed by another"

    cls: Any = type("Free", (), {"__slots__": ("a",)})
    cls.encode = engine.layout.encode_method(cls)
    with pytest.raises(AttributeError, match="LAYOUT"):
        cls().encode()
    cls.LAYOUT = Other()
    assert cls().encode() == b"packed by another"
    cls.LAYOUT = engine.layout.Layout(One, (("a", U8),))
    with pytest.raises(TypeError, match=r"^must be One, not Free$"):
        cls().encode()


def test_sizes_around_any_buffer(engine: Any) -> None:
    """What does not fit a small buffer is written the same."""
    it = engine.layout.Layout(Two, (("a", ("bytes", 4, 0, 1 << 20)), ("b", U8)))
    nested = engine.layout.Layout(
        Two, (("a", ("sized", 2, 9000, ("list", 1, 9, ("bytes", 2, 0, 3000)))), ("b", U8))
    )
    for size in [*range(1010, 1032), 4096, 70_000]:
        blob = bytes(range(256)) * (size // 256 + 1)
        blob = blob[:size]
        data = it.pack(fill(Two, (blob, 9)))
        assert data == size.to_bytes(4, "big") + blob + b"\x09"
        assert it.unpack(data).a == blob
        if size <= 3000:
            data = nested.pack(fill(Two, ((blob, b"", blob[:7]), 9)))
            assert nested.unpack(data).a == (blob, b"", blob[:7])
        with pytest.raises(EncodeError, match=r"^Two.b: 999, at most 255$"):
            it.pack(fill(Two, (blob, 999)))


def test_decoding_runs_no_init(engine: Any) -> None:
    class Guarded:
        __slots__ = ("a", "b")

        def __init__(self) -> None:
            raise AssertionError("__init__ ran")

        def __setattr__(self, name: str, value: Any) -> None:
            raise AssertionError("__setattr__ ran")

    made = engine.layout.Layout(Guarded, (("a", U8),)).unpack(b"\x05")
    assert made.a == 5
    with pytest.raises(AttributeError):
        _ = made.b  # a slot that is not on the wire stays unset


def test_decoded_objects_are_freed(engine: Any) -> None:
    if not sys.getallocatedblocks():
        pytest.skip("counts the blocks of the interpreter's own allocator, which is not in use")
    it = layout(engine, ("list", 2, 999, PAIR))
    data = b"\x03\xe7" + b"\x01ab" * 999
    it.unpack(data)
    gc.collect()
    blocks = sys.getallocatedblocks()
    held = [it.unpack(data) for _ in range(5)]
    assert sys.getallocatedblocks() - blocks > 4000
    gc.collect()
    assert held[4].a[998].b == b"ab"
    del held
    assert abs(sys.getallocatedblocks() - blocks) < 200


def test_a_class_and_its_layout_can_be_collected(engine: Any) -> None:
    cls: Any = type("Passing", (), {"__slots__": ("a",)})
    cls.LAYOUT = engine.layout.Layout(cls, (("a", U8),))
    cls.LAYOUT.unpack(b"\x01")
    gone = weakref.ref(cls)
    del cls
    gc.collect()
    assert gone() is None


def test_four_slots_keep_their_order(engine: Any) -> None:
    """Declaration order is wire order, whatever the order of the slots in memory."""
    fields = tuple((name, U8) for name in ("d", "a", "c", "b"))
    it = engine.layout.Layout(Four, fields)
    made = it.unpack(b"\x01\x02\x03\x04")
    assert (made.d, made.a, made.c, made.b) == (1, 2, 3, 4)
    assert it.pack(made) == b"\x01\x02\x03\x04"
