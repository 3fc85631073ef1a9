"""Chains of several hundred accounts with a snapshot every few blocks, and what is in one."""

from __future__ import annotations

import dataclasses
from hashlib import sha256

from helpers import state_reference
from helpers.forks import ChainMaker, State, state_root
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.snapshots import RECORD_SIZE, Snapshot, SnapshotKeeper

INTERVAL = 8
ALL = (0, bytes(32))


class CrowdedMaker(ChainMaker):
    """Besides the usual accounts there are 300 others, some with keys close to each other."""

    def __init__(self, spread: int = 300) -> None:
        """`spread` others with keys anywhere."""
        super().__init__()
        close = [n for numbers in state_reference.SHARED.values() for n in numbers]
        numbers = [*range(spread), *close]
        self.others = [n.to_bytes(20, "big") for n in numbers]
        alloc = {**self.config.alloc, **dict.fromkeys(self.others, 1)}
        self.config = dataclasses.replace(self.config, alloc=alloc, snapshot_interval=INTERVAL)
        self.genesis = Block(header=self.config.genesis_header)
        self.states = {self.genesis.hash: {a: (0, balance) for a, balance in alloc.items()}}
        self.blocks = {self.genesis.hash: self.genesis}

    def grow(self, parent: Block, count: int, salt: int = 0, transfers: int = 3) -> list[Block]:
        """Blocks whose transfers go to some of the others and to new accounts."""
        made = []
        for _ in range(count):
            height = parent.header.height + 1
            to = [
                self.others[(height * 31 + salt * 7 + i * 101) % len(self.others)]
                if i % 3
                else sha256(b"%d %d %d" % (height, salt, i)).digest()[:20]
                for i in range(transfers)
            ]
            parent = self.block(
                parent,
                [self.transfer(parent, i % 4, address, i // 4) for i, address in enumerate(to)],
                gap=1 + salt,
            )
            made.append(parent)
        return made


def records_of(state: State) -> bytes:
    """What a snapshot of this state must hold."""
    return state_reference.records(
        {address: state_reference.account(*funds) for address, funds in state.items()}
    )


def check_snapshot(snapshot: Snapshot, maker: ChainMaker, block: Block) -> None:
    """It is the image of the state after `block`."""
    state = maker.states[block.hash]
    assert snapshot.info == (
        block.header.height,
        block.hash,
        state_root(state),
        len(state),
    )
    records = snapshot.records(*ALL, 10**9)
    assert records == records_of(state)
    assert len(records or b"") == RECORD_SIZE * len(state)
    keyed = state_reference.keyed(
        {address: state_reference.account(*funds) for address, funds in state.items()}
    )
    nodes = {(depth, prefix): node for depth, prefix, node in state_reference.nodes(keyed, 0, 1)}
    assert snapshot.nodes([*nodes]) == [*nodes.values()]
    assert all(snapshot.node(*path) == node for path, node in nodes.items())


def check_announced(keeper: SnapshotKeeper, maker: ChainMaker, *heights: int) -> None:
    """Exactly the snapshots of these heights are announced, and each is right."""
    assert [height for height, _ in keeper.announced] == list(heights)
    for _, block_hash in keeper.announced:
        with keeper.lend(block_hash) as snapshot:
            assert snapshot is not None
            check_snapshot(snapshot, maker, maker.blocks[block_hash])
