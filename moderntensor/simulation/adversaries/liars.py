"""Peers that serve false headers, bodies or accounts, from some reply on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from ...network.messages import (
    BlockBodiesMessage,
    GetBlockBodiesMessage,
    GetHeadersMessage,
    GetStateMessage,
    GetStateNodesMessage,
    HeadersMessage,
    MessageType,
    Reply,
    Request,
    StateMessage,
    StateNodesMessage,
    Status,
)
from ...network.p2p import P2PNode
from ...network.peer import Peer

__all__ = ["BODY_LIES", "HEADER_LIES", "STATE_LIES", "Liar", "Lie", "false_replies"]

Lie = Callable[[Reply], Reply | None]
"""The reply changed, or None where there is nothing in it to change."""

MAX_NOTED: Final = 64
_COUNT: Final = 2  # bytes before the first header
_HEIGHT_END: Final = 12  # where a header's height ends: version u32, height u64
_ACCOUNTS: Final = 4  # bytes before the first account


class Liar:
    """What a peer that lies has told to whom."""

    def __init__(self) -> None:
        self.told: dict[bytes, list[float]] = {}
        """Node id → when it was given false replies, by loop time; the first of them, at most
        `MAX_NOTED`."""

    def tells(self, node_id: bytes) -> None:
        """It gives one more false reply to this node, now."""
        times = self.told.setdefault(node_id, [])
        if len(times) < MAX_NOTED:
            times.append(asyncio.get_running_loop().time())


def _flipped(reply: Reply, position: int) -> Reply | None:
    if not isinstance(reply, HeadersMessage) or not reply.count:
        return None
    data = bytearray(reply.headers)
    data[position] ^= 1
    return reply.replace(headers=bytes(data))


def wrong_height(reply: Reply) -> Reply | None:
    """The first header has another height."""
    return _flipped(reply, _COUNT + _HEIGHT_END - 1)


def wrong_signature(reply: Reply) -> Reply | None:
    """The last header is signed by nobody."""
    return _flipped(reply, -1)


def swapped_bodies(reply: Reply) -> Reply | None:
    """Each body is that of another block."""
    if not isinstance(reply, BlockBodiesMessage) or reply.bodies == reply.bodies[::-1]:
        return None
    return reply.replace(bodies=reply.bodies[::-1])


def cut_bodies(reply: Reply) -> Reply | None:
    """The bodies are cut short."""
    if not isinstance(reply, BlockBodiesMessage) or not reply.bodies:
        return None
    return reply.replace(bodies=tuple(body[:-1] for body in reply.bodies))


def altered_account(reply: Reply) -> Reply | None:
    """The last account has something that it has not."""
    if not isinstance(reply, StateMessage) or reply.status != Status.OK or not _count_of(reply):
        return None
    data = bytearray(reply.accounts)
    data[-1] ^= 1
    return reply.replace(accounts=bytes(data))


def missing_account(reply: Reply) -> Reply | None:
    """The last account is left out."""
    if not isinstance(reply, StateMessage) or reply.status != Status.OK or not _count_of(reply):
        return None
    count = _count_of(reply)
    size = (len(reply.accounts) - _ACCOUNTS) // count
    data = (count - 1).to_bytes(_ACCOUNTS, "big") + reply.accounts[_ACCOUNTS:-size]
    return reply.replace(accounts=data)


def _count_of(reply: StateMessage) -> int:
    return int.from_bytes(reply.accounts[:_ACCOUNTS], "big")


def swapped_nodes(reply: Reply) -> Reply | None:
    """The two halves of each node have changed places."""
    if not isinstance(reply, StateNodesMessage) or not reply.nodes:
        return None
    nodes = tuple((right, c, left, d) for left, d, right, c in reply.nodes)
    return None if nodes == reply.nodes else reply.replace(nodes=nodes)


HEADER_LIES: Final[Mapping[str, Lie]] = MappingProxyType(
    {"height": wrong_height, "signature": wrong_signature}
)
BODY_LIES: Final[Mapping[str, Lie]] = MappingProxyType(
    {"swapped": swapped_bodies, "cut": cut_bodies}
)
STATE_LIES: Final[Mapping[str, Lie]] = MappingProxyType(
    {"altered": altered_account, "missing": missing_account, "nodes": swapped_nodes}
)
_LIED_ABOUT: Final = (
    GetHeadersMessage,
    GetBlockBodiesMessage,
    GetStateMessage,
    GetStateNodesMessage,
)


def false_replies(node: P2PNode, lie: Lie, *, after: int = 0) -> Liar:
    """Have `node` change its answers to requests for headers, bodies or state by `lie`, but for the
    first `after` that could be."""
    liar = Liar()
    left = after

    async def handler(peer: Peer, request: Request) -> Reply:
        nonlocal left
        reply = await node.server.answer(peer, request)
        false = lie(reply)
        if false is None:
            return reply
        if left > 0:
            left -= 1
            return reply
        liar.tells(peer.node_id)
        return false

    for kind in _LIED_ABOUT:
        node.register_handler(MessageType(kind.TYPE), handler)
    return liar
