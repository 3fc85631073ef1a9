"""What a node says at one moment, metric by metric: read from its parts, counted nowhere twice."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Final

from .. import backend
from .._version import VERSION
from ..network.bans import NETGROUP, OPERATOR
from ..network.budget import Kind as BudgetKind
from ..network.budget import caps_of
from ..network.offences import Offence
from ..network.peer import Peer
from ..network.protocol import DisconnectCode, MessageType, Request
from ..network.reputation import CLOSED, OTHER
from ..network.sync.status import SyncPhase
from ..node import FullNode
from ..wire import MESSAGES
from . import catalogue as c

__all__ = ["Reading", "read", "read_store", "request_types"]

Reading = tuple[c.Metric, tuple[str, ...], float]
"""A metric, the values of its labels, and its own."""

_TYPES: Final = tuple(int(kind) for kind in MessageType)
_REQUESTS: Final = tuple(kind for kind in _TYPES if issubclass(MESSAGES[kind], Request))
_QUANTILES: Final = (0.0, 0.5, 0.9, 1.0)
_BAN_REASONS: Final = (*(offence.value for offence in Offence), NETGROUP, OPERATOR)
_OTHER: Final = "other"  # the words of an operator: not for a label
_DEPARTURES: Final = (CLOSED, OTHER, *(code.name.lower() for code in DisconnectCode))


def read(node: FullNode) -> Iterator[Reading]:
    """All that needs no disk, but for the histograms. On the loop's thread."""
    for part in _PARTS:
        yield from part(node)


def read_store(node: FullNode) -> Iterator[Reading]:
    """What only the store and its disk know. On any thread: it may take its time."""
    store = node.chain.store
    yield c.DATABASE, (), store.size_on_disk()
    if isinstance(node.p2p.data_dir, Path):
        yield c.DISK_FREE, (), shutil.disk_usage(node.p2p.data_dir).free
    yield c.HAS_STATE, (), node.chain.has_state


def request_types(node: FullNode) -> tuple[int, ...]:
    """Of the protocol and of the node's applications, by number."""
    declared = node.p2p.router.extensions.messages.items()
    return (*_REQUESTS, *(kind for kind, cls in declared if issubclass(cls, Request)))


def _node(node: FullNode) -> Iterator[Reading]:
    config = node.chain.config
    about = (
        VERSION,
        backend.NAME,
        str(node.settings.network_id),
        str(config.chain_id),
        node.chain.genesis_hash.hex(),
    )
    yield c.NODE_INFO, about, 1
    offset = node.p2p.clock_offset.seconds
    if offset is not None:
        yield c.CLOCK_OFFSET, (), offset
    yield c.TASKS, (), len(asyncio.all_tasks())


def _peers(node: FullNode) -> Iterator[Reading]:
    p2p = node.p2p
    info, peers = p2p.info, tuple(p2p.table)
    yield c.PEERS, ("inbound",), info.inbound
    yield c.PEERS, ("outbound",), info.outbound + info.extra
    yield c.PEERS_WANTED, ("inbound",), info.inbound_limit
    yield c.PEERS_WANTED, ("outbound",), info.target_outbound
    yield c.HANDSHAKES, (), info.pending
    yield c.DIALS, (), info.dialling
    yield c.SOCKETS, (), info.sockets
    yield c.ADDRESSES, (), info.known_addresses
    latencies = [peer.latency for peer in peers if peer.latency is not None]
    yield from _quantiles(c.PEER_LATENCY, latencies)
    yield from _quantiles(c.PEER_CONNECTED, [peer.connected_for for peer in peers])
    yield from _quantiles(c.PEER_HEIGHT, [peer.best_height for peer in peers])
    yield from _quantiles(c.PEER_SCORE, [_score(node, peer) for peer in peers])
    yield c.SCORED, (), len(p2p.reputation)
    departures = p2p.reputation.counts.departures
    for by_us in (True, False):
        for reason in _DEPARTURES:
            yield c.DEPARTURES, ("us" if by_us else "peer", reason), departures[by_us, reason]


def _score(node: FullNode, peer: Peer) -> float:
    reputation = node.p2p.reputation
    return max(map(reputation.score, reputation.keys_of(peer)), default=0.0)


def _quantiles(metric: c.Metric, values: list[float] | list[int]) -> Iterator[Reading]:
    """The nearest ranks; nothing where there is nobody."""
    values.sort()
    for quantile in _QUANTILES if values else ():
        rank = max(1, ceil(quantile * len(values)))
        yield metric, (f"{quantile:g}",), values[rank - 1]


def _messages(node: FullNode) -> Iterator[Reading]:
    traffic = node.p2p.traffic
    for row in traffic.by_type():
        yield c.MESSAGES, ("received", row.name), row.messages_received
        yield c.MESSAGES, ("sent", row.name), row.messages_sent
        yield c.MESSAGE_BYTES, ("received", row.name), row.bytes_received
        yield c.MESSAGE_BYTES, ("sent", row.name), row.bytes_sent
    types, requests = (*_TYPES, *node.p2p.router.extensions.messages), request_types(node)
    for metric, counts, of in (
        (c.REFUSED, traffic.refused, types),
        (c.REQUEST_TIMEOUTS, traffic.timeouts, requests),
        (c.BUSY_REPLIES, traffic.busy_replies, requests),
    ):
        # Zeros too, for a rate sees nothing of a series that begins at one.
        for kind in sorted({*counts, *of}):
            yield metric, (traffic.name_of(kind),), counts[kind]
    yield c.LATE_REPLIES, (), traffic.late_replies
    infos = [peer.info for peer in node.p2p.table]
    yield c.MESSAGES_WAITING, (), sum(info.messages_waiting for info in infos)
    yield c.REQUESTS_IN_FLIGHT, (), sum(info.requests_in_flight for info in infos)
    yield c.REQUESTS_WAITING, (), sum(info.requests_waiting for info in infos)


def _memory(node: FullNode) -> Iterator[Reading]:
    report = node.p2p.budget.report()
    yield c.BUDGET, (), report.total
    for kind, held in report.by_kind.items():
        yield c.BUDGET_HELD, (kind.value,), held
    yield c.BUDGET_HIGHEST, (), report.highest
    yield c.BUDGET_DROPS, (), report.dropped


def _conduct(node: FullNode) -> Iterator[Reading]:
    counts = node.p2p.reputation.counts
    for offence in Offence:
        yield c.OFFENCES, (offence.value,), counts.offences[offence]
        yield c.DROPS, (offence.value,), counts.drops[offence]
    for reason in _BAN_REASONS:
        yield c.BANS_GIVEN, (reason,), counts.bans[reason]
    in_force = dict.fromkeys((OPERATOR,), 0)
    for reason, count in node.p2p.bans.by_reason().items():
        name = reason if reason in _BAN_REASONS else _OTHER
        in_force[name] = in_force.get(name, 0) + count
    for reason, count in in_force.items():
        yield c.BANS_IN_FORCE, (reason,), count


def _chain(node: FullNode) -> Iterator[Reading]:
    chain = node.chain
    head, counts = chain.head, chain.counts
    yield c.HEAD_HEIGHT, (), head.height
    yield c.HEAD_TIMESTAMP, (), head.timestamp
    yield c.HEAD_AGE, (), node.runtime.wall_time() - head.timestamp
    yield c.BLOCK_TIME, (), chain.config.block_time
    yield c.HEADER_HEIGHT, (), chain.header_head.height
    yield c.EARLIEST_HEIGHT, (), chain.earliest_height
    yield c.BLOCKS, (), counts.blocks
    yield c.TRANSACTIONS, (), counts.transactions
    yield c.REORGANISATIONS, (), counts.reorganisations
    yield c.REVERTED, (), counts.reverted
    yield c.DEEPEST, (), counts.deepest
    yield c.PRODUCING, (), node.producer is not None
    yield c.PRODUCED, (), 0 if node.producer is None else node.producer.produced
    yield c.SNAPSHOTS, (), 0 if node.snapshots is None else len(node.snapshots.announced)


def _sync(node: FullNode) -> Iterator[Reading]:
    status = node.sync.status
    for phase in SyncPhase:
        yield c.SYNC_PHASE, (phase.value,), phase is status.phase
    yield c.SYNC_TARGET, (), status.target_height
    yield c.SYNC_PROGRESS, (), status.progress
    if status.eta_seconds is not None:
        yield c.SYNC_ETA, (), status.eta_seconds
    yield c.SYNC_WAITING, (), status.waiting is not None
    yield c.SYNC_SOURCES, (), status.peers
    yield c.SYNC_HEADERS, (), status.headers_per_second
    yield c.SYNC_BLOCKS, (), status.blocks_per_second
    yield c.SYNC_TRANSACTIONS, (), status.transactions_per_second
    yield c.SYNC_ACCOUNTS_RATE, (), status.accounts_per_second
    yield c.SYNC_ACCOUNTS, ("here",), status.accounts_done
    if status.accounts_total is not None:
        yield c.SYNC_ACCOUNTS, ("all",), status.accounts_total
    yield c.SYNC_BYTES, (), status.bytes_received
    yield c.BACKFILLING, (), node.sync.backfilling


def _mempool(node: FullNode) -> Iterator[Reading]:
    yield c.MEMPOOL, (), len(node.mempool)
    yield c.MEMPOOL_MOST, (), node.settings.mempool_transactions
    yield c.MEMPOOL_BYTES, (), node.mempool.size
    yield c.MEMPOOL_LIMIT, (), caps_of(node.settings)[BudgetKind.MEMPOOL]


_PARTS: Final[tuple[Callable[[FullNode], Iterator[Reading]], ...]] = (
    _node,
    _peers,
    _messages,
    _memory,
    _conduct,
    _chain,
    _sync,
    _mempool,
)
