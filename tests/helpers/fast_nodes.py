"""Nodes that serve a state worth fetching over real sockets, and what each was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from hashlib import sha256

from adversity.own_tree import OwnTree, beyond

from helpers.sync_nodes import CONFIG, SETTINGS, extend, new_validator
from moderntensor.blockchain import state_slots
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.snapshots import SnapshotKeeper
from moderntensor.config import NodeConfig
from moderntensor.network.dispatch import Handler
from moderntensor.network.messages import (
    GetStateMessage,
    GetStateNodesMessage,
    MessageType,
    PongMessage,
    Reply,
    Request,
    StateMessage,
    StateNodesMessage,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.runtime import Runtime

Place = tuple[int, bytes]
ACCOUNTS = 24_000
INTERVAL = 32
PIVOT = 2 * INTERVAL
HEIGHT = PIVOT + 68  # the pivot is followed by 64 blocks and a few
STATE_KINDS = MessageType.GET_STATE, MessageType.GET_STATE_NODES


@cache
def strangers(accounts: int = ACCOUNTS) -> tuple[bytes, ...]:
    """Addresses that own something from the beginning."""
    return tuple(sha256(b"stranger %d" % n).digest()[:20] for n in range(accounts))


@cache
def config(accounts: int = ACCOUNTS) -> ChainConfig:
    """The chain of `sync_nodes` with many accounts more, and snapshots in short intervals."""
    first = {address: n + 1 for n, address in enumerate(strangers(accounts))}
    return replace(CONFIG, alloc={**CONFIG.alloc, **first}, snapshot_interval=INTERVAL)


def grown(height: int = HEIGHT, accounts: int = ACCOUNTS) -> tuple[Blockchain, SnapshotKeeper]:
    """A chain in memory with a snapshot of the state at `PIVOT`, with transfers below it and
    above."""
    chain = new_validator(config(accounts)).chain
    keeper = SnapshotKeeper(chain, None, Runtime(1))
    extend(chain, PIVOT - 1)
    extend(chain, 1, transfers=3)
    assert keeper.make(lambda: False)
    extend(chain, 2, transfers=1)
    extend(chain, height - PIVOT - 2)
    return chain, keeper


def own_tree(chain: Blockchain) -> OwnTree:
    """The tree over a chain's state by the text of the protocol."""
    with chain.store.read() as txn:
        rows = txn.range(state_slots.active(txn).accounts)
    return OwnTree.of_records(row for _, row in rows)


def same_state(one: Blockchain, two: Blockchain) -> bool:
    """Whether two chains have the same accounts, row by row."""
    found = []
    for chain in (one, two):
        with chain.store.read() as txn:
            found.append(txn.range(state_slots.active(txn).accounts))
    return found[0] == found[1]


class Served:
    """What some nodes gave, together."""

    def __init__(self) -> None:
        self.requests = 0
        self.chunks: list[tuple[bytes, Place, int]] = []  # block hash, place, accounts
        self.nodes: list[tuple[bytes, Place]] = []

    @property
    def accounts(self) -> int:
        """How many accounts went out."""
        return sum(count for _, _, count in self.chunks)

    def note(self, request: Request, reply: Reply) -> None:
        """Count a reply."""
        self.requests += 1
        if isinstance(reply, StateMessage) and reply.status == Status.OK:
            assert isinstance(request, GetStateMessage)
            place = request.depth, request.prefix
            self.chunks.append((request.block_hash, place, reply.count))
        elif isinstance(reply, StateNodesMessage):
            assert isinstance(request, GetStateNodesMessage)
            found = request.paths[: len(reply.nodes)]
            self.nodes += [(request.block_hash, path) for path in found]


def gone(request: Request) -> Reply:
    """What is said of a snapshot that is no more."""
    kind = StateMessage if isinstance(request, GetStateMessage) else StateNodesMessage
    return kind(request_id=request.request_id, status=Status.PRUNED)


class StateNode(P2PNode):
    """A node whose snapshots may be gone from one moment to the next, and which counts."""

    def __init__(
        self, chain: Blockchain, keeper: SnapshotKeeper, served: Served, settings: NodeConfig
    ) -> None:
        super().__init__(config=settings)
        self.attach_chain(chain, snapshots=keeper)
        self.served = served
        self.hidden: set[bytes] = set()  # hashes of blocks whose snapshots are gone
        self.brake: Callable[[], asyncio.Event | None] = lambda: None
        """What chunks have to wait for now, if for anything."""
        for kind in STATE_KINDS:
            self.register_handler(kind, self.answer_state)

    def answer_with(self, kind: MessageType, handler: Handler[Peer]) -> None:
        """Answer requests of a kind otherwise."""
        self.unregister_handler(kind, self.answer_state)
        self.register_handler(kind, handler)

    async def answer_state(self, peer: Peer, request: Request) -> Reply:
        """As any node, unless the snapshot is gone."""
        assert isinstance(request, GetStateMessage | GetStateNodesMessage)
        chunk = isinstance(request, GetStateMessage) and request.depth > 0
        if chunk and (waiting := self.brake()) is not None:
            await waiting.wait()
        if request.block_hash in self.hidden:
            return gone(request)
        reply = await self.server.answer(peer, request)
        self.served.note(request, reply)
        return reply

    def make_pong(self, nonce: int) -> PongMessage:
        """Without what is gone."""
        kept = () if self.snapshots is None else self.snapshots.announced
        shown = tuple(snapshot for snapshot in kept if snapshot[1] not in self.hidden)
        return super().make_pong(nonce).replace(snapshots=shown)


@asynccontextmanager
async def state_node(
    chain: Blockchain,
    keeper: SnapshotKeeper,
    served: Served | None = None,
    settings: NodeConfig = SETTINGS,
) -> AsyncIterator[StateNode]:
    """One that is running."""
    node = StateNode(chain, keeper, served or Served(), settings)
    async with node:
        yield node


def is_under(place: Place, others: Iterable[Place]) -> bool:
    """Whether a subtree lies in one of the others."""
    depth, prefix = place
    number = int.from_bytes(prefix, "big")
    return any(
        above <= depth and int.from_bytes(start, "big") <= number < beyond(above, start)
        for above, start in others
    )
