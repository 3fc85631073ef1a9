"""Two honest peers of the node under attack, which sync its chain from nothing again and again
over one connection each: `python -m adversity.honest_peers SETUP`."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from adversity import scene
from adversity.control import obey
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.config import NodeConfig
from moderntensor.errors import SyncError
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.sync import SyncManager

# Seconds between two syncs, and between two PINGs, unless there is `hurry`: their own load should
# leave the machine to what is tested.
PAUSE, PING_INTERVAL = 0.25, 3.0
SAMPLE = 0.02  # seconds between two looks at a peer's latency


class Honest:
    """One of them."""

    def __init__(self, host: str, settings: dict[str, Any]) -> None:
        config = NodeConfig(
            listen_host=host,
            listen_port=0,
            discovery=False,
            ping_interval=PING_INTERVAL,
            **settings,
        )
        self.node = P2PNode(config=config, identity=NodeIdentity.generate())
        self.node.on_peer_disconnected.append(self._parted)
        self.syncs = self.blocks = self.pongs = 0
        self.latencies: list[float] = []
        self.partings: list[str] = []
        self._hurried = 0  # syncs that begin without a pause
        self._wake = asyncio.Event()
        self.failures: list[str] = []

    def _parted(self, peer: Peer) -> None:
        self.partings.append(f"{peer.drop_code}: {peer.drop_reason}")

    async def sync(self) -> None:
        """Sync from nothing for ever."""
        stores: list[StateDB] = []  # the node serves from one until it has the next
        try:
            while True:
                if self.node.peers:
                    stores.append(StateDB(None))
                    await self._sync_once(stores[-1])
                    for store in stores[:-1]:
                        store.close()
                    del stores[:-1]
                await self._pause()
        finally:
            await self.node.stop()
            for store in stores:
                store.close()

    async def _pause(self) -> None:
        self._hurried -= self._hurried > 0
        if not self._hurried:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), PAUSE)
        self._wake.clear()

    def hurry(self) -> None:
        """Begin two syncs and send a PING without a pause: somebody waits for them."""
        self._hurried = 3
        self._wake.set()
        for peer in self.node.peers.values():
            peer.probe()

    async def _sync_once(self, store: StateDB) -> None:
        validator = BlockValidator(store, scene.maker().config)
        try:
            async with SyncManager(self.node, validator) as manager:
                result = await manager.sync()
        except SyncError as error:
            self.failures.append(str(error))
        else:
            self.syncs += 1
            self.blocks += result.blocks

    async def watch(self) -> None:
        """Note how long each PING took."""
        last = None
        while True:
            for peer in self.node.peers.values():
                if peer.latency is not None and peer.latency != last:
                    last = peer.latency
                    self.pongs += 1
                    self.latencies.append(last)
            await asyncio.sleep(SAMPLE)

    def report(self) -> dict[str, Any]:
        latencies, self.latencies = self.latencies, []
        return {
            "syncs": self.syncs,
            "blocks": self.blocks,
            "pongs": self.pongs,
            "slowest_pong": max(latencies, default=0.0),
            "partings": self.partings,
            "failures": self.failures,
            "peers": len(self.node.peers),
        }


async def run(setup: dict[str, Any]) -> None:
    peers = [Honest(host, setup["settings"]) for host in setup["hosts"]]
    async with asyncio.TaskGroup() as group:
        for honest in peers:
            await honest.node.start()
        tasks = [group.create_task(work) for one in peers for work in (one.sync(), one.watch())]

        async def connect(index: int, port: int, node_id: str) -> bool:
            await peers[index].node.connect_peer("127.0.0.1", port, node_id=bytes.fromhex(node_id))
            return True

        def hurry() -> None:
            for one in peers:
                one.hurry()

        await obey(
            {
                "report": lambda: [one.report() for one in peers],
                "connect": connect,
                "hurry": hurry,
            },
            {
                "ports": [one.node.listen_port for one in peers],
                "node_ids": [one.node.node_id.hex() for one in peers],
            },
        )
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
