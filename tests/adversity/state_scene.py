"""A chain whose state is worth fetching, made the same way in every process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import Any

from helpers.forks import ACCOUNTS, VALIDATORS, ChainMaker, State

from moderntensor.blockchain.block import Block
from moderntensor.blockchain.transaction import Transaction

from .own_tree import OwnTree

STRANGERS = 9_000  # accounts of nobody that the chain begins with
INTERVAL = 32  # blocks between snapshots
FIRST, SECOND = 2 * INTERVAL, 3 * INTERVAL  # heights of snapshots
BEHIND = 68  # blocks above a snapshot that a node asks for before it takes it, and a few
HEIGHT = FIRST + BEHIND  # of the chain while the first is there
FULL_HEIGHT = SECOND + BEHIND
FIRST_TRANSFERS = 4  # blocks with transfers that lie below the first snapshot
MOVED = 12  # accounts of nobody that change between the snapshots
REORG_DEPTH = 32


class StateMaker(ChainMaker):
    """Its genesis block has the accounts of many; most of its blocks are empty."""

    def __init__(self) -> None:
        super().__init__(VALIDATORS, max_reorg_depth=REORG_DEPTH)
        strangers = {sha256(b"stranger %d" % n).digest()[:20]: n + 1 for n in range(STRANGERS)}
        self.strangers = tuple(strangers)
        self.config = replace(
            self.config,
            alloc={**self.config.alloc, **strangers},
            snapshot_interval=INTERVAL,
        )
        self.genesis = Block(header=self.config.genesis_header)
        state: State = {a: (0, balance) for a, balance in self.config.alloc.items()}
        self.states = {self.genesis.hash: state}
        self.blocks = {self.genesis.hash: self.genesis}
        self._last: tuple[Mapping[bytes, tuple[int, int]], OwnTree] = ({}, OwnTree({}))

    def block(self, parent: Block, transactions: Sequence[Transaction] = (), **k: Any) -> Block:
        made = super().block(parent, transactions, **k)
        if not transactions:  # thousands of accounts, once
            self.states[made.hash] = self.states[parent.hash]
        return made

    def tree(self, state: Mapping[bytes, tuple[int, int]]) -> OwnTree:
        """The tree over a state, made anew only when it has changed."""
        if self._last[0] != state:
            self._last = dict(state), OwnTree(state)
        return self._last[1]

    def root_of(self, state: State) -> bytes:
        return self.tree(state).root


@cache
def maker() -> StateMaker:
    return StateMaker()


@cache
def chain() -> tuple[Block, ...]:
    """The blocks above the genesis block: transfers below the first snapshot, one below the
    second, and one above each, so that none of these states is another's."""
    make = maker()
    tip = make.genesis
    blocks: list[Block] = []
    while len(blocks) < FULL_HEIGHT:
        height = tip.height + 1
        to: list[int | bytes] = []
        if height <= FIRST_TRANSFERS or height in (FIRST + 3, SECOND + 3):
            to = [1]
        elif height == FIRST + 5:
            to = list(make.strangers[:MOVED])
        transfers = [
            make.transfer(tip, n % len(ACCOUNTS), place, n // len(ACCOUNTS))
            for n, place in enumerate(to)
        ]
        tip = make.block(tip, transfers)
        blocks.append(tip)
    return tuple(blocks)


def tip(height: int) -> bytes:
    """The hash of a block."""
    return chain()[height - 1].hash


@cache
def tree_at(height: int) -> OwnTree:
    """Of the state after a block."""
    return maker().tree(maker().states[chain()[height - 1].hash])
