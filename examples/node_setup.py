"""Two full nodes on one chain: set them up, connect them, see what each learns of the other.

Run it from anywhere: ``python examples/node_setup.py``
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from moderntensor import ChainConfig, FullNode, KeyPair, NodeConfig, Peer

# Port 0 lets the system choose, and loopback keeps strangers out. A public node needs neither:
# its defaults are port 30303 on all addresses.
LOCAL = NodeConfig(listen_host="127.0.0.1", listen_port=0)


def write_genesis(path: Path) -> ChainConfig:
    """The file that every node of a chain starts from. Its hash fixes the rules of the chain."""
    validator, owner = KeyPair.generate(), KeyPair.generate()
    config = ChainConfig(
        chain_id=7,
        timestamp=int(time.time()),
        block_time=12,  # seconds; one validator after the other may sign in such a slot
        validators=(validator.public_key,),
        alloc={owner.address: 1_000_000},
    )
    config.save(path)
    return config


def show(name: str, node: FullNode) -> None:
    """What a node tells every peer in the first message of a connection."""
    head = node.chain.head
    print(f"{name} listens on {node.p2p.listen_host}:{node.p2p.listen_port}")
    print(f"  node id    {node.p2p.node_id.hex()}")
    print(f"  genesis    {node.chain.genesis_hash.hex()}")
    print(f"  best block {head.height}, state root {head.state_root.hex()[:16]}...")


async def run(directory: Path) -> None:
    """Both nodes live as long as the `async with` block."""
    genesis = directory / "genesis.json"
    config = write_genesis(genesis)
    print(f"wrote {genesis.name} of chain {config.chain_id}")

    # Each node keeps its chain and its key in a directory of its own. A node that is started
    # again there has the same id and goes on where it was.
    alice = FullNode(directory / "alice", genesis, settings=LOCAL)
    bob = FullNode(directory / "bob", genesis, settings=LOCAL)

    # Callbacks hear of every peer that has passed the handshake: same network, same genesis.
    met: asyncio.Queue[Peer] = asyncio.Queue()
    bob.p2p.on_peer_connected.append(met.put_nowait)

    async with alice, bob:
        show("alice", alice)
        show("bob", bob)

        peer = await alice.p2p.connect_peer("127.0.0.1", bob.p2p.listen_port)
        guest = await asyncio.wait_for(met.get(), 10)
        print(f"alice dialled {peer.info.user_agent} at {peer.address}")
        print(f"bob was dialled by {guest.node_id.hex()[:16]}... from {guest.address}")
        assert guest.node_id == alice.p2p.node_id

        info = peer.info
        print(f"  it can     {', '.join(info.capabilities)}")
        print(f"  its head   block {info.best_height}, {info.best_hash.hex()[:16]}...")
        assert info.best_hash == bob.chain.genesis_hash
    print("both nodes have stopped")


def main() -> None:
    """The whole example, in a directory that is removed in the end."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


if __name__ == "__main__":
    main()
