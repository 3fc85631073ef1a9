"""What each kind of a layout's schema does to values and bytes (see `layout` for the kinds).

Reading works on ``data[pos:end]`` and gives the position behind what it read. A `Fault` gathers
the path to the faulty value while it passes outwards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Fault(Exception):  # noqa: N818 - never leaves the engine
    """What is wrong, and the way to it from the inside out."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.path: list[str] = []

    def told(self, name: str) -> str:
        return f"{name}{''.join(reversed(self.path))}: {self.text}"


def _number(value: int) -> str:
    """Digits of huge ints are quadratic work and may be refused by the interpreter."""
    return str(value) if value.bit_length() <= 128 else f"an int of {value.bit_length()} bits"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _need(size: int, pos: int, end: int) -> None:
    if end - pos < size:
        raise Fault(f"needs {plural(size, 'byte')} at offset {pos}, {end - pos} left")


def _check_size(size: int, lo: int, hi: int, noun: str) -> None:
    if size < lo:
        raise Fault(f"{plural(size, noun)}, at least {lo}")
    if size > hi:
        raise Fault(f"{plural(size, noun)}, at most {hi}")


def _expect(value: object, kind: type) -> None:
    if type(value) is not kind:
        raise Fault(f"must be {kind.__name__}, not {type(value).__name__}")


class Node(ABC):
    """One compiled schema. `skip` verifies like `unpack` but makes nothing."""

    __slots__ = ("min_size",)
    min_size: int

    @abstractmethod
    def pack(self, value: Any, out: bytearray) -> None:
        """Append the encoding of `value`."""

    @abstractmethod
    def unpack(self, data: bytes, pos: int, end: int) -> tuple[Any, int]:
        """The value at `pos`, within `end`, and where the next one begins."""

    def skip(self, data: bytes, pos: int, end: int) -> int:
        return self.unpack(data, pos, end)[1]


class UInt(Node):
    __slots__ = ("hi", "lo")

    def __init__(self, size: int, lo: int, hi: int) -> None:
        self.min_size, self.lo, self.hi = size, lo, hi

    def _check(self, value: int) -> None:
        if value < self.lo:
            raise Fault(f"{_number(value)}, at least {self.lo}")
        if value > self.hi:
            raise Fault(f"{_number(value)}, at most {self.hi}")

    def pack(self, value: Any, out: bytearray) -> None:
        if type(value) is not int:
            if not isinstance(value, int) or isinstance(value, bool):
                raise Fault(f"must be int, not {type(value).__name__}")
            value = int.__int__(value)
        if not self.lo <= value <= self.hi:
            self._check(value)
        out += value.to_bytes(self.min_size, "big")

    def unpack(self, data: bytes, pos: int, end: int) -> tuple[int, int]:
        stop = pos + self.min_size
        if stop > end:
            _need(self.min_size, pos, end)
        value = int.from_bytes(data[pos:stop], "big")
        if not self.lo <= value <= self.hi:
            self._check(value)
        return value, stop


class Fixed(Node):
    __slots__ = ()

    def __init__(self, size: int) -> None:
        self.min_size = size

    def pack(self, value: Any, out: bytearray) -> None:
        _expect(value, bytes)
        if len(value) != self.min_size:
            raise Fault(f"{plural(len(value), 'byte')}, must be {self.min_size}")
        out += value

    def unpack(self, data: bytes, pos: int, end: int) -> tuple[bytes, int]:
        stop = self.skip(data, pos, end)
        return data[pos:stop], stop

    def skip(self, data: bytes, pos: int, end: int) -> int:
        _need(self.min_size, pos, end)
        return pos + self.min_size


class Bytes(Node):
    __slots__ = ("hi", "lo", "width")

    def __init__(self, width: int, lo: int, hi: int) -> None:
        self.width, self.lo, self.hi = width, lo, hi
        self.min_size = width + lo

    def pack(self, value: Any, out: bytearray) -> None:
        _expect(value, bytes)
        _check_size(len(value), self.lo, self.hi, "byte")
        out += len(value).to_bytes(self.width, "big")
        out += value

    def _span(self, data: bytes, pos: int, end: int) -> tuple[int, int]:
        _need(self.width, pos, end)
        start = pos + self.width
        size = int.from_bytes(data[pos:start], "big")
        _check_size(size, self.lo, self.hi, "byte")
        _need(size, start, end)
        return start, start + size

    def unpack(self, data: bytes, pos: int, end: int) -> tuple[bytes, int]:
        start, stop = self._span(data, pos, end)
        return data[start:stop], stop

    def skip(self, data: bytes, pos: int, end: int) -> int:
        return self._span(data, pos, end)[1]


class Str(Node):
    __slots__ = ("hi", "width")

    def __init__(self, width: int, hi: int) -> None:
        self.width, self.hi = width, hi
        self.min_size = width

    @staticmethod
    def _check(text: str) -> None:
        if not (text.isascii() and text.isprintable()):
            for index, character in enumerate(text):
                if not " " <= character <= "~":
                    raise Fault(
                        f"character 0x{ord(character):02x} at {index} is not printable ASCII"
                    )

    def pack(self, value: Any, out: bytearray) -> None:
        _expect(value, str)
        _check_size(len(value), 0, self.hi, "character")
        self._check(value)
        out += len(value).to_bytes(self.width, "big")
        out += value.encode("ascii")

    def unpack(self, data: bytes, pos: int, end: int) -> tuple[str, int]:
        _need(self.width, pos, end)
        start = pos + self.width
        size = int.from_bytes(data[pos:start], "big")
        _check_size(size, 0, self.hi, "character")
        _need(size, start, end)
        text = data[start : start + size].decode("latin-1")
        self._check(text)
        return text, start + size


class List(Node):
    __slots__ = ("hi", "item", "width")

    def __init__(self, width: int, hi: int, item: Node) -> None:
        self.width, self.hi, self.item = width, hi, item
        self.min_size = width

    def pack(self, value: Any, out: bytearray) -> None:
        _expect_sequence(value)
        _check_size(len(value), 0, self.hi, "item")
        out += len(value).to_bytes(self.width, "big")
        pack = self.item.pack
        index = 0
        try:
            for item in value:
                pack(item, out)
                index += 1
        except Fault as fault:
            fault.path.append(f"[{index}]")
            raise

    def _count(self, data: bytes, pos: int, end: int) -> int:
        _need(self.width, pos, end)
        start = pos + self.width
        count = int.from_bytes(data[pos:start], "big")
        _check_size(count, 0, self.hi, "item")
        least = count * self.item.min_size
        if least > end - start:
            raise Fault(
                f"needs at least {plural(least, 'byte')} for {plural(count, 'item')} "
                f"at offset {start}, {end - start} left"
            )
        return count

    def unpack(self, data: bytes, pos: int, end: int) -> tuple[tuple[Any, ...], int]:
        count = self._count(data, pos, end)
        pos += self.width
        unpack = self.item.unpack
        items: list[Any] = []
        try:
            for _ in range(count):
                item, pos = unpack(data, pos, end)
                items.append(item)
        except Fault as fault:
            fault.path.append(f"[{len(items)}]")
            raise
        return tuple(items), pos

    def skip(self, data: bytes, pos: int, end: int) -> int:
        count = self._count(data, pos, end)
        pos += self.width
        skip = self.item.skip
        index = 0
        try:
            for index in range(count):  # noqa: B007 - told in the path
                pos = skip(data, pos, end)
        except Fault as fault:
            fault.path.append(f"[{index}]")
            raise
        return pos


def _expect_sequence(value: object) -> None:
    if type(value) is not tuple and type(value) is not list:
        raise Fault(f"must be tuple or list, not {type(value).__name__}")


class Optional(Node):
    __slots__ = ("item",)

    def __init__(self, item: Node) -> None:
        self.item = item
        self.min_size = 1

    def pack(self, value: Any, out: bytearray) -> None:
        if value is None:
            out.append(0)
        else:
            out.append(1)
            self.item.pack(value, out)

    @staticmethod
    def _present(data: bytes, pos: int, end: int) -> bool:
        _need(1, pos, end)
        if data[pos] > 1:
            raise Fault(f"presence byte {data[pos]}, must be 0 or 1")
        return data[pos] == 1

    def unpack(self, data: bytes, pos: int, end: int) -> tuple[Any, int]:
        if self._present(data, pos, end):
            return self.item.unpack(data, pos + 1, end)
        return None, pos + 1

    def skip(self, data: bytes, pos: int, end: int) -> int:
        if self._present(data, pos, end):
            return self.item.skip(data, pos + 1, end)
        return pos + 1


class Tuple(Node):
    __slots__ = ("items",)

    def __init__(self, items: tuple[Node, ...]) -> None:
        self.items = items
        self.min_size = sum(item.min_size for item in items)

    def pack(self, value: Any, out: bytearray) -> None:
        _expect_sequence(value)
        if len(value) != len(self.items):
            raise Fault(f"{plural(len(value), 'item')}, must be {len(self.items)}")
        index = 0
        try:
            for item, part in zip(self.items, value, strict=True):
                item.pack(part, out)
                index += 1
        except Fault as fault:
            fault.path.append(f"[{index}]")
            raise

    def unpack(self, data: bytes, pos: int, end: int) -> tuple[tuple[Any, ...], int]:
        parts: list[Any] = []
        try:
            for item in self.items:
                part, pos = item.unpack(data, pos, end)
                parts.append(part)
        except Fault as fault:
            fault.path.append(f"[{len(parts)}]")
            raise
        return tuple(parts), pos

    def skip(self, data: bytes, pos: int, end: int) -> int:
        index = 0
        try:
            for item in self.items:
                pos = item.skip(data, pos, end)
                index += 1
        except Fault as fault:
            fault.path.append(f"[{index}]")
            raise
        return pos


class Record(Node):
    __slots__ = ("cls", "fields")

    def __init__(self, cls: type, fields: tuple[tuple[str, Any, Node], ...]) -> None:
        self.cls, self.fields = cls, fields
        self.min_size = sum(node.min_size for _, _, node in fields)

    def pack(self, value: Any, out: bytearray) -> None:
        _expect(value, self.cls)
        name = ""
        try:
            for name, slot, node in self.fields:  # noqa: B007 - told in the path
                try:
                    part = slot.__get__(value)
                except AttributeError:
                    raise Fault("is not set") from None
                node.pack(part, out)
        except Fault as fault:
            fault.path.append(f".{name}")
            raise

    def unpack(self, data: bytes, pos: int, end: int) -> tuple[Any, int]:
        made: Any = object.__new__(self.cls)
        name = ""
        try:
            for name, slot, node in self.fields:  # noqa: B007 - told in the path
                part, pos = node.unpack(data, pos, end)
                slot.__set__(made, part)
        except Fault as fault:
            fault.path.append(f".{name}")
            raise
        return made, pos

    def skip(self, data: bytes, pos: int, end: int) -> int:
        name = ""
        try:
            for name, _, node in self.fields:  # noqa: B007 - told in the path
                pos = node.skip(data, pos, end)
        except Fault as fault:
            fault.path.append(f".{name}")
            raise
        return pos


class Sized(Node):
    __slots__ = ("hi", "item", "width")

    def __init__(self, width: int, hi: int, item: Node) -> None:
        self.width, self.hi, self.item = width, hi, item
        self.min_size = width + item.min_size

    def pack(self, value: Any, out: bytearray) -> None:
        start = len(out)
        out += bytes(self.width)
        self.item.pack(value, out)
        size = len(out) - start - self.width
        _check_size(size, 0, self.hi, "byte")
        out[start : start + self.width] = size.to_bytes(self.width, "big")

    def _span(self, data: bytes, pos: int, end: int) -> tuple[int, int]:
        _need(self.width, pos, end)
        start = pos + self.width
        size = int.from_bytes(data[pos:start], "big")
        _check_size(size, 0, self.hi, "byte")
        _need(size, start, end)
        return start, start + size

    def unpack(self, data: bytes, pos: int, end: int) -> tuple[Any, int]:
        start, stop = self._span(data, pos, end)
        value, used = self.item.unpack(data, start, stop)
        _nothing_after(used, stop)
        return value, stop

    def skip(self, data: bytes, pos: int, end: int) -> int:
        start, stop = self._span(data, pos, end)
        _nothing_after(self.item.skip(data, start, stop), stop)
        return stop


def _nothing_after(pos: int, end: int) -> None:
    if pos != end:
        raise Fault(plural(end - pos, "trailing byte"))


class Raw(Node):
    __slots__ = ("item",)

    def __init__(self, item: Node) -> None:
        self.item = item
        self.min_size = item.min_size

    def pack(self, value: Any, out: bytearray) -> None:
        _expect(value, bytes)
        _nothing_after(self.item.skip(value, 0, len(value)), len(value))
        out += value

    def unpack(self, data: bytes, pos: int, end: int) -> tuple[bytes, int]:
        stop = self.item.skip(data, pos, end)
        return data[pos:stop], stop

    def skip(self, data: bytes, pos: int, end: int) -> int:
        return self.item.skip(data, pos, end)
