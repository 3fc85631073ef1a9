"""What is new: taken in from peers, checked, and passed on to those who do not know it."""

from __future__ import annotations

from .gossip import BlockHook, Gossip

__all__ = ["BlockHook", "Gossip"]
