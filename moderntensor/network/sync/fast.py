"""Fast sync: the state of a recent block instead of the execution of all blocks up to it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Final, TypeVar

from ...backend import headers as engine
from ...blockchain.staging import Pivot, StateStaging
from ...errors import FinalityError, StaleStateError, SyncError
from .context import SyncContext
from .drive import Driver
from .pivot import (
    BLOCKS_ABOVE,
    LEAST_SAVED,
    choose,
    highest_pivot,
    signers_down,
    usable,
    what_is_proved,
    why_not_at,
)
from .settle import settled
from .source import Source
from .state import SnapshotGone, StateStage
from .status import SyncPhase

log = logging.getLogger(__name__)

# How long to look for a snapshot before blocks are executed instead: peers say what they have
# right after they connect; where one has just vanished, the next may be in the making.
ANNOUNCE_SECONDS: Final = 5.0
NEWER_SECONDS: Final = 30.0
REFRESH_SECONDS: Final = 2.0  # peers are asked again so often meanwhile, well within their rate
UNSERVED_SECONDS: Final = 30.0  # without progress until another snapshot is taken, if there is one
MAX_FRUITLESS: Final = 4  # pivots in a row that brought no account, and one for each who promised
MAX_PIVOTS: Final = 64  # a state that moves away faster than it comes is never whole


Place = tuple[int, bytes]  # a block's height and hash

A = TypeVar("A")
T = TypeVar("T")


class Stalled(Exception):  # noqa: N818  (an outcome, no error)
    """Peers are there, and have given nothing for too long."""


class Unserved(Stalled):
    """So it is, and there may be another state to be had."""


class FastSync:
    """Headers, then the state of a pivot among them, which becomes that of the chain.

    The pivot is the newest snapshot that peers announce and that enough blocks follow. If it
    vanishes everywhere the next one is taken, and of its state only what is different is fetched.
    What is here stays here, however this ends, and the next one goes on with it. Used once.
    """

    def __init__(self, context: SyncContext, driver: Driver, wanted: int | None) -> None:
        """`wanted`: the height that the pivot must have, if it must have one."""
        self._context = context
        self._chain = context.chain
        self._pool = context.pool
        self._runtime = context.runtime
        self._meter = context.meter
        self._driver = driver
        self._wanted = wanted
        self._highest: tuple[bytes, int | None] = b"", None  # of this header head, the best height
        self._gone: dict[bytes, set[Source]] = {}  # by block: who announced it and has it no more
        self._unserved: set[bytes] = set()  # blocks whose state nobody served while others had one
        self._misled: Counter[Source] = Counter()  # pivots announced that brought nothing
        self._fruitless = 0  # pivots in a row
        self._staging = StateStaging(context.chain.store)
        self._stateless = not context.chain.has_state

    async def run(self) -> bool:
        """Whether a state was adopted; else blocks are to be executed, and the log says why.

        SyncError where that cannot be, as a certain pivot is wanted or the first state is not
        here; as for headers as well.
        """
        patience = ANNOUNCE_SECONDS
        for _ in range(MAX_PIVOTS):
            pivot = await self._next_pivot(patience)
            if pivot is None:
                return await self._by_blocks(self._why_none())
            self._tell(pivot)
            before, promised = self._meter.accounts_gained, set(self._announcers(pivot))
            try:
                await self._fetch(pivot)
                accounts = self._staging.accounts_total or 0
                batch = await self._write(self._chain.adopt_state, self._staging)
            except SnapshotGone as outcome:
                log.info("no peer has the snapshot of block %d any more", pivot.height)
                gone = self._gone.setdefault(pivot.block_hash, set())
                gone |= outcome.refused & promised.union(self._announcers(pivot))
                patience = NEWER_SECONDS
            except Unserved as error:
                log.info("taking another snapshot than that of block %d: %s", pivot.height, error)
                self._unserved.add(pivot.block_hash)
            except Stalled as error:
                return await self._by_blocks(str(error))
            except (StaleStateError, FinalityError) as error:
                log.info("the state of block %d cannot be adopted: %s", pivot.height, error)
            else:
                self._meter.state_adopted(batch.head.height, accounts)
                log.info(
                    "the state of block %d is here and proved, %d accounts", pivot.height, accounts
                )
                return True
            if self._meter.accounts_gained > before:
                self._fruitless = 0
                continue
            self._fruitless += 1
            self._misled.update(promised)
            if self._fruitless >= MAX_FRUITLESS + len(self._misled):
                return await self._by_blocks(
                    f"{self._fruitless} snapshots in a row could not be fetched"
                )
        return await self._by_blocks(f"{MAX_PIVOTS} snapshots vanished before they were here")

    async def _write(self, change: Callable[[A], T], what: A) -> T:
        return await settled(self._runtime.run_writer(change, what))

    async def _by_blocks(self, why: str) -> bool:
        """What to do without a state."""
        if self._wanted is not None:
            raise SyncError(f"no fast sync to block {self._wanted}: {why}")
        if self._stateless:
            raise SyncError(f"the first state of this chain can only be fetched: {why}")
        self._meter.state_given_up()
        log.info("executing all blocks instead of fetching a state: %s", why)
        return False

    # --- which state ----------------------------------------------------------------------

    async def _next_pivot(self, patience: float) -> Pivot | None:
        """The pivot to go for, once there is one; None where none shows within `patience`
        seconds."""
        self._meter.touch()  # what was waited for in vain has had its time, this gets its own
        deadline = self._pool.now() + patience
        asked = float("-inf")
        while True:
            await self._driver.headers(None)
            highest = await self._runtime.run(self._highest_pivot)
            pivot = await self._runtime.run(self._choose, self._candidates())
            now = self._pool.now()
            if pivot is not None or now >= deadline or not self._may_come(highest):
                self._meter.waiting = None
                return pivot
            self._meter.phase = SyncPhase.WAITING
            self._meter.waiting = "no peer has announced a snapshot to begin with"
            self._meter.touch()  # this has an end of its own
            if now >= asked + REFRESH_SECONDS:  # however often somebody says something new
                asked = now
                for source in self._pool:
                    source.peer.refresh()
            await self._pool.changed(
                partial(self._is_news, self._announced().keys()),
                min(asked + REFRESH_SECONDS, deadline) - now,
            )

    def _is_news(self, known: Collection[Place]) -> bool:
        return self._announced().keys() != known or self._driver.headers_missing()

    def _may_come(self, highest: int | None) -> bool:
        """Whether waiting may help."""
        interval, head = self._chain.config.snapshot_interval, self._chain.head.height
        if self._wanted is not None:
            return why_not_at(self._wanted, interval, head, highest) is None
        return highest is not None and highest // interval * interval >= self._lowest()

    def _lowest(self) -> int:
        at_any_cost = self._stateless or self._wanted is not None
        return self._chain.head.height + (1 if at_any_cost else LEAST_SAVED)

    def _highest_pivot(self) -> int | None:
        """Where a pivot may be at the most, by what the headers show."""
        tip, head = self._chain.header_head, self._chain.head
        if self._highest[0] != tip.hash:
            signers = signers_down(self._chain.pending_batch, tip.height, head.height)
            validators = len(self._chain.config.validators)
            self._highest = tip.hash, highest_pivot(tip.height, signers, validators)
        return self._highest[1]

    def _announced(self) -> dict[Place, list[Source]]:
        """What peers say they have, but for what those who say so did not have."""
        found: dict[Place, list[Source]] = {}
        for source in self._pool:
            for place in source.peer.snapshots:
                if source not in self._gone.get(place[1], ()):
                    found.setdefault(place, []).append(source)
        return found

    def _announcers(self, pivot: Pivot) -> list[Source]:
        return [source for source in self._pool if source.keeps(pivot[:2])]

    def _usable(self, announced: Iterable[Place]) -> list[Place]:
        """Those of them that may be pivots by their heights, the newest first."""
        lowest, highest = self._lowest(), self._highest[1]
        if highest is None:
            return []
        if self._wanted is not None:
            lowest, highest = max(lowest, self._wanted), min(highest, self._wanted)
        return usable(announced, self._chain.config.snapshot_interval, lowest, highest)

    def _is_another(self, pivot: Pivot) -> bool:
        """Whether somebody who does not announce this one announces one that may do as well."""
        return any(
            self._usable(place for place in source.peer.snapshots if place[1] not in self._gone)
            for source in self._pool
            if not source.keeps(pivot[:2])
        )

    def _candidates(self) -> list[Place]:
        """Those announced that may be pivots by their heights, in the order to try them."""
        announced = self._announced()
        places = self._usable(announced)
        # Promises that nobody keeps must not keep us from what an older peer really has.
        places.sort(key=lambda place: min(map(self._distrust, announced[place])))
        return places

    def _choose(self, places: list[Place]) -> Pivot | None:
        begun = self._staging.pivot
        if begun is not None and begun.block_hash not in self._unserved:
            place = begun.height, begun.block_hash
            is_here = self._staging.complete and self._usable([place])
            if (place in places or is_here) and self._is_ours(begun):
                return begun  # nothing need be looked at twice
        return choose(places, self._header_at)

    def _distrust(self, source: Source) -> tuple[int, bool, float]:
        """The less, the sooner what a peer announces is tried. After a pivot that brought nothing,
        every second time whom we have known for long comes before ever new strangers."""
        misled, peer = self._misled[source], source.peer
        if self._fruitless % 2 == 0:
            return misled, False, 0.0
        return misled, not peer.outbound, peer.connected_at

    def _header_at(self, height: int) -> engine.HeaderBatch:
        return self._chain.pending_batch(height, 1)

    def _is_ours(self, pivot: Pivot) -> bool:
        return choose([(pivot.height, pivot.block_hash)], self._header_at) == pivot

    def _why_none(self) -> str:
        """Why there is no pivot."""
        config, tip = self._chain.config, self._chain.header_head.height
        highest = self._highest[1]
        if self._wanted is not None:
            why = why_not_at(
                self._wanted, self._chain.config.snapshot_interval, self._chain.head.height, highest
            )
            heights = sorted({height for height, _ in self._announced()})
            return why or f"no peer has its snapshot (announced: {heights or 'none'})"
        if tip < self._lowest() and not self._stateless:
            return "it would save too few of them"
        if highest is None:
            return (
                f"no block above {self._chain.head.height} is followed by {BLOCKS_ABOVE} others "
                f"and by blocks of more than two thirds of {len(config.validators)} validators"
            )
        if not self._may_come(highest):
            if self._stateless:
                interval = config.snapshot_interval
                return f"snapshots are of every {interval}th block, too few blocks follow {highest}"
            return "it would save too few of them"
        return "no peer has a snapshot of a block that may be begun with"

    def _tell(self, pivot: Pivot) -> None:
        """Say what is fetched, and plainly what will be proved by it."""
        config, tip = self._chain.config, self._chain.header_head.height
        assumed = config.assume_valid
        told, enough = what_is_proved(
            config,
            pivot.height,
            tip,
            assumed=assumed is not None and self._chain.has_header(*assumed),
        )
        log.log(
            logging.INFO if enough else logging.WARNING,
            "fetching the state of block %d (%s) of %d: every account is proved by its state "
            "root; %s",
            pivot.height,
            pivot.block_hash.hex()[:16],
            tip,
            told,
        )

    # --- fetching -------------------------------------------------------------------------

    async def _fetch(self, pivot: Pivot) -> None:
        """All of the pivot's state that is not here. Raises SnapshotGone, SyncError."""
        self._meter.target_height = self._chain.header_head.height
        await self._write(self._staging.aim, pivot)
        self._meter.state_begins(pivot.height, *await self._runtime.run(self._have))
        self._meter.phase = SyncPhase.STATE
        stage = StateStage(self._context, self._staging)
        task = asyncio.create_task(stage.run(), name="sync-state")
        try:
            await self._watch(task, stage, pivot)
        finally:
            if not task.done():
                task.cancel()
                await settled(_ended(task))
        task.result()

    def _have(self) -> tuple[int, int | None]:
        return self._staging.accounts_done, self._staging.accounts_total

    async def _watch(self, task: asyncio.Task[None], stage: StateStage, pivot: Pivot) -> None:
        """Until the stage ends. When it has got nothing for too long: SyncError where nobody is
        there, else Stalled; sooner where there is another state to be had."""
        give_up = self._context.config.sync_give_up
        while not task.done():
            left = self._meter.progressed + give_up - self._pool.now()
            if stage.storing:
                left = give_up  # the machine is slow, which is nobody's silence
            another = self._is_another(pivot)
            waited = give_up - left
            if waited >= (min(UNSERVED_SECONDS, give_up) if another else give_up):
                why = (
                    f"no progress for {waited:.0f} s with {self._meter.accounts_done} of "
                    f"{self._meter.accounts_total or '?'} accounts: "
                )
                if len(self._pool):
                    outcome = Unserved if another else Stalled
                    raise outcome(f"{why}{len(self._pool)} peers serve nothing")
                raise SyncError(f"{why}all peers are gone")
            await asyncio.wait([task], timeout=min(left, UNSERVED_SECONDS))


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


async def discard_stale(context: SyncContext) -> None:
    """Free what is left of a state that blocks have overtaken."""
    staging = StateStaging(context.chain.store)
    pivot = staging.pivot
    if pivot is not None and pivot.height <= context.chain.head.height:
        await settled(context.runtime.run_writer(staging.discard))
