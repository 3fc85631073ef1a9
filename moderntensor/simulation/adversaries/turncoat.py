"""A node that does all that it should, for a while."""

from __future__ import annotations

import asyncio
from typing import Final

from ...blockchain.chain import Blockchain
from ...blockchain.tables import TABLES
from ...network.messages import MessageType, Reply, Request
from ...network.peer import Peer
from ...node import FullNode
from ...storage import MemoryStore

__all__ = ["turn"]

SERVED: Final = (
    MessageType.GET_HEADERS,
    MessageType.GET_BLOCKS,
    MessageType.GET_BLOCK_BODIES,
    MessageType.GET_TRANSACTIONS,
)


def turn(node: FullNode) -> None:
    """From now on `node` passes no block on, and answers no request for headers, blocks or
    transactions; it keeps the places that it has earned, and its claims move, for it goes on to
    follow the others."""

    async def handler(peer: Peer, request: Request) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    # News is of a chain that nothing happens on.
    node.p2p.gossip.attach(Blockchain(MemoryStore(TABLES), node.chain.config))
    for kind in SERVED:
        node.p2p.register_handler(kind, handler)
