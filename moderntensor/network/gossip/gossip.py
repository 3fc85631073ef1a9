"""What is new: taken in from peers, checked, and passed on to those who do not know it."""

from __future__ import annotations

import asyncio

from ...blockchain.block import Block
from ...blockchain.chain import Blockchain
from ...blockchain.transaction import Transaction
from ...errors import ConfigError
from ..clock import ClockOffset
from ..host import Host
from ..messages import Message, MessageCodec, MessageType, Request
from ..protocol import FIRST_EXTENSION_TYPE
from .blocks import BlockGossip, BlockHook, ClaimHook
from .score import NewsScore
from .transactions import TransactionGossip

__all__ = ["BlockHook", "ClaimHook", "Gossip"]


class Gossip:
    """News of transactions and blocks. A thing goes at most once to a peer, and never back."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._in_turn = False  # something was sent to all in this turn of the loop
        score = NewsScore(host)
        self.clock = ClockOffset(host.config, host.runtime)
        self.transactions = TransactionGossip(host, score)
        self.blocks = BlockGossip(host, self.transactions, score, self.clock)
        host.router.add(
            MessageType.NEW_TRANSACTION,
            self.transactions.on_news,
            at_once=self.transactions.on_announced,
        )
        host.router.add(MessageType.NEW_BLOCK, self.blocks.on_block)
        host.router.add(MessageType.NEW_BLOCK_HASHES, self.blocks.on_hashes)

    async def run(self) -> None:
        """Pass on what is new until cancelled."""
        self.transactions.forget()
        self.blocks.forget()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.transactions.run())
            group.create_task(self.transactions.run_later())
            group.create_task(self.transactions.look_after_pool())
            group.create_task(self.blocks.run())
            group.create_task(self.blocks.wait_for_early())

    def broadcast(self, message: Message) -> int:
        """Send a message that is no request to all peers that take it; to how many."""
        if isinstance(message, Request):
            raise TypeError(f"{type(message).__name__} is a request, and those go to one peer")
        frame = MessageCodec.encode(message)
        if message.TYPE < FIRST_EXTENSION_TYPE:
            now = self._begins_turn()
            return sum(peer.offer(frame, now=now) for peer in self._host.table)
        if type(message) not in self._host.router.extensions.owners:
            raise ConfigError(f"{type(message).__name__} belongs to no extension of this node")
        now = self._begins_turn()
        return sum(peer.offer_message(message, frame, now=now) for peer in self._host.table)

    def _begins_turn(self) -> bool:
        """Whether this is the first message to all in this turn of the loop: it may be the only
        one, and leaves at once. Those that follow share their writes."""
        if self._in_turn:
            return False
        self._in_turn = True
        asyncio.get_running_loop().call_soon(self._end_turn)
        return True

    def _end_turn(self) -> None:
        self._in_turn = False

    async def broadcast_transaction(self, tx: Transaction) -> int:
        """Into the mempool, if there is one, and to all peers that do not know it."""
        mempool = self._host.mempool
        if mempool is not None:
            await self._host.runtime.run(mempool.add, tx)
        return self.transactions.publish(tx)

    def broadcast_block(self, block: Block) -> int:
        """To all peers that do not know it."""
        return self.blocks.publish(block)

    def relayed(self, tx_hash: bytes) -> bytes | None:
        """A transaction that was passed on lately, encoded."""
        return self.transactions.relayed(tx_hash)

    def attach(self, chain: Blockchain) -> None:
        """What is new from now on is news of this chain."""
        self.blocks.follow(chain)

    @property
    def on_new_block(self) -> BlockHook | None:
        """Takes complete new blocks in place of a plain import."""
        return self.blocks.hook

    @on_new_block.setter
    def on_new_block(self, hook: BlockHook | None) -> None:
        self.blocks.hook = hook

    @property
    def on_claim(self) -> ClaimHook | None:
        """Told of peers who have announced more than can be imported as it comes."""
        return self.blocks.claim_hook

    @on_claim.setter
    def on_claim(self, hook: ClaimHook | None) -> None:
        self.blocks.claim_hook = hook
