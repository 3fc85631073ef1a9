"""News of blocks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import isqrt
from typing import TypeAlias

from ...blockchain.block import Block, BlockHeader
from ...blockchain.chain import Blockchain
from ...blockchain.chain_types import HeadChanged
from ...blockchain.transaction import TRANSACTION_GAS
from ...errors import InvalidBlockError, ProtocolViolationError, ValidationError
from ..blame import is_late, offence_of_rule
from ..budget import Kind
from ..clock import ClockOffset
from ..host import Host
from ..limits import (
    ANNOUNCED_BLOCKS_PER_PEER,
    ANNOUNCED_BLOCKS_WAITING,
    BLOCK_PUSH_MIN,
    FAR_AHEAD,
    HEADS_WAITING,
)
from ..messages import DisconnectCode, MessageCodec, NewBlockHashesMessage, NewBlockMessage
from ..offences import Offence
from ..peer import Peer
from .completion import Completion
from .early import EarlyBlocks
from .headers import Verdict, judge_header
from .score import NewsScore
from .transactions import TransactionGossip

__all__ = ["BlockGossip", "BlockHook", "ClaimHook"]

logger = logging.getLogger(__name__)

BlockHook: TypeAlias = Callable[[Block, Peer], Awaitable[object]]
"""``async def hook(block, peer)``: imports a block that `peer` announced."""
ClaimHook: TypeAlias = Callable[[Peer], object]
"""``hook(peer)``: what `peer` has announced leads beyond what can be imported as it comes."""

_COMPACT_RUN = 2  # blocks that moved the head in one commit; more are a sync, not news


class BlockGossip:
    """Completes what peers announce and imports it; announces what becomes the head.

    `hook`, if set, imports in our place. A block whose parent is not known, or that is far ahead
    of the head, is only noted as its sender's claim, and `claim_hook` is told: to fill the gap is
    the sync's work.
    """

    def __init__(
        self, host: Host, transactions: TransactionGossip, score: NewsScore, clock: ClockOffset
    ) -> None:
        self._host = host
        self._transactions = transactions
        self._score = score
        self._clock = clock
        self.hook: BlockHook | None = None
        self.claim_hook: ClaimHook | None = None
        self._chain: Blockchain | None = None
        self._heads: list[HeadChanged] = []
        self._wake = asyncio.Event()
        self._waiting: dict[bytes, Completion] = {}  # blocks being completed
        self._early = EarlyBlocks(host, self._begin)
        self.held = 0  # bytes of memory, for all of them
        self._most = host.budget.caps[Kind.BLOCKS]
        host.budget.watch(Kind.BLOCKS, lambda: self.held)

    def follow(self, chain: Blockchain) -> None:
        """The chain whose head is news."""
        self._chain = chain
        self._clock.block_time = chain.config.block_time
        self._heads.clear()
        self._wake.set()

    def forget(self) -> None:
        """A new life: what was being completed when the last one ended never will be."""
        self._waiting.clear()
        self._early.clear()
        self.held = 0

    # --- out -------------------------------------------------------------------------------

    async def wait_for_early(self) -> None:
        """Ask again for what came before its time, when it has come, until cancelled."""
        await self._early.run()

    async def run(self) -> None:
        """Announce what becomes the head until cancelled."""
        while True:
            if self._chain is None:
                await self._wake.wait()
                self._wake.clear()
            else:
                await self._announce_heads(self._chain)

    async def _announce_heads(self, chain: Blockchain) -> None:
        """Until another chain is followed."""
        loop = asyncio.get_running_loop()

        def on_head_changed(event: HeadChanged) -> None:  # on the writing thread
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._head_changed, event)

        unsubscribe = chain.subscribe(on_head_changed)
        try:
            while self._chain is chain:
                await self._wake.wait()
                self._wake.clear()
                heads, self._heads = self._heads, []
                for event in heads:
                    await self._announce(chain, event)
        finally:
            unsubscribe()

    def _head_changed(self, event: HeadChanged) -> None:
        self._heads.append(event)
        del self._heads[:-HEADS_WAITING]  # of a long queue only the newest is still news
        self._wake.set()

    async def _announce(self, chain: Blockchain, event: HeadChanged) -> None:
        self._transactions.head_moved()
        height, block_hash = event.head.height, event.head.hash
        behind = [
            peer
            for peer in self._host.table
            if peer.best_height < height and block_hash not in peer.known_blocks
        ]
        if not behind:
            return
        if len(event.applied) > _COMPACT_RUN:
            self._send_hashes(behind, block_hash, height)
            return
        for _, applied in event.applied:
            block = await self._host.runtime.run(chain.get_block, applied)
            if block is not None:
                self._send_block(block, behind)

    def publish(self, block: Block) -> int:
        """Announce a block to all peers that do not know it; to how many."""
        return self._send_block(block, list(self._host.table))

    def _send_block(self, block: Block, peers: list[Peer]) -> int:
        """Compact to some, by hash to the rest."""
        block_hash = block.hash
        targets = [p for p in peers if block_hash not in p.known_blocks and not p.closed]
        if not targets:
            return 0
        self._host.runtime.random.shuffle(targets)
        compact = max(BLOCK_PUSH_MIN, isqrt(len(targets)))
        frame = MessageCodec.encode(
            NewBlockMessage(
                header=block.header, transaction_ids=tuple(tx.hash for tx in block.transactions)
            )
        )
        sent = 0
        for peer in targets[:compact]:
            if peer.offer(frame):
                peer.known_blocks.add(block_hash)
                sent += 1
        return sent + self._send_hashes(targets[compact:], block_hash, block.height)

    def _send_hashes(self, peers: list[Peer], block_hash: bytes, height: int) -> int:
        if not peers:
            return 0
        frame = MessageCodec.encode(NewBlockHashesMessage(hashes=((block_hash, height),)))
        sent = 0
        for peer in peers:
            if peer.offer(frame):
                peer.known_blocks.add(block_hash)
                sent += 1
        return sent

    # --- in --------------------------------------------------------------------------------

    async def on_block(self, peer: Peer, message: NewBlockMessage) -> None:
        """NEW_BLOCK has come."""
        header, ids = message.header, message.transaction_ids
        chain, known = self._host.chain, peer.known_blocks
        news = known.hear(header.hash)
        if known.repeats:
            self._score.repeats(peer, known)
        if not news or chain is None:
            return  # a block that it has sent before, or had from us, is no news
        self._refuse_invalid(chain, header.hash, header.height)
        if header.height > chain.head.height + FAR_AHEAD:
            self._claimed(peer, header.height, header.hash)
            return
        if len(ids) > chain.config.gas_limit // TRANSACTION_GAS:
            raise ProtocolViolationError(
                DisconnectCode.BAD_BLOCK, f"{len(ids)} transactions in a block", Offence.BAD_BLOCK
            )
        if await self._judge(peer, header, self._host.runtime.wall_time()):
            self._begin(peer, header.hash, header.height, header, ids)

    async def on_hashes(self, peer: Peer, message: NewBlockHashesMessage) -> None:
        """NEW_BLOCK_HASHES has come: fetch the highest; what is below it the sync will."""
        known, news = peer.known_blocks, None
        for item in message.hashes:
            if known.hear(item[0]) and (news is None or item[1] > news[1]):
                news = item
        if known.repeats:
            self._score.repeats(peer, known)
        chain = self._host.chain
        if chain is None or news is None:
            return
        block_hash, height = news
        self._refuse_invalid(chain, block_hash, height)
        if block_hash == chain.head.hash:
            self._clock.sample(peer, chain.head.timestamp - self._host.runtime.wall_time())
        if await self._host.runtime.run(chain.height_of, block_hash) is not None:
            return
        if height > chain.head.height + FAR_AHEAD:
            self._claimed(peer, height, block_hash)
            return
        peer.claims(height, block_hash)
        self._begin(peer, block_hash, height)

    @staticmethod
    def _refuse_invalid(chain: Blockchain, block_hash: bytes, height: int) -> None:
        if chain.is_invalid(block_hash):
            raise ProtocolViolationError(
                DisconnectCode.BAD_BLOCK,
                f"announces block {height}, which is invalid",
                Offence.INVALID_CHAIN,
            )

    def _claimed(self, peer: Peer, height: int, block_hash: bytes) -> None:
        peer.claims(height, block_hash)
        if self.claim_hook is not None:
            self.claim_hook(peer)

    async def _judge(self, peer: Peer, header: BlockHeader, told_at: float) -> bool:
        """Whether the block of a header that `peer` showed at `told_at` (wall clock) is worth
        completing. If not, all that follows from the header is done."""
        chain, waiting = self._host.chain, self._waiting
        if chain is None:
            return False
        if (under_way := waiting.get(header.hash)) is not None and under_way.header is not None:
            verdict = Verdict.GOOD  # as somebody else's was: a hash names one header
        else:
            try:
                runtime = self._host.runtime
                verdict = await runtime.run(judge_header, chain, header, runtime.signatures)
            except ValidationError as error:
                self._blame(peer, error, header.height)
                return False
        match verdict:
            case Verdict.EARLY:
                self._clock.sample(peer, header.timestamp - told_at)
                due = header.timestamp - chain.config.rules.max_drift
                self._early.hold(peer, header.hash, header.height, due)
                return False
            case Verdict.KNOWN:
                if header.hash == chain.head.hash:
                    self._clock.sample(peer, header.timestamp - told_at)
                return False
            case Verdict.STRAY if header.previous_hash not in waiting:
                self._score.stray(peer, header, chain.config.block_time)
                self._claimed(peer, header.height, header.hash)
                return False
        peer.claims(header.height, header.hash)
        return True

    def _begin(
        self,
        peer: Peer,
        block_hash: bytes,
        height: int,
        header: BlockHeader | None = None,
        ids: tuple[bytes, ...] | None = None,
    ) -> None:
        """`peer` has a block that is worth completing."""
        completion = self._waiting.get(block_hash)
        if completion is not None:
            completion.told(peer, height, header, ids)
        elif (
            len(self._waiting) < ANNOUNCED_BLOCKS_WAITING
            and sum(other.begun_by is peer for other in self._waiting.values())
            < ANNOUNCED_BLOCKS_PER_PEER
        ):
            completion = Completion(
                self._host, self, self._score, self._judge, peer, block_hash, height
            )
            self._waiting[block_hash] = completion
            completion.told(peer, height, header, ids)
            self._host.tasks.start(self._complete(completion), f"block {height} of {peer.address}")
        else:  # no room for it: the sync has
            self._claimed(peer, height, block_hash)

    async def _complete(self, completion: Completion) -> None:
        """Get the block, and import it after the one that it stands on."""
        try:
            completed = await completion.run()
            if completed is None:  # the sync asks others than those who announced it
                if self.claim_hook is not None:
                    self.claim_hook(completion.begun_by)
                return
            block, peer = completed
            peer.last_block_at = self._host.runtime.loop_time()
            if self._chain is not None and block.height > self._chain.head.height:
                for teller in completion.tellers:
                    self._clock.sample(teller.peer, block.header.timestamp - teller.told_at)
            below = self._waiting.get(block.header.previous_hash)
            if below is not None:
                await below.done.wait()
            await self._import(block, peer)
        finally:
            del self._waiting[completion.block_hash]
            completion.close()

    async def _import(self, block: Block, peer: Peer) -> None:
        chain = self._host.chain
        try:
            if self.hook is not None:
                await self.hook(block, peer)
            elif chain is not None:
                await self._host.runtime.run_writer(chain.import_block, block)
        except ValidationError as error:
            self._blame(peer, error, block.height)

    def _blame(self, peer: Peer, error: ValidationError, height: int) -> None:
        """What it costs a peer to have told of a block of this height that was refused."""
        chain, offence = self._host.chain, offence_of_rule(error)
        if offence is None or (chain is not None and is_late(error, height, chain.head.height)):
            logger.debug("a block of %s: %s", peer, error)
            return
        if offence is Offence.FORKS_TOO_DEEP:
            peer.log(logging.ERROR, "is on a chain that we cannot follow: %s", error)
        elif isinstance(error, InvalidBlockError) and error.rule == "ancestor":
            offence = Offence.INVALID_CHAIN
        peer.punish(offence, str(error))

    # --- what completions share --------------------------------------------------------------

    def relayed(self, tx_hash: bytes) -> bytes | None:
        """A transaction that was passed on lately, encoded."""
        return self._transactions.relayed(tx_hash)

    def hold(self, size: int) -> bool:
        """Whether there is room for so many bytes more; if so, they are counted."""
        if self.held + size > self._most:
            return False
        self.held += size
        return True

    def release(self, size: int) -> None:
        """They are held no more."""
        self.held -= size
