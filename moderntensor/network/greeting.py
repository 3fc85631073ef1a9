"""What a node says of itself, in HELLO and in PONG."""

from __future__ import annotations

from typing import Any, Protocol

from ..blockchain.chain import Blockchain
from ..blockchain.snapshots import SnapshotKeeper
from ..config import NodeConfig
from .addresses import to_wire
from .dispatch import Router
from .life import Life
from .messages import HelloMessage, PongMessage

__all__ = ["hello_of", "pong_of"]


class Speaker(Protocol):
    """A node, as far as it speaks of itself."""

    config: NodeConfig
    life: Life
    node_id: bytes
    router: Router[Any]
    chain: Blockchain | None
    snapshots: SnapshotKeeper | None


def hello_of(node: Speaker, nonce: int, host: str, port: int) -> HelloMessage:
    """Its HELLO to a node that it sees at `host` and `port`."""
    extensions = node.router.extensions.names
    hello = HelloMessage(
        network_id=node.config.network_id,
        listen_port=node.life.port,
        node_id=node.node_id,
        capabilities=extensions,
        user_agent=node.config.user_agent,
        max_inflight=node.config.max_inflight,
        max_per_type=node.config.max_per_type,
        observed_ip=to_wire(host),
        observed_port=port,
        nonce=nonce,
    )
    if node.chain is None:
        return hello
    head, earliest = node.chain.head, node.chain.earliest_height
    states = () if node.snapshots is None else ("state/1",)
    archive = () if earliest else ("archive",)
    return hello.replace(
        genesis_hash=node.chain.genesis_hash,
        best_height=head.height,
        best_hash=head.hash,
        earliest_height=earliest,
        capabilities=("sync/1", "relay/1", *states, *archive, *extensions),
    )


def pong_of(node: Speaker, nonce: int) -> PongMessage:
    """Its answer to a PING."""
    if node.chain is None:
        return PongMessage(nonce=nonce)
    head, earliest = node.chain.head, node.chain.earliest_height
    return PongMessage(
        nonce=nonce,
        best_height=head.height,
        best_hash=head.hash,
        earliest_height=earliest,
        snapshots=() if node.snapshots is None else node.snapshots.announced,
    )
