"""Names of the chain's tables in the store, and how their keys are encoded.

Heights and positions are big-endian, so that the byte order of keys is their numeric order and
a range of heights is a range of keys.

==============  =========================================  =======================================
table           key                                        value
==============  =========================================  =======================================
meta            one of the `META_*` names                  see there
canonical       height                                     header, of the executed chain only
index           header hash                                height, of every header known
pending         height                                     header of the best candidate chain above
                                                           its fork point, not executed yet
side            height ‖ hash                              header of another candidate
bodies          height ‖ hash                              body; empty bodies are not stored
tx_index        transaction hash                           height ‖ position
address_index   address ‖ height ‖ position                role, one byte
accounts        SHA-256(address)                           address ‖ account (108 bytes)
nodes           depth u8 ‖ prefix (32 bytes)               left ‖ count ‖ right ‖ count (80 bytes)
accounts_b      as accounts                                the other of the two state slots: see
nodes_b         as nodes                                   `state_slots`
holes           prefix (32 bytes) ‖ depth u8               hash ‖ count u64 of a subtree that the
                                                           slot being filled still lacks
undo            height ‖ hash                              accounts as they were before the block
invalid         header hash                                name of the rule that it breaks
producer        validator key (32 bytes)                   last slot signed, u64
evidence        height ‖ validator key                     header ‖ header, both signed by it
==============  =========================================  =======================================
"""

from __future__ import annotations

from struct import Struct
from typing import Final

META: Final = "meta"
CANONICAL: Final = "canonical"
INDEX: Final = "index"
PENDING: Final = "pending"
SIDE: Final = "side"
BODIES: Final = "bodies"
TX_INDEX: Final = "tx_index"
ADDRESS_INDEX: Final = "address_index"
ACCOUNTS: Final = "accounts"
NODES: Final = "nodes"
ACCOUNTS_B: Final = "accounts_b"
NODES_B: Final = "nodes_b"
HOLES: Final = "holes"
UNDO: Final = "undo"
INVALID: Final = "invalid"
PRODUCER: Final = "producer"
EVIDENCE: Final = "evidence"

TABLES: Final = (
    META,
    CANONICAL,
    INDEX,
    PENDING,
    SIDE,
    BODIES,
    TX_INDEX,
    ADDRESS_INDEX,
    ACCOUNTS,
    NODES,
    ACCOUNTS_B,
    NODES_B,
    HOLES,
    UNDO,
    INVALID,
    PRODUCER,
    EVIDENCE,
)

# Keys of the meta table.
META_SCHEMA: Final = b"schema"  # u32 version of everything in this module
META_GENESIS: Final = b"genesis"  # hash of the genesis header
META_HEAD: Final = b"head"  # height ‖ hash of the executed head
META_CANDIDATE: Final = b"candidate"  # height ‖ hash of the tip of the pending headers
META_PROVISIONAL: Final = b"provisional"  # u64, first pending header not checked whole yet
META_FINAL: Final = b"final"  # u64, highest block that can never be undone; absent: the genesis
META_STATE: Final = b"state"  # one byte, the active state slot; absent: 0
META_STAGING: Final = b"staging"  # height ‖ hash ‖ state root of what the other slot is filled for
META_EARLIEST: Final = b"earliest"  # u64, all bodies are here from this height on; absent: all

SCHEMA_VERSION: Final = 1
SCHEMA_ADOPTED: Final = 2  # since a state was adopted: who knows no slots must not read the store

# Roles in the address index; a transfer to oneself has both bits.
ROLE_SENDER: Final = 1
ROLE_RECIPIENT: Final = 2

_U64: Final = Struct(">Q")
_LOCATION: Final = Struct(">QI")  # height, position within the block


def height_key(height: int) -> bytes:
    """8 bytes; also the encoding of every u64 that is stored as a value."""
    return _U64.pack(height)


def parse_height(data: bytes) -> int:
    """The height at the start of a key or value."""
    height: int = _U64.unpack_from(data)[0]
    return height


def block_key(height: int, block_hash: bytes) -> bytes:
    """height ‖ hash, 40 bytes."""
    return _U64.pack(height) + block_hash


def parse_block_key(key: bytes) -> tuple[int, bytes]:
    """(height, hash) of a `block_key`."""
    return parse_height(key), key[8:40]


def location(height: int, position: int) -> bytes:
    """Where a transaction is: height u64 ‖ position u32, 12 bytes."""
    return _LOCATION.pack(height, position)


def parse_location(data: bytes) -> tuple[int, int]:
    """(height, position) of a `location`."""
    height, position = _LOCATION.unpack(data)
    return height, position


def address_key(address: bytes, height: int = 0, position: int = 0) -> bytes:
    """address ‖ location, 32 bytes; with the defaults, the first possible key of an address."""
    return address + _LOCATION.pack(height, position)


def parse_address_key(key: bytes) -> tuple[int, int]:
    """(height, position) of an `address_key`."""
    return parse_location(key[20:])


def node_key(depth: int, prefix: bytes) -> bytes:
    """depth u8 ‖ prefix, 33 bytes; bits of the prefix beyond depth are zero."""
    return bytes((depth,)) + prefix


def hole_key(depth: int, prefix: bytes) -> bytes:
    """prefix ‖ depth u8, 33 bytes: a subtree comes right before what lies in it."""
    return prefix + bytes((depth,))


def subtree_end(depth: int, prefix: bytes) -> bytes | None:
    """The first 32-byte key above a subtree of the state tree; None where there is none."""
    end = int.from_bytes(prefix, "big") + (1 << 256 - depth)
    return None if end >> 256 else end.to_bytes(32, "big")


def prefix_end(prefix: bytes) -> bytes | None:
    """The first key above every key that starts with `prefix`; None where there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else None
