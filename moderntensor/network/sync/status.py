"""What a sync is doing, how fast, and how long it will take."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ...runtime import Runtime

RATE_SPAN: Final = 5.0  # seconds that a rate looks back: calm to read, and follows a change


class SyncPhase(Enum):
    """Headers, bodies and execution run at once; the phase names what is not complete yet."""

    IDLE = "idle"
    WAITING = "waiting"
    HEADERS = "headers"
    STATE = "state"
    BLOCKS = "blocks"
    FOLLOWING = "following"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStatus:
    """A snapshot. Heights are block heights, rates per second over the last few seconds,
    `bytes_received` counts headers, state and bodies since the sync began."""

    phase: SyncPhase
    start_height: int
    header_height: int
    current_height: int
    target_height: int
    headers_per_second: float
    blocks_per_second: float
    transactions_per_second: float
    bytes_received: int
    peers: int
    waiting: str | None
    """Why nothing moves at the moment, in words; None while something does."""
    pivot_height: int | None = None
    """The block whose state a fast sync fetches, or has fetched."""
    accounts_done: int = 0
    """Accounts of that state that are here, each of them proved."""
    accounts_total: int | None = None
    """How many it has, proved as well; None until that is known."""
    accounts_per_second: float = 0.0

    @property
    def progress(self) -> float:
        """0 to 1: the share of this sync's blocks that are executed. A state that is fetched
        stands for the blocks that need not be."""
        span = self.target_height - self.start_height
        if span <= 0:
            return 1.0
        reached = float(self.current_height)
        if self.pivot_height is not None and reached < self.pivot_height and self.accounts_total:
            share = self.accounts_done / self.accounts_total
            reached += share * (self.pivot_height - reached)
        return min(1.0, max(0.0, (reached - self.start_height) / span))

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to go at the present rate, in the phase STATE until the state is here; None
        while there is no rate to judge by."""
        if self.phase is SyncPhase.STATE:
            if self.accounts_total is None or self.accounts_per_second <= 0:
                return None
            return (self.accounts_total - self.accounts_done) / self.accounts_per_second
        left = self.target_height - self.current_height
        if left <= 0:
            return 0.0
        return left / self.blocks_per_second if self.blocks_per_second > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """What one sync did. `seconds` is its whole duration, `header_seconds` that of its headers,
    `state_seconds` that of fetching a state. `blocks` counts those that were executed."""

    start_height: int
    height: int
    head_hash: bytes
    headers: int
    blocks: int
    transactions: int
    reverted: int
    bytes_received: int
    seconds: float
    header_seconds: float
    pivot_height: int | None = None
    """Of the block whose state was fetched instead of executing those up to it; None: none was."""
    accounts: int = 0
    """Of that state."""
    state_seconds: float = 0.0

    @property
    def headers_per_second(self) -> float:
        """Headers received, checked and stored, over the time until the last of them was."""
        return self.headers / self.header_seconds if self.header_seconds > 0 else 0.0

    @property
    def blocks_per_second(self) -> float:
        """Blocks executed and committed, over the whole duration."""
        return self.blocks / self.seconds if self.seconds > 0 else 0.0

    @property
    def transactions_per_second(self) -> float:
        """Transactions executed and committed, over the whole duration."""
        return self.transactions / self.seconds if self.seconds > 0 else 0.0

    @property
    def accounts_per_second(self) -> float:
        """Accounts of the state, over the time that it took to fetch it."""
        return self.accounts / self.state_seconds if self.state_seconds > 0 else 0.0


class Rate:
    """Events per second over the last `RATE_SPAN` seconds."""

    __slots__ = ("_began", "_samples", "_sum")

    def __init__(self, now: float) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._sum = 0
        self._began = now

    def add(self, count: int, now: float) -> None:
        """Count events; samples of one tenth of a second share an entry, so few are kept."""
        self._sum += count
        if self._samples and now - self._samples[-1][0] < 0.1:
            when, before = self._samples.pop()
            self._samples.append((when, before + count))
        else:
            self._samples.append((now, count))

    def value(self, now: float) -> float:
        """The rate at `now`."""
        while self._samples and self._samples[0][0] < now - RATE_SPAN:
            self._sum -= self._samples.popleft()[1]
        return self._sum / min(RATE_SPAN, max(now - self._began, 0.1))


class Meter:
    """Counts what a sync does; the pipeline writes it, `SyncManager.status` reads it."""

    def __init__(self, runtime: Runtime, height: int) -> None:
        self._runtime = runtime
        self._now = 0.0
        self.phase = SyncPhase.IDLE
        self.waiting: str | None = None
        self.target_height = height
        self.header_height = height
        self.reset(height)

    def now(self) -> float:
        """Loop time; outside a loop, that of the last event."""
        with suppress(RuntimeError):  # a snapshot may be read where no loop runs
            self._now = self._runtime.loop_time()
        return self._now

    def reset(self, height: int) -> None:
        """A sync begins at this height."""
        now = self.now()
        self.start_height = self.current_height = height
        self.began = self.header_ended = self.progressed = now
        self.headers = self.blocks = self.transactions = self.reverted = self.bytes_received = 0
        self._header_rate, self._block_rate = Rate(now), Rate(now)
        self._transaction_rate, self._account_rate = Rate(now), Rate(now)
        self.pivot_height: int | None = None
        self.accounts_done = self.accounts_gained = 0
        self.accounts_total: int | None = None
        self.parted: str | None = None  # from whom last, and why
        self._adopted = False
        self._state_began: float | None = None
        self._state_seconds = 0.0

    def touch(self) -> None:
        """Something useful arrived or was done: the sync is alive."""
        self.progressed = self.now()

    def received(self, size: int) -> None:
        """Bytes of headers, state and bodies arrived."""
        self.bytes_received += size

    def headers_stored(self, count: int, height: int) -> None:
        """`count` checked headers up to `height` are in the store."""
        self.touch()
        self.headers += count
        self.header_height = height
        self.header_ended = self.progressed
        self._header_rate.add(count, self.progressed)

    def state_begins(self, pivot_height: int, done: int, total: int | None) -> None:
        """The state of this block is fetched from now on, instead of another if there was one;
        so much of it is here already."""
        self.touch()
        self.pivot_height, self.accounts_done, self.accounts_total = pivot_height, done, total
        if self._state_began is None:
            self._state_began = self.progressed
            self._account_rate = Rate(self.progressed)

    def state_progress(self, done: int, total: int | None) -> None:
        """So many accounts of the state are here, of so many that it has, if that is known."""
        self.touch()
        if self.accounts_total is not None:  # else they were here, unknown to us
            gained = max(0, done - self.accounts_done)
            self.accounts_gained += gained
            self._account_rate.add(gained, self.progressed)
        self.accounts_done, self.accounts_total = done, total

    def state_adopted(self, height: int, accounts: int) -> None:
        """The state is whole, and the chain goes on from it, at this height."""
        self.touch()
        self.current_height, self._adopted = height, True
        self.accounts_done = self.accounts_total = accounts
        if self._state_began is not None:
            self._state_seconds = self.progressed - self._state_began

    def state_given_up(self) -> None:
        """Blocks are executed after all, and peers have their time to serve them."""
        self.touch()
        self.pivot_height = self._state_began = self.accounts_total = None
        self.accounts_done = 0

    def blocks_applied(self, blocks: int, transactions: int, reverted: int, height: int) -> None:
        """Blocks up to `height` are executed and committed."""
        self.touch()
        self.blocks += blocks
        self.transactions += transactions
        self.reverted += reverted
        self.current_height = height
        self._block_rate.add(blocks, self.progressed)
        self._transaction_rate.add(transactions, self.progressed)

    def why_waiting(self, peers: int) -> str | None:
        """Why nothing moves, if that is so."""
        if not peers and self.phase in (SyncPhase.HEADERS, SyncPhase.STATE, SyncPhase.BLOCKS):
            return "all peers are gone, waiting for new ones"
        return self.waiting

    def with_fault(self, reason: str) -> str:
        """Why a sync cannot go on, with the last peer that it had to part from, height and rule."""
        return f"{reason}; {self.parted}" if self.parted else reason

    def status(self, peers: int) -> SyncStatus:
        """A snapshot."""
        now = self.now()
        return SyncStatus(
            phase=self.phase,
            start_height=self.start_height,
            header_height=max(self.header_height, self.current_height),
            current_height=self.current_height,
            target_height=max(self.target_height, self.current_height),
            headers_per_second=self._header_rate.value(now),
            blocks_per_second=self._block_rate.value(now),
            transactions_per_second=self._transaction_rate.value(now),
            bytes_received=self.bytes_received,
            peers=peers,
            waiting=self.why_waiting(peers),
            pivot_height=self.pivot_height,
            accounts_done=self.accounts_done,
            accounts_total=self.accounts_total,
            accounts_per_second=self._account_rate.value(now),
        )

    def result(self, height: int, head_hash: bytes) -> SyncResult:
        """What was done since `reset`."""
        return SyncResult(
            start_height=self.start_height,
            height=height,
            head_hash=head_hash,
            headers=self.headers,
            blocks=self.blocks,
            transactions=self.transactions,
            reverted=self.reverted,
            bytes_received=self.bytes_received,
            seconds=self.now() - self.began,
            header_seconds=self.header_ended - self.began,
            pivot_height=self.pivot_height if self._adopted else None,
            accounts=self.accounts_done if self._adopted else 0,
            state_seconds=self._state_seconds,
        )
