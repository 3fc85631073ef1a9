"""How large a reply the decoder admits: as large as the largest that may still come."""

from __future__ import annotations

from ..backend import framing
from .messages import IDLE_CAPS
from .protocol import TypeByte

__all__ = ["ReplyCaps"]


class ReplyCaps:
    """The caps of one peer's replies, opened and closed request by request."""

    def __init__(self, decoder: framing.FrameDecoder) -> None:
        self._decoder = decoder
        self._open: dict[TypeByte, dict[int, int]] = {}  # cap → replies that may come

    def open(self, kind: TypeByte, cap: int) -> None:
        """One more reply of `kind` may come, with up to `cap` payload bytes."""
        caps = self._open.setdefault(kind, {})
        caps[cap] = caps.get(cap, 0) + 1
        if caps[cap] == 1:
            self._set(kind, caps)

    def close(self, kind: TypeByte, cap: int) -> None:
        """One that `open` announced has come, or will not any more."""
        caps = self._open[kind]
        caps[cap] -= 1
        if not caps[cap]:
            del caps[cap]
            self._set(kind, caps)

    def _set(self, kind: TypeByte, caps: dict[int, int]) -> None:
        self._decoder.set_cap(kind, max(caps, default=IDLE_CAPS.get(kind, 0)))
