"""One announced block on its way here: from the mempool, from its announcers, from whom it takes.

Everybody who announces it is remembered. The first is asked at once; as long as the block has not
come, every `BLOCK_STALL_TIME` the next is asked as well, and what one of them has sent need not
come from another. Whoever says which transactions it has may end that at once: all may be here.
Those whom we have dialled go before the others and have a place of their own,
so that no crowd of announcers who stall can keep a block from us.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

from ...blockchain.block import MAX_BLOCK_SIZE, Block, BlockHeader
from ...blockchain.prepared import body_of_block
from ...blockchain.transaction import Transaction
from ...blockchain.waiting import ENTRY_OVERHEAD
from ...errors import (
    DecodeError,
    NetworkError,
    ProtocolViolationError,
    RequestTimeoutError,
)
from ..host import Host
from ..limits import (
    BLOCK_ATTEMPTS,
    BLOCK_COMPLETION_TIME,
    BLOCK_FETCH_TIMEOUT,
    BLOCK_STALL_TIME,
    BUSY_RETRIES,
    FETCH_ALTERNATIVES,
)
from ..messages import BlocksMessage, DisconnectCode, GetBlocksMessage
from ..offences import Offence
from ..peer import Peer
from ..protocol import MAX_TRANSACTIONS_ASKED
from .fetch import busy_pause, request
from .score import NewsScore

__all__ = ["Completed", "Completion", "Completions", "Teller"]

logger = logging.getLogger(__name__)

_ID_COST = 96  # bytes of memory for a transaction's id in a list


@dataclass(slots=True, eq=False)
class Teller:
    """Who announced the block, at which height, with which transactions if it said, and when
    (wall clock)."""

    peer: Peer
    height: int
    ids: tuple[bytes, ...] | None
    told_at: float


class Completed(NamedTuple):
    """The whole block, and who made it whole."""

    block: Block
    peer: Peer


class Completions(Protocol):
    """What one completion needs of those who know all of them."""

    def relayed(self, tx_hash: bytes) -> bytes | None:
        """A transaction that was passed on lately, encoded."""

    def hold(self, size: int) -> bool:
        """Whether there is room for so many bytes more; if so, they are counted."""

    def release(self, size: int) -> None:
        """They are held no more."""


class Completion:
    """One block. `header` is None until an announcer has shown it and it was judged to be good.

    `judge(peer, header, told_at)` says whether a block that came whole is worth importing.
    """

    def __init__(
        self,
        host: Host,
        all_of_them: Completions,
        score: NewsScore,
        judge: Callable[[Peer, BlockHeader, float], Awaitable[bool]],
        begun_by: Peer,
        block_hash: bytes,
        height: int,
    ) -> None:
        self._host = host
        self._all = all_of_them
        self._score = score
        self._judge = judge
        self.begun_by = begun_by  # on whose word
        self.block_hash = block_hash
        self.height = height
        self.header: BlockHeader | None = None
        self.tellers: list[Teller] = []
        self.done = asyncio.Event()  # it was imported, or given up
        self._group: asyncio.TaskGroup | None = None
        self._filling: set[asyncio.Task[None]] = set()  # from what is here
        self._whole = asyncio.Event()
        self._asked = 0  # tellers
        self._found: dict[bytes, Transaction] = {}
        self._held = 0
        self._completed: Completed | None = None

    def told(
        self,
        peer: Peer,
        height: int,
        header: BlockHeader | None,
        ids: tuple[bytes, ...] | None,
    ) -> None:
        """`peer` announces it at `height`; `header`, if it is given, is good."""
        tellers = self.tellers
        self.header = self.header or header
        if any(teller.peer is peer for teller in tellers):
            return
        if sum(teller.peer.outbound == peer.outbound for teller in tellers) > FETCH_ALTERNATIVES:
            return
        if ids is not None and not self._hold(len(ids) * _ID_COST):
            ids = None
        place = len(tellers)
        if peer.outbound:
            while place > self._asked and not tellers[place - 1].peer.outbound:
                place -= 1
        teller = Teller(peer, height, ids, self._host.runtime.wall_time())
        tellers.insert(place, teller)
        if ids is not None and self._group is not None and self._completed is None:
            task = self._group.create_task(self._attempt(teller, ask=False))
            self._filling.add(task)
            task.add_done_callback(self._filling.discard)

    def close(self) -> None:
        """Nothing is held for it any more."""
        self.done.set()
        self._found.clear()
        self._all.release(self._held)
        self._held = 0

    def _hold(self, size: int) -> bool:
        if not self._all.hold(size):
            return False
        self._held += size
        return True

    async def run(self) -> Completed | None:
        """Get the block; None if nobody has it who announced it."""
        try:
            async with asyncio.timeout(BLOCK_COMPLETION_TIME):
                # Another may tell of it just when the last attempt ends.
                while self._completed is None and self._asked < len(self.tellers):
                    await self._ask()
        except TimeoutError:
            logger.debug("block %d was not complete in time", self.height)
        return self._completed

    async def _ask(self) -> None:
        """All announcers that there are."""
        async with asyncio.TaskGroup() as group:
            whole = group.create_task(self._whole.wait())
            self._group = group
            try:
                attempts = await self._until_whole(group, whole)
            finally:
                self._group = None  # before it waits for those that end
            for task in (*attempts, *self._filling, whole):
                task.cancel()

    async def _until_whole(
        self, group: asyncio.TaskGroup, whole: asyncio.Task[bool]
    ) -> set[asyncio.Task[None]]:
        """Ask one announcer after the other; which attempts are left when it is there, or cannot
        be had."""
        attempts: set[asyncio.Task[None]] = set()
        while self._completed is None:
            if self._asked < len(self.tellers):
                teller = self.tellers[self._asked]
                if len(attempts) + (not teller.peer.outbound) < BLOCK_ATTEMPTS:
                    self._asked += 1
                    attempts.add(group.create_task(self._attempt(teller)))
            if not attempts and not self._filling:
                break
            await asyncio.wait(
                (*attempts, *self._filling, whole),
                timeout=BLOCK_STALL_TIME,
                return_when=asyncio.FIRST_COMPLETED,
            )
            attempts = {attempt for attempt in attempts if not attempt.done()}
        return attempts

    async def _attempt(self, teller: Teller, *, ask: bool = True) -> None:
        """By one of those who announced it; if it is not to be asked, from what is here."""
        peer = teller.peer
        before = peer.connection.bytes_received
        try:
            block = None
            if self.header is not None and teller.ids is not None:
                block = await self._fill(peer, self.header, teller.ids, ask=ask)
            if block is None and ask:
                block = await self._fetch(teller)
            if block is None or self._completed is not None:
                return
            if not await self._host.runtime.run(_is_whole, block):
                raise ProtocolViolationError(
                    DisconnectCode.BAD_BLOCK,
                    f"the transactions of block {self.height} are not its header's",
                    Offence.BAD_BODY,
                )
            if self.header is not None or await self._judge(peer, block.header, teller.told_at):
                self._completed = self._completed or Completed(block, peer)
                self._whole.set()
        except ProtocolViolationError as error:
            peer.breach(error)
        except RequestTimeoutError:
            self._score.silent(peer, before, f"block {self.height}")
        except NetworkError as error:
            logger.debug("%s did not send block %d: %s", peer, self.height, error)

    async def _fill(
        self, peer: Peer, header: BlockHeader, ids: tuple[bytes, ...], *, ask: bool
    ) -> Block | None:
        """The block of a compact announcement: from what is here, the rest from the announcer, if
        it may be asked."""
        mempool, found = self._host.mempool, self._found
        for tx_hash in ids:
            if tx_hash in found:
                continue
            waiting = mempool.get(tx_hash) if mempool is not None else None
            if waiting is not None:
                found[tx_hash] = waiting
            elif (raw := self._all.relayed(tx_hash)) is not None:
                self._keep([Transaction.decode_hashed(raw)])
        while missing := [tx_hash for tx_hash in ids if tx_hash not in found]:
            if not ask:
                return None
            here = (found[tx_hash] for tx_hash in ids if tx_hash in found)
            if sum(len(tx.encode()) for tx in here) > MAX_BLOCK_SIZE:
                raise ProtocolViolationError(
                    DisconnectCode.BAD_BLOCK,
                    f"block {header.height} is over the largest size",
                    Offence.BAD_BLOCK,
                )
            txs, _ = await request(peer, missing[:MAX_TRANSACTIONS_ASKED], BLOCK_FETCH_TIMEOUT)
            if not txs:
                return None
            self._keep(txs)
        return Block(header=header, transactions=tuple(found[tx_hash] for tx_hash in ids))

    def _keep(self, txs: list[Transaction]) -> None:
        if not self._hold(sum(ENTRY_OVERHEAD + len(tx.data) for tx in txs)):
            raise NetworkError("too many blocks are being completed")
        self._found.update((tx.hash, tx) for tx in txs)

    async def _fetch(self, teller: Teller) -> Block | None:
        """The whole block by its height, if it is the announced one (by now it may have moved)."""
        height = teller.height if self.header is None else self.header.height
        asked = GetBlocksMessage(start_height=height, end_height=height, max_blocks=1)
        for _ in range(BUSY_RETRIES):
            reply = cast(BlocksMessage, await teller.peer.request(asked, BLOCK_FETCH_TIMEOUT))
            pause = busy_pause(reply)
            if pause is None:
                break
            await asyncio.sleep(pause)
        if not reply.blocks:
            return None
        if not self._hold(len(reply.blocks[0])):
            raise NetworkError("too many blocks are being completed")
        try:
            block = Block.decode(reply.blocks[0])
        except DecodeError as error:
            raise ProtocolViolationError(
                DisconnectCode.BAD_BLOCK, str(error), Offence.BAD_BODY
            ) from error
        if block.hash != self.block_hash:
            return None
        if not self._hold(ENTRY_OVERHEAD * len(block.transactions)):
            raise NetworkError("too many blocks are being completed")
        return block


def _is_whole(block: Block) -> bool:
    """Whether the transactions are those that the header commits to; for a worker thread."""
    return body_of_block(block).root == block.header.txs_root
