"""Adopt a state in a store, in a process that may be killed: `python adopt_state.py STORE GENESIS`.

The store holds the pending headers and the staged state already. Prints a line before the commit.
"""

from __future__ import annotations

import sys
from pathlib import Path

from moderntensor.blockchain import tables
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.staging import StateStaging
from moderntensor.storage import open_store


def main(store_path: Path, genesis: Path) -> None:
    with open_store(store_path, tables.TABLES, map_size=64 << 20) as store:
        chain = Blockchain(store, ChainConfig.load(genesis))
        chain.subscribe(lambda event: print("adopted", event.head.height, flush=True))
        print("ready", flush=True)
        chain.adopt_state(StateStaging(store))
        print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
