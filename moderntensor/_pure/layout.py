"""A tiny codec compiler: a schema becomes a `Layout` that packs objects and unpacks bytes.

A schema is made of nested tuples, so that both twins of this engine read the same one:

    ("u", size, lo, hi)            int of 1, 2, 4, 8 or 16 bytes within lo..hi
    ("fixed", size)                bytes of exactly that size
    ("bytes", width, lo, hi)       bytes behind a length of 1, 2 or 4 bytes
    ("str", width, hi)             printable ASCII (0x20 to 0x7e) behind its length
    ("list", width, hi, item)      items behind their count; a tuple when unpacked
    ("optional", item)             byte 0 for None, or byte 1 and the item
    ("tuple", (item, ...))         the items, one behind the other
    ("record", cls, fields)        an object of exactly `cls`; fields = ((name, schema), ...)
    ("sized", width, hi, item)     the item behind its encoded length
    ("raw", schema)                the exact bytes of that schema, verified, no objects made

Big-endian throughout. All validation lives here: objects are made without their `__init__`.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from operator import index
from typing import Any, Final

from ..errors import DecodeError, EncodeError
from .layout_kinds import (
    Bytes,
    Fault,
    Fixed,
    List,
    Node,
    Optional,
    Raw,
    Record,
    Sized,
    Str,
    Tuple,
    UInt,
    plural,
)

__all__ = ["MAX_DEPTH", "Layout", "encode_method"]

MAX_DEPTH: Final = 16  # of nested schemas; records of the protocol need five


def _bounds(kind: str, size: Any, lo: Any, hi: Any, sizes: tuple[int, ...]) -> None:
    if size not in sizes:
        raise ValueError(f"{kind}: width {size!r} is not one of {sizes}")
    if type(lo) is not int or type(hi) is not int or not 0 <= lo <= hi < 1 << (8 * size):
        raise ValueError(f"{kind}: bounds {lo!r}..{hi!r} do not fit a width of {size}")


def _prefixed(kind: str, width: Any, lo: Any, hi: Any) -> None:
    _bounds(kind, width, lo, hi, (1, 2, 4))


def _compile_u(depth: int, size: Any, lo: Any, hi: Any) -> Node:
    _bounds("u", size, lo, hi, (1, 2, 4, 8, 16))
    return UInt(size, lo, hi)


def _compile_fixed(depth: int, size: Any) -> Node:
    if type(size) is not int or not 1 <= size <= 0xFFFF:
        raise ValueError(f"fixed: size {size!r} is not within 1..65535")
    return Fixed(size)


def _compile_bytes(depth: int, width: Any, lo: Any, hi: Any) -> Node:
    _prefixed("bytes", width, lo, hi)
    return Bytes(width, lo, hi)


def _compile_str(depth: int, width: Any, hi: Any) -> Node:
    _prefixed("str", width, 0, hi)
    return Str(width, hi)


def _compile_list(depth: int, width: Any, hi: Any, item: Any) -> Node:
    _prefixed("list", width, 0, hi)
    return List(width, hi, _compile(item, depth + 1))


def _compile_sized(depth: int, width: Any, hi: Any, item: Any) -> Node:
    _prefixed("sized", width, 0, hi)
    return Sized(width, hi, _compile(item, depth + 1))


def _compile_optional(depth: int, item: Any) -> Node:
    inner = _compile(item, depth + 1)
    if isinstance(inner, Optional):
        raise ValueError("optional: an optional item would have two ways to be None")
    return Optional(inner)


def _compile_tuple(depth: int, items: Any) -> Node:
    if type(items) is not tuple or not items:
        raise ValueError(f"tuple: no items in {items!r}")
    return Tuple(tuple(_compile(item, depth + 1) for item in items))


def _compile_raw(depth: int, item: Any) -> Node:
    return Raw(_compile(item, depth + 1))


def _compile_record(depth: int, cls: Any, fields: Any, *, partial: bool = False) -> Record:
    if not isinstance(cls, type):
        raise TypeError(f"record: {cls!r} is not a class")
    base: type | None = cls
    while base is not None and base is not object:
        if not base.__flags__ & 1 << 9:  # Py_TPFLAGS_HEAPTYPE: not one written in C
            raise TypeError(f"{cls.__name__}: is built on {base.__name__}")
        base = base.__base__
    if cls.__dictoffset__:
        raise TypeError(f"{cls.__name__}: has a __dict__, records have slots only")
    if type(fields) is not tuple or not fields:
        raise ValueError(f"{cls.__name__}: no fields in {fields!r}")
    whole = getattr(cls, "__fields__", fields)
    if fields != (whole[: len(fields)] if partial else whole):
        raise ValueError(f"{cls.__name__}: fields differ from its declaration")
    compiled = []
    for name, schema in fields:
        slot = cls.__dict__.get(name)
        if type(slot) is not types.MemberDescriptorType or slot.__objclass__ is not cls:
            raise TypeError(f"{cls.__name__}.{name}: is not a slot of this class")
        compiled.append((name, slot, _compile(schema, depth + 1)))
    return Record(cls, tuple(compiled))


# Kind -> (number of arguments, what compiles them).
_KINDS: Final[dict[str, tuple[int, Callable[..., Node]]]] = {
    "u": (3, _compile_u),
    "fixed": (1, _compile_fixed),
    "bytes": (3, _compile_bytes),
    "str": (2, _compile_str),
    "list": (3, _compile_list),
    "optional": (1, _compile_optional),
    "tuple": (1, _compile_tuple),
    "record": (2, _compile_record),
    "sized": (3, _compile_sized),
    "raw": (1, _compile_raw),
}


def _compile(schema: Any, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise ValueError(f"schemas nest at most {MAX_DEPTH} deep")
    if type(schema) is not tuple or not schema or schema[0] not in _KINDS:
        raise ValueError(f"not a schema: {schema!r}")
    kind, *arguments = schema
    arity, compile_kind = _KINDS[kind]
    if len(arguments) != arity:
        raise ValueError(f"{kind}: {len(arguments)} arguments, must be {arity}")
    return compile_kind(depth, *arguments)


class Layout:
    """Packs objects of `cls` and unpacks bytes into them, strictly, by one schema.

    `fields` is ``((name, schema), ...)`` in wire order, each name a slot of exactly `cls`.
    Where `cls` has a `__fields__` and `fields` is only the beginning of it, the layout packs
    (for what a signature covers) but does not unpack. `min_size` is the least number of bytes;
    `max_size`, if given, the most that `unpack` takes.

    Raises ValueError for a schema that makes no sense, TypeError for a class that will not do.
    """

    __slots__ = ("_complete", "_root", "cls", "max_size", "min_size", "names")

    def __init__(
        self, cls: type, fields: tuple[tuple[str, Any], ...], max_size: int | None = None
    ) -> None:
        self._root = _compile_record(0, cls, fields, partial=True)
        self._complete = len(fields) == len(getattr(cls, "__fields__", fields))
        self.cls = cls
        self.names = tuple(name for name, _ in fields)
        self.min_size = self._root.min_size
        self.max_size = max_size

    def __repr__(self) -> str:
        return f"<Layout of {self.cls.__name__}: {', '.join(self.names)}>"

    def pack(self, obj: Any, /) -> bytes:
        """The encoding of `obj`, whose type is exactly `cls` (else TypeError).

        Raises EncodeError naming the field for a value that is missing, of the wrong type,
        out of range or too long.
        """
        if type(obj) is not self.cls:
            raise TypeError(f"must be {self.cls.__name__}, not {type(obj).__name__}")
        out = bytearray()
        try:
            self._root.pack(obj, out)
        except Fault as fault:
            raise EncodeError(fault.told(self.cls.__name__)) from None
        return bytes(out)

    def unpack(self, data: bytes, /) -> Any:
        """The object that `data` encodes; DecodeError unless all of it is that encoding, or if
        it is over `max_size`."""
        if self.max_size is not None and type(data) is bytes and len(data) > self.max_size:
            raise DecodeError(
                f"{self.cls.__name__}: {plural(len(data), 'byte')}, at most {self.max_size}"
            )
        obj, pos = self.unpack_from(data)
        if pos != len(data):
            raise DecodeError(f"{self.cls.__name__}: {plural(len(data) - pos, 'trailing byte')}")
        return obj

    def unpack_from(self, data: bytes, offset: int = 0, /) -> tuple[Any, int]:
        """The object encoded at `offset`, and the offset behind it; more may follow.

        Raises DecodeError naming the field, ValueError for an offset outside of `data`.
        """
        if type(data) is not bytes:
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        if not self._complete:
            raise TypeError(
                f"{self.cls.__name__}: this layout covers only its first "
                f"{plural(len(self.names), 'field')} and cannot unpack"
            )
        offset = index(offset)
        if not 0 <= offset <= len(data):
            raise ValueError(f"offset {offset} is outside of {plural(len(data), 'byte')}")
        try:
            return self._root.unpack(data, offset, len(data))
        except Fault as fault:
            raise DecodeError(fault.told(self.cls.__name__)) from None


def encode_method(cls: type[Any], /) -> Callable[[Any], bytes]:
    """A method `encode` for `cls`: what `cls.LAYOUT` packs of an object of it."""

    def encode(self: Any, /) -> bytes:
        """The wire encoding. Raises EncodeError naming the field that cannot be encoded."""
        if not isinstance(self, cls):  # as it is with methods written in C
            raise TypeError(
                f"descriptor 'encode' for '{cls.__name__}' objects doesn't apply to a "
                f"'{type(self).__name__}' object"
            )
        packed: bytes = self.LAYOUT.pack(self)
        return packed

    encode.__qualname__ = f"{cls.__qualname__}.encode"
    return encode
