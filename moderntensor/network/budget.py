"""The byte budget: all that peers can make this node hold in memory, bounded as a whole.

Some things have a cap of their own (the mempool, the windows of a sync, what was relayed lately);
these caps are shares of the budget where it is small. The rest is for what single peers hold: half
a frame, messages that wait for their handlers, replies that wait to leave, hashes that are known
of it. A peer has an account that is brought up to date as it is read from and written to.

Over its share a peer is refused first: BUSY for what it asks, and it is not read from, unless it
owes us replies. When all peers together are over theirs, who holds most is dropped: who is leaving
anyway, then who has dialled us, then the others. A part is left to those whom we have dialled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from ..config import NodeConfig
from .protocol import SOFT_REPLY_LIMIT

__all__ = ["Account", "BudgetReport", "ByteBudget", "Holder", "Kind", "caps_of"]

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB
# What a peer may hold at least of what goes away by itself: the largest reply, and some messages.
SHARE_LEAST: Final = 6 * _MIB
# Memory of a connected peer that does nothing, its sets of known hashes apart: measured, 27 KiB in
# plaintext.
PEER_BASE: Final = 32 * _KIB
# And of each extension that it shares: measured, 8.4 KiB.
EXTENSION_BASE: Final = 10 * _KIB
# Memory of a hash in a set of those that a peer is known to have: 80 for itself, 64 for its place.
HASH_BYTES: Final = 144
# Connections that are no peers yet, and closed ones that linger: bounded by number, 114 in all.
STRANGERS: Final = 4 * _MIB
# Changes of an account by less are put off: it is looked at with every read.
GRAIN: Final = 16 * _KIB
# And are seen to every so many seconds.
SETTLE_INTERVAL: Final = 5.0


class Kind(StrEnum):
    """What bytes are held for."""

    FRAMES = "frames"
    """Read and not decoded: half a frame, half a record, what waits for its turn."""
    INBOX = "inbox"
    """Decoded messages that wait for their handlers."""
    REQUESTS = "requests"
    """Decoded requests that wait for their answers."""
    SENDING = "sending"
    """Bytes that wait to leave."""
    EXTENSIONS = "extensions"
    """Messages and requests of applications that wait. They have bounds of their own."""
    KNOWN = "known"
    """Hashes that the peer is known to have."""
    PEERS = "peers"
    """What being connected costs."""
    MEMPOOL = "mempool"
    HEADERS = "headers"
    """Fetched by a sync, not stored yet."""
    BODIES = "bodies"
    """Fetched by a sync, not executed yet, with their transactions as objects."""
    OLD_BODIES = "old_bodies"
    """Fetched in the background, for blocks below those that were fetched by state."""
    STATE = "state"
    """Accounts fetched by a sync, not stored yet, as objects. They have the cap of BODIES, of which
    there are none meanwhile."""
    RELAYED = "relayed"
    """Transactions that were passed on lately."""
    BLOCKS = "blocks"
    """Announced blocks that are being completed."""


_PASSING: Final = (Kind.INBOX, Kind.REQUESTS, Kind.SENDING)


class Holder(Protocol):
    """Who an account is for."""

    address: str
    outbound: bool

    @property
    def owes_us(self) -> bool:
        """Whether a reply of it is outstanding."""

    def make_room(self) -> None:
        """Give back what is held for it: the budget is full, and it holds most."""


class Account:
    """What is held for one peer, by kind."""

    __slots__ = ("_budget", "_sizes", "closed", "held", "holder", "leaving")

    def __init__(self, budget: ByteBudget, holder: Holder) -> None:
        self._budget = budget
        self._sizes: dict[Kind, int] = {}
        self.holder = holder
        self.held = 0
        self.leaving = False  # it was disconnected, and only its last bytes are still here
        self.closed = False

    def hold(self, kind: Kind, size: int) -> None:
        """`size` bytes are held for it now; what was held of that kind before counts no more."""
        change = size - self._sizes.get(kind, 0)
        if not change or self.closed:
            return
        self._sizes[kind] = size
        self.held += change
        self._budget.moved(self, change)

    @property
    def allowance(self) -> int:
        """What it may hold of what goes away by itself; of what applications let wait, as much
        again."""
        return self._budget.allowance(self.holder.outbound)

    @property
    def spare(self) -> bool:
        """Whether there is room for what may wait for long. Not for all that there is: the share
        of each is of what is free now, and nobody would be left any when all take theirs."""
        return self._budget.spare(self.holder.outbound)

    @property
    def over(self) -> bool:
        """Whether it holds more than its share of what goes away by itself, or than an equal share
        where the budget is nearly full: it gets no more for now. Half a frame does not go away by
        waiting."""
        sizes = self._sizes
        held = sum(sizes.get(kind, 0) for kind in _PASSING)
        return held > GRAIN and held > self.allowance

    @property
    def sizes(self) -> dict[Kind, int]:
        """Bytes by kind, those that are not zero; a copy."""
        return {kind: size for kind, size in self._sizes.items() if size}

    def part(self, sending: int) -> None:
        """It is disconnected; only `sending` bytes are still to leave."""
        self.leaving = True
        for kind in tuple(self._sizes):
            self.hold(kind, 0)
        self.hold(Kind.SENDING, sending)

    def close(self) -> None:
        """Nothing is held for it any more. Idempotent."""
        if not self.closed:
            for kind in tuple(self._sizes):
                self.hold(kind, 0)
            self.closed = True
            self._budget.closed(self)


@dataclass(frozen=True, slots=True)
class BudgetReport:
    """The bytes at one moment."""

    total: int
    """The budget."""
    held: int
    highest: int
    """The most that was ever seen held."""
    by_kind: dict[Kind, int]
    by_peer: dict[str, int]
    caps: dict[Kind, int]
    """Of what has a cap of its own."""
    peers_cap: int
    """Of all peers together."""
    share: int
    """What one peer may hold before it is refused."""
    dropped: int
    """Peers that had to go because the budget was full."""


def caps_of(config: NodeConfig) -> dict[Kind, int]:
    """The caps of what has one of its own: as set, or a share where the budget is small."""
    total = config.byte_budget
    return {
        Kind.MEMPOOL: min(config.mempool_bytes, total // 4),
        Kind.BODIES: min(config.sync_window_bytes, total // 4),
        Kind.HEADERS: min(8 * _MIB, total // 16),
        Kind.OLD_BODIES: min(8 * _MIB, total // 32),
        Kind.BLOCKS: min(16 * _MIB, total // 16),
        Kind.RELAYED: min(4 * _MIB, total // 32),
    }


class ByteBudget:
    """`NodeConfig.byte_budget`, shared out and watched. For the loop's thread."""

    def __init__(self, config: NodeConfig) -> None:
        total = self.total = config.byte_budget
        self.caps = caps_of(config)
        self.peers = total - sum(self.caps.values()) - min(STRANGERS, total // 32)
        self.inbound = self.peers * 3 // 4  # the rest is for those whom we have dialled
        self.share = max(SHARE_LEAST, self.peers // 8)
        self.held_by_peers = 0
        self.held_by_inbound = 0
        self.highest = 0
        self.dropped = 0
        self._accounts: dict[Account, None] = {}
        self._measures: dict[Kind, Callable[[], int]] = {}
        self._others = 0  # what has a cap of its own, when it was last measured
        self._relieving = False

    # --- accounts --------------------------------------------------------------------------

    def open(self, holder: Holder) -> Account:
        """An account for a peer that has just come."""
        account = Account(self, holder)
        self._accounts[account] = None
        account.hold(Kind.PEERS, PEER_BASE)
        return account

    def moved(self, account: Account, change: int) -> None:
        """An account has changed by so much."""
        self.held_by_peers += change
        if not account.holder.outbound:
            self.held_by_inbound += change
        if change > 0:
            self.highest = max(self.highest, self.held_by_peers + self._others)
            self._relieve()

    def allowance(self, outbound: bool) -> int:
        """What one peer may hold of what goes away by itself."""
        used, room = self.held_by_peers, self.peers
        if not outbound and self.held_by_inbound * room > used * self.inbound:
            used, room = self.held_by_inbound, self.inbound
        return self.share if used <= room * 7 // 8 else room // max(1, len(self._accounts))

    def spare(self, outbound: bool) -> bool:
        """Whether a quarter is free, of what all have and of what inbound peers have."""
        free = self.held_by_peers <= self.peers * 3 // 4
        return free and (outbound or self.held_by_inbound <= self.inbound * 3 // 4)

    def closed(self, account: Account) -> None:
        """An account was closed."""
        self._accounts.pop(account, None)

    @property
    def _full(self) -> bool:
        return self.held_by_inbound > self.inbound or self.held_by_peers > self.peers

    def _relieve(self) -> None:
        """Drop who holds most, one after the other, until the rest fits."""
        if self._relieving:
            return
        self._relieving = True
        try:
            while self._full:
                only_inbound = self.held_by_peers <= self.peers
                held = [
                    account
                    for account in self._accounts
                    if account.held and not (only_inbound and account.holder.outbound)
                ]
                if not held:
                    return
                greatest = max(held, key=_precedence)
                before = greatest.held
                self.dropped += not greatest.leaving
                greatest.holder.make_room()
                if greatest.held >= before:
                    greatest.close()
        finally:
            self._relieving = False

    # --- what has a cap of its own -----------------------------------------------------------

    def watch(self, kind: Kind, measure: Callable[[], int]) -> None:
        """`measure()` gives the bytes held for `kind` from now on; it keeps to `caps[kind]`."""
        self._measures[kind] = measure

    @contextmanager
    def watching(self, kind: Kind, measure: Callable[[], int]) -> Iterator[None]:
        """`watch` for a while."""
        self._measures[kind] = measure
        try:
            yield
        finally:
            del self._measures[kind]

    def sample(self) -> None:
        """Look at what has a cap of its own; called by the node now and then."""
        self._others = sum(measure() for measure in self._measures.values())
        self.highest = max(self.highest, self.held_by_peers + self._others)

    def report(self) -> BudgetReport:
        """The bytes by kind and by peer, now."""
        self.sample()
        by_kind = dict.fromkeys(Kind, 0)
        for kind, measure in self._measures.items():
            by_kind[kind] = measure()
        for account in self._accounts:
            for kind, size in account.sizes.items():
                by_kind[kind] += size
        return BudgetReport(
            total=self.total,
            held=sum(by_kind.values()),
            highest=self.highest,
            by_kind=by_kind,
            by_peer={account.holder.address: account.held for account in self._accounts},
            caps=dict(self.caps),
            peers_cap=self.peers,
            share=self.share,
            dropped=self.dropped,
        )


def _precedence(account: Account) -> tuple[bool, bool, bool, int]:
    """Who has to go first: the greatest. What we asked for ourselves is no fault of a peer, nor is
    what we keep in mind of it, nor one reply that is on its way."""
    holder, sizes = account.holder, account.sizes
    ours = sizes.get(Kind.KNOWN, 0) + min(sizes.get(Kind.SENDING, 0), SOFT_REPLY_LIMIT)
    own = account.held if account.leaving else account.held - ours
    return account.leaving, not holder.outbound, not holder.owes_us, own
