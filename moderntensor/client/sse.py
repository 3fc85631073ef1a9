"""Server-sent events out of bytes, as the HTML standard says (section 9.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["MAX_EVENT", "EventParser", "EventTooLongError", "ServerEvent"]

MAX_EVENT: Final = 256 * 1024  # bytes of one event, its lines together
_BOM: Final = b"\xef\xbb\xbf"


class EventTooLongError(ValueError):
    """An event has more than `MAX_EVENT` bytes."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its name, its data, and the id of the last that had one."""

    name: str
    data: str
    last_id: str


class EventParser:
    """Feed it bytes as they come. Holds at most `MAX_EVENT` bytes of an event that has not ended.

    Lines end with LF, CR or both; comments, unknown fields and events without data are left out;
    bytes that are no UTF-8 become U+FFFD. `settled_id` is the id of what has ended so far, events
    without data too; None before the first.
    """

    def __init__(self) -> None:
        self.settled_id: str | None = None
        self._last_id: str | None = None
        self._buffer = bytearray()
        self._begun = False
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []
        self._held = 0

    def feed(self, data: bytes) -> Iterator[ServerEvent]:
        """The events that end in `data`, to be taken to the last one; the time that it takes is
        proportional to the bytes. EventTooLongError where one does not end."""
        # Only what is new can hold the end of a line: the rest has been looked through.
        ends = max(data.rfind(b"\n"), data.rfind(b"\r"))
        whole = 0 if ends < 0 else len(self._buffer) + ends + 1
        self._buffer += data
        for line in self._lines(whole):
            if line:
                self._held += len(line)
                if self._held > MAX_EVENT:
                    raise EventTooLongError(f"an event of more than {MAX_EVENT} bytes")
                self._field(line.decode("utf-8", "replace"))
            elif (event := self._dispatch()) is not None:
                yield event
        if self._held + len(self._buffer) > MAX_EVENT:
            raise EventTooLongError(f"an event of more than {MAX_EVENT} bytes")

    def _lines(self, whole: int) -> list[bytes]:
        """Those in the first `whole` bytes, which end with the end of a line."""
        if not self._begun:
            if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
                return []
            self._begun = True
            if self._buffer.startswith(_BOM):
                del self._buffer[: len(_BOM)]
                whole = max(whole - len(_BOM), 0)
        if not whole:
            return []
        lines = bytes(self._buffer[:whole])
        del self._buffer[:whole]
        if self._after_cr and lines[0] == 0x0A:
            lines = lines[1:]
        self._after_cr = lines.endswith(b"\r")  # whether LF follows, only the next bytes tell
        return lines.splitlines()  # of bytes: at LF, CR and both, nowhere else

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id" and "\0" not in value:
            self._last_id = value

    def _dispatch(self) -> ServerEvent | None:
        data, name = self._data, self._name
        self._data, self._name, self._held = [], "", 0
        self.settled_id = self._last_id
        if not data:
            return None
        return ServerEvent(name or "message", "\n".join(data), self._last_id or "")
