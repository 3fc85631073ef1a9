"""Hard caps on what other nodes can make this one do, each with where its number comes from.

What a user may want to turn is in `moderntensor.config.NodeConfig`; the caps of single messages
stand beside their declarations in `messages.py`, those of one socket in `connection.py`.
"""

from __future__ import annotations

__all__ = [
    "ADDRESS_BOOK_SIZE",
    "ADDRESS_GIVE_UP",
    "ANNOUNCED_BLOCKS_PER_PEER",
    "ANNOUNCED_BLOCKS_WAITING",
    "BLOCK_PUSH_MIN",
    "BUSY_BURST",
    "BUSY_PER_SECOND",
    "CLOSING_CONNECTIONS",
    "DIAL_CONCURRENCY",
    "FAR_AHEAD",
    "FETCH_ALTERNATIVES",
    "GOSSIP_QUEUE",
    "HEADS_WAITING",
    "INBOX_BYTES",
    "INBOX_MESSAGES",
    "KNOWN_BLOCKS",
    "KNOWN_TRANSACTIONS",
    "LATE_REPLIES",
    "LATE_REPLY_TIME",
    "LOGS_BURST",
    "LOGS_PER_SECOND",
    "PENDING_HANDSHAKES",
    "PINGS_BURST",
    "PINGS_PER_SECOND",
    "REFUSALS",
    "RELAY_CACHE_BYTES",
    "RETRY_BUSY_MS",
    "TRANSACTION_FULL_SIZE",
    "TRANSACTION_PUSH_MIN",
    "UNREAD_BUSY_REPLIES",
    "WAITING_REQUESTS",
    "WANTED_PER_PEER",
    "WANTED_TRANSACTIONS",
    "WRITE_TOGETHER",
]

# --- connecting ----------------------------------------------------------------------------
# Inbound connections whose HELLO is not complete: go-ethereum's defaultMaxPendingPeers.
PENDING_HANDSHAKES = 50
# Connections that were told why and linger for the other side's FIN (2 s each).
CLOSING_CONNECTIONS = 64
# Dials at a time: CometBFT's maxAttemptsToDial is 16, Bitcoin Core dials one after the other.
DIAL_CONCURRENCY = 8
# Addresses that are neither dialled nor admitted for a while. One takes about 200 bytes.
REFUSALS = 4096

# --- requests ------------------------------------------------------------------------------
# The protocol, section 3: a reply to a request that timed out is no fault for so long.
LATE_REPLY_TIME = 120.0
# Timed-out requests of one peer that are remembered; with more it is asked nothing for a while.
LATE_REPLIES = 64
# Requests that wait for a free slot of one peer; four times what a default HELLO admits.
WAITING_REQUESTS = 64
# What BUSY tells the other side to wait: some replies' worth of time.
RETRY_BUSY_MS = 250
# BUSY replies a peer may cause: ours cause none; one that knows no limits and obeys retry_ms
# asks again 4 times a second, at most 64 at a time.
BUSY_PER_SECOND = 256.0
BUSY_BURST = 2048.0
# Requests or replies that leave together, so that the other side works on some while we make the
# next: a write costs as much as making two or three.
WRITE_TOGETHER = 4
# BUSY replies to a peer that does not read; an honest one is at most 16 requests behind.
UNREAD_BUSY_REPLIES = 256

# --- traffic -------------------------------------------------------------------------------
# Messages read from a peer and not handled yet: one read (256 KiB) of small ones, twice.
INBOX_MESSAGES = 8192
INBOX_BYTES = 4 * 1024 * 1024  # two of the largest gossip messages (NEW_BLOCK, 2 MiB)
# Ours come every 15 s; more than these are not answered.
PINGS_PER_SECOND = 2.0
PINGS_BURST = 20.0
# Log lines per peer; what is over them is counted and told with the next line.
LOGS_PER_SECOND = 0.2
LOGS_BURST = 5.0

# --- addresses -----------------------------------------------------------------------------
ADDRESS_BOOK_SIZE = 4096  # Bitcoin Core keeps 16,384 tried and 65,536 new; CometBFT 16,384
ADDRESS_GIVE_UP = (
    10  # failed dials in a row until an address is forgotten: Bitcoin Core's MAX_FAILURES
)

# --- gossip --------------------------------------------------------------------------------
KNOWN_TRANSACTIONS = 32768  # go-ethereum eth/protocols/eth: maxKnownTxs
KNOWN_BLOCKS = 1024  # go-ethereum eth/protocols/eth: maxKnownBlocks
TRANSACTION_FULL_SIZE = 4096  # go-ethereum txMaxBroadcastSize: larger ones are only announced
# Sent whole to the square root of the peers (go-ethereum), to at least so many, else announced.
TRANSACTION_PUSH_MIN = 4
BLOCK_PUSH_MIN = 4
# Announced and being asked for, about 250 bytes each; of one peer, as many as it may announce in
# one message, which is half of go-ethereum's maxTxAnnounces.
WANTED_TRANSACTIONS = 16384
WANTED_PER_PEER = 2048
FETCH_ALTERNATIVES = 4  # other peers remembered that have a wanted transaction
ANNOUNCED_BLOCKS_WAITING = 64  # blocks being completed at a time, of all peers
ANNOUNCED_BLOCKS_PER_PEER = 8  # of those, so that one peer's inventions do not take all places
FAR_AHEAD = 64  # blocks above the head: an announced one is left to the sync
HEADS_WAITING = 16  # changes of the head that wait to be announced
GOSSIP_QUEUE = 4096  # transactions waiting to be relayed at the next turn
RELAY_CACHE_BYTES = 4 * 1024 * 1024  # relayed lately, answered even if no pool holds them any more
