"""The two places for a state in the store, of which one is the chain's.

A state that is fetched from others grows in the other one, in as many commits as it takes, while
the chain's own stays whole; the commit that adopts it makes its slot the active one. So whoever
reads or writes accounts asks first, in the same transaction, where they are.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ..storage import ReadTransaction, Store, WriteTransaction
from . import tables


class StateSlot(NamedTuple):
    """The tables of a state."""

    accounts: str
    nodes: str


SLOTS: Final = (
    StateSlot(tables.ACCOUNTS, tables.NODES),
    StateSlot(tables.ACCOUNTS_B, tables.NODES_B),
)


def active(txn: ReadTransaction) -> StateSlot:
    """Where the state of the executed chain is."""
    return SLOTS[_active_number(txn)]


def staging(txn: ReadTransaction) -> StateSlot:
    """The other one."""
    return SLOTS[1 - _active_number(txn)]


def switch(txn: WriteTransaction) -> None:
    """Make the other slot the active one."""
    txn.put(tables.META, tables.META_STATE, bytes((1 - _active_number(txn),)))
    # A program that knows one slot only would take the wrong accounts for the chain's.
    txn.put(tables.META, tables.META_SCHEMA, tables.SCHEMA_ADOPTED.to_bytes(4, "big"))


def clear_unused(store: Store) -> None:
    """Empty the slot that is not active, unless a state is being staged there.

    A table in a commit: whoever is killed meanwhile goes on where it was.
    """
    while _clear_one(store):
        pass


def _clear_one(store: Store) -> bool:
    """Empty a table that is to be empty; whether there was one."""
    with store.read() as read:
        if _doomed(read) is None:
            return False
    with store.write() as txn:
        table = _doomed(txn)
        if table is not None:
            txn.delete_range(table)
    return True


def _doomed(txn: ReadTransaction) -> str | None:
    """A table that is to be emptied and is not yet."""
    if txn.get(tables.META, tables.META_STAGING) is not None:
        return None
    candidates = (tables.HOLES, *staging(txn))
    return next((table for table in candidates if txn.first(table) is not None), None)


def _active_number(txn: ReadTransaction) -> int:
    return 1 if txn.get(tables.META, tables.META_STATE) == b"\1" else 0
