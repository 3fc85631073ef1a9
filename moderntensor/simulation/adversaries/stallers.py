"""Peers that hold a sync up: they do not answer, answer late, or are always busy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ...network.messages import MessageType, Reply, Request, Status
from ...network.p2p import P2PNode
from ...network.peer import Peer
from ...network.serving_queue import refusal

__all__ = ["BUSY_MS", "Met", "busy", "never", "slow"]

BUSY_MS = 500  # after which one that is busy for ever asks to be asked again


class Met:
    """How often a peer has held somebody up."""

    def __init__(self) -> None:
        self.times = 0


def never(node: P2PNode, kinds: Iterable[MessageType], *, after: int = 0) -> Met:
    """Have `node` answer no request of these types, but for the first `after` of all."""
    left, met = after, Met()

    async def handler(peer: Peer, request: Request) -> Reply:
        nonlocal left
        if left <= 0:
            met.times += 1
            await asyncio.Event().wait()
        left -= 1
        return await node.server.answer(peer, request)

    for kind in kinds:
        node.register_handler(kind, handler)
    return met


def slow(node: P2PNode, kinds: Iterable[MessageType], *, seconds: float) -> Met:
    """Have `node` take so many seconds more for each answer of these types."""
    met = Met()

    async def handler(peer: Peer, request: Request) -> Reply:
        met.times += 1
        await asyncio.sleep(seconds)
        return await node.server.answer(peer, request)

    for kind in kinds:
        node.register_handler(kind, handler)
    return met


def busy(node: P2PNode, kinds: Iterable[MessageType], *, after: int = 0) -> Met:
    """Have `node` say BUSY to all requests of these types, but to the first `after`."""
    left, met = after, Met()

    async def handler(peer: Peer, request: Request) -> Reply:
        nonlocal left
        if left <= 0:
            met.times += 1
            return refusal(request, Status.BUSY, BUSY_MS)
        left -= 1
        return await node.server.answer(peer, request)

    for kind in kinds:
        node.register_handler(kind, handler)
    return met
