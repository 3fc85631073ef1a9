"""News of transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from math import isqrt

from ...blockchain.mempool import ALWAYS_INVALID, Mempool
from ...blockchain.transaction import Transaction, identify
from ...errors import InvalidTransactionError
from ...runtime import SignatureMemo
from ..budget import Kind
from ..host import Host
from ..known import KnownSet, RecentBytes
from ..limits import (
    GOSSIP_QUEUE_BYTES,
    MEMPOOL_UPKEEP,
    REFUSED_TRANSACTIONS,
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

_FULL_COUNT = 255  # NEW_TRANSACTION.transactions is a list8
_FULL_BYTES = 128 * 1024  # with the most hashes (64 KiB) still under NEW_TRANSACTION's 256 KiB


class TransactionGossip:
    """Takes in what peers send or announce, and passes on what the mempool has accepted.

    Small ones go whole to a few peers and by hash to the rest, who ask for what they lack.
    """

    def __init__(self, host: Host, score: NewsScore) -> None:
        self._host = host
        self._score = score
        self._outgoing: dict[bytes, bytes] = {}  # hash → encoded, since the last turn
        self._outgoing_bytes = 0
        self._wake = asyncio.Event()
        self._relayed = RecentBytes(host.budget.caps[Kind.RELAYED])
        host.budget.watch(Kind.RELAYED, lambda: self._relayed.size)
        self.fetcher = TransactionFetcher(host, score, self._take_in)
        # Refused for reasons that may pass, which they do when the head moves.
        self._refused = KnownSet(REFUSED_TRANSACTIONS)
        self._judging: set[bytes] = set()  # on a worker thread just now

    def forget(self) -> None:
        """A new life: what was under way when the last one ended never will come."""
        self.fetcher.forget()
        self._judging.clear()

    # --- out -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Pass on what is queued, at most once a turn of the loop, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._flush()
            await asyncio.sleep(0)

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
        """Pass on a transaction now; to how many peers."""
        raw = tx.encode()
        self._relayed.add(tx.hash, raw)
        return self._send({tx.hash: raw})

    def relayed(self, tx_hash: bytes) -> bytes | None:
        """A transaction that was passed on lately, encoded."""
        return self._relayed.get(tx_hash)

    def _relay(self, txs: Iterable[Transaction]) -> None:
        for tx in txs:
            raw = tx.encode()
            self._relayed.add(tx.hash, raw)
            self._outgoing[tx.hash] = raw
            self._outgoing_bytes += len(raw)
            if self._outgoing_bytes > GOSSIP_QUEUE_BYTES:
                self._flush()
        self._wake.set()

    def _flush(self) -> None:
        outgoing, self._outgoing, self._outgoing_bytes = self._outgoing, {}, 0
        self._send(outgoing)

    def _send(self, outgoing: dict[bytes, bytes]) -> int:
        peers = [peer for peer in self._host.table if not peer.closed]
        self._host.runtime.random.shuffle(peers)
        whole = max(TRANSACTION_PUSH_MIN, isqrt(len(peers)))
        frames: dict[tuple[bytes, ...], bytes] = {}
        reached = 0
        for place, peer in enumerate(peers):
            known = peer.known_transactions
            news = [tx_hash for tx_hash in outgoing if tx_hash not in known]
            if not news:
                continue
            reached += 1
            for full, announced in _portions(news, outgoing, whole=place < whole):
                key = (*full, b"", *announced)
                frame = frames.get(key)
                if frame is None:
                    message = NewTransactionMessage(
                        transactions=tuple(outgoing[tx_hash] for tx_hash in full),
                        announced=tuple(announced),
                    )
                    frame = frames[key] = MessageCodec.encode(message)
                if peer.offer(frame):
                    known.update(full)
                    known.update(announced)
        return reached

    # --- in --------------------------------------------------------------------------------

    async def on_news(self, peer: Peer, message: NewTransactionMessage) -> None:
        """NEW_TRANSACTION has come."""
        known = peer.known_transactions
        # What it has sent before, or had from us, is no news.
        txs = [tx for tx in decode_transactions(message.transactions) if known.hear(tx.hash)]
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


def _portions(
    news: list[bytes], raw: dict[bytes, bytes], *, whole: bool
) -> Iterable[tuple[list[bytes], list[bytes]]]:
    """Hashes to send in full and to announce, message by message."""
    full: list[bytes] = []
    announced: list[bytes] = []
    size = 0
    for tx_hash in news:
        length = len(raw[tx_hash])
        if whole and length <= TRANSACTION_FULL_SIZE:
            if len(full) >= _FULL_COUNT or size + length > _FULL_BYTES:
                yield full, []
                full, size = [], 0
            full.append(tx_hash)
            size += length
        else:
            announced.append(tx_hash)
            if len(announced) >= MAX_ANNOUNCED_TRANSACTIONS:
                yield [], announced
                announced = []
    if full or announced:
        yield full, announced
