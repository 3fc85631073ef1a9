"""What dishonest servers make of honest replies, and a count of what is served at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final

from moderntensor.network.messages import (
    GetStateMessage,
    GetStateNodesMessage,
    MessageCodec,
    Reply,
    Request,
    StateMessage,
    StateNodesMessage,
    Status,
)
from moderntensor.network.peer import Peer
from moderntensor.network.protocol import DisconnectCode
from moderntensor.network.serving import Server

_RECORD: Final = 108
_NODE: Final = 80
_BEFORE_IT_GOES: Final = 3  # replies of one that vanishes


def install(
    lie: str | None, served: Counter[str], after: Callable[[], None] = lambda: None
) -> None:
    """Let all servers of this process tell `lie`, and count in `served` what leaves them:
    "chunks" and their "accounts", "nodes", and the "lies" among the replies. `after` is called
    after each of them."""
    honest = Server.frame
    numbers = count()

    async def frame(self: Server, peer: Peer, request: Request) -> bytes:
        raw = await honest(self, peer, request)
        if not isinstance(request, GetStateMessage | GetStateNodesMessage):
            return raw
        if lie is not None:
            reply = MessageCodec.decode(raw)
            assert isinstance(reply, Reply)
            told = await LIES[lie](peer, reply, next(numbers)) if _tells(reply) else None
            if told is not None:
                served["lies"] += 1
                return MessageCodec.encode(told)
        if isinstance(request, GetStateMessage):
            served["chunks"] += 1
            served["accounts"] += len(raw) // _RECORD  # what stands before them is shorter
        else:
            served["nodes"] += len(raw) // _NODE
        after()
        return raw

    Server.frame = frame  # type: ignore[method-assign]


def _tells(reply: Reply) -> bool:
    return reply.status in (Status.OK, Status.PARTIAL)


def _with(reply: StateMessage, records: list[bytes]) -> StateMessage:
    return reply.replace(accounts=len(records).to_bytes(4, "big") + b"".join(records))


def _records(reply: StateMessage) -> list[bytes]:
    raw = reply.accounts
    return [raw[at : at + _RECORD] for at in range(4, len(raw), _RECORD)]


async def _accounts(peer: Peer, reply: Reply, number: int) -> Reply | None:
    """One is missing, one too many, one altered, two in the wrong order, in turns."""
    if not isinstance(reply, StateMessage) or reply.count < 2:
        return None
    first, second, *rest = _records(reply)
    altered = first[:40] + bytes((first[40] ^ 1,)) + first[41:]
    told = (
        [second, *rest],
        [first, first, second, *rest],
        [altered, second, *rest],
        [second, first, *rest],
    )[number % 4]
    return _with(reply, told)


async def _nodes(peer: Peer, reply: Reply, number: int) -> Reply | None:
    """Nodes with another hash in them; half of what a chunk should hold."""
    if isinstance(reply, StateMessage):
        records = _records(reply)
        return _with(reply, records[: len(records) // 2])
    if isinstance(reply, StateNodesMessage) and reply.nodes:
        (_, *right), *rest = reply.nodes
        return reply.replace(nodes=((b"\1" * 32, *right), *rest))
    return None


async def _stalls(peer: Peer, reply: Reply, number: int) -> Reply | None:
    """Accounts are promised and never come."""
    if isinstance(reply, StateMessage):
        await asyncio.Event().wait()
    return None


async def _vanishes(peer: Peer, reply: Reply, number: int) -> Reply | None:
    """After some good replies it is gone."""
    if number >= _BEFORE_IT_GOES:
        peer.disconnect(DisconnectCode.SHUTTING_DOWN)
    return None


LIES: Final[dict[str, Callable[[Peer, Reply, int], Awaitable[Reply | None]]]] = {
    "accounts": _accounts,
    "nodes": _nodes,
    "stalls": _stalls,
    "vanishes": _vanishes,
}
