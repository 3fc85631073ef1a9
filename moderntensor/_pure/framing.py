"""Frames on a byte stream: `[length u32][type u8][payload]`, length = 1 + payload bytes.

The reference twin of `ext/framing.pyx`: the same results, the same errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Final, NoReturn, final

from ..errors import EncodeError, FrameError

__all__ = [
    "DEFAULT_BUFFER_SIZE",
    "HEADER_SIZE",
    "MAX_PAYLOAD",
    "Frame",
    "FrameDecoder",
    "encode_frame",
    "encode_frames",
]

HEADER_SIZE: Final = 5
MAX_PAYLOAD: Final = 10 * 1024 * 1024  # the protocol: no cap exceeds 10 MiB
DEFAULT_BUFFER_SIZE: Final = 256 * 1024  # one read; a secure record is at most this long
_MAX_BUFFER_SIZE: Final = 16 * 1024 * 1024
_NOT_ADMITTED: Final = -1
_TYPES: Final = 256

_HEADER: Final = Struct(">IB")
_LENGTH: Final = Struct(">I")


@final
class Frame:
    """One frame: `type` 0..255 and `payload`. Immutable, compared by value.

    Raises `EncodeError` for what no frame can hold.
    """

    __slots__ = ("payload", "type")

    type: int
    payload: bytes

    def __init__(self, type: int, payload: bytes) -> None:
        _check(type, payload)
        if hasattr(self, "payload"):
            raise AttributeError("Frame is read-only")
        _set_type(self, int(type))
        _set_payload(self, payload)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Frame.{name} is read-only")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Frame.{name} is read-only")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return self.type == other.type and self.payload == other.payload

    def __hash__(self) -> int:
        return hash((self.type, self.payload))

    def __repr__(self) -> str:
        return f"Frame(type=0x{self.type:02x}, payload={self.payload!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return Frame, (self.type, self.payload)


_set_type = Frame.__dict__["type"].__set__
_set_payload = Frame.__dict__["payload"].__set__
_new_frame = Frame.__new__


def _decoded(frame_type: int, payload: bytes) -> Frame:
    frame = _new_frame(Frame)
    _set_type(frame, frame_type)
    _set_payload(frame, payload)
    return frame


# A frame without payload says nothing but its type: one object serves all of them.
_EMPTY_FRAMES = tuple(_decoded(number, b"") for number in range(_TYPES))


def _check(frame_type: object, payload: object) -> None:
    if not isinstance(frame_type, int) or isinstance(frame_type, bool):
        raise EncodeError(f"frame type must be an int, not {type(frame_type).__name__}")
    if not 0 <= frame_type < _TYPES:
        raise EncodeError("frame type must be from 0 to 255")
    if type(payload) is not bytes:
        raise EncodeError(f"frame payload must be bytes, not {type(payload).__name__}")
    if len(payload) > MAX_PAYLOAD:
        raise EncodeError(
            f"frame payload of {len(payload)} bytes is over the maximum of {MAX_PAYLOAD}"
        )


def encode_frame(type: int, payload: bytes) -> bytes:
    """The bytes of one frame: 5 more than `payload`.

    Raises `EncodeError` for a type outside 0..255, a payload that is not exactly `bytes`, or one
    over `MAX_PAYLOAD` (10 MiB).
    """
    _check(type, payload)
    return _HEADER.pack(len(payload) + 1, type) + payload


def encode_frames(frames: Iterable[tuple[int, bytes]]) -> bytes:
    """The bytes of `(type, payload)` tuples one after another, in one buffer.

    Raises `EncodeError` as `encode_frame` does, and for an item that is not such a tuple.
    """
    parts: list[bytes] = []
    for item in list(frames):
        if not isinstance(item, tuple) or len(item) != 2:
            raise EncodeError("frame must be a tuple of type and payload")
        _check(*item)
        parts.append(_HEADER.pack(len(item[1]) + 1, item[0]))
        parts.append(item[1])
    return b"".join(parts)


@final
class FrameDecoder:
    """Turns a byte stream, however it is split, into frames.

    `caps` maps each admitted type to its payload cap in bytes (at most `MAX_PAYLOAD`); a type that
    is absent is not admitted. The cap is looked up once, when the fifth byte of a frame is there:
    over it nothing more is kept. A frame within it is collected into memory that grows as its
    bytes arrive.

    Bad bytes do not raise from the call that meets them: that call returns the frames before them
    and sets `error`; every later call raises that error.

    After a frame of type `pause_after` decoding pauses, once: what follows is kept unread, up to
    `buffer_size` bytes, until `resume()`. So caps can be changed before what is glued behind.

    `frames_left` counts down with every frame (below 0: it does not). At 0 decoding pauses as soon
    as more bytes are there; at most twice `buffer_size` are then kept, as one read may complete
    what an earlier one began. So no stream takes the loop for long.
    """

    __slots__ = (
        "_buffer_size",
        "_bytes_decoded",
        "_caps",
        "_error",
        "_expected",
        "_frames_decoded",
        "_header",
        "_held",
        "_hold_limit",
        "_paused",
        "_payload",
        "_type",
        "_view",
        "frames_left",
        "pause_after",
    )

    def __init__(
        self,
        caps: Mapping[int, int],
        *,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        pause_after: int = -1,
    ) -> None:
        """Raises ValueError for a cap over `MAX_PAYLOAD`, a type outside 0..255, or a
        `buffer_size` outside 1 byte to 16 MiB."""
        if not 1 <= buffer_size <= _MAX_BUFFER_SIZE:
            raise ValueError(f"buffer_size must be from 1 to {_MAX_BUFFER_SIZE}")
        self._caps = [_NOT_ADMITTED] * _TYPES
        self._buffer_size = buffer_size
        self._view: memoryview | None = None  # made when a socket first asks
        self._header = bytearray()  # less than 5 bytes of a frame, none once it is admitted
        self._payload: bytearray | None = None  # what came so far of an admitted frame
        self._type = 0
        self._expected = 0
        self._held = bytearray()
        self._hold_limit = buffer_size
        self._paused = False
        self._error: FrameError | None = None
        self._frames_decoded = 0
        self._bytes_decoded = 0
        self.pause_after: int = pause_after
        self.frames_left: int = -1
        for frame_type, cap in caps.items():
            self.set_cap(frame_type, cap)

    # --- caps ------------------------------------------------------------------------------

    def set_cap(self, type: int, cap: int | None) -> None:
        """Admit frames of `type` with up to `cap` payload bytes, or none (None), from now on.

        A frame whose header was admitted before is still read to its end. Raises ValueError for a
        type outside 0..255 or a cap outside 0..`MAX_PAYLOAD`.
        """
        if not 0 <= type < _TYPES:
            raise ValueError("frame type must be from 0 to 255")
        if cap is None:
            self._caps[type] = _NOT_ADMITTED
            return
        if not 0 <= cap <= MAX_PAYLOAD:
            raise ValueError(f"cap must be from 0 to {MAX_PAYLOAD} bytes")
        self._caps[type] = int(cap)

    def cap(self, type: int) -> int | None:
        """The payload cap of `type` in bytes, or None if it is not admitted."""
        if not 0 <= type < _TYPES:
            raise ValueError("frame type must be from 0 to 255")
        cap = self._caps[type]
        return None if cap == _NOT_ADMITTED else cap

    # --- bytes in, frames out --------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """The decoder's own read buffer, `buffer_size` bytes, for `asyncio.BufferedProtocol`.

        It is valid as long as the decoder lives and is overwritten by the next read; `sizehint`
        is not used.
        """
        if self._view is None:
            self._view = memoryview(bytearray(self._buffer_size))
        return self._view

    def buffer_updated(self, n: int) -> list[Frame]:
        """The frames completed by the first `n` bytes of the read buffer.

        Raises the `FrameError` that an earlier call met; ValueError if `n` is not within the
        buffer.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        view = self._view if self._view is not None else memoryview(b"")
        if not 0 <= n <= len(view):
            raise ValueError("more bytes than the read buffer holds")
        return self._take(bytes(view[:n]))

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """The frames completed by `data`, of any length. Raises as `buffer_updated` does."""
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._take(data if type(data) is bytes else bytes(memoryview(data)))

    def resume(self) -> list[Frame]:
        """Go on after a pause: the frames in what was kept unread. Raises as `feed` does."""
        if self._error is not None:
            raise self._error.with_traceback(None)
        if not self._paused:
            return []
        self._paused = False
        held, self._held = bytes(self._held), bytearray()
        return self._take(held)

    def _take(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        position = 0
        most = self.frames_left if self.frames_left >= 0 else len(data) + 1
        while self._error is None:
            if len(frames) >= most and not self._paused and position < len(data):
                self._paused = True
                self._hold_limit = 2 * self._buffer_size
            if self._paused:
                self._hold(data[position:])
                break
            if self._payload is not None:
                wanted = self._expected - len(self._payload)
                self._payload += data[position : position + wanted]
                position += wanted
                if len(self._payload) < self._expected:
                    break
                payload, self._payload = bytes(self._payload), None
                self._emit(frames, self._type, payload)
            elif self._header or len(data) - position < HEADER_SIZE:
                wanted = HEADER_SIZE - len(self._header)
                self._header += data[position : position + wanted]
                position += wanted
                if len(self._header) < HEADER_SIZE:
                    if len(self._header) == _LENGTH.size and not any(self._header):
                        self._fail(FrameError("empty"))
                    break
                header, self._header = self._header, bytearray()
                self._admit(*_HEADER.unpack(header))
            else:
                position = self._take_whole(data, position, frames, most)
        if self.frames_left > 0:
            self.frames_left -= len(frames)
        return frames

    def _take_whole(self, data: bytes, position: int, frames: list[Frame], most: int) -> int:
        """Frames that lie whole in `data` from `position` on; where to go on after them."""
        caps, unpack, size = self._caps, _HEADER.unpack_from, len(data)
        while size - position >= HEADER_SIZE:
            length, frame_type = unpack(data, position)
            position += HEADER_SIZE
            end = position + length - 1
            if not 0 < length <= caps[frame_type] + 1 or end > size:
                self._admit(length, frame_type)
                break
            self._emit(frames, frame_type, data[position:end])
            position = end
            if self._paused or len(frames) >= most:
                break
        return position

    def _admit(self, length: int, frame_type: int) -> None:
        """Judge a frame by its five bytes: collect its payload, or fail."""
        cap = self._caps[frame_type]
        if length == 0:
            self._fail(FrameError("empty"))
        elif cap == _NOT_ADMITTED:
            self._fail(FrameError("unknown", frame_type, length - 1, 0))
        elif length - 1 > cap:
            self._fail(FrameError("too-large", frame_type, length - 1, cap))
        else:
            self._type, self._expected, self._payload = frame_type, length - 1, bytearray()

    def _emit(self, frames: list[Frame], frame_type: int, payload: bytes) -> None:
        frames.append(_decoded(frame_type, payload) if payload else _EMPTY_FRAMES[frame_type])
        self._expected = 0
        self._frames_decoded += 1
        self._bytes_decoded += HEADER_SIZE + len(payload)
        if frame_type == self.pause_after:
            self.pause_after = -1
            self._paused = True
            self._hold_limit = self._buffer_size

    def _hold(self, data: bytes) -> None:
        if len(self._held) + len(data) > self._hold_limit:
            # How far over it went depends on the split of the stream; that it did, does not.
            self._fail(FrameError("too-large", 0, self._hold_limit + 1, self._hold_limit))
        else:
            self._held += data

    def _fail(self, error: FrameError) -> None:
        self._error = error
        self.discard()

    def discard(self) -> None:
        """Free what is held of an unfinished frame and behind a pause: the stream has ended."""
        self._header, self._payload, self._expected = bytearray(), None, 0
        self._held = bytearray()

    # --- what it holds and did -------------------------------------------------------------

    @property
    def error(self) -> FrameError | None:
        """What made the stream unreadable, or None."""
        return self._error

    @property
    def paused(self) -> bool:
        """Whether decoding waits for `resume()`."""
        return self._paused

    @property
    def pending(self) -> int:
        """Bytes that are held of an unfinished frame, its header included."""
        if self._payload is not None:
            return HEADER_SIZE + len(self._payload)
        return len(self._header)

    @property
    def held(self) -> int:
        """Bytes kept unread because decoding is paused."""
        return len(self._held)

    @property
    def expected(self) -> int:
        """Payload bytes that the unfinished frame announced; 0 while that is not known."""
        return self._expected

    @property
    def frames_decoded(self) -> int:
        """Frames returned so far."""
        return self._frames_decoded

    @property
    def bytes_decoded(self) -> int:
        """Bytes of the frames returned so far, headers included."""
        return self._bytes_decoded
