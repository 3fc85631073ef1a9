"""An honest peer that syncs the chain from nothing again and again, over one connection:
`python -m benchmarks.flood.syncer SETUP`."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from adversity.control import obey

from benchmarks.flood.node import config
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.config import NodeConfig
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.protocol import MessageType, Reply, Status
from moderntensor.network.sync import SyncManager


class Syncer:
    """Counts what it has synced."""

    def __init__(self) -> None:
        settings = NodeConfig(listen=False, discovery=False)
        self.node = P2PNode(config=settings, identity=NodeIdentity.generate())
        self.partings: list[str] = []
        self.node.on_peer_disconnected.append(
            lambda peer: self.partings.append(f"{peer.drop_code}: {peer.drop_reason}")
        )
        self.busy = 0
        for kind in (MessageType.HEADERS, MessageType.BLOCK_BODIES):
            self.node.register_handler(kind, self._on_reply)
        self._whole = 0  # blocks of the syncs that are complete
        self._manager: SyncManager | None = None

    async def _on_reply(self, peer: Peer, reply: Reply) -> None:
        self.busy += reply.status == Status.BUSY

    async def run(self) -> None:
        """For ever."""
        while True:
            with StateDB(None) as state_db:
                manager = SyncManager(self.node, BlockValidator(state_db, config()))
                async with manager:
                    self._manager = manager
                    result = await manager.sync()
                    self._manager = None
                    self._whole += result.blocks

    def report(self) -> dict[str, Any]:
        """Blocks synced so far, those of the sync under way included."""
        now = self._manager.chain.head.height if self._manager is not None else 0
        latency = [peer.latency for peer in self.node.peers.values()]
        return {
            "blocks": self._whole + now,
            "partings": self.partings,
            "latency": latency,
            "busy": self.busy,
        }


async def run(setup: dict[str, Any]) -> None:
    syncer = Syncer()
    async with syncer.node:
        await syncer.node.connect_peer(
            "127.0.0.1", setup["port"], node_id=bytes.fromhex(setup["node_id"])
        )
        syncing = asyncio.ensure_future(syncer.run())
        await obey({"report": syncer.report}, {})
        syncing.cancel()
        with suppress(asyncio.CancelledError):
            await syncing


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
