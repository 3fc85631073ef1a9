"""A node that fast-syncs into a directory until it has the whole chain, or is killed:
`python fast_child.py GENESIS_FILE DIRECTORY PORT...`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from helpers.sync_nodes import SETTINGS, connect_ports
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.network.p2p import P2PNode
from moderntensor.network.sync import SyncManager

# Of a node of little memory: what is fetched is soon stored.
WINDOW_BYTES = 5 << 19


async def run(config: ChainConfig, directory: Path, ports: list[int]) -> None:
    """Prints the hash of the head that it gets to, and the height of the first body."""
    state = StateDB(directory)
    validator = BlockValidator(state, config)
    settings = SETTINGS.replace(sync_window_bytes=WINDOW_BYTES)
    node = P2PNode(config=settings)
    manager = SyncManager(node, validator)
    async with node, manager:
        await connect_ports(manager, ports)
        await manager.fast_sync()
        print(manager.chain.head.hash.hex(), manager.chain.earliest_height, flush=True)
    state.close()


if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    asyncio.run(run(ChainConfig.from_json(text), Path(sys.argv[2]), [*map(int, sys.argv[3:])]))
