"""The small files that a node keeps between its runs, as a disk may give them back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from moderntensor.errors import ConfigError, ModernTensorError
from moderntensor.network.addressbook.file import SavedAddress, decode_book, encode_book
from moderntensor.network.anchors import Anchor, decode_anchors, encode_anchors
from moderntensor.network.ban_file import decode_bans, encode_bans
from moderntensor.network.bans import OPERATOR, Ban, parse_key

from . import Target

BOOK = (
    SavedAddress("8.8.8.8", 30303, b"\x07" * 32, 1795000000, 1795000000, 0, True, ()),
    SavedAddress("2a00::1", 1, None, 5, 0, 2, False, ("v4:0808", "v6:2a000000")),
    SavedAddress("10.0.0.1", 65535, None, 0, 0, 9, True, ("v4:0a00",)),
)
BANS = (
    Ban("10.0.0.1", 1795000000, 3600, "flood", 2),
    Ban("10.0.0.0/8", 2**39, 60, OPERATOR, 1),
    Ban("ab" * 32, 1, 1, "bad-header", 1),
    Ban("[2001:db8::1]:30303", 5, 5, "x y", 30),
)
ANCHORS = (Anchor("8.8.8.8", 30303, b"\x07" * 32), Anchor("2a00::1", 1, b"\xab" * 32))


def _round_trip(
    data: bytes, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]
) -> None:
    try:
        found = decode(data)
    except ModernTensorError:
        return
    assert decode(encode(found)) == found, "written and read, it is something else"


def address_book(data: bytes) -> None:
    _round_trip(data, decode_book, lambda book: encode_book(*book))


def ban_file(data: bytes) -> None:
    _round_trip(data, decode_bans, encode_bans)
    try:
        key = parse_key(data.decode("latin-1"))
    except ConfigError:
        return
    assert parse_key(key) == key, "two spellings of one ban"


def anchor_file(data: bytes) -> None:
    _round_trip(data, decode_anchors, encode_anchors)


def _anchor_seeds() -> Iterator[bytes]:
    for count in range(len(ANCHORS) + 1):
        yield encode_anchors(ANCHORS[:count])


def _book_seeds() -> Iterator[bytes]:
    for count in range(len(BOOK) + 1):
        yield encode_book(b"\x09" * 32, BOOK[:count])


def _ban_seeds() -> Iterator[bytes]:
    for count in range(len(BANS) + 1):
        yield encode_bans(BANS[:count])
    yield json.dumps({"format": "moderntensor/bans/1", "bans": []}).encode()
    for ban in BANS:
        yield ban.key.encode()


_JSON = (b"{", b"}", b"[", b"]", b'"', b",", b":", b"true", b"null", b"1e9", b"\\u0663", b"\n")
TARGETS = {
    "address-book": Target(
        address_book,
        _book_seeds,
        longest=1500,
        words=(*_JSON, b'"v4:0808"', b'"::1"', b'"key":', b'"addresses":', b'"version":'),
        native=False,
    ),
    "ban-file": Target(
        ban_file,
        _ban_seeds,
        longest=1500,
        words=(*_JSON, b'"key":', b'"until":', b'"seconds":', b'"reason":', b'"times":', b"/8"),
        native=False,
    ),
    "anchor-file": Target(
        anchor_file,
        _anchor_seeds,
        longest=600,
        words=(*_JSON, b'"version":', b'"anchors":', b'"host":', b'"port":', b'"node_id":'),
        native=False,
    ),
}
