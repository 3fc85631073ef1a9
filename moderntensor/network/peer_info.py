"""What is known of a peer, at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from .purpose import Purpose

__all__ = ["PeerInfo"]


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What is known of a peer at one moment; heights are claims."""

    address: str
    node_id: bytes
    outbound: bool
    purpose: Purpose
    user_agent: str
    capabilities: tuple[str, ...]
    listen_address: str | None
    best_height: int
    best_hash: bytes
    earliest_height: int
    latency: float | None
    min_latency: float | None
    connected_for: float
    bytes_sent: int
    bytes_received: int
    messages_sent: int
    messages_received: int
    requests_in_flight: int
    requests_timed_out: int
    messages_refused: int
    """Of its messages, over a rate: discarded, or answered BUSY."""
    busy_replies: int
    """Of its requests, answered BUSY for whatever reason."""
    bytes_held: int
    """Of the byte budget."""
