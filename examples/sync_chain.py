"""Sync a fresh node from one that has a chain, watching how it goes.

The parts of a node are put together by hand here; `FullNode` does the same in one call. Run it:
``python examples/sync_chain.py``
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from moderntensor import (
    Block,
    BlockValidator,
    ChainConfig,
    NodeConfig,
    NodeIdentity,
    P2PNode,
    StateDB,
    SyncManager,
)
from moderntensor.blockchain.workload import build_chain, demo_config, demo_keys

BLOCKS = 1000
LOCAL = NodeConfig(listen_host="127.0.0.1", listen_port=0)

# Keys that everybody can compute: good for an example, never for money.
ACCOUNTS = demo_keys(4)
VALIDATORS = demo_keys(2, "validator")


def build_source(config: ChainConfig) -> BlockValidator:
    """A chain of signed blocks with a transfer in each, in memory."""
    source = BlockValidator(StateDB(None), config)
    for head in build_chain(
        source.chain,
        validators=VALIDATORS,
        accounts=ACCOUNTS,
        blocks=BLOCKS,
        transfers_per_block=1,
    ):
        print(f"built up to block {head.height}")
    return source


async def sync_from(bootstrap: str, config: ChainConfig, directory: Path) -> bytes:
    """Sync into a store on disk and return the state root that it leads to."""
    with StateDB(directory / "chain") as state_db:
        validator = BlockValidator(state_db, config)
        node = P2PNode(
            bootstrap_nodes=[bootstrap],
            identity=NodeIdentity.load(directory / "node.key"),  # made on the first run
            config=LOCAL,
        )
        sync = SyncManager(node, validator)  # attaches the validator's chain to the node

        # Callbacks may be coroutine functions too. Each block arrives executed and committed.
        def on_block(block: Block) -> None:
            if block.height % 250 == 0:
                print(f"block {block.height} synced, {sync.status.progress:.0%} of the way")

        sync.on_block_synced = on_block
        sync.on_sync_complete = lambda: print("sync complete")

        async with node, sync:
            # The bootstrap node is being dialled at this moment: give it ten seconds to answer.
            result = await sync.sync(target_height=BLOCKS, wait_for_peers=10)
            status = sync.status  # a snapshot; ask for it at any time, also while syncing
            print(f"phase {status.phase.value}, {status.peers} peer, {status.progress:.0%}")
            print(
                f"{result.blocks:,} blocks, {result.transactions:,} transactions and "
                f"{result.bytes_received:,} bytes, {result.blocks_per_second:,.0f} blocks/s"
            )
        return validator.chain.head.state_root


async def main() -> None:
    """A serving node, a fresh node, and the proof that both have the same state."""
    config = demo_config(ACCOUNTS, VALIDATORS)
    source = build_source(config)
    server = P2PNode(config=LOCAL)
    server.attach_chain(source.chain)  # from now on it serves this chain
    with tempfile.TemporaryDirectory() as directory:
        async with server:
            address = f"127.0.0.1:{server.listen_port}"
            print(f"a node serves {BLOCKS:,} blocks on {address}")
            root = await sync_from(address, config, Path(directory))
    assert root == source.chain.head.state_root
    print(f"both nodes have state root {root.hex()}")


if __name__ == "__main__":
    asyncio.run(main())
