"""A process that applies blocks from a file to a store until it is done or killed.

`python apply_blocks.py STORE BLOCKS GENESIS`, where BLOCKS holds encoded blocks, each behind a
u32 length. Prints the head's height after each commit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from moderntensor.blockchain import tables
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.lookup import HeaderBatch
from moderntensor.storage import open_store

BATCH = 8


def write_blocks(path: Path, blocks: list[Block]) -> None:
    encoded = [block.encode() for block in blocks]
    path.write_bytes(b"".join(len(raw).to_bytes(4, "big") + raw for raw in encoded))


def read_blocks(path: Path) -> Iterator[Block]:
    data, at = path.read_bytes(), 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield Block.decode(data[at + 4 : at + 4 + size])
        at += 4 + size


def apply_all(chain: Blockchain, blocks: list[Block]) -> Iterator[int]:
    """From wherever the chain is to the last of the blocks."""
    headers = [block.header.encode() for block in blocks]
    while chain.head.height < len(blocks):
        head, known = chain.head.height, chain.header_head.height
        chain.add_headers(HeaderBatch.join(headers[known : known + 2 * BATCH]))
        chain.apply_bodies(head + 1, [block.body for block in blocks[head : head + BATCH]])
        yield chain.head.height


def main() -> None:
    store, blocks, genesis = (Path(argument) for argument in sys.argv[1:])
    todo = list(read_blocks(blocks))
    with open_store(store, tables.TABLES, map_size=64 << 20) as opened:
        for height in apply_all(Blockchain(opened, ChainConfig.load(genesis)), todo):
            print(height, flush=True)


if __name__ == "__main__":
    main()
