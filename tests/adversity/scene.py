"""The chain that all of a test's processes know: made the same way in each of them."""

from __future__ import annotations

from functools import cache

from helpers.forks import VALIDATORS, ChainMaker

from moderntensor.blockchain.block import Block

HEIGHT = 48  # of the live node's chain at the beginning
TRANSFERS = 2  # in each of its blocks
REORG_DEPTH = 32  # so that a fork below it is quickly made
CHECKPOINT = 4  # height that the live node trusts


@cache
def maker() -> ChainMaker:
    return ChainMaker(VALIDATORS, max_reorg_depth=REORG_DEPTH)


@cache
def chain() -> tuple[Block, ...]:
    """The blocks above the genesis block, ascending. Every second slot is free for forks."""
    blocks = maker().run(maker().genesis, 1, gap=2, transfers=TRANSFERS)
    while len(blocks) < HEIGHT:
        blocks += maker().run(blocks[-1], 1, gap=2, transfers=TRANSFERS)
    return tuple(blocks)
