"""What went in and out of a node: messages and bytes by type, and how long requests took.

Plain numbers that are added to where messages pass; whoever wants to know reads them at any time.
Nothing here depends on who sent something, so that strangers cannot make it grow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from .latencies import Latencies
from .protocol import MessageType

__all__ = ["FRAME_HEADER", "Flow", "Traffic", "TrafficOf", "type_name"]

FRAME_HEADER: Final = 5  # bytes before the payload: length and type
_TYPES: Final = 256
_MANY: Final = 8
_type_byte = itemgetter(FRAME_HEADER - 1)

_NAMES: Final = {int(kind): kind.name for kind in MessageType}


def type_name(kind: int) -> str:
    """What a message type of the protocol is called; others by their number in hex (``0x80``).
    `Traffic.name_of` knows those of a node's applications as well."""
    return _NAMES.get(kind) or f"0x{kind:02x}"


class Flow:
    """Messages and bytes of one direction, both indexed by the type byte. Bytes are those of whole
    frames, before encryption."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages = [0] * _TYPES
        self.bytes = [0] * _TYPES

    def add(self, kind: int, count: int, payload_bytes: int) -> None:
        """So many messages of a type, with so many bytes of payload together."""
        self.messages[kind] += count
        self.bytes[kind] += payload_bytes + FRAME_HEADER * count

    def add_frames(self, frames: Sequence[bytes], size: int) -> None:
        """Whole frames, `size` bytes together."""
        messages, sizes = self.messages, self.bytes
        if len(frames) > _MANY:  # mostly of one type: a look in C costs a third of counting each
            kinds = set(map(_type_byte, frames))
            if len(kinds) == 1:
                (kind,) = kinds
                messages[kind] += len(frames)
                sizes[kind] += size
                return
        for frame in frames:
            kind = frame[FRAME_HEADER - 1]
            messages[kind] += 1
            sizes[kind] += len(frame)

    def add_parts(self, parts: Sequence[bytes]) -> None:
        """Frames, of which large ones have their header before them, as a part of its own."""
        rest = iter(parts)
        for part in rest:
            payload = int.from_bytes(part[:4], "big") - 1
            self.add(part[FRAME_HEADER - 1], 1, payload)
            if FRAME_HEADER + payload > len(part):
                next(rest)


class TrafficOf(NamedTuple):
    """The messages and bytes of one type since the node was made."""

    type: int
    name: str
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int


class Traffic:
    """The counters of one node. All only ever grow.

    `received` counts messages as they are looked at, `sent` as they are queued for a peer: what a
    connection that ends leaves unsent is among them.
    """

    def __init__(self, names: Mapping[int, str] | None = None) -> None:
        """`names` are those of applications' types, by number."""
        self._names = _NAMES | dict(names or {})
        self.received = Flow()
        self.sent = Flow()
        self.refused: Counter[int] = Counter()
        """Messages over a rate, by type: discarded, or answered BUSY. Also notices of applications
        whose handlers are too slow for them."""
        self.requests = Latencies()
        """Seconds from a request of ours to its reply, by the type of the request."""
        self.timeouts: Counter[int] = Counter()
        """Requests of ours without a reply in time, by type."""
        self.late_replies = 0
        """Replies that came after that."""
        self.answers = Latencies()
        """Seconds that our answers to peers' requests took, by the type of the request."""
        self.busy_replies: Counter[int] = Counter()
        """Requests of peers that were answered BUSY, by type."""

    def name_of(self, kind: int) -> str:
        """What a message type is called: its name, after that of its extension where it is an
        application's (``chat/1 Say``), or its number in hex where nobody here knows it."""
        return self._names.get(kind) or type_name(kind)

    def by_type(self) -> list[TrafficOf]:
        """What was sent and received, of all types of the protocol and of the node's applications,
        and of any other that occurred; in the order of their numbers."""
        received, sent = self.received, self.sent
        return [
            TrafficOf(
                kind,
                self.name_of(kind),
                received.messages[kind],
                sent.messages[kind],
                received.bytes[kind],
                sent.bytes[kind],
            )
            for kind in range(_TYPES)
            if kind in self._names or received.messages[kind] or sent.messages[kind]
        ]
