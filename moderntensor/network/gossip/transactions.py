"""News of transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from math import isqrt

from ...blockchain.mempool import ALWAYS_INVALID, Mempool
from ...blockchain.transaction import Transaction, identify
from ...errors import InvalidTransactionError
from ...runtime import SignatureMemo
from ..budget import Kind
from ..host import Host
from ..known import KnownSet, RecentBytes
from ..limits import (
    LATER_TRANSACTIONS,
    MEMPOOL_UPKEEP,
    REFUSED_TRANSACTIONS,
    RELAY_FEW,
    RELAY_LATER,
    RELAY_PAUSE,
    TRANSACTION_FULL_SIZE,
    TRANSACTION_PUSH_MIN,
)
from ..messages import MessageCodec, NewTransactionMessage
from ..offences import Offence
from ..peer import Peer
from ..protocol import MAX_ANNOUNCED_TRANSACTIONS
from .fetch import TransactionFetcher, decode_transactions
from .score import NewsScore

__all__ = ["TransactionGossip"]


class TransactionGossip:
    """Takes in what peers send or announce, and passes on what the mempool has accepted.

    Our own go whole to a few peers, all others by hash: who lacks one asks for it, so that its
    bytes come once to everybody.
    """

    def __init__(self, host: Host, score: NewsScore) -> None:
        self._host = host
        self._score = score
        self._outgoing: dict[bytes, None] = {}  # hashes, since the last turn
        self._wake = asyncio.Event()
        self._later: dict[bytes, None] = {}  # hashes that a few have been told of
        self._wake_later = asyncio.Event()
        self._relayed = RecentBytes(host.budget.caps[Kind.RELAYED])
        host.budget.watch(Kind.RELAYED, lambda: self._relayed.size)
        self.fetcher = TransactionFetcher(host, score, self._take_in)
        # Refused for reasons that may pass, which they do when the head moves.
        self._refused = KnownSet(REFUSED_TRANSACTIONS)
        self._judging: set[bytes] = set()  # on a worker thread just now
        self.on_accepted: list[Callable[[list[Transaction]], object]] = []
        """Told of what came from peers, and is in the mempool now."""
        self.useful_bytes = 0
        """Of transactions that peers sent, encoded, and that were new here."""
        self.repeated_bytes = 0
        """The same of those that were here already."""

    def forget(self) -> None:
        """A new life: what was under way when the last one ended never will come."""
        self.fetcher.forget()
        self._judging.clear()

    # --- out -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Pass on what is queued until cancelled; what comes soon after goes together."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._flush()
            await asyncio.sleep(RELAY_PAUSE)

    async def run_later(self) -> None:
        """Tell of the same those who have not told us of it meanwhile, until cancelled."""
        while True:
            await self._wake_later.wait()
            self._wake_later.clear()
            await asyncio.sleep(self._host.runtime.random.uniform(RELAY_LATER / 8, RELAY_LATER))
            self._flush_later()

    async def look_after_pool(self) -> None:
        """Let the mempool's transactions grow older until cancelled."""
        while True:
            mempool = self._host.mempool
            if mempool is not None:
                now = self._host.runtime.loop_time()
                await self._host.runtime.run(mempool.expire, now)
            await asyncio.sleep(MEMPOOL_UPKEEP)

    def head_moved(self) -> None:
        """What was refused may be admitted now, and what was undone is news again."""
        self._refused = KnownSet(REFUSED_TRANSACTIONS)
        if self._host.mempool is not None:
            self._relay(self._host.mempool.take_returned())

    def publish(self, tx: Transaction) -> int:
        """Pass on a transaction of our own now, which nobody else has yet: whole to a few peers
        and by hash to the rest, to all of them if it is large; to how many."""
        raw = tx.encode()
        self._relayed.add(tx.hash, raw)
        peers = [peer for peer in self._peers() if tx.hash not in peer.known_transactions]
        self._host.runtime.random.shuffle(peers)
        whole = max(TRANSACTION_PUSH_MIN, isqrt(len(peers)))
        if len(raw) > TRANSACTION_FULL_SIZE:
            whole = 0
        if full := peers[:whole]:
            frame = MessageCodec.encode(NewTransactionMessage(transactions=(raw,)))
            for peer in full:
                if peer.offer(frame):
                    peer.known_transactions.add(tx.hash)
        self._tell(peers[whole:], (tx.hash,))
        return len(peers)

    def relayed(self, tx_hash: bytes) -> bytes | None:
        """A transaction that was passed on lately, encoded."""
        return self._relayed.get(tx_hash)

    def _relay(self, txs: Iterable[Transaction]) -> None:
        for tx in txs:
            self._relayed.add(tx.hash, tx.encode())
            self._outgoing[tx.hash] = None
            if len(self._outgoing) >= MAX_ANNOUNCED_TRANSACTIONS:
                self._flush()
        if self._outgoing:
            self._wake.set()

    def _flush(self) -> None:
        """What others made goes by hash, so that everybody gets it once: to a few peers now, to
        the rest a little later, when most of those have it and have said so. Those few are told
        of what waits for that as well, which saves a message."""
        outgoing, self._outgoing = self._outgoing, {}
        peers = [peer for peer in self._peers() if not peer.known_transactions.has_all(outgoing)]
        news = self._later | outgoing
        few = peers
        if len(peers) > RELAY_FEW:
            few = self._host.runtime.random.sample(peers, RELAY_FEW)
            self._later = news
            self._wake_later.set()
        self._tell(few, news)
        if len(self._later) > LATER_TRANSACTIONS:
            self._flush_later()

    def _flush_later(self) -> None:
        later, self._later = self._later, {}
        self._tell(self._peers(), later)

    def _peers(self) -> list[Peer]:
        return [peer for peer in self._host.table if not peer.connection.closing]

    def _tell(self, peers: Iterable[Peer], hashes: Iterable[bytes]) -> None:
        """Announce to each of them what it does not know."""
        frames: dict[tuple[bytes, ...], bytes] = {}
        for peer in peers:
            known = peer.known_transactions
            news = [tx_hash for tx_hash in hashes if tx_hash not in known]
            for start in range(0, len(news), MAX_ANNOUNCED_TRANSACTIONS):
                part = tuple(news[start : start + MAX_ANNOUNCED_TRANSACTIONS])
                frame = frames.get(part)
                if frame is None:
                    message = NewTransactionMessage(announced=part)
                    frame = frames[part] = MessageCodec.encode(message)
                if peer.offer(frame):
                    known.update(part)

    # --- in --------------------------------------------------------------------------------

    def on_announced(self, peer: Peer, message: NewTransactionMessage) -> bool:
        """NEW_TRANSACTION has come; False if it holds whole ones, to be judged elsewhere."""
        if message.transactions:
            return False
        known = peer.known_transactions
        announced = [tx_hash for tx_hash in message.announced if known.hear(tx_hash)]
        if known.repeats:
            self._score.repeats(peer, known)
        if self._host.mempool is not None:
            new = [tx_hash for tx_hash in announced if self._is_new(tx_hash)]
            if new:
                self.fetcher.ask_for(peer, new)
        return True

    async def on_news(self, peer: Peer, message: NewTransactionMessage) -> None:
        """NEW_TRANSACTION has come."""
        known = peer.known_transactions
        # What it has sent before, or had from us, is no news.
        txs = []
        for tx in decode_transactions(message.transactions):
            if known.hear(tx.hash):
                txs.append(tx)
            else:
                self.repeated_bytes += len(tx.encode())
        announced = [tx_hash for tx_hash in message.announced if known.hear(tx_hash)]
        if known.repeats:
            self._score.repeats(peer, known)
        if self._host.mempool is None:
            return
        if txs:
            await self._take_in(peer, txs)
        self.fetcher.ask_for(peer, [tx_hash for tx_hash in announced if self._is_new(tx_hash)])

    def welcome(self, peer: Peer) -> None:
        """Announce what waits here to a peer that has just come, if it can judge it: one that is
        behind would check it against an old state."""
        chain, mempool = self._host.chain, self._host.mempool
        if chain is None or mempool is None or peer.best_height < chain.head.height - 1:
            return
        hashes = mempool.hashes()[-MAX_ANNOUNCED_TRANSACTIONS:]
        if hashes and peer.offer(
            MessageCodec.encode(NewTransactionMessage(announced=tuple(hashes)))
        ):
            peer.known_transactions.update(hashes)

    def _is_new(self, tx_hash: bytes) -> bool:
        mempool = self._host.mempool
        return (
            mempool is not None
            and tx_hash not in mempool
            and tx_hash not in self._relayed
            and tx_hash not in self._refused
            and tx_hash not in self._judging
        )

    async def _take_in(self, peer: Peer, txs: list[Transaction]) -> None:
        """Into the mempool, and on; what no honest node would have sent is held against `peer`."""
        mempool = self._host.mempool
        fresh = [tx for tx in txs if self._is_new(tx.hash)]
        size, new = (sum(len(tx.encode()) for tx in each) for each in (txs, fresh))
        self.useful_bytes += new
        self.repeated_bytes += size - new
        if not fresh or mempool is None:
            return
        judged = [tx.hash for tx in fresh]
        self._judging.update(judged)
        try:
            runtime = self._host.runtime
            accepted, refused, worst = await runtime.run(_admit, mempool, fresh, runtime.signatures)
        finally:
            self._judging.difference_update(judged)
        self._refused.update(refused)
        if accepted:
            peer.last_transaction_at = self._host.runtime.loop_time()
            self._relay(accepted)
            for told in self.on_accepted:
                told(accepted)
        if worst is not None:
            peer.punish(Offence.BAD_TRANSACTION, str(worst))


def _admit(
    mempool: Mempool, txs: list[Transaction], memo: SignatureMemo | None
) -> tuple[list[Transaction], list[bytes], InvalidTransactionError | None]:
    """Into the mempool, on a worker thread: what is new there, what may be admitted later, and
    the worst offence."""
    accepted: list[Transaction] = []
    refused: list[bytes] = []
    worst: InvalidTransactionError | None = None
    identify(txs, memo)  # all senders in one go
    for tx in txs:
        try:
            if mempool.add(tx):
                accepted.append(tx)
        except InvalidTransactionError as error:
            if error.rule in ALWAYS_INVALID:
                worst = error
            else:
                refused.append(tx.hash)
    return accepted, refused, worst
