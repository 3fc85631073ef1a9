"""A node that serves a chain and its snapshots: `python -m benchmarks.fast_sync.server SETUP`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from adversity.control import obey

from benchmarks import sync_profile
from benchmarks.fast_sync import lies
from benchmarks.fast_sync.chains import CHAIN, MAP_SIZE, SNAPSHOTS
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.snapshots import SnapshotKeeper
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.config import NodeConfig
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.p2p import P2PNode


def settings(transport: str, host: str = "127.0.0.1") -> NodeConfig:
    """What a node has by default, on loopback unless another address is given."""
    return NodeConfig(listen_host=host, listen_port=0, discovery=False, transport=transport)


class Serving:
    """A node and the chains that it can serve, one at a time."""

    def __init__(self, setup: dict[str, Any], stack: ExitStack) -> None:
        transport = setup["transport"]
        self.node = P2PNode(
            config=settings(transport, setup.get("host", "127.0.0.1")),
            identity=NodeIdentity.generate() if transport == "secure" else None,
        )
        self._chains = [self._open(Path(data), setup["genesis"], stack) for data in setup["data"]]
        self.show(0)

    def _open(
        self, data: Path, genesis: str, stack: ExitStack
    ) -> tuple[Blockchain, SnapshotKeeper]:
        state_db = stack.enter_context(StateDB(data / CHAIN, map_size=MAP_SIZE))
        chain = BlockValidator(state_db, ChainConfig.load(genesis)).chain
        keeper = SnapshotKeeper(chain, data / SNAPSHOTS, self.node.runtime)
        keeper.load()
        stack.callback(keeper.close)
        return chain, keeper

    def show(self, number: int) -> None:
        """Serve this chain from now on, and nothing of the others."""
        chain, keeper = self._chains[number]
        self.node.attach_chain(chain, snapshots=keeper)


async def run(setup: dict[str, Any]) -> None:
    served: Counter[str] = Counter()
    with ExitStack() as stack:
        serving = Serving(setup, stack)
        most = setup.get("most")

        def after() -> None:
            """The chain moves on, and what was served is gone."""
            if most is not None and served["accounts"] >= most and "before" not in served:
                served["before"] = served["accounts"]
                serving.show(1)

        lies.install(setup.get("lie"), served, after)
        async with serving.node as node:
            threads = sync_profile.thread_seconds()
            await obey(
                {
                    "served": lambda: served,
                    "threads": lambda: sync_profile.thread_seconds(threads),
                    "offences": lambda: dict(node.reputation.counts.offences),
                },
                {
                    "host": setup.get("host", "127.0.0.1"),
                    "port": node.listen_port,
                    "node_id": node.node_id.hex(),
                },
            )


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
