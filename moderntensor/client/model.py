"""What a node's HTTP API says, as types: the server encodes these, clients decode them, and the
OpenAPI description is made from them.

Hashes, keys and ids are lowercase hex, addresses hex after ``0x``. Amounts may be larger than
what a JSON reader keeps exact, so they are decimal strings. Other numbers are exact in every
reader, below 2^53, but for those that are `Uint64`. Times are Unix seconds, durations seconds,
sizes bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Hash = str
"""64 hex digits."""
Address = str
"""``0x`` and 40 hex digits."""
Amount = str
"""A decimal number."""
Uint64 = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": (1 << 64) - 1})]
"""A number that the protocol has in 64 bits, and that somebody may choose as large."""


class _Model(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that a newer node adds are ignored by an older client."""


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client sends: a field that the node does not know is refused, not ignored."""


class AddPeer(_Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node to connect to."""

    address: Annotated[str, Meta(min_length=3, max_length=400)]
    """``host:port``, or ``id@host:port`` where only the node of that id will do."""


class AddBan(_Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is neither to be dialled nor admitted, and connected no longer."""

    key: Annotated[str, Meta(min_length=1, max_length=120)]
    """An IP address, a network, ``host:port`` or a node id."""
    seconds: Annotated[float, Meta(gt=0, le=3_153_600_000)]
    """From now on; up to a hundred years."""
    reason: Annotated[str, Meta(pattern="^[ -~]{1,64}$")] = "operator"


class SubmitTransaction(_Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signed transaction."""

    raw: Annotated[str, Meta(pattern="^(0[xX])?([0-9a-fA-F]{2})+$", max_length=262_138)]
    """Encoded, in hex."""


class Problem(_Model, frozen=True, kw_only=True):
    """Why a request was refused (RFC 9457); served as ``application/problem+json``."""

    status: int
    title: str
    """The status in words."""
    detail: str
    """What was wrong, naming the parameter."""


class Head(_Model, frozen=True, kw_only=True):
    """The last executed block."""

    height: int
    hash: Hash
    timestamp: int
    age: float
    """Seconds since its timestamp, by the node's clock."""


class Places(_Model, frozen=True, kw_only=True):
    """How the node's places for peers are taken."""

    inbound: int
    inbound_limit: int
    outbound: int
    target_outbound: int
    max_peers: int
    pending: int
    """Who dialled us and has not said who it is."""
    known_addresses: int


class Concern(_Model, frozen=True, kw_only=True):
    """Something that its operator should know, in plain words."""

    code: Literal[
        "no_peers", "few_peers", "tip_stale", "clock_off", "disk_short", "sync_waiting", "no_state"
    ]
    severity: Literal["notice", "warning", "critical"]
    text: str
    hint: str
    """What to do about it."""


class MempoolSize(_Model, frozen=True, kw_only=True):
    """What waits to get into blocks."""

    transactions: int
    bytes: int
    max_bytes: int


class NodeStatus(_Model, frozen=True, kw_only=True):
    """A node at a glance."""

    version: str
    engines: Literal["compiled", "pure"]
    node_id: Hash
    network_id: Uint64
    """Up to 2^64-1, as its operators chose."""
    chain_id: Uint64
    """Up to 2^64-1, as its genesis says: a reader that rounds it would sign for another chain."""
    genesis_hash: Hash
    listen_address: str | None
    """Where peers reach it, ``host:port``; None: it does not listen."""
    external_address: str | None
    """The IP address at which others see it, once several agree."""
    capabilities: list[str]
    started_at: float
    uptime: float
    phase: Literal["idle", "waiting", "headers", "state", "blocks", "following"]
    head: Head
    block_time: int
    """Seconds from one slot to the next."""
    earliest_height: int
    """From which on it has blocks with their transactions."""
    has_state: bool
    """False while the accounts of its head are still to be fetched."""
    producing: bool
    places: Places
    mempool: MempoolSize
    database_bytes: int
    disk_free_bytes: int | None
    """On the data directory's file system; None: the node has none."""
    clock_offset: float | None
    """Seconds by which others are ahead, as far as new blocks tell."""
    warnings: list[Concern]


class SyncState(_Model, frozen=True, kw_only=True):
    """What the sync is doing; see `moderntensor.network.sync.SyncStatus`."""

    phase: Literal["idle", "waiting", "headers", "state", "blocks", "following"]
    start_height: int
    header_height: int
    current_height: int
    target_height: int
    progress: float
    """0 to 1."""
    eta: float | None
    """Seconds to go at the present rate; None where there is none to judge by."""
    headers_per_second: float
    blocks_per_second: float
    transactions_per_second: float
    bytes_received: int
    peers: int
    waiting: str | None
    """Why nothing moves, in words."""
    pivot_height: int | None
    accounts_done: int
    accounts_total: int | None
    accounts_per_second: float
    backfilling: bool


class Peer(_Model, frozen=True, kw_only=True):
    """A connected peer; heights are its claims, at most 2^53-1."""

    address: str
    """``host:port`` of its end of the socket; names it in this API."""
    node_id: Hash
    outbound: bool
    purpose: str
    user_agent: str
    capabilities: list[str]
    listen_address: str | None
    best_height: int
    best_hash: Hash
    earliest_height: int
    latency: float | None
    """Seconds there and back, lately."""
    min_latency: float | None
    connected_for: float
    bytes_sent: int
    bytes_received: int
    messages_sent: int
    messages_received: int
    requests_in_flight: int
    requests_timed_out: int
    bytes_held: int
    score: float
    """Points for offences, of 100 at which it is banned."""


class PeerList(_Model, frozen=True, kw_only=True):
    peers: list[Peer]


class Ban(_Model, frozen=True, kw_only=True):
    """Who is neither dialled nor admitted."""

    key: str
    """An IP address, a network, ``host:port`` or a node id."""
    reason: str
    until: float
    seconds_left: float


class BanList(_Model, frozen=True, kw_only=True):
    bans: list[Ban]


class Header(_Model, frozen=True, kw_only=True):
    """A block's header."""

    height: int
    hash: Hash
    timestamp: int
    previous_hash: Hash
    state_root: Hash
    txs_root: Hash
    receipts_root: Hash
    validator: Hash
    gas_used: Uint64
    gas_limit: Uint64
    extra_data: str
    """Hex."""
    signature: str
    transactions: int | None = None
    """How many it has; None where that was not looked up, or its body is not here."""


class HeaderList(_Model, frozen=True, kw_only=True):
    headers: list[Header]
    """The highest first."""


class Transaction(_Model, frozen=True, kw_only=True):
    """A transaction, and where it is."""

    hash: Hash
    sender: Address
    to: Address | None
    value: Amount
    nonce: Uint64
    gas_price: Amount
    """For each gas."""
    gas_limit: Uint64
    data: str
    """Hex."""
    size: int
    height: int | None
    """Of its block; None: it waits in the mempool."""
    position: int | None
    succeeded: bool | None
    """Whether it took effect; None where that is not known (yet)."""
    gas_used: Uint64 | None


class TransactionList(_Model, frozen=True, kw_only=True):
    transactions: list[Transaction]
    """The newest first."""
    next: str | None
    """Give it as `before` for those that come next; None: that was all."""


class Block(_Model, frozen=True, kw_only=True):
    """A block with its transactions."""

    header: Header
    size: int
    transactions: list[Transaction]


class Account(_Model, frozen=True, kw_only=True):
    """An account after the head's block."""

    address: Address
    balance: Amount
    nonce: Uint64
    next_nonce: Uint64
    """What the next transaction of it has to say, those that wait now counted: the one field that
    is not of that block."""
    height: int
    """Of the block after which it is so."""
    block_hash: Hash
    proof: str | None = None
    """Where asked for: the document that `AccountProof.from_json` reads."""


class Mempool(_Model, frozen=True, kw_only=True):
    """What waits, as far as `limit` allows."""

    size: MempoolSize
    transactions: list[Transaction]


class Submitted(_Model, frozen=True, kw_only=True):
    """A transaction that was admitted."""

    hash: Hash
    sent_to: int
    """How many peers were told at once."""


class Traffic(_Model, frozen=True, kw_only=True):
    """Messages and bytes of one type since the node started."""

    type: str
    """A message type's name, after that of its extension where it is an application's
    (``chat/1 Say``)."""
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int


class TrafficList(_Model, frozen=True, kw_only=True):
    types: list[Traffic]


class Health(_Model, frozen=True, kw_only=True):
    """A probe that is passed; else the answer is a `Problem`."""

    status: Literal["alive", "ready"]


# --- events ------------------------------------------------------------------------------------


class HeadEvent(_Model, frozen=True, kw_only=True, tag="head"):
    """A new head: `header`, with so many transactions."""

    header: Header
    transactions: int


class ReorganisationEvent(_Model, frozen=True, kw_only=True, tag="reorganisation"):
    """The head has moved to another branch."""

    from_height: int
    from_hash: Hash
    to_height: int
    to_hash: Hash
    fork_height: int
    """The last block that both branches share."""


class PeerEvent(_Model, frozen=True, kw_only=True, tag="peer"):
    """A peer came or went."""

    address: str
    node_id: Hash
    outbound: bool
    connected: bool
    reason: str | None
    """Why it went."""


class SyncEvent(_Model, frozen=True, kw_only=True, tag="sync"):
    """Sync progress: at most once a second while something moves."""

    sync: SyncState


class MissedEvent(_Model, frozen=True, kw_only=True, tag="missed"):
    """Some events were left out: the listener did not keep up, or the node was started anew since
    the last one it saw. Ask for what matters."""

    events: int
    """How many; 0 where that is not known."""


Event = HeadEvent | ReorganisationEvent | PeerEvent | SyncEvent | MissedEvent
