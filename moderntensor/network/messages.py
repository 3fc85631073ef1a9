"""The 21 messages, each declared once: fields in wire order, cap and reply beside them.

`MessageCodec` turns a message into a frame and back. Fields that hold chain data stay encoded
(`bytes`): whoever receives them checks them in bulk before any object is made.
"""

from __future__ import annotations

from typing import Annotated, Final

from ..blockchain.block import MAX_BLOCK_SIZE, MAX_HEADER_SIZE, ZERO_HASH, BlockHeader
from ..blockchain.transaction import MAX_TRANSACTION_SIZE
from ..wire import (
    MESSAGES,
    Address20,
    Bytes16,
    Hash32,
    Key32,
    Max,
    Record,
    U,
    bytes32,
    list8,
    list16,
    list32,
    message,
    optional,
    raw,
    record,
    str8,
    str16,
    u8,
    u16,
    u32,
    u64,
    u128,
)
from .codec import MessageCodec
from .protocol import (
    MAX_ANNOUNCED_BLOCKS,
    MAX_ANNOUNCED_HEADERS,
    MAX_ANNOUNCED_TRANSACTIONS,
    MAX_BLOCKS,
    MAX_BODIES,
    MAX_HEADERS,
    MAX_LOCATOR,
    MAX_PEERS,
    MAX_REASON,
    MAX_SNAPSHOTS,
    MAX_STATE_ACCOUNTS,
    MAX_STATE_NODES,
    MAX_TRANSACTIONS_ASKED,
    PROTOCOL_VERSION,
    REPLY_PREFIX,
    ZERO_IP,
    DisconnectCode,
    Message,
    MessageType,
    Reply,
    Request,
    Status,
)

__all__ = [
    "ANNOUNCEMENT_CAP",
    "CAPS",
    "HELLO_CAPS",
    "IDLE_CAPS",
    "BlockBodiesMessage",
    "BlocksMessage",
    "DisconnectCode",
    "DisconnectMessage",
    "GetBlockBodiesMessage",
    "GetBlocksMessage",
    "GetHeadersMessage",
    "GetPeersMessage",
    "GetStateMessage",
    "GetStateNodesMessage",
    "GetTransactionsMessage",
    "HeadersMessage",
    "HelloMessage",
    "Message",
    "MessageCodec",
    "MessageType",
    "NewBlockHashesMessage",
    "NewBlockMessage",
    "NewTransactionMessage",
    "PeerRecord",
    "PeersMessage",
    "PingMessage",
    "PongMessage",
    "Reply",
    "Request",
    "StateMessage",
    "StateNodesMessage",
    "Status",
    "TransactionsMessage",
    "reply_cap",
]

KIB: Final = 1024
MIB: Final = 1024 * KIB

RequestId = Annotated[int, U(4, lo=1)]
StatusCode = Annotated[int, U(1, hi=int(max(Status)))]
TransactionBytes = Annotated[bytes32, Max(MAX_TRANSACTION_SIZE)]
BlockBytes = Annotated[bytes32, Max(MAX_BLOCK_SIZE)]
AccountRecord = tuple[Address20, u64, u128, Hash32, Hash32]
"""address, nonce, balance, storage_root, code_hash: 108 bytes."""


# --- the connection ------------------------------------------------------------------------


@message(MessageType.HELLO, cap=2 * KIB)
class HelloMessage(Message):
    """The first message of both sides: who I am, on which chain, and what I allow."""

    protocol_version: u16 = PROTOCOL_VERSION
    network_id: u64 = 1
    genesis_hash: Hash32 = ZERO_HASH
    best_height: u64 = 0
    best_hash: Hash32 = ZERO_HASH
    listen_port: u16 = 0
    node_id: Key32
    capabilities: list8[str8] = ()
    user_agent: str8 = ""
    earliest_height: u64 = 0
    max_inflight: u8 = 16
    max_per_type: u8 = 8
    observed_ip: Bytes16 = ZERO_IP
    observed_port: u16 = 0
    nonce: u64


@message(MessageType.PING, cap=8, reply=MessageType.PONG)
class PingMessage(Message):
    """Are you there? Answered by a PONG of the same nonce."""

    nonce: u64


@message(MessageType.PONG, cap=256)
class PongMessage(Message):
    """Yes, and this is my executed head, the oldest block I keep, and my snapshots."""

    nonce: u64
    best_height: u64 = 0
    best_hash: Hash32 = ZERO_HASH
    earliest_height: u64 = 0
    snapshots: Annotated[list8[tuple[u64, Hash32]], Max(MAX_SNAPSHOTS)] = ()


@message(MessageType.DISCONNECT, cap=512)
class DisconnectMessage(Message):
    """The last message; `code` is a `DisconnectCode`, or a later version's."""

    code: u8
    reason: Annotated[str16, Max(MAX_REASON)] = ""
    retry_after: u32 = 0


# --- headers and blocks --------------------------------------------------------------------


@message(MessageType.GET_BLOCKS, cap=64, reply=MessageType.BLOCKS)
class GetBlocksMessage(Request):
    """Ask for whole blocks of the answerer's chain, `end_height` included."""

    request_id: RequestId = 0
    start_height: u64
    end_height: u64
    max_blocks: Annotated[int, U(2, lo=1, hi=MAX_BLOCKS)] = 128


@message(MessageType.BLOCKS, cap=4 * MIB + 64 * KIB)
class BlocksMessage(Reply):
    """Encoded blocks, ascending."""

    request_id: RequestId
    status: StatusCode = Status.OK
    retry_ms: u16 = 0
    blocks: list16[BlockBytes] = ()


@message(MessageType.GET_HEADERS, cap=4 * KIB, reply=MessageType.HEADERS)
class GetHeadersMessage(Request):
    """Ask for a run of headers.

    With a `locator` (hashes, newest first) it starts behind the first of them that is on the
    answerer's chain, otherwise at `start_height`; every `stride`-th header. `on_chain`, if
    given, must be on the answerer's chain, so that ranges of several peers fit together.
    """

    request_id: RequestId = 0
    start_height: u64 = 0
    max_headers: Annotated[int, U(2, lo=1, hi=MAX_HEADERS)] = 192
    stride: Annotated[int, U(2, lo=1)] = 1
    on_chain: optional[Hash32] = None
    locator: Annotated[list8[Hash32], Max(MAX_LOCATOR)] = ()


@message(MessageType.HEADERS, cap=REPLY_PREFIX + 2 + MAX_HEADER_SIZE * MAX_HEADERS)
class HeadersMessage(Reply):
    """Encoded headers behind their count, for `HeaderBatch`.

    With `request_id` 0 it is an announcement of at most 8 headers that nobody asked for.
    """

    request_id: u32
    status: StatusCode = Status.OK
    retry_ms: u16 = 0
    headers: raw[Annotated[list16[BlockHeader], Max(MAX_HEADERS)]] = bytes(2)

    @property
    def count(self) -> int:
        """How many headers it carries."""
        return int.from_bytes(self.headers[:2], "big")

    def fault(self) -> str | None:
        """As every reply; and an announcement (request_id 0) is OK and short."""
        if self.request_id == 0:
            if self.status != Status.OK:
                return "an announcement is OK"
            if self.count > MAX_ANNOUNCED_HEADERS:
                return f"an announcement of {self.count} headers, at most {MAX_ANNOUNCED_HEADERS}"
        return Reply.fault(self)


@message(MessageType.GET_BLOCK_BODIES, cap=9 * KIB, reply=MessageType.BLOCK_BODIES)
class GetBlockBodiesMessage(Request):
    """Ask for the bodies of blocks by their hashes."""

    request_id: RequestId = 0
    hashes: Annotated[list16[Hash32], Max(MAX_BODIES)]


@message(MessageType.BLOCK_BODIES, cap=4 * MIB + 64 * KIB)
class BlockBodiesMessage(Reply):
    """Encoded bodies, a prefix of what was asked."""

    request_id: RequestId
    status: StatusCode = Status.OK
    retry_ms: u16 = 0
    bodies: list16[BlockBytes] = ()


# --- gossip --------------------------------------------------------------------------------


@message(MessageType.NEW_TRANSACTION, cap=256 * KIB)
class NewTransactionMessage(Message):
    """Signed transactions in full, and hashes of others that can be asked for."""

    transactions: list8[TransactionBytes] = ()
    announced: Annotated[list16[Hash32], Max(MAX_ANNOUNCED_TRANSACTIONS)] = ()


@message(MessageType.NEW_BLOCK, cap=2 * MIB)
class NewBlockMessage(Message):
    """A new block, compact: the receiver fills it from its mempool and asks for the rest."""

    header: BlockHeader
    transaction_ids: list16[Hash32] = ()


@message(MessageType.NEW_BLOCK_HASHES, cap=4 * KIB)
class NewBlockHashesMessage(Message):
    """New blocks by hash and height."""

    hashes: Annotated[list8[tuple[Hash32, u64]], Max(MAX_ANNOUNCED_BLOCKS)]


@message(MessageType.GET_TRANSACTIONS, cap=33 * KIB, reply=MessageType.TRANSACTIONS)
class GetTransactionsMessage(Request):
    """Ask for transactions by their hashes."""

    request_id: RequestId = 0
    hashes: Annotated[list16[Hash32], Max(MAX_TRANSACTIONS_ASKED)]


@message(MessageType.TRANSACTIONS, cap=4 * MIB)
class TransactionsMessage(Reply):
    """Signed transactions, a subset of what was asked, in that order."""

    request_id: RequestId
    status: StatusCode = Status.OK
    retry_ms: u16 = 0
    transactions: list16[TransactionBytes] = ()


# --- state ---------------------------------------------------------------------------------


def _beyond(depth: int, prefix: bytes) -> bool:
    """Whether `prefix` has bits set behind its first `depth` ones."""
    return int.from_bytes(prefix, "big") & ((1 << (256 - depth)) - 1) != 0


@message(MessageType.GET_STATE, cap=128, reply=MessageType.STATE)
class GetStateMessage(Request):
    """Ask for all accounts below one node of a block's state tree."""

    request_id: RequestId = 0
    block_hash: Hash32
    depth: u8 = 0
    prefix: Key32 = ZERO_HASH

    def fault(self) -> str | None:
        """Bits of the prefix beyond its depth are zero."""
        if _beyond(self.depth, self.prefix):
            return f"prefix has bits beyond depth {self.depth}"
        return None


@message(MessageType.STATE, cap=2 * MIB)
class StateMessage(Reply):
    """Account records (108 bytes each) behind their count, ascending by key, never PARTIAL."""

    request_id: RequestId
    status: StatusCode = Status.OK
    retry_ms: u16 = 0
    accounts: raw[Annotated[list32[AccountRecord], Max(MAX_STATE_ACCOUNTS)]] = bytes(4)

    @property
    def count(self) -> int:
        """How many accounts it carries."""
        return int.from_bytes(self.accounts[:4], "big")

    def fault(self) -> str | None:
        """As every reply, but a subtree is whole or not there."""
        if self.status == Status.PARTIAL:
            return "STATE is never PARTIAL"
        return Reply.fault(self)


@message(MessageType.GET_STATE_NODES, cap=40 * KIB, reply=MessageType.STATE_NODES)
class GetStateNodesMessage(Request):
    """Ask for inner nodes of a block's state tree by (depth, prefix)."""

    request_id: RequestId = 0
    block_hash: Hash32
    paths: Annotated[list16[tuple[u8, Key32]], Max(MAX_STATE_NODES)]

    def fault(self) -> str | None:
        """Bits of each prefix beyond its depth are zero."""
        for index, (depth, prefix) in enumerate(self.paths):
            if _beyond(depth, prefix):
                return f"paths[{index}] has bits beyond depth {depth}"
        return None


@message(MessageType.STATE_NODES, cap=128 * KIB)
class StateNodesMessage(Reply):
    """The children of each node asked for: (left, left_count, right, right_count)."""

    request_id: RequestId
    status: StatusCode = Status.OK
    retry_ms: u16 = 0
    nodes: Annotated[list16[tuple[Hash32, u64, Hash32, u64]], Max(MAX_STATE_NODES)] = ()


# --- addresses -----------------------------------------------------------------------------


@record
class PeerRecord(Record):
    """Where a node was seen. `ip` is IPv6, or IPv4 mapped into it; `last_seen` Unix seconds."""

    node_id: Key32
    ip: Bytes16
    port: u16
    last_seen: u64


@message(MessageType.GET_PEERS, cap=16, reply=MessageType.PEERS)
class GetPeersMessage(Request):
    """Ask for addresses of other nodes."""

    request_id: RequestId = 0
    max_peers: u16 = 50


@message(MessageType.PEERS, cap=20 * KIB)
class PeersMessage(Reply):
    """Addresses of other nodes."""

    request_id: RequestId
    status: StatusCode = Status.OK
    retry_ms: u16 = 0
    peers: Annotated[list16[PeerRecord], Max(MAX_PEERS)] = ()


# --- caps ---------------------------------------------------------------------------------

CAPS: Final[dict[int, int]] = {kind: MESSAGES[kind].CAP for kind in MessageType}
"""The most payload bytes of each type under any circumstances."""

HELLO_CAPS: Final[dict[int, int]] = {MessageType.HELLO: CAPS[MessageType.HELLO]}
"""What is admitted before HELLO is complete."""

ANNOUNCEMENT_CAP: Final = REPLY_PREFIX + 2 + MAX_HEADER_SIZE * MAX_ANNOUNCED_HEADERS


def _idle_cap(kind: MessageType) -> int:
    if kind is MessageType.HEADERS:
        return ANNOUNCEMENT_CAP
    return 0 if issubclass(MESSAGES[kind], Reply) else CAPS[kind]


IDLE_CAPS: Final[dict[int, int]] = {
    kind: _idle_cap(kind) for kind in MessageType if kind not in HELLO_CAPS
}
"""What is admitted after HELLO while no request is outstanding."""


def reply_cap(request: Request) -> int:
    """The most payload bytes that the reply to this very request may have."""
    if isinstance(request, GetHeadersMessage):
        return REPLY_PREFIX + 2 + MAX_HEADER_SIZE * max(request.max_headers, MAX_ANNOUNCED_HEADERS)
    return request.reply_class().CAP
