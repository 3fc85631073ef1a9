"""Peers that serve a state over real sockets, honestly or not, and who fetches it from them."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

from moderntensor.backend import merkle
from moderntensor.blockchain import tables
from moderntensor.blockchain.staging import Pivot, StateStaging
from moderntensor.config import NodeConfig
from moderntensor.network.messages import (
    GetStateMessage,
    GetStateNodesMessage,
    PongMessage,
    Reply,
    Request,
    StateMessage,
    StateNodesMessage,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.protocol import MAX_STATE_ACCOUNTS, MessageType
from moderntensor.network.sync.context import SyncContext
from moderntensor.network.sync.sources import SourcePool
from moderntensor.network.sync.state import StateStage
from moderntensor.network.sync.status import Meter
from moderntensor.storage import MemoryStore, Store

from .state_reference import account, records
from .sync_nodes import SETTINGS, until

ZERO = bytes(32)
RECORD = 108

Lie = Callable[[Request, Reply], Reply | None]  # None: silence


def state_of(count: int, changed: Iterable[int] = (), by: int = 1) -> dict[bytes, bytes]:
    """`count` accounts, of which some have another balance than they would have."""
    state = {n.to_bytes(20, "big"): account(0, n + 1) for n in range(count)}
    for n in changed:
        state[n.to_bytes(20, "big")] = account(by, n + 1)
    return state


class Image:
    """A whole state, and any part of it at once."""

    def __init__(
        self, state: Mapping[bytes, bytes], height: int = 1024, *, most: int = MAX_STATE_ACCOUNTS
    ) -> None:
        self.most = most  # accounts of one reply
        self.records = records(dict(state))
        root, self.count, nodes, self.rows = merkle.state_records(self.records, threshold=1)
        self.keys = [key for key, _ in self.rows]
        self.nodes = dict(nodes)
        self.kept_nodes = merkle.state_records(self.records, rows=False)[2]
        self.pivot = Pivot(height, height.to_bytes(32, "big"), root)

    def part(self, depth: int, prefix: bytes) -> bytes:
        """The records of a subtree."""
        end = tables.subtree_end(depth, prefix)
        stop = self.count if end is None else bisect_left(self.keys, end)
        return self.records[bisect_left(self.keys, prefix) * RECORD : stop * RECORD]

    def state(self, asked: GetStateMessage) -> StateMessage:
        """As an honest peer answers."""
        part = self.part(asked.depth, asked.prefix)
        count = len(part) // RECORD
        if count > self.most:
            return StateMessage(request_id=asked.request_id, status=Status.TOO_LARGE)
        return accounts_reply(asked, part)

    def state_nodes(self, asked: GetStateNodesMessage) -> StateNodesMessage:
        """As an honest peer answers."""
        found = []
        for path in asked.paths:
            node = self.nodes.get(tables.node_key(*path))
            if node is None:
                break
            counts = (int.from_bytes(node[at : at + 8], "big") for at in (32, 72))
            found.append((node[:32], next(counts), node[40:72], next(counts)))
        status = Status.OK if len(found) == len(asked.paths) else Status.PARTIAL
        return StateNodesMessage(
            request_id=asked.request_id,
            status=status if found else Status.NOT_FOUND,
            nodes=tuple(found),
        )


def accounts_reply(asked: Request, part: bytes) -> StateMessage:
    """A STATE of these records, be they what was asked or not."""
    counted = (len(part) // RECORD).to_bytes(4, "big") + part
    return StateMessage(request_id=asked.request_id, accounts=counted)


class StateNode(P2PNode):
    """Serves the images that it has, as `lie` alters them, and counts what it serves."""

    def __init__(self, *images: Image, lie: Lie | None, settings: NodeConfig) -> None:
        super().__init__(config=settings)
        self.images = {image.pivot.block_hash: image for image in images}
        self.announces = True
        self.lie = lie
        self.accounts = self.nodes_sent = self.asked = 0
        self.register_handler(MessageType.GET_STATE, self._serve)
        self.register_handler(MessageType.GET_STATE_NODES, self._serve)

    def make_pong(self, nonce: int) -> PongMessage:
        held = [image.pivot[:2] for image in self.images.values()] if self.announces else []
        return super().make_pong(nonce).replace(snapshots=tuple(held))

    async def _serve(self, _: Peer, asked: GetStateMessage | GetStateNodesMessage) -> Reply:
        self.asked += 1
        image = self.images.get(asked.block_hash)
        reply: Reply
        if image is None:
            kind = StateMessage if isinstance(asked, GetStateMessage) else StateNodesMessage
            reply = kind(request_id=asked.request_id, status=Status.PRUNED)
        elif isinstance(asked, GetStateMessage):
            reply = image.state(asked)
        else:
            reply = image.state_nodes(asked)
        if self.lie is not None:
            told = self.lie(asked, reply)
            if told is None:
                await asyncio.Event().wait()
            reply = told or reply
        if isinstance(reply, StateMessage):
            self.accounts += reply.count
        elif isinstance(reply, StateNodesMessage):
            self.nodes_sent += len(reply.nodes)
        return reply


@asynccontextmanager
async def state_node(
    *images: Image, lie: Lie | None = None, settings: NodeConfig = SETTINGS
) -> AsyncIterator[StateNode]:
    """One that runs."""
    async with StateNode(*images, lie=lie, settings=settings) as node:
        yield node


class Fetcher:
    """A node that fetches a state into a store and keeps no chain."""

    def __init__(self, node: P2PNode, store: Store) -> None:
        self.node = node
        self.store = store
        self.meter = Meter(node.runtime, 0)
        self.pool = SourcePool(node, node.runtime, node.config, self.meter)
        self.staging = StateStaging(store)
        self.context = SyncContext(
            cast(Any, None), self.pool, node.runtime, node.config, self.meter, node.budget
        )

    async def connect(self, *nodes: P2PNode) -> None:
        """Dial them, and hear what they announce."""
        for node in nodes:
            peer = await self.node.connect_peer("127.0.0.1", node.listen_port)
            if isinstance(node, StateNode) and node.announces and node.images:
                await until(partial(getattr, peer, "snapshots"))

    async def fetch(self, image: Image) -> None:
        """All of its state."""
        self.staging.aim(image.pivot)
        await StateStage(self.context, self.staging).run()

    def holds(self, image: Image) -> bool:
        """Whether what is there is that state, byte for byte, in both tables."""
        with self.store.read() as txn:
            return (
                txn.range(tables.ACCOUNTS_B) == image.rows
                and txn.range(tables.NODES_B) == image.kept_nodes
                and txn.first(tables.HOLES) is None
            )


@asynccontextmanager
async def fetching(
    store: Store | None = None, *, settings: NodeConfig = SETTINGS
) -> AsyncIterator[Fetcher]:
    """One that runs and is connected to nobody yet."""
    async with P2PNode(config=settings) as node:
        fetcher = Fetcher(node, store or MemoryStore(tables.TABLES))
        fetcher.pool.attach()
        try:
            yield fetcher
        finally:
            fetcher.pool.detach()
