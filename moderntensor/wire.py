"""The declaration language: what travels is declared once, as a class with annotated fields.

    @record
    class Checkpoint(Record):
        height: u64
        block_hash: Hash32
        notes: Annotated[list8[str8], Max(4)] = ()

The order of the fields is their order on the wire. To a type checker the annotations are plain
`int`, `bytes`, `str`, `tuple[T, ...]` and `T | None`; at run time they carry widths and bounds,
which become a schema and that a `Layout` of the chosen engine (see `moderntensor.backend`).
Big-endian throughout; `bytes8`, `str16`, `list32[T]` and so on are named by the bits of their
length or count.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    Self,
    TypeAlias,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from .backend import layout as _engine

if TYPE_CHECKING:
    from typing_extensions import TypeAliasType

Layout: TypeAlias = _engine.Layout

T = TypeVar("T")
R = TypeVar("R", bound=type)

Schema: TypeAlias = tuple[Any, ...]
Fields: TypeAlias = tuple[tuple[str, Schema], ...]


# --- markers -------------------------------------------------------------------------------
# Each marker of an annotation turns (annotated type, schema so far) into a schema.


@dataclass(frozen=True)
class U:
    """An unsigned int of `size` bytes (1, 2, 4, 8, 16) within `lo`..`hi` (default: all)."""

    size: int
    lo: int = 0
    hi: int | None = None

    def apply(self, base: Any, schema: Schema | None) -> Schema:
        return ("u", self.size, self.lo, _top(self.size) if self.hi is None else self.hi)


@dataclass(frozen=True)
class Fixed:
    """Exactly `size` bytes."""

    size: int

    def apply(self, base: Any, schema: Schema | None) -> Schema:
        return ("fixed", self.size)


@dataclass(frozen=True)
class Prefixed:
    """What its type says, behind a length or count of `width` bytes (1, 2 or 4)."""

    width: int
    kind: Literal["bytes", "str", "list", "sized"]

    def apply(self, base: Any, schema: Schema | None) -> Schema:
        if self.kind == "bytes":
            return ("bytes", self.width, 0, _top(self.width))
        if self.kind == "str":
            return ("str", self.width, _top(self.width))
        item = schema_of(get_args(base)[0]) if self.kind == "list" else schema or schema_of(base)
        return (self.kind, self.width, _top(self.width), item)


@dataclass(frozen=True)
class Max:
    """At most so many items, bytes or characters: ``Annotated[list8[Hash32], Max(64)]``."""

    limit: int

    def apply(self, base: Any, schema: Schema | None) -> Schema:
        if schema is None or schema[0] not in _HI_AT:
            raise TypeError(f"Max({self.limit}) needs something with a length or count before it")
        at = _HI_AT[schema[0]]
        return (*schema[:at], min(self.limit, schema[at]), *schema[at + 1 :])


_HI_AT: Final = {"bytes": 3, "str": 2, "list": 2, "sized": 2}


@dataclass(frozen=True)
class Maybe:
    """Byte 0 for None, or byte 1 and the value."""

    def apply(self, base: Any, schema: Schema | None) -> Schema:
        (item,) = (arg for arg in get_args(base) if arg is not type(None))
        return ("optional", schema_of(item))


@dataclass(frozen=True)
class RawOf:
    """The exact bytes of what `item` would encode."""

    item: Any

    def apply(self, base: Any, schema: Schema | None) -> Schema:
        return ("raw", schema_of(self.item))


def _top(size: int) -> int:
    return (1 << (8 * size)) - 1


def schema_of(annotation: Any) -> Schema:
    """The engine-neutral schema (see the layout engine) of a resolved annotation."""
    if get_origin(annotation) is Annotated:
        base, *markers = get_args(annotation)
        schema: Schema | None = None
        for marker in markers:
            if hasattr(marker, "apply"):
                schema = marker.apply(base, schema)
        if schema is not None:
            return schema
        annotation = base
    if isinstance(annotation, type) and "__fields__" in annotation.__dict__:
        return ("record", annotation, annotation.__dict__["__fields__"])
    if get_origin(annotation) is tuple and Ellipsis not in get_args(annotation):
        return ("tuple", tuple(schema_of(item) for item in get_args(annotation)))
    raise TypeError(f"{annotation!r} does not say how it is encoded")


# --- types ---------------------------------------------------------------------------------

u8: TypeAlias = Annotated[int, U(1)]
u16: TypeAlias = Annotated[int, U(2)]
u32: TypeAlias = Annotated[int, U(4)]
u64: TypeAlias = Annotated[int, U(8)]
u128: TypeAlias = Annotated[int, U(16)]

Hash32: TypeAlias = Annotated[bytes, Fixed(32)]
Key32: TypeAlias = Annotated[bytes, Fixed(32)]
Address20: TypeAlias = Annotated[bytes, Fixed(20)]
Signature64: TypeAlias = Annotated[bytes, Fixed(64)]
Bytes16: TypeAlias = Annotated[bytes, Fixed(16)]

bytes8: TypeAlias = Annotated[bytes, Prefixed(1, "bytes")]
bytes16: TypeAlias = Annotated[bytes, Prefixed(2, "bytes")]
bytes32: TypeAlias = Annotated[bytes, Prefixed(4, "bytes")]
str8: TypeAlias = Annotated[str, Prefixed(1, "str")]
str16: TypeAlias = Annotated[str, Prefixed(2, "str")]

list8: TypeAlias = Annotated[tuple[T, ...], Prefixed(1, "list")]
list16: TypeAlias = Annotated[tuple[T, ...], Prefixed(2, "list")]
list32: TypeAlias = Annotated[tuple[T, ...], Prefixed(4, "list")]
optional: TypeAlias = Annotated[T | None, Maybe()]
sized32: TypeAlias = Annotated[T, Prefixed(4, "sized")]

if TYPE_CHECKING:
    raw = TypeAliasType("raw", bytes, type_params=(T,))
else:

    class _Raw:
        """``raw[X]``: the exact bytes of an X, verified to be one, without making objects."""

        def __getitem__(self, item: Any) -> Any:
            return Annotated[bytes, RawOf(item)]

    raw = _Raw()


# --- records -------------------------------------------------------------------------------


def cached(*, init: Literal[False] = False) -> Any:
    """Default of a field that is not on the wire: ``_hash: bytes = cached()``.

    It is a slot that `__init__` and `decode` leave unset (reading it raises AttributeError)
    until the record's own method fills it by ``object.__setattr__``. `init` is there for type
    checkers alone: it tells them that no argument of `__init__` belongs to the field.
    """
    return _CACHED


class _Cached:
    def __repr__(self) -> str:
        return "cached()"


_CACHED: Final = _Cached()


class Record:
    """Base that gives records their methods; `record` adds the rest. Never subclassed twice."""

    __slots__ = ()

    __fields__: ClassVar[Fields]
    LAYOUT: ClassVar[Layout]
    _SLOTS: ClassVar[tuple[tuple[str, Callable[[Any], Any], Callable[[Any, Any], None]], ...]]
    """Each field's name, and how to read and to fill it past `__setattr__`."""

    MAX_SIZE: ClassVar[int | None] = None
    """The most bytes that `decode` takes; None: as many as its fields may have."""

    if TYPE_CHECKING:  # `record` puts the engine's own functions here: no Python frame between

        def encode(self) -> bytes:
            """The wire encoding. Raises EncodeError naming the field that cannot be encoded."""

        @classmethod
        def decode(cls, data: bytes) -> Self:
            """The record that all of `data` encodes; DecodeError otherwise."""

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; TypeError for a name that is not a field."""
        cls = type(self)
        copy = cls.__new__(cls)
        for name, get, put in cls._SLOTS:
            put(copy, changes.pop(name) if name in changes else get(self))
        if changes:
            raise TypeError(f"{cls.__name__} has no field {sorted(changes)[0]!r}")
        return copy

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable, cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable, cannot delete {name!r}")

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name, _ in self.__fields__)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        parts = (f"{name}={_brief(getattr(self, name, '?'))}" for name, _ in self.__fields__)
        return f"{type(self).__name__}({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), *self._values())


def _restore(cls: type[Any], *values: Any) -> Any:
    return cls(**{name: value for (name, _), value in zip(cls.__fields__, values, strict=True)})


def _brief(value: Any) -> str:
    """Bytes as hex, long ones and long lists cut: a log line must not hold a block."""
    if isinstance(value, bytes) and value:
        return f"0x{value.hex()}" if len(value) <= 64 else f"0x{value[:8].hex()}…({len(value)} B)"
    if isinstance(value, tuple | list):
        shown = [_brief(item) for item in value[:4]]
        more = [f"… {len(value) - 4} more"] if len(value) > 4 else []
        return f"({', '.join(shown + more)}{',' if len(value) == 1 else ''})"
    return repr(value)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(cached,))
def record(cls: R, /) -> R:
    """Make a class with annotated fields an immutable record with slots and an encoding.

    It gets a keyword-only `__init__` (which checks nothing: encoding does), equality, hash,
    repr, pickling, `encode`, `decode`, `replace`, `LAYOUT` and `__fields__`. It cannot be
    subclassed. For type checkers to see the methods it names `Record` as its base.
    """
    return _build(cls)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(cached,))
def message(type: int, *, cap: int, reply: int | None = None) -> Callable[[R], R]:
    """A `record` that travels as the payload of one frame type.

    `cap` is the most payload bytes it may have, `reply` the type that answers it. They become
    `TYPE`, `CAP` and `REPLY`, and the class is entered in `MESSAGES`.
    """

    def declare(target: R) -> R:
        if type in MESSAGES:
            raise TypeError(f"type 0x{int(type):02x} is {MESSAGES[type].__name__} already")
        built: Any = _build(target)
        built.TYPE, built.CAP, built.REPLY = type, cap, reply
        MESSAGES[type] = built
        return cast(R, built)

    return declare


MESSAGES: Final[dict[int, type[Any]]] = {}


def unsigned_layout(cls: type[Record], stop: str = "signature") -> Layout:
    """A layout that packs the fields of `cls` before `stop`: what its signature covers."""
    names = [name for name, _ in cls.__fields__]
    return Layout(cls, cls.__fields__[: names.index(stop)])


def _build(target: R) -> R:
    """Make the class anew with slots; a class cannot get them later."""
    cls: Any = target
    hints = get_type_hints(cls, include_extras=True)
    namespace = dict(cls.__dict__)
    own = [name for name in inspect.get_annotations(cls) if get_origin(hints[name]) is not ClassVar]
    defaults = {name: namespace.pop(name) for name in own if name in namespace}
    unset = [name for name in own if defaults.get(name) is _CACHED]
    names = [name for name in own if name not in unset]
    fields: list[tuple[str, Schema]] = []
    for name in names:
        try:
            fields.append((name, schema_of(hints[name])))
        except (TypeError, ValueError) as error:
            raise TypeError(f"{cls.__name__}.{name}: {error}") from None

    for made_with_the_class in ("__dict__", "__weakref__"):
        namespace.pop(made_with_the_class, None)
    bases = tuple(base for base in cls.__bases__ if base is not object)
    if not any(issubclass(base, Record) for base in bases):
        bases = (*bases, Record)
    namespace |= {
        "__slots__": (*names, *unset),
        "__match_args__": (),
        "__fields__": tuple(fields),
        "__init_subclass__": classmethod(_refuse_subclass),
        "__qualname__": cls.__qualname__,
    }
    # The class being made here is itself announced to its bases' __init_subclass__, which
    # is Record's (object's); only classes derived from it meet _refuse_subclass.
    built: Any = type(cls)(cls.__name__, bases, namespace)
    built.__init__ = _make_init(built, names, {k: v for k, v in defaults.items() if k in names})
    built._SLOTS = tuple(
        (name, built.__dict__[name].__get__, built.__dict__[name].__set__) for name in names
    )
    built.LAYOUT = Layout(built, built.__fields__, built.MAX_SIZE)
    if not hasattr(built, "encode"):
        built.encode = _engine.encode_method(built)
    if not hasattr(built, "decode"):
        built.decode = built.LAYOUT.unpack
    return cast(R, built)


def _refuse_subclass(cls: type[Any], /, **kwargs: Any) -> None:
    raise TypeError(f"records cannot be subclassed ({cls.__name__})")


def _make_init(cls: type, names: list[str], defaults: dict[str, Any]) -> Callable[..., None]:
    """A keyword-only `__init__` with a real signature, filling slots past `__setattr__`."""
    scope: dict[str, Any] = {"__name__": cls.__module__}
    for name in names:
        scope[f"_set_{name}"] = cls.__dict__[name].__set__
        if name in defaults:
            scope[f"_default_{name}"] = defaults[name]
    arguments = ", ".join(f"{name}=_default_{name}" if name in defaults else name for name in names)
    body = "".join(f"    _set_{name}(self, {name})\n" for name in names)
    # Generated as dataclasses do it; the names are identifiers of the class body.
    exec(f"def __init__(self, *, {arguments}):\n{body}", scope)  # noqa: S102
    init: types.FunctionType = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init
