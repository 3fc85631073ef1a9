"""Peers as a sync's pool of sources sees them, apart from any network."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from moderntensor.config import NodeConfig
from moderntensor.network.messages import DisconnectCode
from moderntensor.network.offences import Offence
from moderntensor.network.sync.sources import SourcePool
from moderntensor.network.sync.status import Meter
from moderntensor.runtime import Runtime


class StandInPeer:
    """As much of a peer as the pool looks at."""

    def __init__(self, name: str, height: int = 100) -> None:
        self.address = name
        self.best_height = height
        self.best_hash = name.encode().ljust(32, b"\0")
        self.max_inflight, self.max_per_type = 16, 8
        self.min_latency: float | None = None
        self.connection = SimpleNamespace(bytes_received=0)
        self.outbound = False
        self.connected_at = 0.0
        self.code: DisconnectCode | None = None

    def punish(self, offence: Offence, detail: str) -> None:
        if offence.drops:
            self.code = offence.code


class StandInNode:
    """As much of a node as the pool looks at."""

    def __init__(self, *peers: StandInPeer) -> None:
        self.peers = {peer.address: peer for peer in peers}
        self.on_peer_connected: list[Callable[[StandInPeer], None]] = []
        self.on_peer_disconnected: list[Callable[[StandInPeer], None]] = []


def pool_of(*peers: StandInPeer, **changes: float) -> SourcePool:
    runtime = Runtime(1)
    config = NodeConfig(stall_timeout=0.02, stall_timeout_max=0.08).replace(**changes)
    node = StandInNode(*peers)
    pool = SourcePool(node, runtime, config, Meter(runtime, 0))  # type: ignore[arg-type]
    pool.attach()
    return pool
