"""What may happen to an honest teller of news now and then, and is held against it over a rate."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary, WeakSet

from ...blockchain.block import BlockHeader
from ..host import Host
from ..known import KnownSet
from ..limits import (
    REPEATS_BURST,
    REPEATS_PER_SECOND,
    SILENT_BYTES,
    TRANSACTION_FETCH_TIMEOUT,
    UNKNOWN_BRANCH_BURST,
    UNKNOWN_BRANCH_PER_SLOT,
    UNKNOWN_PARENTS_BURST,
    UNKNOWN_PARENTS_PER_SLOT,
)
from ..offences import Offence
from ..peer import Peer
from ..rates import TokenBucket

__all__ = ["NewsScore"]


class NewsScore:
    """Counts, by peer, what news repeat and where they lead nowhere."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._repeats: WeakKeyDictionary[Peer, TokenBucket] = WeakKeyDictionary()
        self._strays: WeakKeyDictionary[Peer, TokenBucket] = WeakKeyDictionary()
        self._branches: WeakKeyDictionary[Peer, TokenBucket] = WeakKeyDictionary()
        self._last_strays: WeakKeyDictionary[Peer, BlockHeader] = WeakKeyDictionary()
        self._suspects: WeakSet[Peer] = WeakSet()
        self._heads: WeakKeyDictionary[Peer, int] = WeakKeyDictionary()  # ours, at its last stray

    def repeats(self, peer: Peer, known: KnownSet) -> None:
        """Look at what a message of `peer` has repeated, by the set that it was looked up in."""
        count, known.repeats = known.repeats, 0
        if not count:
            return
        now = self._host.runtime.loop_time()
        bucket = self._repeats.get(peer)
        if bucket is None:
            bucket = self._repeats[peer] = TokenBucket(REPEATS_PER_SECOND, REPEATS_BURST, now)
        if not bucket.take(now, count):
            peer.punish(Offence.REPEATED_NEWS, f"{count} that it had told of before")

    def silent(self, peer: Peer, before: int, what: str) -> None:
        """`peer` did not answer in time when it was asked for `what` it had announced; `before` is
        how many bytes had come from it until then."""
        if peer.connection.bytes_received - before < SILENT_BYTES and peer not in self._suspects:
            self._suspects.add(peer)
            work = self._convict(peer, peer.late_replies, what)
            self._host.tasks.start(work, f"silence of {peer.address}")

    async def _convict(self, peer: Peer, late: int, what: str) -> None:
        """Only who has got the question is to blame, and not a line that broke over it: once it has
        answered a PING that was sent after, it has the same time again."""
        try:
            if await peer.reachable():
                await asyncio.sleep(TRANSACTION_FETCH_TIMEOUT)
                if not peer.closed and peer.late_replies == late:
                    peer.punish(Offence.UNDELIVERED, f"{what}, announced and not delivered")
        finally:
            self._suspects.discard(peer)

    def stray(self, peer: Peer, header: BlockHeader, block_time: int) -> None:
        """`peer` has told of a block whose parent nobody has heard of. That is no fault of who
        catches up just before us: then our head moves as well, or it tells of one block upon the
        other, each signed by the validator of its slot."""
        slots = max(1, block_time)
        before, self._last_strays[peer] = self._last_strays.get(peer), header
        if before is not None and _stands_on(header, before):
            limit = UNKNOWN_BRANCH_PER_SLOT / slots, UNKNOWN_BRANCH_BURST
            self._spend(self._branches, limit, peer, header)
            return
        head = 0 if self._host.chain is None else self._host.chain.head.height
        if head > self._heads.get(peer, head):
            self._heads[peer] = head
            return
        self._heads[peer] = head
        limit = UNKNOWN_PARENTS_PER_SLOT / slots, UNKNOWN_PARENTS_BURST
        self._spend(self._strays, limit, peer, header)

    def _spend(
        self,
        buckets: WeakKeyDictionary[Peer, TokenBucket],
        limit: tuple[float, float],
        peer: Peer,
        header: BlockHeader,
    ) -> None:
        now = self._host.runtime.loop_time()
        bucket = buckets.get(peer)
        if bucket is None:
            bucket = buckets[peer] = TokenBucket(*limit, now)
        if not bucket.take(now):
            peer.punish(
                Offence.UNKNOWN_PARENT, f"block {header.height} of an unknown parent, again"
            )


def _stands_on(header: BlockHeader, before: BlockHeader) -> bool:
    return (
        header.previous_hash == before.hash
        and header.height == before.height + 1
        and header.timestamp > before.timestamp
    )
