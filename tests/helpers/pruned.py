"""Chains whose old bodies are not there, as after a fast sync."""

from __future__ import annotations

from moderntensor.blockchain import tables
from moderntensor.blockchain.chain import Blockchain
from moderntensor.storage import Store

BODY_TABLES = (tables.BODIES, tables.TX_INDEX, tables.ADDRESS_INDEX)


def pruned(source: Blockchain, earliest: int, store: Store) -> Blockchain:
    """A copy of a chain in an empty store, without what the blocks below `earliest` brought but
    their headers and the state."""
    with source.store.read() as txn:
        rows = {name: txn.range(name) for name in tables.TABLES}
    with store.write() as txn:
        for name, found in rows.items():
            txn.put_many(name, [row for row in found if _stays(name, *row, earliest)])
        txn.put(tables.META, tables.META_EARLIEST, tables.height_key(earliest))
    return Blockchain(store, source.config)


def _stays(table: str, key: bytes, value: bytes, earliest: int) -> bool:
    if table == tables.BODIES:
        return tables.parse_height(key) >= earliest
    if table == tables.TX_INDEX:
        return tables.parse_height(value) >= earliest
    if table == tables.ADDRESS_INDEX:
        return tables.parse_address_key(key)[0] >= earliest
    return True


def bodies_and_indices(chain: Blockchain) -> dict[str, list[tuple[bytes, bytes]]]:
    """All that the bodies of a chain leave in its store."""
    with chain.store.read() as txn:
        return {name: txn.range(name) for name in BODY_TABLES}
