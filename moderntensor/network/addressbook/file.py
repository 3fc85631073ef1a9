"""The address book as bytes: lines of JSON, the first of which says what follows.

    {"format": "moderntensor addresses", "version": 1, "key": "<64 hex digits>", "addresses": 2}
    ["8.8.8.8", 30303, "<node id or empty>", 1795000000, 1795000000, 0, true, []]
    ["2a00::1", 30303, "", 1795000000, 0, 2, false, ["v4:0808"]]

An address is: host, port, node id (of one that was met), when it was last seen and last reached
(Unix seconds, 0 for never), failures in a row, whether it was met, and the groups of those who
told of it. Without any it is among the tried ones. A line is read at a time, so that a file costs
no more memory than what it may hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from ...errors import StorageError
from ..addresses import Scope, canonical, scope
from ..limits import (
    ADDRESS_BUCKET_SIZE,
    NEW_BUCKETS,
    NEW_BUCKETS_PER_ADDRESS,
    TRIED_BUCKETS,
)

__all__ = [
    "ADDRESS_FILE",
    "ADDRESS_FILE_CAP",
    "MAX_TRIED",
    "SavedAddress",
    "decode_book",
    "encode_book",
]

ADDRESS_FILE: Final = "addresses.jsonl"
MAX_TRIED: Final = TRIED_BUCKETS * ADDRESS_BUCKET_SIZE

_FORMAT = "moderntensor addresses"
_VERSION = 1
_KEY_SIZE = 32
_MAX_NEW = NEW_BUCKETS * ADDRESS_BUCKET_SIZE
_MAX_LINE = 512  # the longest is 4 sources of 39 characters, an address, an id, numbers: 350
_MAX_TIME = 2**63 - 1
_MAX_FAILURES = 2**31 - 1
_MAX_SOURCE = 64  # characters; the longest group is an IPv6 address with its port, 47

ADDRESS_FILE_CAP: Final = (_MAX_NEW + MAX_TRIED + 1) * _MAX_LINE
"""The most bytes of the file: 10 MiB."""


class SavedAddress(NamedTuple):
    """What is kept of one address; without `sources` it is among the tried ones."""

    host: str
    port: int
    node_id: bytes | None
    last_seen: int
    last_success: int
    failures: int
    met: bool
    sources: tuple[str, ...]


def encode_book(key: bytes, addresses: Iterable[SavedAddress]) -> bytes:
    """The file of a book with this secret key (32 bytes)."""
    lines = [
        json.dumps((*a[:2], a.node_id.hex() if a.node_id else "", *a[3:]), separators=(",", ":"))
        for a in addresses
    ]
    head = {"format": _FORMAT, "version": _VERSION, "key": key.hex(), "addresses": len(lines)}
    return "\n".join([json.dumps(head), *lines, ""]).encode("ascii")


def decode_book(data: bytes) -> tuple[bytes, list[SavedAddress]]:
    """The secret key and the addresses of a file. Raises `StorageError`, which names the line,
    for anything that `encode_book` cannot have written."""
    if len(data) > ADDRESS_FILE_CAP:
        raise StorageError(f"address book: larger than {ADDRESS_FILE_CAP} bytes")
    number, at = 0, 0
    key, count = b"", 0
    found: list[SavedAddress] = []
    keys: set[tuple[str, int]] = set()
    tried = 0
    while at < len(data):
        number += 1
        end = data.find(b"\n", at, at + _MAX_LINE)
        if end < 0:
            raise StorageError(f"address book, line {number}: has no end")
        try:
            value = json.loads(data[at:end].decode("ascii"))
            if number == 1:
                key, count = _head(value)
            else:
                address = _address(value)
                found.append(address)
                keys.add((address.host, address.port))
                tried += not address.sources
                if len(keys) < len(found):
                    raise ValueError("the address is there already")
                if tried > MAX_TRIED or len(found) - tried > _MAX_NEW:
                    raise ValueError("too many addresses")
        except (ValueError, RecursionError) as error:
            raise StorageError(f"address book, line {number}: {error}") from error
        at = end + 1
    if not number or len(found) != count:
        raise StorageError(f"address book: {len(found)} addresses of {count}")
    return key, found


def _head(value: object) -> tuple[bytes, int]:
    """The secret key and the number of addresses. Raises ValueError."""
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise ValueError("this is no address book")
    if value.get("version") != _VERSION or isinstance(value["version"], bool):
        raise ValueError(f"its version is not {_VERSION}")
    if value.keys() != {"format", "version", "key", "addresses"}:
        raise ValueError("fields are missing or unknown")
    key = _hex(value["key"], _KEY_SIZE)
    if key is None:
        raise ValueError("it has no key")
    return key, _integer(value["addresses"], 0, _MAX_NEW + MAX_TRIED)


def _address(value: object) -> SavedAddress:
    """One address. Raises ValueError."""
    if not isinstance(value, list) or len(value) != len(SavedAddress._fields):
        raise ValueError("this is no address")
    host, port, node_id, last_seen, last_success, failures, met, sources = value
    if not isinstance(host, str) or scope(host) in (Scope.NAME, Scope.NOWHERE):
        raise ValueError("no node can be at this host")
    if canonical(host) != host:
        raise ValueError("the host is not spelled as it should be")
    if not isinstance(met, bool):
        raise ValueError("true or false is needed")
    if not isinstance(sources, list) or len(sources) > NEW_BUCKETS_PER_ADDRESS:
        raise ValueError("this is no list of groups")
    for source in sources:
        if not isinstance(source, str) or not 0 < len(source) <= _MAX_SOURCE:
            raise ValueError("this is no group")
        if not source.isascii() or not source.isprintable():
            raise ValueError("this is no group")
    if len(set(sources)) < len(sources):
        raise ValueError("a group is there twice")
    return SavedAddress(
        host,
        _integer(port, 1, 65535),
        _hex(node_id, 32),
        _integer(last_seen, 0, _MAX_TIME),
        _integer(last_success, 0, _MAX_TIME),
        _integer(failures, 0, _MAX_FAILURES),
        met,
        tuple(sources),
    )


def _integer(value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"a number from {low} to {high} is needed")
    return value


def _hex(value: object, size: int) -> bytes | None:
    if value == "":
        return None
    if not isinstance(value, str) or len(value) != 2 * size or not value.isalnum():
        raise ValueError(f"{2 * size} hex digits are needed")
    return bytes.fromhex(value)
