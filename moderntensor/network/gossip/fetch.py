"""Announced transactions on their way here: each asked for once, of one announcer at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, cast

from ...blockchain.transaction import Transaction
from ...errors import (
    DecodeError,
    NetworkError,
    ProtocolViolationError,
    RequestTimeoutError,
)
from ..host import Host
from ..limits import (
    BUSY_PAUSE,
    BUSY_RETRIES,
    FETCH_ALTERNATIVES,
    FETCHES_PER_PEER,
    SILENT_BYTES,
    TRANSACTION_FETCH_TIMEOUT,
    TRANSACTION_STALL_TIME,
    WANTED_PER_PEER,
    WANTED_RESERVED,
    WANTED_TRANSACTIONS,
)
from ..messages import DisconnectCode, GetTransactionsMessage, Reply, Status, TransactionsMessage
from ..offences import Offence
from ..peer import Peer
from ..protocol import MAX_TRANSACTIONS_ASKED
from .score import NewsScore

__all__ = ["Delivery", "TransactionFetcher", "busy_pause", "decode_transactions", "request"]

logger = logging.getLogger(__name__)

Taker = Callable[[Peer, list[Transaction]], Awaitable[None]]


class Delivery(NamedTuple):
    """What came of asking for transactions; `busy` is how long to wait before asking again."""

    transactions: list[Transaction]
    busy: float | None


def decode_transactions(raw: Sequence[bytes]) -> list[Transaction]:
    """Transactions that a peer sent. Raises `ProtocolViolationError` for a malformed one."""
    try:
        return [Transaction.decode_hashed(item) for item in raw]
    except DecodeError as error:
        raise ProtocolViolationError(
            DisconnectCode.BAD_TRANSACTION, str(error), Offence.MALFORMED
        ) from error


def busy_pause(reply: Reply) -> float | None:
    """Seconds to wait if a reply says BUSY, as long as we are willing to."""
    if reply.status != Status.BUSY:
        return None
    return min(reply.retry_ms / 1000, BUSY_PAUSE)


async def request(peer: Peer, hashes: Sequence[bytes], seconds: float) -> Delivery:
    """Those of `hashes` (at most 1024) that `peer` has, or the first of them that fit into one
    reply, within `seconds`. Raises `NetworkError`; `ProtocolViolationError` for others than asked.
    """
    asked = set(hashes)
    reply = cast(
        TransactionsMessage,
        await peer.request(GetTransactionsMessage(hashes=tuple(hashes)), seconds),
    )
    txs = decode_transactions(reply.transactions)
    for tx in txs:
        if tx.hash not in asked:
            raise ProtocolViolationError(
                DisconnectCode.PROTOCOL_ERROR,
                "TRANSACTIONS holds one that was not asked for",
                Offence.WRONG_REPLY,
            )
        asked.remove(tx.hash)
        peer.known_transactions.add(tx.hash)
    return Delivery(txs, busy_pause(reply))


class _Asking:
    """What one peer is to be asked for, in order, and by how many tasks it is."""

    __slots__ = ("tasks", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[bytes, None] = {}
        self.tasks = 0

    def take(self) -> list[bytes]:
        """The next request's worth."""
        part = list(self.waiting)[:MAX_TRANSACTIONS_ASKED]
        for tx_hash in part:
            del self.waiting[tx_hash]
        return part


class TransactionFetcher:
    """Asks announcers for what they announced, and others where those do not deliver.

    `take_in` is given what comes.
    """

    def __init__(self, host: Host, score: NewsScore, take_in: Taker) -> None:
        self._host = host
        self._score = score
        self._take_in = take_in
        # Announced and being asked for, with others who have it too.
        self.wanted: dict[bytes, list[Peer]] = {}
        self._asking: dict[Peer, _Asking] = {}

    def forget(self) -> None:
        """A new life: what was being asked for when the last one ended never will come."""
        self.wanted.clear()
        self._asking.clear()

    def ask_for(self, peer: Peer, announced: Iterable[bytes]) -> None:
        """`peer` has announced these, which are not here."""
        for tx_hash in announced:
            others = self.wanted.get(tx_hash)
            if others is not None:
                _remember(others, peer)
            elif self._has_room(peer):
                self.wanted[tx_hash] = []
                self._enqueue(peer, tx_hash)
        self._start(peer)

    def _has_room(self, peer: Peer) -> bool:
        mine = peer.wanted_from
        return mine < WANTED_PER_PEER and (
            len(self.wanted) < WANTED_TRANSACTIONS or mine < WANTED_RESERVED
        )

    def _enqueue(self, peer: Peer, tx_hash: bytes) -> None:
        asking = self._asking.get(peer)
        if asking is None:
            asking = self._asking[peer] = _Asking()
        asking.waiting[tx_hash] = None
        peer.wanted_from += 1

    def _start(self, peer: Peer) -> None:
        asking = self._asking.get(peer)
        if asking is None:
            return
        room = FETCHES_PER_PEER - asking.tasks
        for _ in range(min(room, -(-len(asking.waiting) // MAX_TRANSACTIONS_ASKED))):
            asking.tasks += 1
            self._host.tasks.start(
                self._run(peer, asking, asking.take()), f"transactions of {peer.address}"
            )

    async def _run(self, peer: Peer, asking: _Asking, part: list[bytes]) -> None:
        """Ask `peer` for `part`, and for what is announced meanwhile."""
        try:
            while part:
                asked = dict.fromkeys(part)
                missing = dict.fromkeys(part)
                try:
                    answers = await self._fetch(peer, asked, missing)
                finally:
                    peer.wanted_from -= len(part)
                    self._done(asked, missing)
                if not answers:
                    self._give_up(peer, asking)
                part = asking.take()
        finally:
            asking.tasks -= 1
            if not asking.tasks:
                self._give_up(peer, asking)
                if self._asking.get(peer) is asking:
                    del self._asking[peer]

    async def _fetch(
        self, peer: Peer, asked: dict[bytes, None], missing: dict[bytes, None]
    ) -> bool:
        """Get what is `missing`, as far as `peer` has it; whether it answers at all. What takes
        longer than one reply may is left to others who have it, and leaves `asked` as well."""
        busy = before = wanted = 0
        began = self._host.runtime.loop_time()
        try:
            while missing:
                before, wanted = peer.connection.bytes_received, len(missing)
                txs, pause = await self._request(peer, asked, missing)
                for tx in txs:
                    missing.pop(tx.hash, None)
                if txs:
                    await self._take_in(peer, txs)
                    if self._host.runtime.loop_time() >= began + TRANSACTION_FETCH_TIMEOUT:
                        self._leave_to_others(asked, missing)
                elif pause is None or busy >= BUSY_RETRIES or self._others_have(missing):
                    break
                else:
                    busy += 1
                    await asyncio.sleep(pause)
        except ProtocolViolationError as error:
            peer.breach(error)
        except RequestTimeoutError:
            self._score.silent(peer, before, f"{wanted} transactions")
            return False
        except NetworkError as error:
            logger.debug("%s did not send its transactions: %s", peer, error)
            return False
        return not peer.closed

    async def _request(
        self, peer: Peer, asked: dict[bytes, None], missing: dict[bytes, None]
    ) -> Delivery:
        """Ask for what is `missing`. While next to nothing comes it is left to others, too, every
        `TRANSACTION_STALL_TIME`: nobody who announces and is silent holds it up for long."""
        loop, before = asyncio.get_running_loop(), peer.connection.bytes_received
        timers: list[asyncio.TimerHandle] = []

        def look() -> None:
            if timers and peer.connection.bytes_received - before < SILENT_BYTES:
                self._leave_to_others(asked, missing)
            timers[:] = [loop.call_later(TRANSACTION_STALL_TIME, look)]

        look()
        try:
            return await request(peer, list(missing), TRANSACTION_FETCH_TIMEOUT)
        finally:
            timers[0].cancel()

    def _leave_to_others(self, asked: dict[bytes, None], missing: dict[bytes, None]) -> None:
        late = {tx_hash: None for tx_hash in missing if self.wanted.get(tx_hash)}
        for tx_hash in late:
            del asked[tx_hash], missing[tx_hash]
        self._done(late, late)

    def _others_have(self, missing: Iterable[bytes]) -> bool:
        return any(self.wanted.get(tx_hash) for tx_hash in missing)

    def _give_up(self, peer: Peer, asking: _Asking) -> None:
        """Others are to be asked for what this peer has not been asked for yet."""
        rest, asking.waiting = asking.waiting, {}
        peer.wanted_from -= len(rest)
        self._done(rest, rest)

    def _done(self, hashes: Iterable[bytes], missing: dict[bytes, None]) -> None:
        """Ask others who announced it for what is missing; be done with the rest."""
        starting: dict[Peer, None] = {}
        for tx_hash in hashes:
            others = self.wanted.pop(tx_hash, [])
            while tx_hash in missing and others and self._host.running:
                other = others.pop(0)
                if not other.closed:
                    self.wanted[tx_hash] = others
                    self._enqueue(other, tx_hash)
                    starting[other] = None
                    break
        for other in starting:
            self._start(other)


def _remember(others: list[Peer], peer: Peer) -> None:
    """Note one more who has a wanted transaction: those that we chose to dial first."""
    if peer in others:
        return
    if peer.outbound:
        others.insert(sum(other.outbound for other in others), peer)
        del others[FETCH_ALTERNATIVES:]
    elif len(others) < FETCH_ALTERNATIVES:
        others.append(peer)
