"""What is known of a peer, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from .connection import Connection
from .inbox import Inbox
from .peer_extensions import PeerExtensions
from .purpose import Purpose
from .rates import PeerRates
from .requests import RequestTable
from .serving_queue import ServingQueue

__all__ = ["PeerInfo", "info_of"]


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
    """Ours to it."""
    requests_timed_out: int
    requests_waiting: int
    """Of its requests, that wait for their turn here."""
    messages_waiting: int
    """Of its messages, that wait for their handlers."""
    messages_refused: int
    """Of its messages, over a rate: discarded, or answered BUSY."""
    busy_replies: int
    """Of its requests, answered BUSY for whatever reason."""
    bytes_held: int
    """Of the byte budget."""


class Described(Protocol):
    """A peer, as far as it is described."""

    address: str
    node_id: bytes
    outbound: bool
    purpose: Purpose
    user_agent: str
    capabilities: frozenset[str]
    best_height: int
    best_hash: bytes
    earliest_height: int
    connection: Connection

    @property
    def listen_address(self) -> str | None: ...
    @property
    def latency(self) -> float | None: ...
    @property
    def min_latency(self) -> float | None: ...
    @property
    def connected_for(self) -> float: ...


def info_of(
    peer: Described,
    requests: RequestTable,
    rates: PeerRates,
    serving: ServingQueue[Any],
    inbox: Inbox[Any],
    extensions: PeerExtensions | None,
    bytes_held: int,
) -> PeerInfo:
    """What is known of `peer`, of which the rest are parts; of extensions and all else together."""
    connection = peer.connection
    return PeerInfo(
        address=peer.address,
        node_id=peer.node_id,
        outbound=peer.outbound,
        purpose=peer.purpose,
        user_agent=peer.user_agent,
        capabilities=tuple(sorted(peer.capabilities)),
        listen_address=peer.listen_address,
        best_height=peer.best_height,
        best_hash=peer.best_hash,
        earliest_height=peer.earliest_height,
        latency=peer.latency,
        min_latency=peer.min_latency,
        connected_for=peer.connected_for,
        bytes_sent=connection.bytes_sent,
        bytes_received=connection.bytes_received,
        messages_sent=connection.frames_sent,
        messages_received=connection.frames_received,
        requests_in_flight=requests.in_flight + (extensions.in_flight if extensions else 0),
        requests_timed_out=requests.timeouts + (extensions.timeouts if extensions else 0),
        requests_waiting=len(serving) + (extensions.requests_waiting if extensions else 0),
        messages_waiting=len(inbox) + (extensions.messages_waiting if extensions else 0),
        messages_refused=rates.refused + (extensions.refused if extensions else 0),
        busy_replies=serving.busy_replies + (extensions.busy_replies if extensions else 0),
        bytes_held=bytes_held,
    )
