"""News of blocks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import isqrt
from typing import TypeAlias, cast

from ..blockchain.block import MAX_BLOCK_SIZE, Block, BlockHeader
from ..blockchain.chain import Blockchain
from ..blockchain.chain_types import HeadChanged
from ..blockchain.lookup import HeaderBatch
from ..blockchain.transaction import TRANSACTION_GAS, Transaction
from ..errors import (
    DecodeError,
    FinalityError,
    HeaderChainError,
    NetworkError,
    ProtocolViolationError,
    UnknownParentError,
    ValidationError,
)
from .gossip_transactions import TransactionGossip
from .host import Host
from .limits import (
    ANNOUNCED_BLOCKS_PER_PEER,
    ANNOUNCED_BLOCKS_WAITING,
    BLOCK_PUSH_MIN,
    FAR_AHEAD,
    FETCH_ALTERNATIVES,
    HEADS_WAITING,
)
from .messages import (
    BlocksMessage,
    DisconnectCode,
    GetBlocksMessage,
    MessageCodec,
    NewBlockHashesMessage,
    NewBlockMessage,
)
from .peer import Peer
from .protocol import MAX_TRANSACTIONS_ASKED

__all__ = ["BlockGossip", "BlockHook"]

logger = logging.getLogger(__name__)

BlockHook: TypeAlias = Callable[[Block, Peer], Awaitable[object]]
"""``async def hook(block, peer)``: imports a block that `peer` announced."""

_COMPACT_RUN = 2  # blocks that moved the head in one commit; more are a sync, not news


class BlockGossip:
    """Completes what peers announce and imports it; announces what becomes the head.

    `hook`, if set, imports in our place. A block that is far ahead of the head is only noted as
    its sender's claim: to fill the gap is the sync's work.
    """

    def __init__(self, host: Host, transactions: TransactionGossip) -> None:
        self._host = host
        self._transactions = transactions
        self.hook: BlockHook | None = None
        self._chain: Blockchain | None = None
        self._heads: list[HeadChanged] = []
        self._wake = asyncio.Event()
        # Blocks being completed, with others who announced the same: (peer, ids or None).
        self._waiting: dict[bytes, list[tuple[Peer, tuple[bytes, ...] | None]]] = {}

    def follow(self, chain: Blockchain) -> None:
        """The chain whose head is news."""
        self._chain = chain
        self._heads.clear()
        self._wake.set()

    def forget(self) -> None:
        """A new life: what was being completed when the last one ended never will be."""
        self._waiting.clear()

    # --- out -------------------------------------------------------------------------------

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
        header = message.header
        block_hash = header.hash
        chain = self._host.chain
        if not peer.known_blocks.add(block_hash) or chain is None:
            return  # a block that it has sent before, or had from us, is no news
        if not await self._is_news(chain, peer, block_hash, header.height):
            return
        if len(message.transaction_ids) > chain.config.gas_limit // TRANSACTION_GAS:
            raise ProtocolViolationError(
                DisconnectCode.BAD_BLOCK, f"{len(message.transaction_ids)} transactions in a block"
            )
        try:
            await self._host.runtime.run(_check_header, chain, header)
        except ValidationError as error:
            _blame(peer, error)
            return
        self._begin(peer, block_hash, message.transaction_ids, header)

    async def on_hashes(self, peer: Peer, message: NewBlockHashesMessage) -> None:
        """NEW_BLOCK_HASHES has come: fetch the highest; what is below it the sync will."""
        known, news = peer.known_blocks, None
        for item in message.hashes:
            if known.add(item[0]) and (news is None or item[1] > news[1]):
                news = item
        chain = self._host.chain
        if chain is None or news is None:
            return
        block_hash, height = news
        if await self._is_news(chain, peer, block_hash, height):
            self._begin(peer, block_hash, None, None, height)

    async def _is_news(self, chain: Blockchain, peer: Peer, block_hash: bytes, height: int) -> bool:
        """Whether a block is worth completing. Raises `ProtocolViolationError` for one that is
        known to be invalid."""
        if chain.is_invalid(block_hash):
            raise ProtocolViolationError(
                DisconnectCode.BAD_BLOCK, f"announces block {height}, which is invalid"
            )
        if await self._host.runtime.run(chain.height_of, block_hash) is not None:
            return False
        peer.claims(height, block_hash)
        return height <= chain.head.height + FAR_AHEAD

    def _begin(
        self,
        peer: Peer,
        block_hash: bytes,
        ids: tuple[bytes, ...] | None,
        header: BlockHeader | None,
        height: int = 0,
    ) -> None:
        others = self._waiting.get(block_hash)
        if others is not None:
            if len(others) < FETCH_ALTERNATIVES:
                others.append((peer, ids))
        elif (
            len(self._waiting) < ANNOUNCED_BLOCKS_WAITING
            and sum(first is peer for (first, _), *_ in self._waiting.values())
            < ANNOUNCED_BLOCKS_PER_PEER
        ):
            self._waiting[block_hash] = [(peer, ids)]
            height = header.height if header is not None else height
            self._host.tasks.start(
                self._complete(block_hash, height, header), f"block {height} of {peer.address}"
            )

    async def _complete(self, block_hash: bytes, height: int, header: BlockHeader | None) -> None:
        """Get the block from one after the other of those who announced it, and import it."""
        tried: set[Peer] = set()
        try:
            while candidates := [c for c in self._waiting[block_hash] if c[0] not in tried]:
                peer, ids = candidates[0]
                tried.add(peer)
                try:
                    block = None
                    if header is not None and ids is not None:
                        block = await self._fill(peer, header, ids)
                    if block is None:
                        block = await self._fetch(peer, block_hash, height)
                    if block is not None:
                        await self._import(block, peer)
                        return
                except ProtocolViolationError as error:
                    peer.breach(error)
                except NetworkError as error:
                    logger.debug("%s did not send block %d: %s", peer, height, error)
        finally:
            del self._waiting[block_hash]

    async def _fill(self, peer: Peer, header: BlockHeader, ids: tuple[bytes, ...]) -> Block | None:
        """The block of a compact announcement: from the mempool, the rest from the announcer."""
        mempool = self._host.mempool
        found: dict[bytes, Transaction] = {}
        for tx_hash in ids:
            waiting = mempool.get(tx_hash) if mempool is not None else None
            if waiting is not None:
                found[tx_hash] = waiting
            elif (raw := self._transactions.relayed(tx_hash)) is not None:
                found[tx_hash] = Transaction.decode(raw)
        missing = [tx_hash for tx_hash in ids if tx_hash not in found]
        size = sum(len(tx.encode()) for tx in found.values())
        while missing:
            txs = await self._transactions.request(peer, missing[:MAX_TRANSACTIONS_ASKED])
            if not txs:
                return None
            found.update((tx.hash, tx) for tx in txs)
            size += sum(len(tx.encode()) for tx in txs)
            if size > MAX_BLOCK_SIZE:
                raise ProtocolViolationError(
                    DisconnectCode.BAD_BLOCK, f"block {header.height} is over the largest size"
                )
            missing = [tx_hash for tx_hash in missing if tx_hash not in found]
        return Block(header=header, transactions=tuple(found[tx_hash] for tx_hash in ids))

    @staticmethod
    async def _fetch(peer: Peer, block_hash: bytes, height: int) -> Block | None:
        """The whole block by its height, if it is the announced one (by now it may have moved)."""
        reply = cast(
            BlocksMessage,
            await peer.request(
                GetBlocksMessage(start_height=height, end_height=height, max_blocks=1)
            ),
        )
        if not reply.blocks:
            return None
        try:
            block = Block.decode(reply.blocks[0])
        except DecodeError as error:
            raise ProtocolViolationError(DisconnectCode.BAD_BLOCK, str(error)) from error
        return block if block.hash == block_hash else None

    async def _import(self, block: Block, peer: Peer) -> None:
        chain = self._host.chain
        try:
            if self.hook is not None:
                await self.hook(block, peer)
            elif chain is not None:
                await self._host.runtime.run_writer(chain.import_block, block)
        except ValidationError as error:
            _blame(peer, error)


def _check_header(chain: Blockchain, header: BlockHeader) -> None:
    """Every rule that a header can be held to before its block is asked for; on a worker thread.

    Where its parent is not known, or our clock not there yet, its importer decides.
    """
    try:
        chain.check_headers(HeaderBatch.join([header.encode()]))
    except UnknownParentError:
        pass
    except HeaderChainError as error:
        if error.rule != "future":
            raise
    if not header.verify_signature():
        raise HeaderChainError(0, header.height, "signature")


def _blame(peer: Peer, error: ValidationError) -> None:
    """What it costs a peer to have told of a block that was refused."""
    match error:
        case UnknownParentError():
            logger.debug("a block of %s: %s", peer, error)
        case HeaderChainError(rule="future"):
            pass  # ahead of our clock is nobody's fault
        case HeaderChainError():
            peer.disconnect(DisconnectCode.BAD_HEADER, str(error))
        case FinalityError():
            peer.log(logging.ERROR, "is on a chain that we cannot follow: %s", error)
            peer.disconnect(DisconnectCode.USELESS, "a chain that forks off too deep")
        case _:
            peer.disconnect(DisconnectCode.BAD_BLOCK, str(error))
