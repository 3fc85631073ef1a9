"""Frames: the bytes of a stream cut into frames, frames made one by one and many at once."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from struct import Struct
from typing import Any

from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side

from moderntensor._ext import framing as compiled
from moderntensor._pure import framing as pure

from ..case import OURS, Case, Contender, Mark, Scale
from ..plain import codec as plain
from ..timing import calls

TITLE = "Framing"

READ = 256 * 1024  # bytes of a stream that are there at once
BATCH = 1000  # frames that leave together
KIND = 1
MARKED = (0, 1024)  # payload bytes
FOR_INFORMATION = (64, 64 * 1024)

UNTYPED = "frames of WebSocket, without masks; they carry no type of message"
AN_EMPTY_CALL = "an empty call"
ONE_COPY = "one copy"

DECODE_MARKS = {
    0: (Mark(50.0, ("plain",)),),
    1024: (
        Mark(
            7.0,
            ("plain",),
            bound="a bytes object of 1 KiB must be made for each frame: malloc and free are more "
            "than half of the 990 instructions of a frame, the copy an eighth; cutting at known "
            "places without looking at headers (the row 'only bytes') is hardly faster",
        ),
    ),
}
ENCODE_MARKS = {
    0: (
        Mark(
            11.0,
            ("plain",),
            bound="calling a C function with two arguments takes CPython as long as it takes the "
            "plain design to do a ninth of its work (the row 'an empty call'); the frame itself "
            "must be made as a bytes object on top of that",
        ),
    ),
    1024: (
        Mark(
            7.0,
            ("plain",),
            bound="of what it takes, most is the call and the bytes object: malloc and free of "
            "more than 512 bytes, and one copy of 1 KiB (the row 'one copy' does nothing else), "
            "while the plain design allocates and copies just as much",
        ),
    ),
}
BATCH_MARKS = {
    0: (
        Mark(
            70.0,
            ("plain",),
            bound="a frame takes some 32 instructions: 15 to see that it is a pair with a payload "
            "and how long, 17 to check its type and write five bytes",
        ),
    )
}


def cases(scale: Scale) -> Iterator[Case]:
    for size in MARKED + FOR_INFORMATION:
        yield _decode(scale, size)
    for size in MARKED + FOR_INFORMATION:
        yield _encode(scale, size)
    for size in MARKED + FOR_INFORMATION:
        yield _encode_batch(scale, size)


def _name(size: int) -> str:
    if size == 0:
        return "empty payload"
    return f"{size // 1024} KiB" if size >= 1024 else f"{size} B"


def _items(size: int, count: int) -> list[tuple[int, bytes]]:
    """Frames with a payload each of its own."""
    return [(KIND, bytes([n % 256]) * size) for n in range(count)]


def _web_socket_frame(payload: bytes) -> bytes:
    return WebSocketFrame(Opcode.BINARY, payload).serialize(mask=False)


def _decode(scale: Scale, size: int) -> Case:
    items = _items(size, READ // (size + compiled.HEADER_SIZE))
    wire = compiled.encode_frames(items)
    plain_wire = plain.encode_frames(items)
    web_socket_wire = b"".join(_web_socket_frame(payload) for _, payload in items)

    def engine(name: str, framing: Any) -> tuple[Any, Contender]:
        decoder = framing.FrameDecoder({KIND: size}, buffer_size=READ)
        decoder.get_buffer(-1)[: len(wire)] = wire  # as the socket would have
        return decoder, calls(scale, name, decoder.buffer_updated, len(wire), units=len(items))

    ours, our_contender = engine(OURS, compiled)
    twin, twin_contender = engine("pure", pure)
    protocol = Protocol(Side.CLIENT, max_size=None)

    def web_socket() -> list[Any]:
        protocol.receive_data(web_socket_wire)
        return protocol.events_received()

    def check() -> None:
        for decoder in (ours, twin):
            frames = decoder.buffer_updated(len(wire))
            assert [(frame.type, frame.payload) for frame in frames] == items
        assert plain.decode_frames(plain_wire) == items
        assert [bytes(frame.data) for frame in web_socket()] == [payload for _, payload in items]

    return Case(
        f"stream decode, {_name(size)}",
        "frames/s",
        (
            our_contender,
            twin_contender,
            calls(scale, "plain", plain.decode_frames, plain_wire, units=len(items)),
            calls(scale, "websockets", web_socket, units=len(items), differs=UNTYPED),
            *(_only_bytes(scale, size, wire) if size else ()),
        ),
        DECODE_MARKS.get(size, ()),
        check,
        note=f"{len(items)} frames back to back, which are there at once",
    )


def _only_bytes(scale: Scale, size: int, wire: bytes) -> Iterator[Contender]:
    """The payloads cut out by `struct`, which knows beforehand where they are."""
    count = len(wire) // (size + compiled.HEADER_SIZE)
    cut = Struct(f"{compiled.HEADER_SIZE}x{size}s" * count).unpack_from
    yield calls(
        scale,
        "only bytes",
        cut,
        wire,
        units=count,
        differs="makes the payloads where it knows them to be, and nothing else: the floor",
    )


def _encode(scale: Scale, size: int) -> Case:
    payload = b"x" * size
    head = compiled.encode_frame(KIND, payload)[: compiled.HEADER_SIZE]

    def check() -> None:
        made = compiled.encode_frame(KIND, payload)
        assert made == pure.encode_frame(KIND, payload) == head + payload
        assert plain.decode_frames(plain.encode_frame(KIND, payload)) == [(KIND, payload)]
        assert _web_socket_frame(payload).endswith(payload)

    contenders = [
        calls(scale, OURS, compiled.encode_frame, KIND, payload),
        calls(scale, "pure", pure.encode_frame, KIND, payload),
        calls(scale, "plain", plain.encode_frame, KIND, payload),
        calls(scale, "websockets", _web_socket_frame, payload, differs=UNTYPED),
        calls(
            scale,
            AN_EMPTY_CALL,
            operator.is_,
            KIND,
            payload,
            differs="operator.is_: what it costs to call a C function with two arguments",
        ),
    ]
    if size:
        contenders.append(
            calls(
                scale,
                ONE_COPY,
                operator.add,
                head,
                payload,
                differs="a header that is there already, and the payload behind it",
            )
        )
    return Case(
        f"encode one frame, {_name(size)}",
        "frames/s",
        tuple(contenders),
        ENCODE_MARKS.get(size, ()),
        check,
    )


def _encode_batch(scale: Scale, size: int) -> Case:
    count = min(BATCH, READ // (size + compiled.HEADER_SIZE))
    items = _items(size, count)

    def web_socket() -> bytes:
        return b"".join([_web_socket_frame(payload) for _, payload in items])

    def check() -> None:
        assert compiled.encode_frames(items) == pure.encode_frames(items)
        assert plain.decode_frames(plain.encode_frames(items)) == items
        assert len(web_socket()) > size * count

    return Case(
        f"batch encode, {_name(size)}",
        "frames/s",
        (
            calls(scale, OURS, compiled.encode_frames, items, units=count),
            calls(scale, "pure", pure.encode_frames, items, units=count),
            calls(scale, "plain", plain.encode_frames, items, units=count),
            calls(scale, "websockets", web_socket, units=count, differs=UNTYPED),
        ),
        BATCH_MARKS.get(size, ()),
        check,
        note=f"{count} frames into one buffer",
    )
