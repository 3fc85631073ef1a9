"""Which snapshots there are: made when they are due, kept, lent to who serves them, retired."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import re
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from ...awaiting import unharmed
from ...errors import DecodeError, StorageError
from ...runtime import Runtime
from ...storage.directory import sync_directory
from ..chain import Blockchain
from ..chain_types import HeadChanged
from .file import Snapshot, SnapshotInfo
from .image import FileImage, Image, MemoryImage
from .making import SnapshotLostError, making

__all__ = ["SnapshotKeeper"]

P = ParamSpec("P")
T = TypeVar("T")
Steps = Generator[None, None, None]
log = logging.getLogger(__name__)

KEPT: Final = 2  # who fetches the older one has an interval's time for it
# Seconds for which a snapshot stays whose time is over: while it is asked for, and at most.
IDLE: Final = 60.0
LEASE: Final = 600.0
RETIRED_MOST: Final = 4  # however short the interval is: those that were retired last
SWEEP: Final = 5.0  # seconds between two looks at those
_NAME: Final = re.compile(r"\d{1,20}-[0-9a-f]{16}\.snapshot(\.part|\.nodes)?")
_UNFINISHED: Final = (".part", ".nodes")


class _Held:
    """One snapshot and who uses it."""

    __slots__ = ("borrowers", "dropped", "ends", "info", "path", "snapshot", "used", "used_at")

    def __init__(self, snapshot: Snapshot, path: Path | None) -> None:
        self.snapshot = snapshot
        self.info = snapshot.info
        self.path = path
        self.dropped = False  # closed when nobody uses it any more
        self.borrowers = 0
        self.used = True  # since the last look
        self.used_at = 0.0  # loop time, once it is retired
        self.ends: float | None = None  # loop time at which its lease does


class SnapshotKeeper:
    """The snapshots of a chain: of the last two heights that are multiples of its interval.

    In a directory they survive; without one they are in memory, as the chain is then. One keeper
    at a time uses a directory. Safe on any thread but for `run`, the task that makes them.
    """

    def __init__(self, chain: Blockchain, directory: Path | None, runtime: Runtime) -> None:
        """`directory` is made when it is needed. Nothing is read before `load`, or `run`."""
        self._chain = chain
        self._directory = directory
        self._runtime = runtime
        self._lock = threading.Lock()
        self._kept: list[_Held] = []  # the newest last
        self._retired: list[_Held] = []
        self._failed = b""  # hash of the block of which none could be made
        self._loaded = False
        self.announced: tuple[tuple[int, bytes], ...] = ()
        """(height, block hash) of those that others may begin with, complete and checked."""

    # --- for those who serve ----------------------------------------------------------------

    @contextmanager
    def lend(self, block_hash: bytes) -> Iterator[Snapshot | None]:
        """The snapshot of a block for the length of the context, None if there is none."""
        with self._lock:
            held = self._find(block_hash)
            if held is not None:
                held.borrowers += 1
                held.used = True
        try:
            yield None if held is None else held.snapshot
        finally:
            if held is not None:
                with self._lock:
                    held.borrowers -= 1
                    self._let_go(held)

    def was_here(self, block_hash: bytes) -> bool:
        """Whether it is that of a block of the chain before those whose snapshots are kept, of
        which there may have been one."""
        announced = self.announced  # which others may replace meanwhile
        if not announced or self._find(block_hash) is not None:
            return False
        height = self._chain.height_of(block_hash)
        if not height or height % self._chain.config.snapshot_interval:
            return False
        return height < announced[-1][0]

    def damaged(self, block_hash: bytes, error: StorageError) -> None:
        """A snapshot could not be read: away with it."""
        with self._lock:
            held = self._find(block_hash)
            if held is None:
                return
            log.warning("the snapshot of block %d is of no use: %s", held.info.height, error)
            self._drop(held)

    # --- making -----------------------------------------------------------------------------

    def due(self) -> int | None:
        """The height of the snapshot that is to be made; None if there is none. Far behind the
        known headers none is: there will be later ones."""
        chain = self._chain
        head, interval = chain.head.height, chain.config.snapshot_interval
        height = head - head % interval
        if not height or chain.header_head.height > head + interval:
            return None
        block_hash = chain.hash_at(height)
        if block_hash is None or block_hash == self._failed:
            return None
        with self._lock:
            return None if self._find(block_hash) is not None else height

    def make(self, given_up: Callable[[], bool]) -> bool:
        """Make the snapshot that is due; whether one was made. It is given up, and nothing of it
        left, once `given_up` says so, which is asked every some milliseconds. What prevents it
        is logged."""
        height = self.due()
        steps = self._making()
        try:
            for _ in steps:
                if given_up():
                    return False
        finally:
            steps.close()
        return height is not None and any(height == made for made, _ in self.announced)

    def _making(self) -> Steps:
        height = self.due()
        block_hash = None if height is None else self._chain.hash_at(height)
        if height is None or block_hash is None:
            return
        path = None
        try:
            if self._directory is None:
                image = yield from self._in_memory(height, block_hash)
            else:
                path = self._directory / _name(height, block_hash)
                image = yield from self._on_disk(height, block_hash, path)
            held = _Held((yield from Snapshot.opening(image)), path)
        except SnapshotLostError as error:
            log.info("no snapshot of block %d: %s", height, error)
        except (StorageError, DecodeError) as error:
            log.warning("no snapshot of block %d: %s", height, error)
            _remove(path)
        else:
            with self._lock:
                self._kept.append(held)
            self.refresh()
            log.info("made the snapshot of block %d: %d accounts", height, held.info.accounts)
            return
        self._failed = block_hash  # what failed would fail again; the next one may do better

    def _in_memory(self, height: int, block_hash: bytes) -> Generator[None, None, Image]:
        output = io.BytesIO()
        yield from making(self._chain, height, block_hash, output, io.BytesIO(), lambda: None)
        return MemoryImage(output.getvalue())

    def _on_disk(self, height: int, block_hash: bytes, path: Path) -> Generator[None, None, Image]:
        """Whoever is killed here leaves files under names that are not read, but removed."""
        part, nodes = (path.with_name(path.name + ending) for ending in _UNFINISHED)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with part.open("wb") as output, nodes.open("w+b") as spill:

                def sync() -> None:
                    output.flush()
                    os.fsync(output.fileno())

                yield from making(self._chain, height, block_hash, output, spill, sync)
            part.replace(path)
            sync_directory(path.parent)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error
        finally:
            _remove(part)
            _remove(nodes)
        return FileImage(path)

    # --- keeping ----------------------------------------------------------------------------

    def load(self) -> None:
        """Take up the snapshots that an earlier run has left. Those that are damaged, unfinished,
        or not of this chain any more, are removed, and the log says why; all of their content is
        read. Once; `run` does it by itself."""
        for _ in self._loading():
            pass

    def _loading(self) -> Steps:
        if self._loaded or self._directory is None:
            return
        self._loaded = True
        try:
            paths = [*self._directory.iterdir()] if self._directory.is_dir() else []
        except OSError as error:
            log.warning("cannot read the snapshots of earlier: %s", error)
            return
        found = []
        for path in (path for path in paths if _NAME.fullmatch(path.name)):
            if path.name.endswith(_UNFINISHED):
                _remove(path)
                continue
            try:
                held = _Held((yield from Snapshot.opening(FileImage(path))), path)
                if path.name != _name(*held.info[:2]):  # a copy of one, maybe
                    held.snapshot.close()
                    raise StorageError("it is not that of its name")
            except StorageError as error:
                log.warning("removing the snapshot %s: %s", path, error)
                _remove(path)
                continue
            found.append(held)
        with self._lock:
            # One that was made meanwhile, unasked for, is newer.
            self._kept[:0] = sorted(found, key=lambda held: held.info.height)
        self.refresh()
        with self._lock:
            for held in tuple(self._retired):  # nobody has a lease of a run before
                self._drop(held)

    def refresh(self) -> None:
        """Retire those that are too many, or whose block has left the chain; take up those again
        whose block has come back to it."""
        with self._lock:
            there = [*self._retired, *self._kept]
            on_chain = [held for held in there if self._is_on_chain(held.info)]
            kept = sorted(on_chain, key=lambda held: held.info.height)[-KEPT:]
            for held in kept:
                held.ends = None
            self._kept = kept
            self._retired = [held for held in there if held not in kept]
            for held in self._retired[:-RETIRED_MOST]:
                self._drop(held)
            self._announce()

    def sweep(self, now: float) -> None:
        """Remove retired ones that were not asked for in the last `IDLE` seconds, and those whose
        lease of `LEASE` seconds is over; `now` is loop time."""
        with self._lock:
            for held in tuple(self._retired):
                if held.ends is None:
                    held.ends = now + LEASE
                    held.used = True
                if held.used:
                    held.used, held.used_at = False, now
                if now >= min(held.used_at + IDLE, held.ends):
                    self._drop(held)
                    log.info("removed the snapshot of block %d", held.info.height)

    def close(self) -> None:
        """Close all files; nothing is announced or lent from here on. Idempotent."""
        with self._lock:
            for held in (*self._kept, *self._retired):
                self._drop(held, remove=False)

    async def run(self) -> None:
        """Load, then make each snapshot when it is due and remove what is over, until cancelled.

        The work is done on worker threads, some milliseconds at a time, so that others have
        their turns; who cancels this finds none of it going on, and nothing half-made.
        """
        loop = asyncio.get_running_loop()
        wake = asyncio.Event()

        def moved(_: HeadChanged) -> None:
            loop.call_soon_threadsafe(wake.set)

        unsubscribe = self._chain.subscribe(moved)
        try:
            await self._through(self._loading())
            while True:
                wake.clear()
                await self._settled(self.refresh)
                await self._through(self._making())
                await self._settled(self.sweep, self._runtime.loop_time())
                with suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP if self._retired else None):
                        await wake.wait()
        finally:
            unsubscribe()

    async def _through(self, steps: Steps) -> None:
        """Take `steps`, each in a turn of its own."""
        try:
            while await self._settled(_advance, steps):
                pass
        finally:
            steps.close()

    async def _settled(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it on a worker thread; if cancelled, wait for it to end first."""
        work = asyncio.ensure_future(self._runtime.run(function, *args, **kwargs))
        try:
            return await unharmed(work)
        except asyncio.CancelledError:
            while not work.done():  # some milliseconds, however often we are cancelled
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([work])
            if not work.cancelled() and (error := work.exception()) is not None:
                log.error("failed after its caller was cancelled: %s", error, exc_info=error)
            raise

    # --- within the lock --------------------------------------------------------------------

    def _find(self, block_hash: bytes) -> _Held | None:
        for held in (*self._kept, *self._retired):
            if held.info.block_hash == block_hash:
                return held
        return None

    def _is_on_chain(self, info: SnapshotInfo) -> bool:
        header = self._chain.get_header(info.height)
        return (
            header is not None
            and header.hash == info.block_hash
            and header.state_root == info.state_root
        )

    def _announce(self) -> None:
        self.announced = tuple((held.info.height, held.info.block_hash) for held in self._kept)

    def _drop(self, held: _Held, *, remove: bool = True) -> None:
        for group in (self._kept, self._retired):
            if held in group:
                group.remove(held)
        self._announce()
        held.dropped = True
        if remove:
            _remove(held.path)  # who reads it goes on, with the file that has no name any more
        self._let_go(held)

    def _let_go(self, held: _Held) -> None:
        if held.dropped and not held.borrowers:
            held.snapshot.close()


def _name(height: int, block_hash: bytes) -> str:
    return f"{height}-{block_hash[:8].hex()}.snapshot"


def _advance(steps: Steps) -> bool:
    """Take one step; False if that was the last."""
    for _ in steps:
        return True
    return False


def _remove(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot remove %s: %s", path, error.strerror or error)
