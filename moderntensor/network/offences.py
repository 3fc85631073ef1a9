"""What a peer can do wrong, and what each costs it.

The names go to logs, counters and bans. `docs/architecture.md` says how the points add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from ..errors import FrameError
from .messages import CAPS, IDLE_CAPS
from .messages import DisconnectCode as Code

__all__ = ["BAN_AT", "DISCONNECT_AT", "Offence", "offence_of_code", "offence_of_frame"]

# Points at which an address is banned: Bitcoin Core's former -banscore default.
BAN_AT: Final = 100.0
# From here on a peer is not worth its place: half of it (Lighthouse: two fifths).
DISCONNECT_AT: Final = 50.0

_BAN: Final = 100  # no honest node can do this, whatever its line, its clock or its version
_GRAVE: Final = 40  # no honest node does this: dropped, and banned when it happens three times
_DOUBTFUL: Final = 20  # one may be bad luck; the third is too many
_SLIGHT: Final = 10
_FREE: Final = 0  # may be nobody's fault


# What will be the same next time.
_HOPELESS: Final = frozenset(
    {
        Code.WRONG_NETWORK,
        Code.WRONG_GENESIS,
        Code.UNSUPPORTED_VERSION,
        Code.IDENTITY,
        Code.USELESS,
    }
)


class Offence(StrEnum):
    """One kind of misconduct.

    `points` are added to what the peer's address has, `drops` says whether the connection ends at
    once whatever the sum, and `code` is what the peer is told when it ends. What costs no points
    may be nobody's fault: a slow line, another network, a fork that we do not follow.
    """

    points: int
    code: Code
    drops: bool

    def __new__(cls, name: str, points: int, code: Code, drops: bool = True) -> Offence:
        """`name` as it appears in logs, metrics and bans."""
        self = str.__new__(cls, name)
        self._value_ = name
        self.points, self.code, self.drops = points, code, drops
        return self

    @property
    def keeps_away(self) -> bool:
        """Whether its address is left alone for a while after the connection has ended for it."""
        return self.points > 0 or self.code in _HOPELESS

    # --- bytes -----------------------------------------------------------------------------
    OVERSIZED_FRAME = "oversized_frame", _BAN, Code.PROTOCOL_ERROR
    """A length over what its type may ever have."""
    EMPTY_FRAME = "empty_frame", _GRAVE, Code.PROTOCOL_ERROR
    """A length of zero, without a type byte."""
    UNKNOWN_TYPE = "unknown_type", _GRAVE, Code.PROTOCOL_ERROR
    """A type byte that is no message."""
    MALFORMED = "malformed", _GRAVE, Code.PROTOCOL_ERROR
    """A payload that is no encoding of its message."""
    SLOW_FRAME = "slow_frame", _FREE, Code.TIMEOUT
    """A frame that was not complete in time; a line that broke looks the same."""

    # --- handshake -------------------------------------------------------------------------
    WRONG_NETWORK = "wrong_network", _FREE, Code.WRONG_NETWORK
    WRONG_GENESIS = "wrong_genesis", _FREE, Code.WRONG_GENESIS
    WRONG_VERSION = "wrong_version", _FREE, Code.UNSUPPORTED_VERSION
    OTHER_IDENTITY = "other_identity", _FREE, Code.IDENTITY
    """Somebody else than was dialled: an address changes hands."""
    FALSE_IDENTITY = "false_identity", _BAN, Code.IDENTITY
    """A HELLO with another node_id than the key that the transport proved."""
    UNEXPECTED_MESSAGE = "unexpected_message", _GRAVE, Code.PROTOCOL_ERROR
    """A second HELLO."""

    # --- traffic ---------------------------------------------------------------------------
    UNASKED_REPLY = "unasked_reply", _GRAVE, Code.PROTOCOL_ERROR
    WRONG_REPLY = "wrong_reply", _GRAVE, Code.PROTOCOL_ERROR
    """More, larger or other items than were asked for, or another type."""
    MESSAGE_FLOOD = "message_flood", _SLIGHT, Code.LIMITS, False
    REQUEST_FLOOD = "request_flood", _SLIGHT, Code.LIMITS, False
    """Far more requests than HELLO allows, each answered BUSY before."""
    NEWS_FLOOD = "news_flood", _SLIGHT, Code.LIMITS, False
    PING_FLOOD = "ping_flood", _SLIGHT, Code.LIMITS, False
    WRONG_PONG = "wrong_pong", _SLIGHT, Code.PROTOCOL_ERROR, False
    """A PONG to no PING of ours."""
    NO_PONG = "no_pong", _FREE, Code.TIMEOUT
    NOT_READING = "not_reading", _FREE, Code.LIMITS
    """Takes no bytes for too long; a line that broke looks the same."""
    UNREAD_REQUESTS = "unread_requests", _DOUBTFUL, Code.LIMITS
    """Asks on and on without reading the answers."""
    OVER_BUDGET = "over_budget", _FREE, Code.LIMITS
    """Holds most of the bytes that all peers together may hold."""
    SERVES_NOTHING = "serves_nothing", _FREE, Code.TIMEOUT
    """Answers nothing, or nothing but BUSY, while others do."""

    # --- headers ---------------------------------------------------------------------------
    BAD_HEADER = "bad_header", _BAN, Code.BAD_HEADER
    """A header, or a run of headers, that breaks a rule of the chain."""
    BAD_SIGNATURE = "bad_signature", _BAN, Code.BAD_HEADER
    SHOWS_LESS = "shows_less", _DOUBTFUL, Code.USELESS
    """Has not what it claims: by what it says itself, or time after time."""
    FORKS_TOO_DEEP = "forks_too_deep", _FREE, Code.USELESS
    """A chain below finality or against a checkpoint; it may be we who are wrong."""
    UNKNOWN_PARENT = "unknown_parent", _SLIGHT, Code.BAD_HEADER, False
    """Headers that lead nowhere we know, again."""

    # --- blocks, transactions, state -------------------------------------------------------
    BAD_BODY = "bad_body", _BAN, Code.BAD_BLOCK
    """A body that does not match its header's txs_root, or is no body."""
    BAD_BLOCK = "bad_block", _GRAVE, Code.BAD_BLOCK
    """A block that breaks a rule."""
    INVALID_CHAIN = "invalid_chain", _GRAVE, Code.BAD_BLOCK
    """Headers on top of a block that does not execute to what its header says."""
    BAD_TRANSACTION = "bad_transaction", _DOUBTFUL, Code.BAD_TRANSACTION, False
    """A transaction that no state of the chain could admit."""
    UNDELIVERED = "undelivered", _SLIGHT, Code.TIMEOUT, False
    """Did not answer when it was asked for what it had announced."""
    REPEATED_NEWS = "repeated_news", _SLIGHT, Code.LIMITS, False
    """The same transactions or blocks over and over."""
    BAD_STATE = "bad_state", _BAN, Code.BAD_STATE
    """State that does not match its hash, its count, or its order."""

    USELESS = "useless", _FREE, Code.USELESS

    # --- anything else ---------------------------------------------------------------------
    MISCONDUCT = "misconduct", _GRAVE, Code.PROTOCOL_ERROR
    """What a handler of the node's user objects to."""


_BY_CODE: Final = {
    Code.PROTOCOL_ERROR: Offence.MISCONDUCT,
    Code.WRONG_NETWORK: Offence.WRONG_NETWORK,
    Code.WRONG_GENESIS: Offence.WRONG_GENESIS,
    Code.UNSUPPORTED_VERSION: Offence.WRONG_VERSION,
    Code.TIMEOUT: Offence.SERVES_NOTHING,
    Code.LIMITS: Offence.UNREAD_REQUESTS,
    Code.BAD_HEADER: Offence.BAD_HEADER,
    Code.BAD_BLOCK: Offence.BAD_BLOCK,
    Code.BAD_TRANSACTION: Offence.BAD_TRANSACTION,
    Code.BAD_STATE: Offence.BAD_STATE,
    Code.USELESS: Offence.USELESS,
    Code.IDENTITY: Offence.OTHER_IDENTITY,
}


_BY_NAME: Final = {offence.value: offence for offence in Offence}
_CODES: Final = frozenset(map(int, Code))


def offence_of_code(code: int, name: str | None = None) -> Offence:
    """What an error means that gives a DISCONNECT code, and perhaps the name of the offence."""
    if name is not None:
        return _BY_NAME.get(name, Offence.MISCONDUCT)
    return _BY_CODE.get(Code(code), Offence.MISCONDUCT) if code in _CODES else Offence.MISCONDUCT


def offence_of_frame(error: FrameError, caps: Mapping[int, int] = CAPS) -> Offence:
    """What it is that made a peer's stream unreadable, after HELLO; `caps` as of `CAPS`."""
    kind = error.frame_type
    if error.reason == "empty" or kind is None:
        return Offence.EMPTY_FRAME
    if error.reason == "unknown":
        return Offence.UNKNOWN_TYPE
    if error.length > caps[kind]:
        return Offence.OVERSIZED_FRAME
    # A reply: of its type nothing so large was asked for.
    return Offence.UNASKED_REPLY if error.cap == IDLE_CAPS.get(kind, 0) else Offence.WRONG_REPLY
