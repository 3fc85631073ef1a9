"""Reads LMDB's data file without mapping it, to tell whether it may be mapped at all.

LMDB maps the file and trusts it: a page beyond the file's end kills the process by SIGBUS. So
before it is opened, both meta pages must be sound and every page that the newest one speaks of
must be in the file.

A file may rightly be shorter than its last page says. A page that is taken at the end of the
file and freed within one transaction is never written, and stands in the list of free pages
instead. So where a file is short, each missing page must be on that list, which is a tree of
its own; nothing reads a free page before writing it.

A small file is also walked whole by the verifier that comes with the `lmdb` package, since other
damage can trip LMDB's assertions, which end the process as well. That takes a second per 100 MB,
too long for each start with a large one; there, damage that LMDB notices by itself is an error
when it is met.

The layout is that of data version 1 (LMDB 0.9) on a 64-bit machine, in its byte order.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from lmdb.verify import VerifyError, verify

from ..errors import StorageError

_FULL_CHECK: Final = 16 << 20  # bytes; walked in about 0.15 s

_MAGIC: Final = 0xBEEFC0DE
_DATA_VERSION: Final = 1
_NO_PAGE: Final = (1 << 64) - 1
_MIN_PAGE: Final = 256
_MAX_PAGE: Final = 0x10000
_MAX_DEPTH: Final = 32  # LMDB's own bound on a cursor's stack

_BRANCH: Final = 0x01
_LEAF: Final = 0x02
_META: Final = 0x08
_BIG: Final = 0x01  # flag of a leaf node: the value is on overflow pages

_PAGE: Final = struct.Struct("=QHHHH")  # number, padding, flags, lower, upper
_TREE: Final = struct.Struct("=IHHQQQQQ")  # pad, flags, depth, 3 counts, entries, root
_META_HEAD: Final = struct.Struct("=IIQQ")  # magic, version, address, map size
_META_TAIL: Final = struct.Struct("=QQ")  # last page, transaction
_NODE: Final = struct.Struct("=HHHH")  # low, high, flags, key size
_META_SIZE: Final = _PAGE.size + _META_HEAD.size + 2 * _TREE.size + _META_TAIL.size


class _Tree(NamedTuple):
    depth: int
    root: int


class Meta(NamedTuple):
    """What the newest sound meta page says."""

    page_size: int
    last_page: int
    transaction: int
    free: _Tree
    main: _Tree


def check_data_file(path: Path) -> Meta:
    """The newest meta page of the file at `path`; StorageError unless it is safe to map."""
    try:
        with path.open("rb") as file:
            data_file = _DataFile(file.fileno(), path)
            meta = data_file.check()
            if data_file.size <= _FULL_CHECK:
                data_file.walk()
            return meta
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error


class _DataFile:
    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self.size = os.fstat(fd).st_size
        self._page_size = 0
        self._pages = 0  # whole pages in the file
        self._last_page = 0

    def check(self) -> Meta:
        first = self._meta(0, 0)
        self._page_size = first.page_size
        second = self._meta(1, first.page_size)
        if second.page_size != first.page_size:
            raise self._corrupt("its meta pages disagree")
        if abs(second.transaction - first.transaction) > 1:  # each commit writes the older one
            raise self._corrupt("its meta pages are not of two commits in a row")
        newest = second if second.transaction > first.transaction else first
        self._pages = self.size // newest.page_size
        self._last_page = newest.last_page
        for tree in (newest.free, newest.main):
            if tree.root == _NO_PAGE:
                continue
            if not 2 <= tree.root <= newest.last_page or not 0 < tree.depth <= _MAX_DEPTH:
                raise self._corrupt("a root page is out of range")
        missing = newest.last_page + 1 - self._pages
        if missing > 0 and not self._all_free(newest, missing):
            raise self._corrupt(
                f"truncated: {self.size} bytes, of {newest.last_page + 1} pages "
                f"of {newest.page_size}"
            )
        return newest

    def walk(self) -> None:
        """StorageError unless every page that is in use is sound, and no page in two uses."""
        try:
            problems = verify(str(self._path), subdir=False)  # type: ignore[no-untyped-call]
        except (VerifyError, IndexError, struct.error) as error:
            raise self._corrupt(str(error)) from error
        if problems:
            raise self._corrupt(problems[0])

    def _meta(self, index: int, offset: int) -> Meta:
        data = os.pread(self._fd, _META_SIZE, offset)
        if len(data) < _META_SIZE:
            raise self._corrupt(f"truncated: {self.size} bytes")
        number, _, flags, _, _ = _PAGE.unpack_from(data)
        position = _PAGE.size
        magic, version, _, _ = _META_HEAD.unpack_from(data, position)
        if magic != _MAGIC or not flags & _META or number != index:
            raise self._corrupt(f"page {index} is no meta page of LMDB")
        if version != _DATA_VERSION:
            raise self._corrupt(f"LMDB data version {version}, not {_DATA_VERSION}")
        position += _META_HEAD.size
        free = _TREE.unpack_from(data, position)
        main = _TREE.unpack_from(data, position + _TREE.size)
        last_page, transaction = _META_TAIL.unpack_from(data, position + 2 * _TREE.size)
        page_size = free[0]
        if page_size & (page_size - 1) or not _MIN_PAGE <= page_size <= _MAX_PAGE:
            raise self._corrupt(f"page size {page_size}")
        # Transaction n writes meta page n & 1.
        if (transaction and transaction & 1 != index) or not 1 <= last_page < _NO_PAGE:
            raise self._corrupt(f"meta page {index} is damaged")
        return Meta(
            page_size, last_page, transaction, _Tree(free[2], free[7]), _Tree(main[2], main[7])
        )

    def _all_free(self, meta: Meta, missing: int) -> bool:
        if meta.free.root == _NO_PAGE:
            return False
        found: set[int] = set()
        for data in self._leaf_values(meta.free.root, meta.free.depth):
            found.update(
                page
                for (page,) in struct.iter_unpack("=Q", data[8:])
                if self._pages <= page <= meta.last_page
            )
        return len(found) == missing

    def _leaf_values(self, number: int, depth: int) -> Iterator[bytes]:
        """The values of a tree's leaves; StorageError where it leads out of the file."""
        page = self._page(number, 1)
        _, _, flags, lower, _ = _PAGE.unpack_from(page)
        if depth < 1 or flags & ~(_BRANCH | _LEAF) or flags != (_LEAF if depth == 1 else _BRANCH):
            raise self._corrupt(f"page {number} is not of the kind that its place asks for")
        count = (lower - _PAGE.size) // 2
        if not 0 <= count <= (self._page_size - _PAGE.size) // 2:
            raise self._corrupt(f"page {number} is damaged")
        for offset in struct.unpack_from(f"={count}H", page, _PAGE.size):
            if offset + _NODE.size > self._page_size:
                raise self._corrupt(f"page {number} is damaged")
            low, high, node_flags, key_size = _NODE.unpack_from(page, offset)
            if depth > 1:
                yield from self._leaf_values(low | high << 16 | node_flags << 32, depth - 1)
                continue
            size = low | high << 16
            start = offset + _NODE.size + key_size
            if node_flags & _BIG:
                if start + 8 > self._page_size:
                    raise self._corrupt(f"page {number} is damaged")
                (big,) = struct.unpack_from("=Q", page, start)
                pages = (_PAGE.size + size + self._page_size - 1) // self._page_size
                value = self._page(big, pages)[_PAGE.size : _PAGE.size + size]
            else:
                value = page[start : start + size]
            if len(value) != size or size % 8:
                raise self._corrupt(f"page {number} is damaged")
            yield value

    def _page(self, number: int, count: int) -> bytes:
        if number < 2 or number + count > min(self._pages, self._last_page + 1):
            raise self._corrupt(f"truncated: page {number} is missing")
        data = os.pread(self._fd, self._page_size * count, self._page_size * number)
        if len(data) != self._page_size * count or _PAGE.unpack_from(data)[0] != number:
            raise self._corrupt(f"page {number} is damaged")
        return data

    def _corrupt(self, what: str) -> StorageError:
        return StorageError(f"{self._path}: not a sound data file ({what}); nothing was changed")
