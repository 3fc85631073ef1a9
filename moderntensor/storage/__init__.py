"""Ordered bytes that survive: tables of keys and values behind one interface.

This package knows nothing of chains. `open_store` gives a store on disk or in memory; what a
store promises stands in `interface`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .gate import Gate
from .interface import MAX_KEY_SIZE, ReadTransaction, Store, WriteTransaction
from .lmdb_store import LmdbStore
from .memory import MemoryStore

__all__ = [
    "DEFAULT_MAP_SIZE",
    "MAX_KEY_SIZE",
    "MAX_MAP_SIZE",
    "Gate",
    "LmdbStore",
    "MemoryStore",
    "ReadTransaction",
    "Store",
    "WriteTransaction",
    "open_store",
]

# Address space, not disk or memory. The default holds years of blocks before it has to grow; the
# bound is a quarter of what 47 bits of user address space give a process.
DEFAULT_MAP_SIZE: Final = 64 << 30
MAX_MAP_SIZE: Final = 32 << 40


def open_store(
    path: str | Path | None,
    tables: Sequence[str],
    *,
    map_size: int = DEFAULT_MAP_SIZE,
    max_map_size: int = MAX_MAP_SIZE,
    format_id: str = "moderntensor/store/1",
) -> Store:
    """Open the store in the directory `path`, making it if there is none; None: in memory.

    `tables` names what it holds; those missing are made. `map_size` and `max_map_size` are
    bytes of address space. StorageError where the directory is in use, foreign, damaged or not
    accessible; nothing in it has been changed then.
    """
    if path is None:
        return MemoryStore(tables)
    return LmdbStore(
        Path(path),
        tables,
        map_size=map_size,
        max_map_size=max_map_size,
        format_id=format_id,
    )
