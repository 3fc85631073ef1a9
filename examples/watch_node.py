"""Watch a running node: its heads, reorganisations and peers as they come, over restarts too.

``python examples/watch_node.py http://127.0.0.1:8645`` watches a node that was started with --http,
until Ctrl-C. Without a URL a node of its own makes three blocks to be watched.
"""

from __future__ import annotations

import asyncio
import sys
import time

from moderntensor import ChainConfig, FullNode, KeyPair, NodeConfig
from moderntensor.api import ApiServer
from moderntensor.client import Client
from moderntensor.client.model import HeadEvent, MissedEvent, PeerEvent, ReorganisationEvent
from moderntensor.errors import ModernTensorError


async def watch(url: str, heads: int | None = None) -> None:
    """Print what happens, until so many heads were seen."""
    async with Client(url) as client, client.events() as events:
        await events.connect()  # from now on nothing is missed
        status = await client.status()
        print(f"node {status.node_id[:16]} is at block {status.head.height}")
        async for event in events:
            match event:
                case HeadEvent(header=header, transactions=count):
                    print(f"block {header.height} {header.hash[:16]}, {count} transactions")
                    heads = None if heads is None else heads - 1
                    if heads == 0:
                        return
                case ReorganisationEvent(fork_height=fork, to_height=height):
                    print(f"reorganisation: another branch from block {fork} on, up to {height}")
                case PeerEvent(address=address, connected=connected):
                    print(f"peer {address} {'came' if connected else 'went'}")
                case MissedEvent(events=missed):
                    print(f"{missed} events were missed")


async def main() -> None:
    """The node of the command line, or one of our own."""
    if len(sys.argv) > 1:
        await watch(sys.argv[1])
        return
    key = KeyPair.generate()
    config = ChainConfig(
        chain_id=7, timestamp=int(time.time()) - 10, block_time=1, validators=(key.public_key,)
    )
    settings = NodeConfig(listen_host="127.0.0.1", listen_port=0, discovery=False)
    node = FullNode(None, config, settings=settings, producer_key=key)
    async with node, ApiServer(node, port=0) as api:
        await watch(api.url, heads=3)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except ModernTensorError as error:
        sys.exit(f"watch_node: {error}")
