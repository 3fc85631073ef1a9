"""Fast sync: get to the head by the state, every piece of it proved, instead of by its history.

A node serves a chain that it has a snapshot of; a fresh one fetches the headers, the state after
one block near the end, and executes only what comes after it. The older blocks follow in the
background. Run it: ``python examples/fast_sync.py``
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from moderntensor import FullNode, NodeConfig
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.state import verify_account
from moderntensor.blockchain.workload import DEFAULT_TIMESTAMP, build_chain, demo_keys

BLOCKS = 1000
TRANSFERS = 2000  # every second one makes an account
LOCAL = NodeConfig(listen_host="127.0.0.1", listen_port=0, discovery=False)

# Keys that everybody can compute: good for an example, never for money.
ACCOUNTS = demo_keys(4)
VALIDATORS = demo_keys(2, "validator")
CONFIG = ChainConfig(
    chain_id=1,
    timestamp=DEFAULT_TIMESTAMP,
    block_time=1,
    snapshot_interval=300,  # blocks; 1,024 unless the genesis says otherwise
    validators=tuple(key.public_key for key in VALIDATORS),
    alloc={key.address: 10**18 for key in ACCOUNTS},
)


def build(node: FullNode) -> None:
    """Give a node a chain to serve."""
    for _ in build_chain(
        node.chain,
        validators=VALIDATORS,
        accounts=ACCOUNTS,
        blocks=BLOCKS,
        transfers=TRANSFERS,
        new_accounts=TRANSFERS // 2,
    ):
        pass


async def snapshot_of(node: FullNode) -> int:
    """Wait until a node has a snapshot to serve, and return its height."""
    keeper = node.p2p.snapshots
    assert keeper is not None
    while not keeper.announced:  # noqa: ASYNC110  it is made in the background
        await asyncio.sleep(0.05)
    return keeper.announced[-1][0]


async def fast_sync(directory: Path, address: str) -> bytes:
    """Bring a fresh node to the head and return its state root."""
    # `fast_sync` says what the node does first, `backfill` that it gets older blocks afterwards.
    settings = LOCAL.replace(fast_sync=True, backfill=True)
    node = FullNode(directory, CONFIG, bootstrap_nodes=[address], settings=settings)
    async with node:
        result = await node.sync.fast_sync(wait_for_peers=10)  # joins what it does by itself
        print(f"state of block {result.pivot_height}: {result.accounts:,} accounts, each proved")
        print(f"{result.blocks} of {BLOCKS:,} blocks executed, head {result.height:,}")

        # Whoever has only the root can check what the node says of an account.
        account, proof = node.state_db.prove(ACCOUNTS[0].address)
        assert verify_account(node.chain.head.state_root, ACCOUNTS[0].address, account, proof)
        print(f"balance {account.balance:,}, proved with {len(proof)} hashes")

        # From this height on the bodies of blocks are here.
        while node.chain.earliest_height > 0:  # noqa: ASYNC110  it comes down in the background
            await asyncio.sleep(0.05)
        block = node.chain.get_block(1)
        assert block is not None
        print(f"block 1 came in the background, with {len(block.transactions)} transactions")
        return node.chain.head.state_root


async def main() -> None:
    """A node with a snapshot, a fresh node, and the same state in both."""
    with tempfile.TemporaryDirectory() as directory:
        server = FullNode(Path(directory) / "server", CONFIG, settings=LOCAL)
        build(server)
        async with server:
            height = await snapshot_of(server)
            address = f"127.0.0.1:{server.p2p.listen_port}"
            print(f"a node at block {BLOCKS:,} serves the state of block {height} on {address}")
            root = await fast_sync(Path(directory) / "fresh", address)
            assert root == server.chain.head.state_root
    print(f"both nodes have state root {root.hex()}")


if __name__ == "__main__":
    asyncio.run(main())
