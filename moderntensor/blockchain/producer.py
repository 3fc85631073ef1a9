"""Making blocks: authority round, each slot signed at most once, whatever happens between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from ..errors import StateMissingError, ValidationError
from ..runtime import Runtime
from . import tables
from .block import MAX_BLOCK_SIZE, MAX_HEADER_SIZE, Block
from .chain import Blockchain
from .crypto import KeyPair
from .lookup import one
from .mempool import Mempool
from .transaction import Transaction

log = logging.getLogger(__name__)

# The wall clock may jump while we wait for a slot; it is looked at again at least this often.
MAX_NAP: Final = 1.0  # seconds


class BlockProducer:
    """Signs blocks with one key, on the slots that are its own.

    Before anything is signed, the slot is on disk as the last one signed; it is never signed
    again, nor is an earlier one, even after a crash in between. On an open network (no
    validators) every slot is anybody's.
    """

    def __init__(
        self,
        chain: Blockchain,
        mempool: Mempool | None,
        key: KeyPair,
        runtime: Runtime | None = None,
    ) -> None:
        """Blocks are filled from `mempool`; without one they are empty unless told otherwise."""
        self.chain: Final = chain
        self.mempool: Final = mempool
        self.key: Final = key
        self._runtime = runtime or Runtime()
        self.produced = 0
        """Blocks made since then."""

    @property
    def last_slot(self) -> int | None:
        """The last slot that this key has signed in this store; None if there is none."""
        with self.chain.store.read() as txn:
            stored = txn.get(tables.PRODUCER, self.key.public_key)
        return None if stored is None else tables.parse_height(stored)

    def is_ours(self, slot: int) -> bool:
        """Whether this key may sign in `slot`."""
        return self.chain.config.validator_at(slot) in (None, self.key.public_key)

    def produce(
        self, timestamp: int | None = None, transactions: Iterable[Transaction] | None = None
    ) -> Block:
        """Make, sign and import the next block after the head.

        `timestamp` is Unix seconds, by default now. `transactions` must all be valid
        (InvalidTransactionError); by default the mempool's best are taken. ValidationError
        where the slot is not ours, is signed already, is not after the head's, or begins in the
        future; nothing is signed then.
        """
        config = self.chain.config
        if timestamp is None:
            timestamp = int(self._runtime.wall_time())
        slot = config.slot_of(timestamp)
        if not self.is_ours(slot):
            raise ValidationError(f"slot {slot} belongs to another validator")
        if slot <= config.slot_of(self.chain.head.timestamp):
            raise ValidationError(f"slot {slot} is not after that of the head")
        chosen, skip_invalid = self._choose(transactions)
        block = self.chain.draft_block(
            self.key.public_key, timestamp, chosen, skip_invalid=skip_invalid
        )
        # What the chain would refuse (a timestamp in the future, say) must not cost us a slot.
        self.chain.check_headers(one(block.header.encode()))
        self._claim(slot)
        signed = Block(header=block.header.sign(self.key), transactions=block.transactions)
        self.chain.import_block(signed)
        self.produced += 1
        return signed

    def _choose(self, transactions: Iterable[Transaction] | None) -> tuple[list[Transaction], bool]:
        if transactions is not None:
            return list(transactions), False
        if self.mempool is None:
            return [], False
        room = MAX_BLOCK_SIZE - MAX_HEADER_SIZE
        return self.mempool.select(self.chain.config.gas_limit, room), True

    def _claim(self, slot: int) -> None:
        """Put it on disk that `slot` is signed, before it is."""
        with self.chain.store.write() as txn:
            stored = txn.get(tables.PRODUCER, self.key.public_key)
            if stored is not None and slot <= tables.parse_height(stored):
                raise ValidationError(
                    f"slot {slot} is not after {tables.parse_height(stored)}, the last one signed"
                )
            txn.put(tables.PRODUCER, self.key.public_key, tables.height_key(slot))

    def next_slot(self, now: float) -> int | None:
        """The first slot from the one of `now` on that we may still sign; None if this key
        never may."""
        config = self.chain.config
        slot = max(config.slot_of(int(now)), config.slot_of(self.chain.head.timestamp) + 1, 1)
        last = self.last_slot
        if last is not None:
            slot = max(slot, last + 1)
        if not config.validators:
            return slot
        if self.key.public_key not in config.validators:
            return None
        turn = config.validators.index(self.key.public_key)
        return slot + (turn - slot) % len(config.validators)

    async def run(self) -> None:
        """Produce on every slot of ours, at its beginning, until cancelled.

        ValidationError at once if this key is not among the validators.
        """
        config = self.chain.config
        while True:
            slot = self.next_slot(self._runtime.wall_time())
            if slot is None:
                raise ValidationError("this key is not among the validators of the chain")
            start = config.timestamp + slot * config.block_time
            wait = start - self._runtime.wall_time()
            if wait > 0:
                await asyncio.sleep(min(wait, MAX_NAP))
                continue
            try:
                block = await self._runtime.run_writer(self.produce, start)
            except (StateMissingError, ValidationError) as error:
                # The head moved meanwhile, or no block may follow it (a checkpoint says other, or
                # the state is yet to be fetched).
                log.info("no block in slot %d: %s", slot, error)
                await asyncio.sleep(MAX_NAP)  # the same slot may come again, and again in vain
                continue
            log.info(
                "produced block %d with %d transactions", block.height, len(block.transactions)
            )
