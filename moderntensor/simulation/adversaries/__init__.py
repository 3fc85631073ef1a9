"""Hostile nodes: real ones below, which speak the protocol, and lie on top of it."""

from __future__ import annotations

from .forker import Forker
from .liars import BODY_LIES, HEADER_LIES, Liar, false_replies
from .loner import Loner, flood_addresses
from .stallers import busy, never, slow

__all__ = [
    "BODY_LIES",
    "HEADER_LIES",
    "Forker",
    "Liar",
    "Loner",
    "busy",
    "false_replies",
    "flood_addresses",
    "never",
    "slow",
]
