"""A snapshot: the accounts of one state in the order of their keys, and the upper part of its tree.

The file is one page of 4,096 bytes (magic, what it is an image of, counts, SHA-256 of all that
follows, zeros, SHA-256 of the page before that), the accounts (108 bytes each), and the nodes of
subtrees with more than `NODE_FLOOR` accounts (depth u8 ‖ prefix ‖ node, 113 bytes), ascending.
Nodes of smaller subtrees are computed when they are asked for.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Sequence
from struct import Struct
from typing import Final, NamedTuple

from ...backend import merkle
from ...errors import StorageError
from ..tables import node_key, subtree_end
from .image import Image

__all__ = [
    "NODE_FLOOR",
    "PAGE",
    "RECORD_SIZE",
    "ROW_SIZE",
    "Snapshot",
    "SnapshotInfo",
    "encode_page",
]

NODE_FLOOR: Final = 64  # accounts; as far down as a newer state is compared with an older one
PAGE: Final = 4096
RECORD_SIZE: Final = 108  # address ‖ account
ROW_SIZE: Final = 113  # depth ‖ prefix ‖ node
_MAGIC: Final = b"moderntensor/snapshot/1\n"
_FIELDS: Final = Struct(">24sQ32s32sQQ32s")  # magic, SnapshotInfo, nodes, SHA-256 of the content
_ADDRESS: Final = 20
_NODE_KEY: Final = 33
_DIGEST: Final = 32
# Of each so many records and rows the first key is held in memory: 0.4 MiB for 3 million accounts.
# What is asked for is then one read of the file.
_RECORD_STEP: Final = 512
_ROW_STEP: Final = 64
# Read at once on opening: whole steps of either kind.
_RECORDS_READ: Final = 16 * _RECORD_STEP
_ROWS_READ: Final = 128 * _ROW_STEP


class SnapshotInfo(NamedTuple):
    """What a snapshot is an image of: the state after a block."""

    height: int
    block_hash: bytes
    state_root: bytes
    accounts: int


class _Page(NamedTuple):
    info: SnapshotInfo
    nodes: int
    digest: bytes


def encode_page(info: SnapshotInfo, nodes: int, digest: bytes) -> bytes:
    """The first page of a snapshot with so many nodes, the SHA-256 of whose content is `digest`."""
    fields = _FIELDS.pack(_MAGIC, *info, nodes, digest)
    page = fields.ljust(PAGE - _DIGEST, b"\0")
    return page + hashlib.sha256(page).digest()


def _decode_page(image: Image) -> _Page:
    if image.size < PAGE:
        raise StorageError(f"a snapshot of {image.size} bytes")
    page = image.read(0, PAGE)
    magic, height, block_hash, state_root, accounts, nodes, digest = _FIELDS.unpack_from(page)
    if magic != _MAGIC:
        raise StorageError("not a snapshot, or of another version")
    info = SnapshotInfo(height, block_hash, state_root, accounts)
    if page != encode_page(info, nodes, digest):
        raise StorageError("the first page of the snapshot is damaged")
    size = PAGE + RECORD_SIZE * accounts + ROW_SIZE * nodes
    if image.size != size:
        raise StorageError(f"a snapshot of {image.size} bytes that must have {size}")
    return _Page(info, nodes, digest)


class Snapshot:
    """The image of one state, open for reading on any thread."""

    def __init__(self, image: Image) -> None:
        """Open `image`, whose content is checked by `checking` before anything is asked of it.

        StorageError, and nothing is closed, where it is no snapshot, or its first page is damaged.
        """
        page = _decode_page(image)
        self.info: Final = page.info
        self._image = image
        self._rows = page.nodes
        self._digest = page.digest
        self._rows_at = PAGE + RECORD_SIZE * page.info.accounts
        self._record_keys: list[bytes] = []
        self._row_keys: list[bytes] = []

    @classmethod
    def opening(cls, image: Image) -> Generator[None, None, Snapshot]:
        """A snapshot whose content is what was written: steps of a MiB or so, then the result.
        Raises `StorageError`, and closes the image, where it is not."""
        try:
            snapshot = cls(image)
            yield from snapshot.checking()
        except BaseException:
            image.close()
            raise
        return snapshot

    def checking(self) -> Generator[None, None, None]:
        """Read all of it once, pausing after every MiB or so. StorageError where it is damaged:
        an altered account would convict us before those who ask for it."""
        digest = hashlib.sha256()
        record_keys: list[bytes] = []
        row_keys: list[bytes] = []
        accounts = self.info.accounts
        for first in range(0, accounts, _RECORDS_READ):
            count = min(_RECORDS_READ, accounts - first)
            data = self._image.read(PAGE + RECORD_SIZE * first, RECORD_SIZE * count)
            digest.update(data)
            record_keys += (_key(data, i) for i in range(0, count, _RECORD_STEP))
            yield
        for first in range(0, self._rows, _ROWS_READ):
            count = min(_ROWS_READ, self._rows - first)
            data = self._image.read(self._rows_at + ROW_SIZE * first, ROW_SIZE * count)
            digest.update(data)
            row_keys += (_row_key(data, i) for i in range(0, count, _ROW_STEP))
            yield
        if digest.digest() != self._digest:
            raise StorageError("the content of the snapshot is damaged")
        self._record_keys, self._row_keys = record_keys, row_keys

    def records(self, depth: int, prefix: bytes, most: int) -> bytes | None:
        """The accounts under a prefix, whose bits beyond `depth` are zero, 108 bytes each,
        ascending by key; None if they are more than `most`. One read of at most 1,024 more."""
        keys = self._record_keys
        end = subtree_end(depth, prefix)
        low = max(0, bisect_right(keys, prefix) - 1)
        high = len(keys) if end is None else bisect_left(keys, end)
        if (high - low - 2) * _RECORD_STEP > most:
            return None
        first = low * _RECORD_STEP
        count = min(high * _RECORD_STEP, self.info.accounts) - first
        if count <= 0:
            return b""
        data = self._image.read(PAGE + RECORD_SIZE * first, RECORD_SIZE * count)

        def key_at(i: int) -> bytes:
            return _key(data, i)

        start = bisect_left(range(count), prefix, key=key_at)
        stop = count if end is None else bisect_left(range(count), end, lo=start, key=key_at)
        if stop - start > most:
            return None
        return data[start * RECORD_SIZE : stop * RECORD_SIZE]

    def node(self, depth: int, prefix: bytes) -> bytes | None:
        """The node at a path, 80 bytes; None where there are fewer than two accounts."""
        found = self.nodes(((depth, prefix),))
        return found[0] if found else None

    def nodes(
        self, paths: Sequence[tuple[int, bytes]], most_computed: int | None = None
    ) -> list[bytes]:
        """As `node`, of each path up to the first that has none, or that would be one more to
        compute than `most_computed`; fastest in ascending order."""
        found = []
        computed = 0
        page, rows = -1, b""
        for depth, prefix in paths:
            key = node_key(depth, prefix)
            at = bisect_right(self._row_keys, key) - 1
            if at >= 0 and at != page:
                first = at * _ROW_STEP
                count = min(_ROW_STEP, self._rows - first)
                page, rows = (
                    at,
                    self._image.read(self._rows_at + ROW_SIZE * first, ROW_SIZE * count),
                )
            node = _find(rows, key) if at >= 0 else None
            if node is None:
                if computed == most_computed:
                    break
                computed += 1
                node = self._small_node(depth, prefix)
            if node is None:
                break
            found.append(node)
        return found

    def _small_node(self, depth: int, prefix: bytes) -> bytes | None:
        records = self.records(depth, prefix, NODE_FLOOR)
        if records is None:
            raise StorageError(f"the snapshot lacks its node {prefix.hex()}/{depth}")
        if len(records) < 2 * RECORD_SIZE:
            return None
        built = merkle.state_records(records, depth, prefix, 1, rows=False)
        return dict(built[2])[node_key(depth, prefix)]

    def close(self) -> None:
        """Close the image. Idempotent; nobody may be reading."""
        self._image.close()


def _key(records: bytes, i: int) -> bytes:
    return hashlib.sha256(records[i * RECORD_SIZE : i * RECORD_SIZE + _ADDRESS]).digest()


def _row_key(rows: bytes, i: int) -> bytes:
    return rows[i * ROW_SIZE : i * ROW_SIZE + _NODE_KEY]


def _find(rows: bytes, key: bytes) -> bytes | None:
    count = len(rows) // ROW_SIZE
    at = bisect_left(range(count), key, key=lambda i: _row_key(rows, i))
    if at == count or _row_key(rows, at) != key:
        return None
    return rows[at * ROW_SIZE + _NODE_KEY : (at + 1) * ROW_SIZE]
