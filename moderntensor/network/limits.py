"""Hard caps on what other nodes can make this one do, each with where its number comes from.

What a user may want to turn is in `moderntensor.config.NodeConfig`; the caps of single messages
stand beside their declarations in `messages.py`, those of one socket in `connection.py`.
"""

from __future__ import annotations

__all__ = [
    "ADDRESSES_BURST",
    "ADDRESSES_PER_SECOND",
    "ADDRESS_ALIASES",
    "ADDRESS_ANSWER_TIME",
    "ADDRESS_BUCKET_SIZE",
    "ADDRESS_COLLISIONS",
    "ADDRESS_DRAWS",
    "ADDRESS_GIVE_UP",
    "ADDRESS_HORIZON",
    "ADDRESS_NEW_GIVE_UP",
    "ADDRESS_OUTAGE",
    "ADDRESS_PENALTY",
    "ADDRESS_REPLACEMENT",
    "ADDRESS_SAVE_INTERVAL",
    "ADDRESS_SHARE",
    "ADDRESS_SHARE_MIN",
    "ADDRESS_SOURCES",
    "ADDRESS_TEST_WINDOW",
    "ADDRESS_UNKNOWN_AGE",
    "ANNOUNCED_BLOCKS_PER_PEER",
    "ANNOUNCED_BLOCKS_WAITING",
    "ASKERS",
    "BANS",
    "BANS_FILE_BYTES",
    "BANS_WATCH",
    "BAN_GROWTH",
    "BAN_MEMORY",
    "BAN_TIME_MAX",
    "BLOCK_ATTEMPTS",
    "BLOCK_COMPLETION_TIME",
    "BLOCK_FETCH_TIMEOUT",
    "BLOCK_PUSH_MIN",
    "BLOCK_STALL_TIME",
    "BUSY_BURST",
    "BUSY_EXCESS",
    "BUSY_PAUSE",
    "BUSY_PER_SECOND",
    "BUSY_RETRIES",
    "CLOSING_CONNECTIONS",
    "DIAL_CONCURRENCY",
    "DROP_LOGS_BURST",
    "DROP_LOGS_PER_SECOND",
    "EARLY_BLOCKS",
    "EARLY_BLOCKS_PER_PEER",
    "EARLY_BLOCK_HORIZON",
    "EXTERNAL_GROUPS",
    "EXTERNAL_VOTES",
    "EXTERNAL_VOTE_TIME",
    "FAR_AHEAD",
    "FETCHES_PER_PEER",
    "FETCH_ALTERNATIVES",
    "FRAMES_PER_TURN",
    "HEADS_WAITING",
    "INBOX_BYTES",
    "INBOX_MESSAGES",
    "KNOWN_BLOCKS",
    "KNOWN_TRANSACTIONS",
    "LATER_TRANSACTIONS",
    "LATE_REPLIES",
    "LATE_REPLY_TIME",
    "LOGS_BURST",
    "LOGS_PER_SECOND",
    "MEMPOOL_UPKEEP",
    "NETGROUP_BANS",
    "NEW_BUCKETS",
    "NEW_BUCKETS_PER_ADDRESS",
    "NEW_BUCKETS_PER_SOURCE",
    "OBJECT_BYTES",
    "OBJECT_FACTOR",
    "OWN_ADDRESSES",
    "PENDING_HANDSHAKES",
    "PINGS_BURST",
    "PINGS_PER_SECOND",
    "PROBE_TIMEOUT",
    "REFUSALS",
    "REFUSED_TRANSACTIONS",
    "RELAY_FEW",
    "RELAY_LATER",
    "RELAY_PAUSE",
    "REPEATS_BURST",
    "REPEATS_PER_SECOND",
    "RETRY_AFTER_MAX",
    "RETRY_BUSY_MS",
    "SCORES",
    "SILENT_BYTES",
    "TRANSACTION_FETCH_TIMEOUT",
    "TRANSACTION_FULL_SIZE",
    "TRANSACTION_PUSH_MIN",
    "TRANSACTION_STALL_TIME",
    "TRIED_BUCKETS",
    "TRIED_BUCKETS_PER_GROUP",
    "UNKNOWN_BRANCH_BURST",
    "UNKNOWN_BRANCH_PER_SLOT",
    "UNKNOWN_PARENTS_BURST",
    "UNKNOWN_PARENTS_PER_SLOT",
    "UNREAD_BUSY_REPLIES",
    "WAITING_REQUESTS",
    "WANTED_PER_PEER",
    "WANTED_RESERVED",
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
# For the PONG of a peer whose node dials us anew, as if it knew nothing of the older connection.
PROBE_TIMEOUT = 5.0  # as long as a handshake may take
# Seconds that a DISCONNECT can make us stay away: as for an address that keeps failing.
RETRY_AFTER_MAX = 3600
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
# Requests beyond what our HELLO allows that are answered BUSY and no more: nodes of ours send none;
# one that obeys retry_ms asks again 4 times a second, 16 at a time.
BUSY_PER_SECOND = 64.0
BUSY_BURST = 64.0
BUSY_EXCESS = 32  # of more than these, how many come to one offence
# Whose share in the serving is remembered, about 200 bytes each; as many as have refusals.
ASKERS = 4096
# Requests or replies that leave together, so that the other side works on some while we make the
# next: a write costs as much as making two or three.
WRITE_TOGETHER = 4
# BUSY replies to a peer that does not read; an honest one is at most 16 requests behind.
UNREAD_BUSY_REPLIES = 256

# --- traffic -------------------------------------------------------------------------------
# Messages read from a peer and not handled yet: one read (256 KiB) of small ones, twice.
INBOX_MESSAGES = 8192
INBOX_BYTES = 4 * 1024 * 1024  # of memory; the largest message (NEW_BLOCK, 2 MiB) comes on top
# What a decoded message takes of memory at most: its objects, and for each byte of its payload.
# Measured: 2.3 bytes for hashes, 3.7 for hashes with heights and for paths, 1.2 to 1.7 for small
# transactions.
OBJECT_BYTES = 256
OBJECT_FACTOR = 4
# Frames of one connection that a turn of the loop handles: 0.1 to 1 ms of news, up to 5 ms of
# requests that are refused. The rest of what was read waits for the next, so that everybody else
# has their turn.
FRAMES_PER_TURN = 256
# Ours come every 15 s; more than these are not answered.
PINGS_PER_SECOND = 2.0
PINGS_BURST = 20.0
# Log lines per peer; what is over them is counted and told with the next line.
LOGS_PER_SECOND = 0.2
LOGS_BURST = 5.0

# --- reputation ----------------------------------------------------------------------------
# Addresses with points; those with the fewest are forgotten first. One takes about 200 bytes.
SCORES = 4096
# Bans that are kept, in memory and on disk (at most 1 MiB); the one that ends first makes room.
BANS = 4096
BANS_FILE_BYTES = 2 * 1024 * 1024  # 4096 of the longest keys and reasons take 1.3 MiB
BANS_WATCH = 2.0  # seconds between looks at the file, which an operator may have changed
# Who does it again within a week is banned four times as long, up to Bitcoin Core's 24 hours.
BAN_GROWTH = 4
BAN_TIME_MAX = 86400.0
BAN_MEMORY = 7 * 86400.0
# So many hosts of one netgroup banned at a time: its owner has more of them, and all are.
NETGROUP_BANS = 8
# Log lines about misconduct, of all peers together; what is over them is counted.
DROP_LOGS_PER_SECOND = 1.0
DROP_LOGS_BURST = 50.0

# --- addresses -----------------------------------------------------------------------------
# The address book: places for 16,384 addresses that were told and 4,096 that were reached, as in
# CometBFT (Bitcoin Core: 65,536 and 16,384). An entry takes about 550 bytes, a full book 11 MB.
ADDRESS_BUCKET_SIZE = 64  # slots; Bitcoin Core and CometBFT
NEW_BUCKETS = 256  # CometBFT's newBucketCount
TRIED_BUCKETS = 64  # CometBFT's oldBucketCount
# What one group (/16 of IPv4, /32 of IPv6) can reach, in the proportions of Bitcoin Core (64 of
# 1,024 and 8 of 256; CometBFT gives twice as much): 6.25 % of new ones, 3.1 % of tried ones.
NEW_BUCKETS_PER_SOURCE = 16
TRIED_BUCKETS_PER_GROUP = 2
NEW_BUCKETS_PER_ADDRESS = 4  # CometBFT's maxNewBucketsPerAddress; Bitcoin Core 8
ADDRESS_COLLISIONS = 10  # that wait for a test: Bitcoin Core's ADDRMAN_SET_TRIED_COLLISION_SIZE
ADDRESS_REPLACEMENT = 4 * 3600.0  # reached so lately, no test is needed: Bitcoin Core
ADDRESS_TEST_WINDOW = 40 * 60.0  # without a test in this time the newcomer wins: Bitcoin Core
ADDRESS_HORIZON = 30 * 86400.0  # not seen for so long, it may be forgotten: Bitcoin Core
ADDRESS_NEW_GIVE_UP = 3  # failures of one that was never reached: Bitcoin Core's ADDRMAN_RETRIES
ADDRESS_GIVE_UP = 10  # failures in a row: Bitcoin Core's ADDRMAN_MAX_FAILURES
ADDRESS_OUTAGE = 7 * 86400.0  # of one that was reached before: ADDRMAN_MIN_FAIL_DAYS
# An address whose teller says nothing useful about its age counts as seen so long ago; all that
# is told counts as somewhat older than it is said to be. Both from Bitcoin Core.
ADDRESS_UNKNOWN_AGE = 5 * 86400
ADDRESS_PENALTY = 2 * 3600
# New addresses that are taken from one group: Bitcoin Core's MAX_ADDR_RATE_PER_SECOND and
# MAX_ADDR_PROCESSING_TOKEN_BUCKET, there for each connection.
ADDRESSES_PER_SECOND = 0.1
ADDRESSES_BURST = 1000.0
ADDRESS_SOURCES = 1024  # groups whose rate is remembered, about 400 bytes each
ADDRESS_DRAWS = 256  # entries that are looked at for one choice of whom to dial
ADDRESS_ALIASES = 256  # where names of bootstrap nodes have led
OWN_ADDRESSES = 64  # that turned out to be ourselves
# What is told of the addresses that we met: this part of them, as Bitcoin Core's
# MAX_PCT_ADDR_TO_SEND, or this many, the protocol's default for GET_PEERS. The choice stays the
# same for a day, Bitcoin Core's 21 to 27 hours, so that asking again tells nothing more.
ADDRESS_SHARE = 0.23
ADDRESS_SHARE_MIN = 50
ADDRESS_ANSWER_TIME = 24 * 3600.0
ADDRESS_SAVE_INTERVAL = 15 * 60.0  # Bitcoin Core's DUMP_PEERS_INTERVAL
# Our own address: groups that must agree on it, votes that are counted, and how long one counts.
EXTERNAL_GROUPS = 3
EXTERNAL_VOTES = 32
EXTERNAL_VOTE_TIME = 24 * 3600.0

# --- gossip --------------------------------------------------------------------------------
# Hashes that a peer is known to have: more than a pool holds, so that nothing comes twice while it
# is news. go-ethereum's maxKnownTxs is 32,768, which here would be 4.7 MB of every peer.
KNOWN_TRANSACTIONS = 8192
KNOWN_BLOCKS = 1024  # go-ethereum eth/protocols/eth: maxKnownBlocks
TRANSACTION_FULL_SIZE = 4096  # go-ethereum txMaxBroadcastSize: larger ones are only announced
# To so many peers at least, else to the square root of them (go-ethereum), a transaction of our own
# goes whole. The bytes of four whole ones from everybody came to everybody four times.
TRANSACTION_PUSH_MIN = 4
# To so many peers one of somebody else goes by hash without delay: each hop about doubles those who
# have it, and whoever is left out hears of it later.
RELAY_FEW = 2
# Seconds in which what is to be relayed is gathered for one message after the last.
RELAY_PAUSE = 0.3
# Seconds until the others are told, at most, and at least an eighth of that: Bitcoin Core waits 2 s
# for outbound peers, on average. Nearly all nodes have it from the few by then, and of those around
# whoever was left out one is soon due; what costs is a message for each transaction.
RELAY_LATER = 8.0
LATER_TRANSACTIONS = 2048  # that wait for that; one message's worth
# A compact block to so many at least, else to the square root: with four of them the last hops of
# a network of 1,000 took two more round trips.
BLOCK_PUSH_MIN = 8
# Transactions announced and being asked for, about 250 bytes each; of one peer, as many as it may
# announce in one message, which is half of go-ethereum's maxTxAnnounces.
WANTED_TRANSACTIONS = 16384
WANTED_PER_PEER = 2048
WANTED_RESERVED = 256  # of each peer, even when others have taken all places
FETCHES_PER_PEER = 2  # GET_TRANSACTIONS at a time, for what one peer has announced
FETCH_ALTERNATIVES = 4  # other peers remembered that have a wanted transaction
# Seconds until an announcer who does not answer counts as silent and another is asked.
TRANSACTION_FETCH_TIMEOUT = 5.0  # go-ethereum fetcher: txFetchTimeout
# Seconds without an answer until another announcer is asked as well, as for blocks.
TRANSACTION_STALL_TIME = 1.0
BLOCK_FETCH_TIMEOUT = 5.0  # go-ethereum block_fetcher: fetchTimeout
# Seconds without the block until another announcer is asked as well; the first may go on.
BLOCK_STALL_TIME = 1.0
BLOCK_COMPLETION_TIME = 30.0  # seconds until a block that trickles in is left to the sync
# Announcers asked for one block at a time: Bitcoin Core's MAX_CMPCTBLOCKS_INFLIGHT_PER_BLOCK.
BLOCK_ATTEMPTS = 3
# An announcer who is busy is asked again so often, if there is no other, after at most so long.
BUSY_RETRIES = 3
BUSY_PAUSE = 1.0
ANNOUNCED_BLOCKS_WAITING = 64  # blocks being completed at a time, of all peers
ANNOUNCED_BLOCKS_PER_PEER = 8  # of those, so that one peer's inventions do not take all places
FAR_AHEAD = 64  # blocks above the head: an announced one is left to the sync
HEADS_WAITING = 16  # changes of the head that wait to be announced
# Blocks that came before their time: the protocol holds 64 a peer. About 300 bytes each.
EARLY_BLOCKS = 1024
EARLY_BLOCKS_PER_PEER = 64
EARLY_BLOCK_HORIZON = 600.0  # seconds ahead; what is later still will be told of again
REFUSED_TRANSACTIONS = 8192  # refused since the head moved, not looked at again; 1.1 MB
# News that a peer has told before: ours never do; one full message of them at once is forgiven.
REPEATS_PER_SECOND = 8.0
REPEATS_BURST = 2304.0  # 255 transactions and 2,048 hashes
# An announcer from whom less than this came while it was asked in vain is silent; from others
# something came, and their line may be slow: 13 KiB/s and less.
SILENT_BYTES = 64 * 1024
# Blocks of unknown parents: Bitcoin Core's former MAX_NUM_UNCONNECTING_HEADERS_MSGS, after which
# there may be two in each slot.
UNKNOWN_PARENTS_BURST = 10.0
UNKNOWN_PARENTS_PER_SLOT = 2.0
# Of those that stand on the one before: a whole branch, as it is imported by an honest peer, but
# one validator can sign such a chain without end.
UNKNOWN_BRANCH_BURST = 1024.0
UNKNOWN_BRANCH_PER_SLOT = 16.0
MEMPOOL_UPKEEP = 60.0  # seconds between two looks at how long transactions have waited
