"""What stands between a socket's bytes and its frames: nothing (plaintext), or records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from ..backend import framing

__all__ = ["Channel", "PlaintextChannel"]


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
    def seal(self, parts: list[bytes]) -> bytes:
        """The socket bytes for the whole frames of one flush, at least one."""


class PlaintextChannel(Channel):
    """Frames as they are, read straight into the decoder's buffer."""

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.decoder.get_buffer(sizehint)

    def received(self, n: int) -> list[framing.Frame]:
        return self.decoder.buffer_updated(n)

    def seal(self, parts: list[bytes]) -> bytes:
        return parts[0] if len(parts) == 1 else b"".join(parts)
