"""Answers to GET_STATE and GET_STATE_NODES, from the snapshots.

Both go out as the bytes that a snapshot has: no object is made of an account or a node. A request
costs one read of at most 17,408 accounts; or at most 1,024 nodes, of which at most
`COMPUTED_MOST` are so low in the tree that they are not kept.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final, NamedTuple

from ..backend import framing
from ..blockchain.snapshots import RECORD_SIZE, Snapshot, SnapshotKeeper
from ..errors import StorageError
from .messages import (
    GetStateMessage,
    GetStateNodesMessage,
    MessageCodec,
    Reply,
    StateMessage,
    StateNodesMessage,
    Status,
)
from .protocol import MAX_STATE_ACCOUNTS
from .serving_queue import refusal

__all__ = ["COMPUTED_MOST", "StateRequest", "state_frame", "state_reply"]

StateRequest = GetStateMessage | GetStateNodesMessage

# Nodes of one reply that are hashed from their accounts, which costs ten times a kept one: as much
# as all the kept ones together. No sync of ours asks for any but the root of a tiny state.
COMPUTED_MOST: Final = 128

_PREFIX: Final = Struct(">IBH")  # request_id, status, retry_ms


class _Answer(NamedTuple):
    status: Status
    items: bytes = b""  # with their count, where there are any


def state_frame(snapshots: SnapshotKeeper, request: Any) -> bytes:
    """The reply to a `StateRequest`, encoded."""
    status, items = _answer(snapshots, request)
    if not items:
        return MessageCodec.encode(refusal(request, status))
    kind = StateMessage if isinstance(request, GetStateMessage) else StateNodesMessage
    return framing.encode_frame(kind.TYPE, _PREFIX.pack(request.request_id, status, 0) + items)


def state_reply(snapshots: SnapshotKeeper, request: Any) -> Reply:
    """The reply to a `StateRequest`."""
    reply = MessageCodec.decode(state_frame(snapshots, request))
    assert isinstance(reply, Reply)  # noqa: S101 - of a request
    return reply


def _answer(snapshots: SnapshotKeeper, request: StateRequest) -> _Answer:
    with snapshots.lend(request.block_hash) as snapshot:
        if snapshot is not None:
            try:
                if isinstance(request, GetStateMessage):
                    return _accounts(snapshot, request)
                return _nodes(snapshot, request)
            except StorageError as error:
                snapshots.damaged(request.block_hash, error)
    gone = snapshots.was_here(request.block_hash)
    return _Answer(Status.PRUNED if gone else Status.NOT_FOUND)


def _accounts(snapshot: Snapshot, request: GetStateMessage) -> _Answer:
    records = snapshot.records(request.depth, request.prefix, MAX_STATE_ACCOUNTS)
    if records is None:
        return _Answer(Status.TOO_LARGE)
    count = len(records) // RECORD_SIZE
    return _Answer(Status.OK, count.to_bytes(4, "big") + records)


def _nodes(snapshot: Snapshot, request: GetStateNodesMessage) -> _Answer:
    nodes = snapshot.nodes(request.paths, COMPUTED_MOST)
    if not nodes and request.paths:
        return _Answer(Status.NOT_FOUND)
    status = Status.OK if len(nodes) == len(request.paths) else Status.PARTIAL
    return _Answer(status, len(nodes).to_bytes(2, "big") + b"".join(nodes))
