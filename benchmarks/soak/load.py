"""Transactions all the time, through the clients' door, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Final

from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.transaction import Transaction
from moderntensor.blockchain.workload import demo_keys
from moderntensor.client import Client
from moderntensor.errors import ClientError, NodeRefusedError

from .fleet import SENDERS, Node

MOST_WAITING: Final = 500  # transactions that are in no block yet; then nothing new is sent
AGAIN: Final = 15.0  # seconds after which what is in no block is handed in again


class Load:
    """What was handed in, by hash, and what is in no block yet."""

    def __init__(self, nodes: Sequence[Node], config: ChainConfig, seed: int) -> None:
        self.sent: set[str] = set()
        self.refused = self.again = 0
        self._waiting: dict[int, dict[int, Transaction]] = {n: {} for n in range(SENDERS)}
        self._nodes = nodes
        self._chain_id = config.chain_id
        self._keys = demo_keys(SENDERS)
        self._nonces = [0] * SENDERS
        self._random = Random(seed)

    @property
    def waiting(self) -> int:
        """As far as is known."""
        return sum(map(len, self._waiting.values()))

    async def send(self, rate: float) -> None:
        """So many a second, until cancelled."""
        while True:
            await asyncio.sleep(self._random.expovariate(rate))
            if self.waiting < MOST_WAITING:
                sender = self._random.randrange(SENDERS)
                tx = Transaction.create(
                    self._keys[sender],
                    chain_id=self._chain_id,
                    nonce=self._nonces[sender],
                    to=self._random.randbytes(20),
                    value=1,
                )
                if await self._submit(tx):
                    self._nonces[sender] += 1
                    self._waiting[sender][tx.nonce] = tx
                    self.sent.add(tx.hash.hex())

    async def settle(self) -> None:
        """Notice what got into blocks, and hand in again what was lost with a node; until
        cancelled."""
        while True:
            await asyncio.sleep(AGAIN / 3)
            await self.look()

    async def look(self) -> None:
        """Once."""
        now = [dict(waiting) for waiting in self._waiting.values()]
        for sender, before in enumerate(now):
            up = [node for node in self._nodes if node.up]
            if not up:
                return
            try:
                account = await self._random.choice(up).client.account(self._keys[sender].address)
            except ClientError:
                continue
            for nonce in [nonce for nonce in before if nonce < account.nonce]:
                self._waiting[sender].pop(nonce, None)
            stuck = before.get(account.nonce)
            if stuck is not None and account.next_nonce == account.nonce:
                self.again += await self._submit(stuck)

    async def _submit(self, tx: Transaction) -> bool:
        """Whether a node took it, or may have."""
        up = [node for node in self._nodes if node.up]
        if not up:
            return False
        try:
            await self._random.choice(up).client.submit(tx)
        except NodeRefusedError:
            self.refused += 1
            return False
        except ClientError:
            pass  # it went away, and nobody knows whether it took it: what is lost is sent again
        return True


async def chain_of(client: Client, height: int) -> tuple[str, set[str]]:
    """The hash of the block there, and all transactions up to it."""
    found: set[str] = set()
    block_hash = ""
    number = 0
    while number <= height:
        try:
            block = await client.block(number)
        except NodeRefusedError as error:
            if error.status != 429:
                raise
            await asyncio.sleep(error.retry_after or 1.0)
            continue
        found.update(tx.hash for tx in block.transactions)
        block_hash = block.header.hash
        number += 1
    return block_hash, found
