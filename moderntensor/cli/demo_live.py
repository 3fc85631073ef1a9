"""The last act of the demo: blocks made while all nodes watch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ..blockchain.block import Block
from ..blockchain.chain import HeadChanged
from ..blockchain.crypto import KeyPair
from ..blockchain.producer import BlockProducer
from ..blockchain.transaction import Transaction
from ..errors import ModernTensorError
from ..node import FullNode
from ..runtime import Runtime
from .demo_display import Display, LiveBlock

GOSSIP_PATIENCE: Final = 15.0  # seconds for a live block to reach every node


async def live_block(
    number: int,
    nodes: list[FullNode],
    validators: list[KeyPair],
    owners: list[KeyPair],
    display: Display,
    runtime: Runtime,
) -> LiveBlock:
    """A transaction enters at the last node; whoever owns the next slot makes a block of it.

    `nodes` begin with those of the validators, in their order.
    """
    if number == 0:
        display.say("live: transactions enter at the last node, those that serve make the blocks")
    fresh = nodes[-1]
    sender, recipient = owners[number % len(owners)], owners[(number + 1) % len(owners)]
    transaction = Transaction.create(
        sender,
        chain_id=fresh.chain.config.chain_id,
        nonce=fresh.chain.get_account(sender.address).nonce,
        to=recipient.address,
        value=1,
    )
    await fresh.p2p.broadcast_transaction(transaction)
    config = fresh.chain.config
    slot = max(config.slot_of(int(runtime.wall_time())), config.slot_of(fresh.chain.head.timestamp))
    slot += 1
    begins = config.timestamp + slot * config.block_time
    await asyncio.sleep(max(0.0, begins - runtime.wall_time()))
    turn = slot % len(validators)
    maker = nodes[turn]
    producer = BlockProducer(maker.chain, maker.mempool, validators[turn], maker.runtime)
    block = await maker.runtime.run_writer(producer.produce, begins)
    made = runtime.loop_time()
    with _watching(nodes) as moved:
        await maker.p2p.broadcast_block(block)
        await _everywhere(block, nodes, moved)
    seen = LiveBlock(
        block.height,
        turn,
        len(block.transactions),
        transaction.hash in {included.hash for included in block.transactions},
        runtime.loop_time() - made,
    )
    display.live(seen)
    return seen


@contextmanager
def _watching(nodes: list[FullNode]) -> Iterator[asyncio.Event]:
    """An event that is set whenever the head of one of the nodes moves."""
    moved = asyncio.Event()
    loop = asyncio.get_running_loop()

    def head_changed(_: HeadChanged) -> None:
        loop.call_soon_threadsafe(moved.set)  # the chain calls on its writing thread

    endings = [node.chain.subscribe(head_changed) for node in nodes]
    try:
        yield moved
    finally:
        for unsubscribe in endings:
            unsubscribe()


async def _everywhere(block: Block, nodes: list[FullNode], moved: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(GOSSIP_PATIENCE):
            while any(node.chain.head.hash != block.hash for node in nodes):
                await moved.wait()
                moved.clear()
    except TimeoutError:
        behind = sum(node.chain.head.hash != block.hash for node in nodes)
        raise ModernTensorError(
            f"block {block.height} did not reach {behind} of {len(nodes)} nodes within "
            f"{GOSSIP_PATIENCE:g} s"
        ) from None
