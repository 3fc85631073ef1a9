"""Parameters of paths and queries: how each is written, and what it means."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from .limits import DEFAULT_LIMIT, MAX_EXACT, MAX_LIMIT
from .problems import shown

__all__ = [
    "ADDRESS",
    "AFTER_EVENT",
    "BEFORE_HEIGHT",
    "BEFORE_TX",
    "LIMIT",
    "PROOF",
    "REF",
    "TX_HASH",
    "Parameter",
]

_HEX: Final = frozenset("0123456789abcdefABCDEF")
_EVENT_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `parse` raises ValueError with what is wrong."""

    name: str
    where: Literal["path", "query"]
    parse: Callable[[str], Any]
    schema: Mapping[str, Any]
    description: str
    default: Any = None
    examples: tuple[str, ...] = ()


def hexadecimal(text: str, size: int) -> bytes:
    """`size` bytes in hex, with 0x or without. Raises ValueError."""
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    if len(digits) != 2 * size or not _HEX.issuperset(digits):
        raise ValueError(f"{shown(text)} is not {2 * size} hex digits")
    return bytes.fromhex(digits)


def number(text: str, low: int, high: int) -> int:
    """Decimal digits. Raises ValueError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 20) or not (
        low <= int(text) <= high
    ):
        raise ValueError(f"{shown(text)} is not a number from {low} to {high}")
    return int(text)


def _hash(text: str) -> bytes:
    return hexadecimal(text, 32)


def _reference(text: str) -> int | bytes | None:
    """A height, a hash, or None for the head."""
    if text == "head":
        return None
    if len(text) <= 20 and text.isascii() and text.isdecimal():
        return number(text, 0, MAX_EXACT)
    try:
        return _hash(text)
    except ValueError:
        raise ValueError(
            f"{shown(text)} is neither a height, nor 64 hex digits of a hash, nor 'head'"
        ) from None


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{shown(text)} is neither 'true' nor 'false'")
    return text == "true"


def _event_id(text: str) -> str:
    if not _EVENT_ID.fullmatch(text):
        raise ValueError(f"{shown(text)} is not the id of an event")
    return text


_HASH_SCHEMA: Final = {"type": "string", "pattern": "^(0[xX])?[0-9a-fA-F]{64}$"}

REF = Parameter(
    "ref",
    "path",
    _reference,
    {"type": "string", "pattern": "^(head|[0-9]{1,15}|(0[xX])?[0-9a-fA-F]{64})$"},
    "A height, the hash of a block, or `head`.",
)
TX_HASH = Parameter("hash", "path", _hash, _HASH_SCHEMA, "The hash of a transaction.")
ADDRESS = Parameter(
    "address",
    "path",
    lambda text: hexadecimal(text, 20),
    {"type": "string", "pattern": "^(0[xX])?[0-9a-fA-F]{40}$"},
    "An account's address.",
)
PROOF = Parameter(
    "proof",
    "query",
    _truth,
    {"type": "string", "enum": ["true", "false"], "default": "false"},
    "Whether to add a Merkle proof.",
    default=False,
)
LIMIT = Parameter(
    "limit",
    "query",
    lambda text: number(text, 1, MAX_LIMIT),
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "How many at most.",
    default=DEFAULT_LIMIT,
)
BEFORE_HEIGHT = Parameter(
    "before",
    "query",
    lambda text: number(text, 0, MAX_EXACT),
    {"type": "integer", "minimum": 0, "maximum": MAX_EXACT},
    "Those below this height alone.",
)
AFTER_EVENT = Parameter(
    "after",
    "query",
    _event_id,
    {"type": "string", "pattern": f"^{_EVENT_ID.pattern}$"},
    "The id of the last event that was seen, for who cannot set the header `Last-Event-ID`, which"
    " comes first.",
)
BEFORE_TX = Parameter(
    "before", "query", _hash, _HASH_SCHEMA, "The `next` of the page before this one."
)
