"""Small worlds of real nodes, for tests of the simulator itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from moderntensor.blockchain.transaction import Transaction
from moderntensor.blockchain.workload import demo_config, demo_keys
from moderntensor.simulation import Host, Link, World
from moderntensor.simulation.world import EPOCH

T = TypeVar("T")
BLOCK_TIME = 4
VALIDATORS = demo_keys(2, "validator")
USERS = demo_keys(4)


def make_world(seed: int = 1, **options: Any) -> World:
    """With a chain of two validators that begins as the world does."""
    config = demo_config(USERS, VALIDATORS, timestamp=int(EPOCH), block_time=BLOCK_TIME)
    return World(seed, config=config, **{"link": Link(0.03, jitter=0.01), **options})


def add_hosts(world: World, count: int) -> list[Host]:
    """The first two with the keys of the validators; each knows the two before it."""
    hosts: list[Host] = []
    for number in range(count):
        key = VALIDATORS[number] if number < len(VALIDATORS) else None
        hosts.append(world.add_host(validator=key, bootstrap=hosts[-2:]))
    return hosts


def simulate(main: Callable[[World], Awaitable[T]], seed: int = 1, **options: Any) -> T:
    """Run `main` in a world of its own."""
    return make_world(seed, **options).run(main)


def heads(hosts: list[Host]) -> set[bytes]:
    """Hashes of the heads of those that run."""
    return {host.node.chain.head.hash for host in hosts if host.node is not None}


async def agree(hosts: list[Host], height: int, within: float = 60.0) -> None:
    """Until all have one head of at least this height."""
    async with asyncio.timeout(within):
        while len(heads(hosts)) != 1 or any(  # noqa: ASYNC110 - simulated seconds
            host.node is None or host.node.chain.head.height < height for host in hosts
        ):
            await asyncio.sleep(0.5)


async def eventful(world: World) -> None:
    """Half a minute of everything that could go in another order: many connections, transactions,
    crashes and restarts, a partition, a sync."""
    hosts = add_hosts(world, 5)
    await world.start(hosts[:4], over=1)
    for number in range(6):
        await asyncio.sleep(world.random.uniform(0.5, 3))
        host = world.random.choice(hosts[2:4])
        if number % 3 == 0 and host.up:
            await host.crash(silent=number == 0)
        elif not host.up:
            await host.restart()
        if number == 3:
            world.network.partition([host.ip for host in hosts[:2]])
        node = hosts[number % 2].node
        assert node is not None
        await node.p2p.broadcast_transaction(
            Transaction.create(
                USERS[number % 4],
                chain_id=world.config.chain_id,
                nonce=node.mempool.next_nonce(USERS[number % 4].address),
                to=USERS[0].address,
                value=number,
                gas_price=1,
            )
        )
    world.network.heal()
    for host in hosts:
        if not host.up:
            await host.start()
    await agree(hosts, 5)


if __name__ == "__main__":
    garbage = [bytearray(n % 977) for n in range(int(sys.argv[2]))]
    world = make_world(int(sys.argv[1]))
    world.run(eventful)
    print(world.trace.digest())
