"""The numbers and kinds of the wire protocol: message types, statuses, codes, sizes.

`docs/protocol.md` is the normative text; tests compare it with what stands here.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from ..wire import MESSAGES, Record

PROTOCOL_VERSION: Final = 1

ZERO_IP: Final = bytes(16)

# Replies stop growing here; with one more block they stay under the cap of their type.
SOFT_REPLY_LIMIT: Final = 2 << 20
MAX_HEADERS: Final = 2048
MAX_ANNOUNCED_HEADERS: Final = 8
MAX_LOCATOR: Final = 64
MAX_BLOCKS: Final = 512
MAX_BODIES: Final = 256
MAX_TRANSACTIONS_ASKED: Final = 1024
MAX_ANNOUNCED_TRANSACTIONS: Final = 2048
MAX_ANNOUNCED_BLOCKS: Final = 64
MAX_STATE_ACCOUNTS: Final = 16_384
MAX_STATE_NODES: Final = 1024
MAX_PEERS: Final = 250
MAX_SNAPSHOTS: Final = 4
MAX_REASON: Final = 256
# request_id u32, status u8, retry_ms u16: what every reply starts with.
REPLY_PREFIX: Final = 7
# From this type byte on, up to 0xff, they are for extensions.
FIRST_EXTENSION_TYPE: Final = 0x80


class MessageType(IntEnum):
    """The type byte of a frame."""

    HELLO = 0x00
    PING = 0x01
    PONG = 0x02
    DISCONNECT = 0x03
    GET_BLOCKS = 0x10
    BLOCKS = 0x11
    GET_HEADERS = 0x12
    HEADERS = 0x13
    GET_BLOCK_BODIES = 0x14
    BLOCK_BODIES = 0x15
    NEW_TRANSACTION = 0x20
    NEW_BLOCK = 0x21
    NEW_BLOCK_HASHES = 0x22
    GET_TRANSACTIONS = 0x23
    TRANSACTIONS = 0x24
    GET_STATE = 0x30
    STATE = 0x31
    GET_STATE_NODES = 0x32
    STATE_NODES = 0x33
    GET_PEERS = 0x40
    PEERS = 0x41


class ExtensionType(int):
    """The type byte of a message of an extension, with a name for logs."""

    name: str

    def __new__(cls, number: int, name: str) -> ExtensionType:
        """`name` as it appears in logs."""
        self = int.__new__(cls, number)
        self.name = name
        return self


TypeByte: TypeAlias = MessageType | ExtensionType


class Status(IntEnum):
    """How a reply answers its request."""

    OK = 0
    """All that was asked, or up to the answerer's head."""
    PARTIAL = 1
    """A non-empty strict prefix; more exists."""
    NOT_FOUND = 2
    PRUNED = 3
    BUSY = 4
    """Ask again after `retry_ms`."""
    TOO_LARGE = 5


class DisconnectCode(IntEnum):
    """Why a connection ends."""

    SHUTTING_DOWN = 0
    PROTOCOL_ERROR = 1
    WRONG_NETWORK = 2
    WRONG_GENESIS = 3
    UNSUPPORTED_VERSION = 4
    TOO_MANY_PEERS = 5
    ALREADY_CONNECTED = 6
    SELF = 7
    TIMEOUT = 8
    LIMITS = 9
    BAD_HEADER = 10
    BAD_BLOCK = 11
    BAD_TRANSACTION = 12
    BAD_STATE = 13
    BANNED = 14
    USELESS = 15
    IDENTITY = 16
    EVICTED = 17


class Message(Record):
    """Base of the 21 messages, and of those of extensions; each is a record with its type, cap and
    reply beside it."""

    __slots__ = ()

    TYPE: ClassVar[TypeByte]
    CAP: ClassVar[int]
    """The most payload bytes that any such message may have."""
    REPLY: ClassVar[TypeByte | None]
    """The type that answers it; None where nothing does."""

    def fault(self) -> str | None:
        """What breaks a rule that spans fields, for which its layout cannot speak."""
        return None


class Request(Message):
    """Base of the messages that are answered by `REPLY`, matched by `request_id`.

    `request_id` is not zero on the wire; zero, the default, means "not assigned yet".
    """

    __slots__ = ()

    ANSWER: ClassVar[type[Reply] | None] = None
    """The class of its replies, where it belongs to an extension."""

    @classmethod
    def reply_class(cls) -> type[Reply]:
        """The class of its replies. Raises TypeError if it has none."""
        if cls.REPLY is None:
            raise TypeError(f"{cls.__name__} is not answered")
        return cls.ANSWER or MESSAGES[cls.REPLY]

    if TYPE_CHECKING:

        @property
        def request_id(self) -> int: ...


class Reply(Message):
    """Base of the answers: the id of the request, a status, then the items (last field)."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def request_id(self) -> int: ...

        @property
        def status(self) -> int: ...

        @property
        def retry_ms(self) -> int: ...

    @property
    def count(self) -> int:
        """How many items it carries."""
        return len(getattr(self, self.LAYOUT.names[-1]))

    def fault(self) -> str | None:
        """Items come with OK and PARTIAL alone, and PARTIAL with at least one."""
        if self.status == Status.OK:
            return None
        if self.status == Status.PARTIAL:
            return None if self.count else "PARTIAL without an item"
        return f"{Status(self.status).name} with items" if self.count else None
