"""Five nodes that know nothing but one bootstrap node find each other.

A node asks whoever it meets for addresses (GET_PEERS), keeps them in its address book, and dials
them until it has enough peers. Run it: ``python examples/peer_discovery.py``
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from moderntensor import NodeConfig, P2PNode, Peer

NEWCOMERS = 5
LOCAL = NodeConfig(
    listen_host="127.0.0.1",
    listen_port=0,
    # A node asks each new peer at once, and then one of its peers in every interval. Half a
    # minute is right on the internet and long in an example.
    discovery_interval=0.5,
)


async def main() -> None:
    """Every node meets all the others, though it was told of one only."""
    # Nodes need no chain to meet; this one is merely there first and listens.
    bootstrap = P2PNode(config=LOCAL)
    names = {bootstrap.node_id: "bootstrap"}
    complete = asyncio.Event()
    nodes: list[P2PNode] = []

    def connected(node: P2PNode, peer: Peer) -> None:
        me = names[node.node_id]
        # Only the dialling end tells. Where two dial each other at once, both do, and the
        # connection that the lower node id began is the one that stays.
        if peer.outbound:
            print(f"{me} dialled {names[peer.node_id]}")
        if all(len(each.peers) == NEWCOMERS for each in nodes):  # the others, and bootstrap
            complete.set()

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(bootstrap)
        address = f"127.0.0.1:{bootstrap.listen_port}"
        print(f"bootstrap listens on {address}")
        for number in range(1, NEWCOMERS + 1):
            node = P2PNode(bootstrap_nodes=[address], config=LOCAL)
            names[node.node_id] = f"node {number}"
            node.on_peer_connected.append(partial(connected, node))
            nodes.append(node)
        for node in nodes:
            await stack.enter_async_context(node)

        await asyncio.wait_for(complete.wait(), 30)
        for node in nodes:
            others = sorted(names[peer.node_id] for peer in node.peers.values())
            print(f"{names[node.node_id]} is connected to {', '.join(others)}")
    print("everybody found everybody")


if __name__ == "__main__":
    asyncio.run(main())
