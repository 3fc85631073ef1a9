"""News of transactions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from math import isqrt
from typing import cast

from ..blockchain.mempool import ALWAYS_INVALID, Mempool
from ..blockchain.transaction import Transaction, identify
from ..errors import (
    DecodeError,
    InvalidTransactionError,
    NetworkError,
    ProtocolViolationError,
)
from .host import Host
from .limits import (
    FETCH_ALTERNATIVES,
    GOSSIP_QUEUE,
    RELAY_CACHE_BYTES,
    TRANSACTION_FULL_SIZE,
    TRANSACTION_PUSH_MIN,
    WANTED_PER_PEER,
    WANTED_TRANSACTIONS,
)
from .messages import (
    DisconnectCode,
    GetTransactionsMessage,
    MessageCodec,
    NewTransactionMessage,
    TransactionsMessage,
)
from .peer import Peer
from .protocol import MAX_ANNOUNCED_TRANSACTIONS, MAX_TRANSACTIONS_ASKED

__all__ = ["TransactionGossip", "decode_transactions"]

logger = logging.getLogger(__name__)

_FULL_COUNT = 255  # NEW_TRANSACTION.transactions is a list8
_FULL_BYTES = 128 * 1024  # with the most hashes (64 KiB) still under NEW_TRANSACTION's 256 KiB


def decode_transactions(raw: Sequence[bytes]) -> list[Transaction]:
    """Transactions that a peer sent. Raises `ProtocolViolationError` for a malformed one."""
    try:
        return [Transaction.decode_hashed(item) for item in raw]
    except DecodeError as error:
        raise ProtocolViolationError(DisconnectCode.BAD_TRANSACTION, str(error)) from error


class TransactionGossip:
    """Takes in what peers send or announce, and passes on what the mempool has accepted.

    Small ones go whole to a few peers and by hash to the rest, who ask for what they lack.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._outgoing: dict[bytes, bytes] = {}  # hash → encoded, since the last turn
        self._wake = asyncio.Event()
        self._relayed: dict[bytes, bytes] = {}
        self._relayed_bytes = 0
        # Announced and being asked for, with others who have it too.
        self._wanted: dict[bytes, list[Peer]] = {}

    def forget(self) -> None:
        """A new life: what was being asked for when the last one ended never will come."""
        self._wanted.clear()

    # --- out -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Pass on what is queued, at most once a turn of the loop, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            outgoing, self._outgoing = self._outgoing, {}
            self._send(outgoing)
            await asyncio.sleep(0)

    def publish(self, tx: Transaction) -> int:
        """Pass on a transaction now; to how many peers."""
        raw = tx.encode()
        self._remember(tx.hash, raw)
        return self._send({tx.hash: raw})

    def relayed(self, tx_hash: bytes) -> bytes | None:
        """A transaction that was passed on lately, encoded."""
        return self._relayed.get(tx_hash)

    def _relay(self, txs: Iterable[Transaction]) -> None:
        for tx in txs:
            raw = tx.encode()
            self._remember(tx.hash, raw)
            if len(self._outgoing) < GOSSIP_QUEUE:
                self._outgoing[tx.hash] = raw
        self._wake.set()

    def _remember(self, tx_hash: bytes, raw: bytes) -> None:
        if tx_hash in self._relayed:
            return
        self._relayed[tx_hash] = raw
        self._relayed_bytes += len(raw)
        while self._relayed_bytes > RELAY_CACHE_BYTES:
            oldest = next(iter(self._relayed))
            self._relayed_bytes -= len(self._relayed.pop(oldest))

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
        txs = [tx for tx in decode_transactions(message.transactions) if known.add(tx.hash)]
        announced = [tx_hash for tx_hash in message.announced if known.add(tx_hash)]
        mempool = self._host.mempool
        if mempool is None:
            return
        if txs:
            await self._take_in(mempool, txs)
        self._ask_for(peer, mempool, announced)

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

    async def _take_in(self, mempool: Mempool, txs: list[Transaction]) -> None:
        """Into the mempool, and on. Raises `ProtocolViolationError` for what no honest node
        would have sent."""
        fresh = [tx for tx in txs if tx.hash not in mempool and tx.hash not in self._relayed]
        if not fresh:
            return
        accepted, worst = await self._host.runtime.run(_admit, mempool, fresh)
        self._relay(accepted)
        if worst is not None:
            raise ProtocolViolationError(DisconnectCode.BAD_TRANSACTION, str(worst))

    def _ask_for(self, peer: Peer, mempool: Mempool, announced: Iterable[bytes]) -> None:
        wanted: list[bytes] = []
        for tx_hash in announced:
            if tx_hash in mempool or tx_hash in self._relayed:
                continue
            others = self._wanted.get(tx_hash)
            if others is not None:
                if len(others) < FETCH_ALTERNATIVES and peer not in others:
                    others.append(peer)
            elif len(self._wanted) < WANTED_TRANSACTIONS and peer.wanted_from < WANTED_PER_PEER:
                self._wanted[tx_hash] = []
                peer.wanted_from += 1
                wanted.append(tx_hash)
        self._start_fetch(peer, wanted)

    def _start_fetch(self, peer: Peer, hashes: list[bytes]) -> None:
        for i in range(0, len(hashes), MAX_TRANSACTIONS_ASKED):
            part = hashes[i : i + MAX_TRANSACTIONS_ASKED]
            self._host.tasks.start(self._fetch(peer, part), f"transactions of {peer.address}")

    async def _fetch(self, peer: Peer, hashes: list[bytes]) -> None:
        mempool = self._host.mempool
        missing = dict.fromkeys(hashes)
        try:
            while missing and mempool is not None:
                asked = list(missing)
                txs = await self.request(peer, asked)
                for tx in txs:
                    del missing[tx.hash]
                if not txs:
                    break
                await self._take_in(mempool, txs)
        except ProtocolViolationError as error:
            peer.breach(error)
        except NetworkError as error:
            logger.debug("%s did not send its transactions: %s", peer, error)
        finally:
            peer.wanted_from -= len(hashes)
            self._hand_on(hashes, missing)

    def _hand_on(self, hashes: list[bytes], missing: dict[bytes, None]) -> None:
        """Ask others who announced it for what is missing; be done with the rest."""
        by_peer: dict[Peer, list[bytes]] = {}
        for tx_hash in hashes:
            others = self._wanted.pop(tx_hash, [])
            while tx_hash in missing and others and self._host.running:
                other = others.pop(0)
                if not other.closed:
                    self._wanted[tx_hash] = others
                    other.wanted_from += 1
                    by_peer.setdefault(other, []).append(tx_hash)
                    break
        for other, wanted in by_peer.items():
            self._start_fetch(other, wanted)

    @staticmethod
    async def request(peer: Peer, hashes: Sequence[bytes]) -> list[Transaction]:
        """Those of `hashes` (at most 1024) that `peer` has, or the first of them that fit into one
        reply. Raises `NetworkError`; `ProtocolViolationError` for others than asked."""
        asked = set(hashes)
        reply = cast(
            TransactionsMessage, await peer.request(GetTransactionsMessage(hashes=tuple(hashes)))
        )
        txs = decode_transactions(reply.transactions)
        for tx in txs:
            if tx.hash not in asked:
                raise ProtocolViolationError(
                    DisconnectCode.PROTOCOL_ERROR, "TRANSACTIONS holds one that was not asked for"
                )
            asked.remove(tx.hash)
            peer.known_transactions.add(tx.hash)
        return txs


def _admit(
    mempool: Mempool, txs: list[Transaction]
) -> tuple[list[Transaction], InvalidTransactionError | None]:
    """Into the mempool, on a worker thread: what is new there, and the worst offence."""
    accepted: list[Transaction] = []
    worst: InvalidTransactionError | None = None
    identify(txs)  # all senders in one go
    for tx in txs:
        try:
            if mempool.add(tx):
                accepted.append(tx)
        except InvalidTransactionError as error:
            if error.rule in ALWAYS_INVALID:
                worst = error
    return accepted, worst


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
