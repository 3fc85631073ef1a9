"""The first state of a chain whose genesis names its root alone, brought in as a whole."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import ConfigError
from ..storage import Store
from .genesis import ChainConfig
from .opening import open_chain
from .staging import StateStaging
from .state import state_is_here
from .state_build import Rows, build_state
from .state_slots import clear_unused, staging, switch


def load_state(store: Store, config: ChainConfig, chunks: Iterable[bytes]) -> int:
    """Fill the state of the chain in `store`, which has none yet, from all of its accounts; how
    many there are. Nobody else may use the store meanwhile.

    `chunks` are account records (address ‖ account, 108 bytes each) in the order of SHA-256 of
    their addresses, cut anywhere. The last commit makes them the state: of whoever is killed
    before, nothing is left. ValueError where the chain has a state; DecodeError for what is no
    account or is out of order; ConfigError where they do not lead to the genesis' root.
    """
    head = open_chain(store, config)
    with store.read() as read:
        if state_is_here(read, head.state_root):
            raise ValueError("the chain has its state")
        slot = staging(read)
    StateStaging(store).discard()

    def put(rows: Rows, nodes: Rows) -> None:
        with store.write() as txn:
            txn.append_many(slot.accounts, rows)
            txn.put_many(slot.nodes, nodes)

    try:
        root, count = build_state(chunks, put)
        if root != head.state_root:
            raise ConfigError(
                f"state_root: {head.state_root.hex()}, but these accounts lead to {root.hex()}"
            )
    except BaseException:
        clear_unused(store)
        raise
    with store.write() as txn:
        switch(txn)
    return count
