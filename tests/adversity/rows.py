"""Every hazard, the answer to it, who tests it, and the constants that bound it."""

from __future__ import annotations

from typing import NamedTuple


class Hazard(NamedTuple):
    """One row. `elsewhere` names a test outside of this directory, or says why there is none."""

    row: str
    what: str
    answer: str
    bounds: tuple[str, ...] = ()
    elsewhere: str = ""


HAZARDS = (
    Hazard(
        "1",
        "length over the cap of its type",
        "PROTOCOL_ERROR at the fifth byte, banned; before HELLO quietly closed",
        ("BAN_AT",),
    ),
    Hazard("2", "length 0", "PROTOCOL_ERROR"),
    Hazard("3", "unknown type", "PROTOCOL_ERROR; banned when it goes on", ("BAN_AT", "HALF_LIFE")),
    Hazard("4", "malformed payload", "PROTOCOL_ERROR"),
    Hazard("5", "count beyond the bytes", "PROTOCOL_ERROR before anything is allocated"),
    Hazard("6", "bytes split and merged", "the same answers"),
    Hazard("7", "frame or record never finished", "TIMEOUT", ("FRAME_BASE_TIME", "FRAME_MIN_RATE")),
    Hazard("8", "garbage, TLS, HTTP", "quietly closed, no blame", ("handshake_timeout",)),
    Hazard(
        "9",
        "slow and half-open handshakes",
        "oldest makes room; closed at the deadline",
        ("PENDING_HANDSHAKES", "handshake_timeout"),
    ),
    Hazard(
        "10",
        "another network, genesis, version",
        "WRONG_NETWORK, WRONG_GENESIS, UNSUPPORTED_VERSION; not dialled for a while",
        ("refusal_time",),
    ),
    Hazard("11", "node_id that was not proved", "IDENTITY, banned", ("ban_time",)),
    Hazard(
        "12", "own id, second connection of an id", "IDENTITY; the newest, or that of the lower id"
    ),
    Hazard("13", "replay, reflection, low-order keys, tampering", "closed"),
    Hazard(
        "14", "second HELLO, message before HELLO", "PROTOCOL_ERROR; before HELLO quietly closed"
    ),
    Hazard(
        "15", "plaintext meets encryption", "closed, said by name to whoever dialled; no downgrade"
    ),
    Hazard("16", "floods of every type", "BUSY, LIMITS, banned", ("EXCESS_PER_OFFENCE",)),
    Hazard(
        "17",
        "expensive requests",
        "replies end at their limits; BUSY with a time, no blame",
        ("SOFT_REPLY_LIMIT", "max_inflight", "max_per_type"),
    ),
    Hazard(
        "18",
        "reply that nobody asked for",
        "PROTOCOL_ERROR at its header; a late one is no fault",
        ("LATE_REPLY_TIME",),
    ),
    Hazard("19", "more than was asked", "PROTOCOL_ERROR"),
    Hazard(
        "20",
        "asks and never reads",
        "BUSY, then closed",
        ("UNREAD_BUSY_REPLIES", "send_stall_timeout"),
    ),
    Hazard(
        "21",
        "never answers, busy for ever",
        "asked elsewhere; TIMEOUT, no ban",
        ("request_timeout",),
    ),
    Hazard("22", "reconnects in a loop", "closed at once", ("redial_interval",)),
    Hazard(
        "23",
        "all places taken by one party",
        "newcomers from elsewhere get in, the useful stay",
        ("max_peers", "target_outbound"),
    ),
    Hazard(
        "24",
        "PING flood, foreign PONG, no PONG",
        "not answered; ignored, then PROTOCOL_ERROR; TIMEOUT",
        ("PINGS_BURST", "PINGS_PER_SECOND", "ping_timeout"),
    ),
    Hazard(
        "25",
        "log flooding",
        "a few lines a peer, the rest counted",
        ("LOGS_BURST", "LOGS_PER_SECOND"),
    ),
    Hazard(
        "26",
        "bad or too many addresses",
        "filtered; more than asked: PROTOCOL_ERROR",
        ("ADDRESSES_BURST", "ADDRESSES_PER_SECOND"),
        "tests/network/test_addresses.py",
    ),
    Hazard(
        "27",
        "address-book poisoning",
        "few buckets for one source and group",
        ("NEW_BUCKETS_PER_SOURCE", "ADDRESS_BUCKET_SIZE"),
    ),
    Hazard("28", "unasked PEERS", "PROTOCOL_ERROR"),
    Hazard("29", "header that breaks a rule", "BAD_HEADER, banned", ("BAN_AT",)),
    Hazard("30", "signed by nobody who may", "BAD_HEADER, banned", ("BAN_AT",)),
    Hazard(
        "31",
        "from the future",
        "held, no blame, taken in its time",
        ("EARLY_BLOCKS", "EARLY_BLOCKS_PER_PEER"),
    ),
    Hazard("32", "time that stands still, out of turn", "BAD_HEADER"),
    Hazard("33", "headers without end", "no more than slots have passed"),
    Hazard("34", "claims not kept", "dismissed, then USELESS, no ban", ("MAX_BROKEN_CLAIMS",)),
    Hazard(
        "35",
        "many short forks",
        "a bounded number kept",
        ("MAX_SIDE_BLOCKS",),
        "tests/blockchain/test_reorg.py",
    ),
    Hazard("36", "fork below finality", "USELESS, logged loudly, no ban"),
    Hazard("37", "two headers of one validator", "kept as evidence"),
    Hazard(
        "38",
        "headers of unknown parents",
        "one question; repeated: dropped",
        ("UNKNOWN_PARENTS_BURST",),
    ),
    Hazard("39", "body that does not match", "BAD_BLOCK, banned; fetched elsewhere", ("BAN_AT",)),
    Hazard("40", "block that does not execute", "BAD_BLOCK, invalid for good with its descendants"),
    Hazard("41", "invalid transactions", "refused; BAD_TRANSACTION when no state admits them"),
    Hazard(
        "42",
        "the same over and over",
        "relayed once; LIMITS",
        ("REPEATS_BURST", "REPEATS_PER_SECOND"),
    ),
    Hazard(
        "43",
        "duplicated last leaf",
        "another root: BAD_BLOCK, banned",
        elsewhere="tests/adversity/test_blocks.py::test_row_39_a_body_that_does_not_match",
    ),
    Hazard(
        "43a",
        "garbage signature around known content",
        "another hash; BAD_HEADER, the true one stands",
    ),
    Hazard("43b", "escape sequences", "no HELLO; nothing of them in the log"),
    Hazard(
        "43c",
        "producer restarted within its slot",
        "never signs a slot twice",
        elsewhere="tests/blockchain/test_producer.py",
    ),
    Hazard(
        "44",
        "state chunk with a missing, extra, altered or unsorted account",
        "BAD_STATE on arrival, banned; fetched elsewhere",
        ("BAN_AT", "MAX_STATE_ACCOUNTS"),
        "tests/sync/test_fast_chaos.py",
    ),
    Hazard(
        "45",
        "state nodes that do not hash to their parent",
        "BAD_STATE on arrival, banned; fetched elsewhere",
        ("BAN_AT", "MAX_STATE_NODES"),
        "tests/sync/test_fast_chaos.py",
    ),
    Hazard(
        "46",
        "snapshot vanishes half-way",
        "from others, or a newer one of which only what changed is fetched, or by blocks",
        ("MAX_FRUITLESS", "NEWER_SECONDS"),
        "tests/sync/test_fast_kills.py",
    ),
    Hazard(
        "47",
        "pruned peer; states asked for that are not there, too large, over and over",
        "PRUNED is an answer; NOT_FOUND, TOO_LARGE, LIMITS; no snapshot is kept for ever",
        ("KEPT", "LEASE", "IDLE"),
    ),
    Hazard(
        "48",
        "kill -9, power loss",
        "restarts at the last commit",
        elsewhere="tests/storage/test_lmdb_crash.py",
    ),
    Hazard(
        "49",
        "disk full, locked, corrupt",
        "one clear StorageError",
        elsewhere="tests/storage/test_lmdb_damage.py",
    ),
    Hazard("50", "wall clock jumps", "durations unaffected; future headers judged anew"),
    Hazard("51", "the end amid everything", "all released, exit code 0; restart after SIGKILL"),
    Hazard(
        "52", "port in use, bad files", "one clear line", elsewhere="tests/cli/test_node_command.py"
    ),
    Hazard("53", "partition and healing", "both sides on the longer branch"),
    Hazard("54", "all peers gone during a sync", "waits, goes on with the next"),
)
