"""The 21 messages and what travels in them: only the one canonical encoding is taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helpers.message_vectors import VECTORS

from moderntensor.errors import DecodeError
from moderntensor.network.messages import MessageCodec, MessageType
from moderntensor.wire import MESSAGES

from ..twins import COMPILED, PURE, Engines, same
from . import Target

KINDS = list(MessageType)


def layouts_of(cls: Any) -> dict[str, Any]:
    """The layout of a record in both twins; whichever the record itself uses."""
    return {
        engines.name: engines.layout.Layout(cls, cls.__fields__, cls.MAX_SIZE)
        for engines in (PURE, COMPILED)
    }


_LAYOUTS = {kind: layouts_of(MESSAGES[kind]) for kind in KINDS}


def round_trip(layouts: dict[str, Any], data: bytes) -> Any:
    """What `data` encodes, if anything, checked to encode to just that again."""

    def read(engines: Engines) -> Any:
        found = layouts[engines.name].unpack(data)
        assert layouts[engines.name].pack(found) == data, "another encoding of the same"
        return found

    kind, found = same(read)
    return found if kind == "value" else None


def messages(data: bytes) -> None:
    kind, payload = KINDS[data[0] % len(KINDS)] if data else KINDS[0], data[1:]
    found = round_trip(_LAYOUTS[kind], payload)
    frame = (len(payload) + 1).to_bytes(4, "big") + bytes([kind]) + payload
    try:
        decoded = MessageCodec.decode(frame)
    except DecodeError:
        assert found is None or found.fault() or len(payload) > found.CAP, "a good one refused"
        return
    assert decoded == found, "not what its layout reads"
    assert MessageCodec.encode(decoded) == frame, "another frame of the same"


def _seeds() -> Iterator[bytes]:
    for vector in VECTORS:
        if len(vector.frame) < 4000:
            yield bytes([KINDS.index(vector.type)]) + vector.frame[5:]


TARGETS = {"messages": Target(messages, _seeds)}
