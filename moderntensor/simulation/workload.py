"""What users do: transfers between funded accounts, handed in at nodes all over the network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from ..blockchain.crypto import KeyPair
from ..blockchain.transaction import Transaction
from ..errors import InvalidTransactionError

if TYPE_CHECKING:
    from .host import Host
    from .world import World

__all__ = ["Submitted", "Workload"]

MAX_VALUE: Final = 1000
MAX_DATA: Final = 200  # bytes that one transfer in four carries


class Submitted(NamedTuple):
    """A transaction that a node took in."""

    at: float  # simulated seconds
    host: str
    transaction: Transaction


class Workload:
    """Transfers at `rate` a second, spread over the honest nodes that run, at random times.

    Each account hands in at its home, one host, while that is up: its nonces are then one sequence,
    as a wallet's are; else at any other. What a node refuses (it is behind, another transaction of
    this nonce waits) is counted and forgotten.
    """

    def __init__(self, world: World, accounts: Sequence[KeyPair], homes: Sequence[Host]) -> None:
        """`accounts` have funds in the chain of `world`; `homes` are dealt out to them in turn."""
        if len(accounts) < 2 or not homes:
            raise ValueError("transfers need two accounts and a host")
        self._world = world
        self._accounts = accounts
        self._homes = [homes[i % len(homes)] for i in range(len(accounts))]
        self.submitted: list[Submitted] = []
        self.refused = 0

    async def run(self, rate: float, seconds: float) -> None:
        """Go on for so many simulated seconds; at a rate of zero without any transfer."""
        random = self._world.random
        end = self._world.now + seconds
        if not rate:
            await asyncio.sleep(seconds)
            return
        while True:
            await asyncio.sleep(random.expovariate(rate))
            if self._world.now >= end:
                return
            await self.submit(random.randrange(len(self._accounts)))

    async def submit(self, number: int, host: Host | None = None) -> bool:
        """One transfer of account `number`; whether there was a node that took it."""
        random = self._world.random
        if host is None:
            host = self._homes[number]
            if not host.up:
                running = [other for other in self._world.honest if other.up]
                if not running:
                    return False
                host = random.choice(running)
        node = host.node
        if node is None:
            return False
        key = self._accounts[number]
        payee = self._accounts[random.randrange(len(self._accounts))].address
        data = random.randbytes(random.randrange(MAX_DATA)) if random.random() < 0.25 else b""
        transaction = Transaction.create(
            key,
            chain_id=self._world.config.chain_id,
            nonce=node.mempool.next_nonce(key.address),
            to=payee,
            value=random.randrange(1, MAX_VALUE),
            gas_price=random.randrange(1, 10),
            data=data,
        )
        try:
            await host.within(node.p2p.broadcast_transaction(transaction), "handing in")
        except InvalidTransactionError:
            self.refused += 1
            return False
        except asyncio.CancelledError:
            if host.node is node:
                raise
            return False  # it was killed over it
        self.submitted.append(Submitted(self._world.now, host.name, transaction))
        return True

    def missing(self, host: Host) -> list[Submitted]:
        """Of what was taken in, that which the chain of `host` does not have."""
        assert host.node is not None  # noqa: S101
        chain = host.node.chain
        return [
            each for each in self.submitted if chain.get_transaction(each.transaction.hash) is None
        ]
