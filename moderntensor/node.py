"""FullNode: chain, storage, network and sync, wired together in one place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from .awaiting import unharmed
from .blockchain.chain import Blockchain
from .blockchain.crypto import KeyPair
from .blockchain.genesis import ChainConfig
from .blockchain.mempool import Mempool
from .blockchain.producer import BlockProducer
from .blockchain.snapshots import SnapshotKeeper
from .blockchain.state import StateDB
from .blockchain.validation import BlockValidator
from .config import NodeConfig
from .errors import StorageError, SyncError, ValidationError
from .network.budget import Kind, caps_of
from .network.extensions import Extension
from .network.identity import NodeIdentity
from .network.p2p import P2PNode
from .network.state_file import StateFile
from .network.sync import SyncManager
from .runtime import Runtime
from .storage import Store

log = logging.getLogger(__name__)

IDENTITY_FILE: Final = "node.key"
CHAIN_DIRECTORY: Final = "chain"
SNAPSHOTS_DIRECTORY: Final = "snapshots"
SYNC_PATIENCE: Final = 60.0  # seconds that one attempt at the first sync waits for a peer
# Seconds that a producer waits for the nodes it was given, before it goes on alone.
PRODUCER_PATIENCE: Final = 10.0


class Disk(Protocol):
    """What outlasts a node that has no data directory, as a simulated machine's disk does."""

    @property
    def store(self) -> Store:
        """Where the chain is; it stays open when the node stops."""

    def file(self, name: str) -> StateFile:
        """A small file, for what the network remembers."""


class FullNode:
    """One node: it syncs to its peers' best chain, follows it, serves it and relays what is new;
    with a producer's key it also makes blocks in the slots of that key.

        async with FullNode("data", "genesis.json", bootstrap_nodes=["127.0.0.1:30304"]) as node:
            await node.sync.sync()

    `p2p`, `chain`, `mempool` and `sync` are its parts; they are there from the beginning.
    """

    def __init__(
        self,
        data_dir: str | Path | None,
        config: ChainConfig | str | Path,
        *,
        bootstrap_nodes: Iterable[str] = (),
        listen_port: int | None = None,
        listen_host: str | None = None,
        settings: NodeConfig | None = None,
        identity: NodeIdentity | None = None,
        producer_key: KeyPair | None = None,
        trusted_head: tuple[int, bytes] | None = None,
        runtime: Runtime | None = None,
        disk: Disk | None = None,
        extensions: Iterable[Extension] = (),
    ) -> None:
        """`data_dir` holds the chain and the node's key, and is made if it is missing; None keeps
        all in memory. `config` is a chain's constants or its genesis file. `trusted_head` is the
        height and hash of a block that the caller knows to be good: no other chain is followed,
        and no signatures of headers up to there are checked. A `runtime` that is given stays
        the caller's to close. `disk` takes the place of a data directory but for the key, which
        is `identity`, and for snapshots, which are in memory. `extensions` are as of `P2PNode`.

        Raises ConfigError for an unusable genesis file, key or setting, StorageError for an
        unusable directory.
        """
        if not isinstance(config, ChainConfig):
            config = ChainConfig.load(config)
        if trusted_head is not None:
            config = config.trusting(*trusted_head)
        directory = None if data_dir is None else Path(data_dir)
        if directory is not None:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(f"{directory}: {error.strerror or error}") from error
        self.settings: Final = settings or NodeConfig()
        self._owns_runtime = runtime is None
        self.runtime: Final = runtime or Runtime()
        if identity is None and directory is not None:
            identity = NodeIdentity.load(directory / IDENTITY_FILE, self.runtime)
        self.state_db: Final = StateDB(
            disk.store if disk else directory and directory / CHAIN_DIRECTORY,
            map_size=self.settings.map_size,
        )
        try:
            self.validator: Final = BlockValidator(self.state_db, config, runtime=self.runtime)
            self.chain: Final[Blockchain] = self.validator.chain
            self.mempool: Final = Mempool(
                self.chain,
                max_bytes=caps_of(self.settings)[Kind.MEMPOOL],
                max_transactions=self.settings.mempool_transactions,
                lifetime=self.settings.mempool_lifetime,
            )
            self.p2p: Final = P2PNode(
                listen_port,
                bootstrap_nodes,
                listen_host=listen_host,
                identity=identity,
                config=self.settings,
                data_dir=disk or directory,
                runtime=self.runtime,
                extensions=extensions,
            )
            self.snapshots: Final = (
                SnapshotKeeper(
                    self.chain,
                    None if directory is None else directory / SNAPSHOTS_DIRECTORY,
                    self.runtime,
                )
                if self.settings.snapshots
                else None
            )
            self.p2p.attach_chain(self.chain, self.mempool, self.snapshots)
            self.sync: Final = SyncManager(self.p2p, self.validator)
            self.producer: Final = (
                None
                if producer_key is None
                else BlockProducer(self.chain, self.mempool, producer_key, self.runtime)
            )
            if self.producer is not None and self.producer.next_slot(0) is None:
                raise ValidationError("this key is not among the validators of the chain")
        except BaseException:
            self.state_db.close()
            raise
        self.on_stopping: Final[list[Callable[[], Awaitable[None]]]] = []
        """Awaited first by `stop`: of what uses the node and has to end before it."""
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._stopping = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        self._synced = asyncio.Event()
        self._failure: BaseException | None = None
        self._running = False
        self._closed = False

    # --- life -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, connect, sync, follow, and produce if there is a key. Idempotent.

        Raises NetworkError if the port cannot be listened on; then nothing is left running.
        """
        if self._running:
            return
        if self._closed:
            raise StorageError("the node was stopped and its store is closed; make a new one")
        self._running = True
        try:
            await self.p2p.start()
            await self.sync.start()
            self._spawn(self.sync.wait_stopped(), "following")
            if self.snapshots is not None:
                self._spawn(self.snapshots.run(), "snapshots")
            self._spawn(self._first_sync(), "first sync")
            if self.producer is not None:
                self._spawn(self._produce(self.producer), "producer")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop producing, then syncing, then the network, then close the store; idempotent. A
        node that was stopped cannot be started again. Raises what ended one of its tasks before,
        if anything did. Who is cancelled here, like a callback of the sync that it ends, leaves a
        stop behind that goes on."""
        if self._ending is None:
            self._closed = True
            self._running = False
            self._stopping.set()
            self._ending = asyncio.create_task(self._end(), name="stop")
        elif self._ending.done():
            return
        await unharmed(self._ending)

    async def _end(self) -> None:
        try:
            for user in tuple(self.on_stopping):
                await user()
        finally:
            await self._end_parts()

    async def _end_parts(self) -> None:
        try:
            for task in tuple(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            try:
                await self.sync.stop()
            finally:
                try:
                    await self.p2p.stop()
                finally:
                    if self.snapshots is not None:
                        self.snapshots.close()
                    if self._owns_runtime:
                        self.runtime.close()  # ends the writer before its store is closed
                    self.state_db.close()
        if self._failure is not None:
            raise self._failure

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

    async def run_until_stopped(self) -> None:
        """Start, then run until `request_stop`, cancellation, or the failure of a part, and stop.
        Raises that failure."""
        async with self:
            await self.wait_stopping()

    async def wait_stopping(self) -> None:
        """Until there is a reason to `stop`: `request_stop`, or the failure of a part."""
        await self._stopping.wait()

    def request_stop(self) -> None:
        """End `wait_stopping`; fit for a signal handler of the loop."""
        self._stopping.set()

    # --- what it does by itself -----------------------------------------------------------

    async def _first_sync(self) -> None:
        """Catch up with the first peers that come; from then on following does the rest."""
        while True:
            try:
                if self._begins_by_state():
                    await self.sync.fast_sync(wait_for_peers=SYNC_PATIENCE)
                else:
                    await self.sync.sync(wait_for_peers=SYNC_PATIENCE)
            except SyncError as error:
                log.info("not synced yet: %s", error)
                if not self.chain.has_state:  # which may be said at once, and following needs one
                    await asyncio.sleep(self.settings.follow_interval)
            else:
                self._synced.set()
                return

    def _begins_by_state(self) -> bool:
        """Whether to fetch a state first: not where one is here that blocks have changed, be it
        old, for it does to execute those that are missing."""
        if not self.chain.has_state:
            return True
        return self.settings.fast_sync and self.chain.head.height == 0

    async def _produce(self, producer: BlockProducer) -> None:
        """Make blocks once we are where the others are: on an old head they would only fork."""
        if self.p2p.bootstrap_nodes:
            with suppress(TimeoutError):
                async with asyncio.timeout(PRODUCER_PATIENCE):
                    await self._synced.wait()
            if self.p2p.peers:
                await self._synced.wait()
        await producer.run()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed: %s", task.get_name(), error)
            self._failure = self._failure or error
            self._stopping.set()
