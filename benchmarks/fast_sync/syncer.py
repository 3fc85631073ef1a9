"""A node that syncs, once, from the peers that it is told: `python -m
benchmarks.fast_sync.syncer SETUP`."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from adversity.control import obey

from benchmarks import sync_profile
from benchmarks.fast_sync.chains import CHAIN, MAP_SIZE, digest_of
from benchmarks.fast_sync.server import settings
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.sync import SyncManager

LOOK = 0.005  # seconds between two looks at the phase


class Syncer:
    """Syncs into a directory and keeps the times."""

    def __init__(self, setup: dict[str, Any], state_db: StateDB) -> None:
        self._setup = setup
        self._state_db = state_db
        config = ChainConfig.load(setup["genesis"])
        if setup.get("trusted"):
            height, digest = setup["trusted"]
            config = config.trusting(height, bytes.fromhex(digest))
        transport = setup["transport"]
        self.node = P2PNode(
            config=settings(transport),
            identity=NodeIdentity.generate() if transport == "secure" else None,
        )
        self.manager = SyncManager(self.node, BlockValidator(state_db, config))
        self._partings: dict[str, str] = {}
        self.node.on_peer_disconnected.append(self._parted)
        self._phases: dict[str, float] = defaultdict(float)
        self._result: dict[str, Any] | None = None
        self._error: str | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def _parted(self, peer: Peer) -> None:
        self._partings[peer.node_id.hex()] = f"{peer.drop_reason} (code {peer.drop_code})"

    async def begin(self) -> None:
        """Connect to all, then sync in the background."""
        for peer in self._setup["peers"]:
            known = bytes.fromhex(peer["node_id"]) if self._setup["transport"] == "secure" else None
            host = peer.get("host", "127.0.0.1")
            await self.node.connect_peer(host, peer["port"], node_id=known)
        self._tasks = [asyncio.ensure_future(self._sync()), asyncio.ensure_future(self._watch())]

    async def _sync(self) -> None:
        before = sync_profile.thread_seconds()
        try:
            work = self.manager.fast_sync if self._setup["fast"] else self.manager.sync
            result = await work()
        except Exception as error:
            self._error = f"{type(error).__name__}: {error}"
            return
        head = self.manager.chain.head
        self._result = {
            "seconds": result.seconds,
            "header_seconds": result.header_seconds,
            "state_seconds": result.state_seconds,
            "pivot": result.pivot_height,
            "headers": result.headers,
            "blocks": result.blocks,
            "transactions": result.transactions,
            "bytes": result.bytes_received,
            "height": head.height,
            "hash": head.hash.hex(),
            "state_root": head.state_root.hex(),
            "threads": sync_profile.thread_seconds(before),
            "peers": len(self.node.peers),
            "partings": self._partings,
            "offences": dict(self.node.reputation.counts.offences),
        }

    async def _watch(self) -> None:
        """Book the time to the phase that goes on."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        while self._result is None and self._error is None:
            await asyncio.sleep(LOOK)
            status, now = self.manager.status, loop.time()
            self._phases[status.waiting or status.phase.value] += now - before
            before = now

    def status(self) -> dict[str, Any]:
        """How far it is; "result" once it is done, "error" if it gave up."""
        status = self.manager.status
        return {
            "phase": status.phase.value,
            "header_height": self.manager.chain.header_head.height,
            "height": status.current_height,
            "pivot": status.pivot_height,
            "accounts_done": status.accounts_done,
            "accounts_total": status.accounts_total,
            "result": self._result and {**self._result, "phases": dict(self._phases)},
            "error": self._error,
        }

    def digest(self) -> list[Any]:
        """How many accounts there are, and a hash of all."""
        return list(digest_of(self._state_db.store))

    async def end(self) -> None:
        """Leave nothing running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def run(setup: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.INFO)  # shown where a run does not end as it should
    with StateDB(Path(setup["data"]) / CHAIN, map_size=MAP_SIZE) as state_db:
        syncer = Syncer(setup, state_db)
        async with syncer.node, syncer.manager:
            try:
                await obey(
                    {"begin": syncer.begin, "status": syncer.status, "digest": syncer.digest}, {}
                )
            finally:
                await syncer.end()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
