"""Text that others have written, on its way to a terminal, a log or the wire."""

from __future__ import annotations

__all__ = ["REASON_LIMIT", "printable"]

REASON_LIMIT = 256  # the protocol: DISCONNECT.reason


def printable(text: str, limit: int = REASON_LIMIT) -> str:
    """`text` as a DISCONNECT reason may hold it: printable ASCII, at most `limit` characters."""
    safe = "".join(c if " " <= c <= "~" else "?" for c in text)
    return safe if len(safe) <= limit else safe[: limit - 3] + "..."
