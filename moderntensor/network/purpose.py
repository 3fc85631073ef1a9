"""What a connection is for."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Purpose"]


class Purpose(StrEnum):
    """What a connection that we dialled is for; those that dialled us are all `FULL`."""

    FULL = "full"
    """Everything; the only kind that takes one of the places for outbound peers."""
    FEELER = "feeler"
    """To see who is at an address: it ends with the handshake and makes no peer."""
    EXTRA = "extra"
    """One peer more than there are places, while our head looks old."""
