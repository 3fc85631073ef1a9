"""What stands between a socket's bytes and its frames: nothing (plaintext), or records."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from ..backend import framing
from ..errors import NetworkError, PeerDisconnectedError

__all__ = ["LARGE", "Channel", "PlaintextChannel", "new_read_buffer"]

# A payload of so many bytes is not copied into a frame.
LARGE = 16 * 1024
# A few pieces that are this large on average, headers among them, cost less to write as they are
# than to join.
_PIECE = 4 * 1024
_FEW = 64


class Channel(ABC):
    """The seam between `Connection` and the frame decoder.

    A channel that has a handshake of its own writes it through what `start` gave it and becomes
    `ready` within some call of `received`; frames that were queued before leave then.
    """

    # The most bytes of frames that `seal` is given at a time. Larger frames come in slices.
    seal_limit: ClassVar[int] = sys.maxsize
    # How much of it where a payload was queued that is not copied, or where `seal_limit` is passed.
    slice_size: ClassVar[int] = sys.maxsize
    # Whether what `seal` returns is memory that the next call of any channel overwrites.
    lends: ClassVar[bool] = False

    def __init__(self, decoder: framing.FrameDecoder) -> None:
        self.decoder = decoder
        # What made the stream unreadable below its frames; `decoder.error` is about those.
        self.error: NetworkError | None = None

    @property
    def ready(self) -> bool:
        """Whether frames may be sealed."""
        return True

    @property
    def remote_key(self) -> bytes | None:
        """The 32-byte static key that the other side proved to hold; None in plaintext."""
        return None

    def start(self, write: Callable[[bytes], None]) -> None:  # noqa: B027 - nothing to do is fine
        """The socket is open; `write` sends handshake bytes as they are."""

    @abstractmethod
    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the socket shall put what it reads; valid until the next `received`."""

    @abstractmethod
    def received(self, n: int) -> list[framing.Frame]:
        """`n` bytes are in the buffer: the frames that they complete.

        What is wrong with the bytes behind those is in `error` or `decoder.error`; not to be
        called any more then.
        """

    def resume(self) -> list[framing.Frame]:
        """Go on after the frame at which the decoder paused: the frames behind it."""
        return self.decoder.resume()

    @property
    def pending(self) -> int:
        """Bytes that are held of something unfinished: of the handshake, a record, a frame."""
        return self.decoder.pending

    @property
    def expected(self) -> int:
        """How long that is at least, in bytes; 0 while it is not known."""
        return self.decoder.expected

    def discard(self) -> None:
        """Free what is held of something unfinished: nothing is received any more."""
        self.decoder.discard()

    def ended(self) -> NetworkError | None:
        """What is wrong with an end of the stream here, if anything is."""
        if not self.pending:
            return None
        return PeerDisconnectedError(
            f"the peer closed the connection {self.pending} bytes into a frame"
        )

    @abstractmethod
    def seal(self, parts: Sequence[bytes | memoryview]) -> Sequence[bytes | memoryview]:
        """The socket bytes for some frames, in one piece or more; at least one byte and at most
        `seal_limit` of them.

        In `parts` a large frame may be two, its header and its payload, or slices from call to
        call.
        """


def new_read_buffer() -> memoryview:
    """Memory for one read, 256 KiB, that all connections of one loop can share.

    A loop fills it and has it emptied before it turns to the next socket: what a connection has
    of an unfinished frame is in its decoder. So an idle connection holds no pages of it.
    """
    return memoryview(bytearray(framing.DEFAULT_BUFFER_SIZE))


class PlaintextChannel(Channel):
    """Frames as they are, read into `shared`, or else into a buffer of the decoder's own."""

    def __init__(self, decoder: framing.FrameDecoder, shared: memoryview | None = None) -> None:
        super().__init__(decoder)
        self._shared = shared

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.decoder.get_buffer(sizehint) if self._shared is None else self._shared

    def received(self, n: int) -> list[framing.Frame]:
        if self._shared is None:
            return self.decoder.buffer_updated(n)
        return self.decoder.feed(self._shared[:n])

    def seal(self, parts: Sequence[bytes | memoryview]) -> Sequence[bytes | memoryview]:
        if len(parts) <= _FEW and sum(map(len, parts)) >= len(parts) * _PIECE:
            return parts
        return (b"".join(parts),)
