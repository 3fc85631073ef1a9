"""Hostile nodes: real ones below, which speak the protocol, and lie on top of it."""

from __future__ import annotations

from .coalition import Coalition
from .forker import Forker
from .liars import BODY_LIES, HEADER_LIES, STATE_LIES, Liar, Lie, false_replies
from .loner import Loner, flood_addresses, invented
from .stallers import Met, busy, never, slow
from .turncoat import turn

__all__ = [
    "BODY_LIES",
    "HEADER_LIES",
    "STATE_LIES",
    "Coalition",
    "Forker",
    "Liar",
    "Lie",
    "Loner",
    "Met",
    "busy",
    "false_replies",
    "flood_addresses",
    "invented",
    "never",
    "slow",
    "turn",
]
