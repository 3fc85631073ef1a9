"""Every metric of a node: its name, what it counts, in which unit, by which labels.

`docs/metrics.md` is this list in prose; a test holds one to the other, and both to what a live node
says. Names are ``moderntensor_<what>_<unit>``; those of counters end in ``_total``.

All labels have values of our own making, and few of them: types of messages, offences, phases.
What a peer says of itself (its address, its id, its user agent) is nowhere a label: whoever dials
us a thousand times under a thousand names would make a thousand series that nobody deletes. What
differs from peer to peer is told as quantiles over those who are connected.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["ALL", "SECTIONS", "Kind", "Metric"]

PREFIX: Final = "moderntensor_"


class Kind(StrEnum):
    """How a metric moves."""

    COUNTER = "counter"
    """Only up, from zero when the node is made."""
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One of them. `help` is a sentence without a full stop."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str


SECTIONS: Final[dict[str, list[Metric]]] = {}


def _begin(title: str) -> None:
    SECTIONS[title] = []


def _metric(kind: Kind, name: str, unit: str, text: str, *labels: str) -> Metric:
    metric = Metric(PREFIX + name, kind, unit, labels, text)
    next(reversed(SECTIONS.values())).append(metric)
    return metric


def _gauge(name: str, unit: str, text: str, *labels: str) -> Metric:
    return _metric(Kind.GAUGE, name, unit, text, *labels)


def _counter(name: str, unit: str, text: str, *labels: str) -> Metric:
    return _metric(Kind.COUNTER, name + "_total", unit, text, *labels)


def _histogram(name: str, unit: str, text: str, *labels: str) -> Metric:
    return _metric(Kind.HISTOGRAM, name, unit, text, *labels)


_begin("Node")
NODE_INFO: Final = _gauge(
    "node_info",
    "1",
    "What runs, on which chain",
    "version",
    "engines",
    "network_id",
    "chain_id",
    "genesis_hash",
)
CLOCK_OFFSET: Final = _gauge(
    "clock_offset_seconds",
    "seconds",
    "How far other nodes' clocks are ahead of ours; absent until enough new blocks have told",
)
TASKS: Final = _gauge(
    "tasks",
    "tasks",
    "Tasks of the event loop, the embedding program's included",
)
DATABASE: Final = _gauge("database_bytes", "bytes", "What the store takes on disk, or in memory")
DISK_FREE: Final = _gauge(
    "disk_free_bytes",
    "bytes",
    "Room on the data directory's file system; absent where there is no data directory",
)

_begin("Peers")
PEERS: Final = _gauge("peers", "peers", "Connected peers by who dialled", "direction")
PEERS_WANTED: Final = _gauge(
    "peers_wanted",
    "peers",
    "Places: most that may dial us, and as many as we dial",
    "direction",
)
HANDSHAKES: Final = _gauge(
    "handshakes_pending", "sockets", "Who dialled us and has not said who it is"
)
DIALS: Final = _gauge("dials_pending", "sockets", "Whom we are dialling")
SOCKETS: Final = _gauge("sockets_open", "sockets", "All sockets, those being closed included")
ADDRESSES: Final = _gauge("known_addresses", "addresses", "Size of the address book")
PEER_LATENCY: Final = _gauge(
    "peer_latency_seconds",
    "seconds",
    "From the last PING to its PONG, over the connected peers",
    "rank",
)
PEER_CONNECTED: Final = _gauge(
    "peer_connected_seconds", "seconds", "How long peers have been connected", "rank"
)
PEER_HEIGHT: Final = _gauge(
    "peer_claimed_height", "blocks", "Heights that peers claim to have, unproved", "rank"
)
PEER_SCORE: Final = _gauge(
    "peer_score_points",
    "points",
    "Points of connected peers for offences, of 100 at which one is banned",
    "rank",
)
SCORED: Final = _gauge("scored_addresses", "addresses", "Addresses with points, connected or not")
DEPARTURES: Final = _counter(
    "peer_departures",
    "peers",
    "Peers that have gone, by who ended it and the code that was said",
    "by",
    "reason",
)

_begin("Messages")
MESSAGES: Final = _counter("messages", "messages", "Messages of peers", "direction", "type")
MESSAGE_BYTES: Final = _counter(
    "message_bytes",
    "bytes",
    "Their bytes, header included, before encryption",
    "direction",
    "type",
)
REFUSED: Final = _counter(
    "messages_refused",
    "messages",
    "Messages over a peer's rate: discarded, or answered BUSY",
    "type",
)
MESSAGES_WAITING: Final = _gauge(
    "messages_waiting", "messages", "Messages of peers that wait for their handlers"
)

_begin("Requests")
REQUEST_SECONDS: Final = _histogram(
    "request_seconds", "seconds", "From a request of ours to its reply", "type"
)
REQUEST_TIMEOUTS: Final = _counter(
    "request_timeouts", "requests", "Requests of ours without a reply in time", "type"
)
LATE_REPLIES: Final = _counter("late_replies", "messages", "Replies that came after that")
REQUESTS_IN_FLIGHT: Final = _gauge(
    "requests_in_flight", "requests", "Requests of ours whose reply is outstanding"
)
ANSWER_SECONDS: Final = _histogram(
    "answer_seconds", "seconds", "What answering a peer's request took, its turn included", "type"
)
BUSY_REPLIES: Final = _counter(
    "busy_replies", "requests", "Peers' requests that were answered BUSY", "type"
)
REQUESTS_WAITING: Final = _gauge(
    "requests_waiting", "requests", "Peers' requests that wait for their turn"
)

_begin("Memory")
BUDGET: Final = _gauge("budget_bytes", "bytes", "The byte budget: what peers may make us hold")
BUDGET_HELD: Final = _gauge(
    "budget_held_bytes", "bytes", "What is held of it, and for what", "kind"
)
BUDGET_HIGHEST: Final = _gauge("budget_highest_bytes", "bytes", "The most that was ever held")
BUDGET_DROPS: Final = _counter(
    "budget_dropped_peers", "peers", "Peers that had to go because the budget was full"
)

_begin("Conduct")
OFFENCES: Final = _counter("offences", "offences", "What peers did wrong", "offence")
DROPS: Final = _counter("offence_drops", "peers", "Peers that were dropped for it", "offence")
BANS_GIVEN: Final = _counter(
    "bans", "bans", "Bans given: for an offence, of a netgroup, or by the operator", "reason"
)
BANS_IN_FORCE: Final = _gauge("bans_in_force", "bans", "Bans that last now", "reason")

_begin("Chain")
HEAD_HEIGHT: Final = _gauge("head_height", "blocks", "Height of the last executed block")
HEAD_TIMESTAMP: Final = _gauge(
    "head_timestamp_seconds", "seconds", "That block's timestamp, since the Unix epoch"
)
HEAD_AGE: Final = _gauge(
    "head_age_seconds", "seconds", "Since then, by this node's clock; negative if it lies ahead"
)
BLOCK_TIME: Final = _gauge("block_time_seconds", "seconds", "From one slot to the next")
HEADER_HEIGHT: Final = _gauge(
    "header_height", "blocks", "Height of the last header that was checked and stored"
)
EARLIEST_HEIGHT: Final = _gauge(
    "earliest_body_height", "blocks", "From which height on blocks have their transactions here"
)
HAS_STATE: Final = _gauge(
    "state_available", "0 or 1", "Whether the accounts after the head are here"
)
BLOCKS: Final = _counter("blocks_executed", "blocks", "Blocks executed and committed")
TRANSACTIONS: Final = _counter("transactions_executed", "transactions", "Transactions in them")
REORGANISATIONS: Final = _counter(
    "reorganisations", "reorganisations", "Times that blocks were taken off the chain"
)
REVERTED: Final = _counter("reverted_blocks", "blocks", "Blocks that were taken off")
DEEPEST: Final = _gauge(
    "deepest_reorganisation_blocks", "blocks", "Most blocks taken off at a time since the start"
)
PRODUCING: Final = _gauge("producing", "0 or 1", "Whether it makes blocks of its own")
PRODUCED: Final = _counter("blocks_produced", "blocks", "Blocks that it has made")
SNAPSHOTS: Final = _gauge("snapshots", "snapshots", "Snapshots of the state that it serves")

_begin("Sync")
SYNC_PHASE: Final = _gauge("sync_phase", "0 or 1", "1 for the phase that the sync is in", "phase")
SYNC_TARGET: Final = _gauge("sync_target_height", "blocks", "Height that the sync aims at")
SYNC_PROGRESS: Final = _gauge("sync_progress_ratio", "0 to 1", "Share of this sync that is done")
SYNC_ETA: Final = _gauge(
    "sync_eta_seconds", "seconds", "To go at the present rate; absent while there is none"
)
SYNC_WAITING: Final = _gauge("sync_waiting", "0 or 1", "Whether the sync cannot move at present")
SYNC_SOURCES: Final = _gauge("sync_sources", "peers", "Peers that the sync can ask")
SYNC_HEADERS: Final = _gauge(
    "sync_headers_per_second", "headers/s", "Headers checked and stored, over the last seconds"
)
SYNC_BLOCKS: Final = _gauge(
    "sync_blocks_per_second", "blocks/s", "Blocks executed by the sync, over the last seconds"
)
SYNC_TRANSACTIONS: Final = _gauge(
    "sync_transactions_per_second", "transactions/s", "Transactions in those blocks"
)
SYNC_ACCOUNTS_RATE: Final = _gauge(
    "sync_accounts_per_second", "accounts/s", "Accounts of a state that is fetched"
)
SYNC_ACCOUNTS: Final = _gauge(
    "sync_accounts",
    "accounts",
    "Accounts of that state that are here, and that it has, once that is known",
    "of",
)
SYNC_BYTES: Final = _gauge(
    "sync_received_bytes", "bytes", "Headers, state and bodies received since this sync began"
)
BACKFILLING: Final = _gauge(
    "sync_backfilling", "0 or 1", "Whether bodies below a fetched state are being fetched"
)

_begin("Mempool")
MEMPOOL: Final = _gauge("mempool_transactions", "transactions", "Transactions that wait")
MEMPOOL_MOST: Final = _gauge("mempool_limit_transactions", "transactions", "Most that may wait")
MEMPOOL_BYTES: Final = _gauge("mempool_bytes", "bytes", "Memory that they take")
MEMPOOL_LIMIT: Final = _gauge("mempool_limit_bytes", "bytes", "Most that they may take")

ALL: Final[tuple[Metric, ...]] = tuple(metric for some in SECTIONS.values() for metric in some)
