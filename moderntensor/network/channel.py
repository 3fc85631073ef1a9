"""What stands between a socket's bytes and its frames: nothing (plaintext), or records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from ..backend import framing

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

    def __init__(self, decoder: framing.FrameDecoder) -> None:
        self.decoder = decoder

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

        Raises `NetworkError` if the bytes are no channel of this kind; what is wrong with frames
        is in `decoder.error`.
        """

    @abstractmethod
    def seal(self, parts: list[bytes]) -> Sequence[bytes]:
        """The socket bytes for some whole frames, at least one, in one piece or more.

        In `parts` a large frame may be two, its header and its payload.
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

    def seal(self, parts: list[bytes]) -> Sequence[bytes]:
        if len(parts) <= _FEW and sum(map(len, parts)) >= len(parts) * _PIECE:
            return parts
        return (b"".join(parts),)
