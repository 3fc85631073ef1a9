"""A node that follows a chain and serves it meanwhile: `python -m benchmarks.fast_sync.follower
SETUP`. With `produce` it makes the chain's blocks instead, one in every slot."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from adversity.control import obey

from benchmarks.fast_sync.chains import SENDERS, VALIDATORS
from benchmarks.fast_sync.server import settings
from moderntensor.blockchain.chain import HeadChanged
from moderntensor.blockchain.producer import BlockProducer
from moderntensor.blockchain.transaction import Transaction
from moderntensor.config import NodeConfig
from moderntensor.network.identity import NodeIdentity
from moderntensor.node import FullNode

TRANSFERS = 50  # in each block


class Follower:
    """Notes when each block is executed."""

    def __init__(self, node: FullNode) -> None:
        self._node = node
        self._at: dict[int, float] = {}
        node.chain.subscribe(self._moved)

    def _moved(self, change: HeadChanged) -> None:
        self._at[self._node.chain.head.height] = time.time()

    def state(self) -> dict[str, Any]:
        """The head, the snapshots, and when heights were reached (Unix seconds)."""
        head = self._node.chain.head
        return {
            "height": head.height,
            "hash": head.hash.hex(),
            "at": {str(height): at for height, at in self._at.items()},
            "offences": dict(self._node.p2p.reputation.counts.offences),
        }


class Maker:
    """Makes a block in every slot, with transfers between the senders."""

    def __init__(self, node: FullNode) -> None:
        self._node = node
        self.made: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self._task = asyncio.ensure_future(self._produce())

    async def end(self) -> dict[str, float]:
        """Make no more; heights and the time (Unix seconds) at which each was announced."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        return self.made

    async def _produce(self) -> None:
        node, config = self._node, self._node.chain.config
        for number in count():
            now = time.time()
            slot = config.slot_of(int(now)) + 1
            await asyncio.sleep(config.timestamp + slot * config.block_time - now)
            key = VALIDATORS[slot % len(VALIDATORS)]
            producer = BlockProducer(node.chain, None, key, node.runtime)
            transfers = self._transfers(number)
            when = config.timestamp + slot * config.block_time
            block = await node.runtime.run_writer(producer.produce, when, transfers)
            self.made[str(block.height)] = time.time()
            await node.p2p.broadcast_block(block)

    def _transfers(self, number: int) -> list[Transaction]:
        chain = self._node.chain
        sender = SENDERS[number % len(SENDERS)]
        nonce = chain.get_account(sender.address).nonce
        return [
            Transaction.create(
                sender,
                chain_id=chain.config.chain_id,
                nonce=nonce + i,
                to=SENDERS[(number + 1 + i) % len(SENDERS)].address,
                value=1,
            )
            for i in range(TRANSFERS)
        ]


async def run(setup: dict[str, Any]) -> None:
    transport: str = setup["transport"]
    given: NodeConfig = settings(transport)
    with ExitStack():
        node = FullNode(
            Path(setup["data"]),
            setup["genesis"],
            settings=given,
            identity=NodeIdentity.generate() if transport == "secure" else None,
            bootstrap_nodes=[f"127.0.0.1:{port}" for port in setup.get("bootstrap", ())],
        )
        follower, maker = Follower(node), Maker(node)
        async with node:
            try:
                await obey(
                    {"state": follower.state, "begin": maker.begin, "end": maker.end},
                    {"port": node.p2p.listen_port, "node_id": node.p2p.node_id.hex()},
                )
            finally:
                await maker.end()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
