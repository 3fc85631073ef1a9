"""Following the live chain: announced blocks, gaps, branches, and announcements that were lost."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from ...blockchain.block import Block
from ...blockchain.chain_types import AppliedBatch, HeadChanged, ImportResult
from ...errors import (
    FinalityError,
    HeaderChainError,
    InvalidBlockError,
    SyncError,
    UnknownParentError,
)
from ..blame import is_late, offence_of_rule
from ..peer import Peer
from ..purpose import Purpose
from .settle import settled
from .status import SyncPhase

if TYPE_CHECKING:
    from .manager import SyncManager

log = logging.getLogger(__name__)

MAX_WAITING: Final = 16  # announced blocks; the oldest are dropped
FAR_BEHIND: Final = 1024  # blocks; from there on status shows it as a sync


class Announced(NamedTuple):
    """A block that a peer sent."""

    block: Block
    peer: Peer
    done: asyncio.Event  # it was imported, or let go


class Follower:
    """Imports what is announced, one block at a time, and catches up by itself.

    A block on top of the head is imported. Where its parent is unknown, or a peer is known to
    be ahead, the pipeline runs: one locator request finds the fork, then bodies follow, be it one
    block or a million. Peers' claims are looked at now and then as well, so that an announcement
    that was lost does no harm. What becomes the head is announced by the node's gossip.
    """

    def __init__(self, manager: SyncManager, writing: asyncio.Lock) -> None:
        self._manager = manager
        self._node = manager.node
        self._chain = manager.context.chain
        self._runtime = manager.context.runtime
        self._interval = manager.context.config.follow_interval
        self._pool = manager.context.pool
        self._meter = manager.context.meter
        self._writing = writing
        self._waiting: deque[Announced] = deque()
        self._due: float | None = None  # Unix time at which a block that came early is admitted
        self._wake = asyncio.Event()
        self._look = False  # at what peers claim, now
        self._task: asyncio.Task[None] | None = None
        self._catching: asyncio.Task[None] | None = None
        self._changes: deque[HeadChanged] = deque()
        self._executes = False  # known to have the state that blocks change
        self.limit: int | None = None  # while set, a bounded sync has said where to stop

    def start(self) -> None:
        """Listen to the node and follow until `stop`."""
        self._node.on_new_block = self._announced
        self._node.gossip.on_claim = self._claimed
        self._node.on_peer_connected.append(self._connected)
        self._task = asyncio.create_task(self._follow(), name="sync-follow")
        self._task.add_done_callback(_log_failure)

    async def wait(self) -> None:
        """Until `stop`. Raises what else ended it: a fault of the store, or of this code."""
        if self._task is not None:
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    async def stop(self) -> None:
        """Nothing runs any more."""
        self._node.on_new_block = None
        self._node.gossip.on_claim = None
        if self._connected in self._node.on_peer_connected:
            self._node.on_peer_connected.remove(self._connected)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        while self._waiting:
            self._waiting.popleft().done.set()

    def interrupt(self) -> None:
        """Give way: end a catching up that nobody asked for."""
        if self._catching is not None:
            self._catching.cancel()

    # --- what comes in --------------------------------------------------------------------

    async def _announced(self, block: Block, peer: Peer) -> None:
        """The node's hook: until it is imported, for it takes memory that the caller counts."""
        peer.claims(block.height, block.hash)
        self._pool.notify()
        if self._manager.syncing:
            return  # its target is looked at again and again
        announced = Announced(block, peer, asyncio.Event())
        self._waiting.append(announced)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft().done.set()
        self._wake.set()
        await announced.done.wait()

    def _claimed(self, peer: Peer) -> None:
        """A peer knows of more than one block can bring: ask it by a locator, now."""
        self._pool.notify()
        self._look = True
        self._wake.set()

    def _connected(self, peer: Peer) -> None:
        """One that was dialled because our head looks old is asked at once: it may be full, and
        part from us for the next who comes."""
        if peer.purpose is Purpose.EXTRA and peer.best_height > self._chain.head.height:
            self._claimed(peer)

    async def new_block(self, block: Block, peer: Peer) -> bool:
        """Import a block now; catch up with its sender where its parent is not known."""
        async with self._writing:
            if not await self._import(block, peer):
                await self._catch_up()
        return self._chain.height_of(block.hash) is not None

    # --- the loop -------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            if not self._waiting and not self._look:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._wake.wait()
            if not await self._has_state():
                while self._waiting:
                    self._waiting.popleft().done.set()
                self._look = False
                continue
            behind = self._look or not self._waiting
            self._look = False  # who claims more from here on is looked at in the next round
            while self._waiting:
                announced = self._waiting.popleft()
                try:
                    async with self._writing:
                        if self.limit is None and not await self._import(
                            announced.block, announced.peer
                        ):
                            behind = True
                finally:
                    announced.done.set()
            if behind and not self._manager.syncing:
                async with self._writing:
                    # A sync that began while we waited for our turn says itself where to stop.
                    if self.limit is None and not self._manager.syncing:
                        await self._catch_up_quietly()

    async def _has_state(self) -> bool:
        """Whether blocks can be executed at all: nothing can be done about it here."""
        self._executes = self._executes or await self._runtime.run(lambda: self._chain.has_state)
        return self._executes

    def _pause(self) -> float:
        """Seconds until claims are looked at, or an early block is asked for again."""
        if self._due is None:
            return self._interval
        wait = max(0.0, self._due - self._runtime.wall_time())
        if wait <= self._interval:
            self._due = None
        return min(self._interval, wait)

    # --- one block ------------------------------------------------------------------------

    async def _import(self, block: Block, peer: Peer) -> bool:
        """Returns False where the sender knows of more than we can import from this block."""
        peer.claims(block.height, block.hash)
        if block.height > self._chain.head.height + 1:
            return False
        unsubscribe = self._chain.subscribe(self._changes.append)
        try:
            result = await settled(self._runtime.run_writer(self._chain.import_block, block))
        except UnknownParentError:
            return False
        except (HeaderChainError, InvalidBlockError, FinalityError) as error:
            offence = offence_of_rule(error)
            if offence is None:  # nobody's fault
                self._due = float(block.header.timestamp - self._chain.config.rules.max_drift)
            elif not is_late(error, block.height, self._chain.head.height):
                self._pool.part_from(peer, offence, str(error))
            return True
        finally:
            unsubscribe()
            changes = tuple(self._changes)
            self._changes.clear()
        if result is ImportResult.APPLIED:
            count = len(block.transactions)
            for head, applied, reverted in changes:
                batch = AppliedBatch(len(applied), count, head, len(reverted))
                await self._manager.applied(applied[0][0], batch)
        return True

    # --- many blocks ----------------------------------------------------------------------

    async def _catch_up_quietly(self) -> None:
        """As `_catch_up`; with nobody to get it from, the next announcement tries again."""
        try:
            await self._catch_up()
        except SyncError as error:
            log.warning("following: %s", error)

    async def _catch_up(self) -> None:
        before = self._chain.head
        claim = self._pool.best_claim(before.height)
        if claim is None:
            return
        far = claim.height - before.height > FAR_BEHIND
        if far:
            self._meter.reset(before.height)
            self._meter.phase = SyncPhase.HEADERS
        self._meter.touch()
        self._catching = asyncio.create_task(self._manager.run_pipeline(None), name="catch-up")
        try:
            await asyncio.wait([self._catching])
        finally:
            self._meter.phase = SyncPhase.FOLLOWING
            task, self._catching = self._catching, None
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            return
        task.result()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("following has ended: %s", error, exc_info=error)
