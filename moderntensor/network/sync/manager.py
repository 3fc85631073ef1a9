"""SyncManager: gets a node to the head of the chain and keeps it there."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

from ...awaiting import unharmed
from ...blockchain.block import Block
from ...blockchain.chain import Blockchain
from ...blockchain.chain_types import AppliedBatch
from ...blockchain.validation import BlockValidator
from ...config import NodeConfig
from ...errors import SyncError
from ..p2p import P2PNode
from ..peer import Peer
from .backfill import Backfill
from .context import SyncContext
from .drive import Driver, first_peer
from .fast import FastSync, discard_stale
from .follow import Follower
from .pipeline import Pipeline
from .settle import settled
from .sources import SourcePool
from .status import Meter, SyncPhase, SyncResult, SyncStatus

log = logging.getLogger(__name__)

CALLBACK_BLOCKS: Final = 64  # decoded at a time for `on_block_synced`

BlockCallback = Callable[[Block], Awaitable[None] | None]
CompleteCallback = Callable[[], Awaitable[None] | None]


class SyncManager:
    """Downloads, checks and executes the best chain of a node's peers, then follows it.

    `validator.chain` is attached to the node. Between `start()` and `stop()` (or inside
    ``async with``) new blocks are followed as they are announced; `sync()` brings a node that is
    behind to the head and says when it is there.

    `on_block_synced(block)` is called for every block that was executed, in order, and
    `on_sync_complete()` after every `sync()` and `fast_sync()`; both may be plain functions or
    coroutine functions. An exception in them is logged and otherwise ignored.
    """

    def __init__(
        self, node: P2PNode, validator: BlockValidator, *, config: NodeConfig | None = None
    ) -> None:
        self.node = node
        self.chain: Blockchain = validator.chain
        self.config = config or node.config
        self.on_block_synced: BlockCallback | None = None
        self.on_sync_complete: CompleteCallback | None = None
        if node.chain is not self.chain:
            node.attach_chain(self.chain)
        self._runtime = node.runtime
        self._meter = Meter(self._runtime, self.chain.head.height)
        self._pool = SourcePool(node, self._runtime, self.config, self._meter)
        self.context = SyncContext(
            self.chain, self._pool, self._runtime, self.config, self._meter, node.budget
        )
        self._writing = asyncio.Lock()  # one of sync and following changes the chain at a time
        self._follower = Follower(self, self._writing)
        self._backfill = Backfill(self.context, self._writing)
        self._started = False
        self._run: asyncio.Task[SyncResult] | None = None
        self._headers_only = False  # what runs leaves the bodies for later
        self._joined = 0
        self._calling: set[asyncio.Task[object] | None] = set()  # which are in a callback now
        self._ending: asyncio.Task[None] | None = None

    # --- life -----------------------------------------------------------------------------

    @property
    def status(self) -> SyncStatus:
        """What is happening now; a snapshot."""
        return self._meter.status(len(self._pool))

    @property
    def backfilling(self) -> bool:
        """Whether bodies of blocks below a fetched state are being fetched."""
        return self._backfill.running

    @property
    def syncing(self) -> bool:
        """Whether a sync of any kind is running."""
        return self._run is not None

    async def start(self) -> None:
        """Begin to follow the chain. The node may be started before or after."""
        if self._started:
            return
        self._started = True
        self._pool.attach()
        self._meter.phase = SyncPhase.FOLLOWING
        self._follower.start()
        if self.config.backfill:
            self._backfill.start()

    async def stop(self) -> None:
        """End a running sync and the following; nothing is left running. Idempotent.

        In a callback it ends what called that, at this `await` if it was not the last thing."""
        caller = asyncio.current_task()
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(caller), name="sync-stop")
            self._ending.add_done_callback(self._ended_all)
        if caller in self._calling:
            await unharmed(self._ending)  # which may wait for this very callback to end
        else:
            await settled(_joined(self._ending))

    async def _end(self, caller: asyncio.Task[object] | None) -> None:
        run = self._run
        if run is not None and run is not caller:  # else it is complete and tells of it
            run.cancel()
            await asyncio.wait([run])
        if self._started:
            self._started = False
            await self._backfill.stop()
            await self._follower.stop()
            self._pool.detach()
            self._meter.phase = SyncPhase.IDLE

    def _ended_all(self, ending: asyncio.Task[None]) -> None:
        self._ending = None

    async def wait_stopped(self) -> None:
        """Wait until following ends, by `stop()` or else by an error (of the store, mostly),
        which is raised."""
        await self._follower.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # --- syncing --------------------------------------------------------------------------

    async def sync(
        self,
        target_height: int | None = None,
        *,
        wait_for_peers: float | None = None,
        trusted_head: tuple[int, bytes] | None = None,
    ) -> SyncResult:
        """Bring the chain to the best head that peers have, or to `target_height`, executing all
        blocks.

        Without a target it returns when no peer claims more than we have executed, and following
        goes on. With one it stops there, and so does following until the next `sync()` without.
        With no peers it waits for `wait_for_peers` seconds; by default not at all, or, where the
        node has bootstrap nodes, as long as dialling them may take. When a sync is running
        already, this joins it and returns its result; one of headers only is waited for.

        `trusted_head` is the height and hash of a block that the caller knows to be good: from
        now on no other chain is followed, and signatures of headers up to there are not checked.

        Raises SyncError where there are no peers, where nothing moved for
        `NodeConfig.sync_give_up` seconds, and in a callback of this manager, which a sync would
        have to wait for; StorageError from the store; ConfigError where the chain contradicts
        `trusted_head`.
        """
        _refuse_below_zero("target_height", target_height)
        await self._trust(trusted_head)
        return await self._join_after_headers(
            lambda: self._synchronise(target_height, wait_for_peers)
        )

    async def fast_sync(
        self,
        snapshot_height: int | None = None,
        *,
        wait_for_peers: float | None = None,
        trusted_head: tuple[int, bytes] | None = None,
        backfill: bool | None = None,
    ) -> SyncResult:
        """Bring the chain to the best head that peers have without executing its history: the
        state of a recent block, the pivot, is fetched and proved, and only what follows executed.

        All headers are fetched and checked first. The pivot is the newest snapshot that peers
        announce which 64 blocks follow, and blocks of more than two thirds of the validators; or
        it is at `snapshot_height`. Each account is proved by the pivot's header when it arrives.
        If the snapshot vanishes, a newer one is taken and only what differs is fetched. Where no
        peer has one, or it would save too little, blocks are executed instead, and the log says
        so. Whatever ends it, the next call goes on with what is in the store.

        Bodies of blocks up to the pivot are missing then (`chain.earliest_height`); with
        `backfill` (None: `NodeConfig.backfill`) they are fetched in the background for as long
        as the manager is started.

        Waits for peers, joins what is running, and takes `trusted_head` as `sync` does. Raises as
        `sync`, and SyncError where `snapshot_height` cannot be, and why.
        """
        _refuse_below_zero("snapshot_height", snapshot_height)
        await self._trust(trusted_head)
        result = await self._join_after_headers(
            lambda: self._synchronise_fast(snapshot_height, wait_for_peers)
        )
        if self._started and (self.config.backfill if backfill is None else backfill):
            self._backfill.start()
        return result

    async def _trust(self, trusted_head: tuple[int, bytes] | None) -> None:
        self._refuse_callbacks()
        if trusted_head is not None:
            await settled(self._runtime.run_writer(self.chain.trust, *trusted_head))

    async def _join_after_headers(
        self, begin: Callable[[], Coroutine[Any, Any, SyncResult]]
    ) -> SyncResult:
        while self._run is not None and self._headers_only:
            await asyncio.wait([self._run])
        return await self._join(begin, headers_only=False)

    async def _join(
        self, begin: Callable[[], Coroutine[Any, Any, SyncResult]], *, headers_only: bool
    ) -> SyncResult:
        """Begin a sync, or wait for the one that is running."""
        self._refuse_callbacks()
        if self._run is None:
            self._headers_only = headers_only
            self._run = asyncio.create_task(begin(), name="sync")
            self._run.add_done_callback(self._ended)
        run = self._run
        self._joined += 1
        try:
            return await unharmed(run)
        except asyncio.CancelledError:
            if self._joined == 1 and not run.done():
                run.cancel()
                await asyncio.wait([run])
            if run.cancelled() and not _being_cancelled():
                raise SyncError("the sync was stopped") from None
            raise
        finally:
            self._joined -= 1

    async def sync_headers(
        self, target_height: int | None = None, *, wait_for_peers: float | None = None
    ) -> SyncResult:
        """Bring only the headers to the best head that peers have, or to `target_height`.

        They are checked and stored (`chain.header_head` is the last of them) and wait for their
        bodies, which the next `sync()` gets; until then nothing is followed. When a sync is
        running already, this joins it. Raises as `sync`.
        """
        _refuse_below_zero("target_height", target_height)
        return await self._join(
            lambda: self._synchronise_headers(target_height, wait_for_peers), headers_only=True
        )

    def _refuse_callbacks(self) -> None:
        if asyncio.current_task() in self._calling:
            raise SyncError("a callback of the sync cannot wait for a sync")

    def _ended(self, run: asyncio.Task[SyncResult]) -> None:
        self._run = None
        if not run.cancelled():
            run.exception()  # handed to everyone who awaits `sync`

    async def _synchronise(self, limit: int | None, wait_for_peers: float | None) -> SyncResult:
        async with self._sources(wait_for_peers):
            async with self._writing:
                self._follower.limit = limit
                await self._driver().blocks(limit)
                await discard_stale(self.context)
            self._pool.part_from_silent()
            result = self._result()
            await self._call(self.on_sync_complete)
            return result

    async def _synchronise_fast(
        self, snapshot_height: int | None, wait_for_peers: float | None
    ) -> SyncResult:
        backfilling = self._backfill.running
        await self._backfill.stop()  # from where on bodies are missing is about to change
        try:
            async with self._sources(wait_for_peers):
                async with self._writing:
                    self._follower.limit = None
                    driver = self._driver()
                    await FastSync(self.context, driver, snapshot_height).run()
                    await driver.blocks(None)
                    await discard_stale(self.context)
                self._pool.part_from_silent()
                result = self._result()
                await self._call(self.on_sync_complete)
                return result
        finally:
            if backfilling and self._started:
                self._backfill.start()

    def _driver(self) -> Driver:
        self._meter.reset(self.chain.head.height)
        return Driver(self.context, self.applied)

    async def _synchronise_headers(
        self, limit: int | None, wait_for_peers: float | None
    ) -> SyncResult:
        async with self._sources(wait_for_peers):
            async with self._writing:
                self._follower.limit = self.chain.head.height
                await self._driver().headers(limit)
            self._pool.part_from_silent()
            return self._result()

    def _result(self) -> SyncResult:
        head = self.chain.head
        return self._meter.result(head.height, head.hash)

    @asynccontextmanager
    async def _sources(self, wait_for_peers: float | None) -> AsyncIterator[None]:
        """Know the peers, at least one; catching up, which nobody asked for, gives way."""
        alone = not self._started
        if alone:
            self._pool.attach()
        try:
            self._meter.reset(self.chain.head.height)
            await first_peer(self.context, self._patience(wait_for_peers))
            self._follower.interrupt()
            yield
        finally:
            self._meter.waiting = None
            self._meter.phase = SyncPhase.FOLLOWING if self._started else SyncPhase.IDLE
            if alone:
                self._pool.detach()

    def _patience(self, seconds: float | None) -> float:
        """How long to wait for the first peer."""
        if seconds is None and self.node.bootstrap_nodes:
            return self.config.connect_timeout + self.config.handshake_timeout
        return seconds or 0.0

    async def run_pipeline(self, limit: int | None) -> None:
        """One pipeline; the caller holds the right to write."""
        await Pipeline(self.context, limit, self.applied).run()

    # --- following ------------------------------------------------------------------------

    async def handle_new_block(self, block: Block, peer: Peer) -> bool:
        """A block that a peer announced: import it, or find out from the peer what is missing.
        Returns whether it is part of the executed chain now. SyncError in a callback."""
        self._refuse_callbacks()
        return await self._follower.new_block(block, peer)

    # --- telling --------------------------------------------------------------------------

    async def applied(self, first: int, batch: AppliedBatch) -> None:
        """Blocks from `first` on were committed: count them and tell whoever asked."""
        self._meter.blocks_applied(
            batch.blocks, batch.transactions, batch.reverted, batch.head.height
        )
        if self.on_block_synced is None:
            return
        last = batch.head.height
        for start in range(first, last + 1, CALLBACK_BLOCKS):
            heights = range(start, min(last + 1, start + CALLBACK_BLOCKS))
            for block in await self._runtime.run(self._blocks_at, heights):
                await self._call(self.on_block_synced, block)
        self._meter.touch()  # what listeners took is no silence of peers

    def _blocks_at(self, heights: range) -> list[Block]:
        found = (self.chain.get_block(height) for height in heights)
        return [block for block in found if block is not None]

    async def _call(
        self, callback: Callable[..., Awaitable[None] | None] | None, *args: object
    ) -> None:
        if callback is None:
            return
        task = asyncio.current_task()
        self._calling.add(task)
        try:
            outcome = callback(*args)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception:
            log.exception("a callback of the sync failed")
        finally:
            self._calling.discard(task)


def _refuse_below_zero(name: str, height: int | None) -> None:
    if height is not None and height < 0:
        raise ValueError(f"{name}: {height} is below 0")


async def _joined(task: asyncio.Task[None]) -> None:
    await unharmed(task)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
