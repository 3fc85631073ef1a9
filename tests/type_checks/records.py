"""What a type checker sees of declared records, checked by `mypy --strict tests/type_checks`.

A line that has to be refused says so by `type: ignore`: --strict refuses those that are not needed.
"""

from __future__ import annotations

from typing import Annotated, assert_type

from moderntensor.wire import (
    Hash32,
    Key32,
    Max,
    Record,
    U,
    cached,
    list8,
    list16,
    message,
    optional,
    raw,
    record,
    sized32,
    str8,
    u8,
    u64,
)


@record
class Inner(Record):
    a: u8
    b: Annotated[list8[Hash32], Max(3)] = ()


@message(0xE5, cap=5)
class Outer(Record):
    o: optional[Hash32] = None
    i: Inner
    pairs: list8[tuple[u64, Key32]] = ()
    s: sized32[Inner]
    r: raw[list16[Inner]] = b"\0\0"
    t: list8[str8] = ()
    lim: Annotated[int, U(2, lo=1, hi=2048)] = 192
    _c: bytes = cached()


i = Inner(a=1)
o = Outer(i=i, s=i)
assert_type(o.o, bytes | None)
assert_type(o.pairs, tuple[tuple[int, bytes], ...])
assert_type(o.r, bytes)
assert_type(o.s, Inner)
assert_type(o.t, tuple[str, ...])
assert_type(o.lim, int)
assert_type(o.encode(), bytes)
assert_type(Outer.decode(b""), Outer)
assert_type(o.replace(lim=1), Outer)
o.lim = 3  # type: ignore[misc]
Inner(1)  # type: ignore[call-arg]
Inner(a="1")  # type: ignore[arg-type]
Outer(i=i, s=i, _c=b"")  # type: ignore[call-arg]
