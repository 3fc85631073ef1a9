"""A network torn into halves that both go on, then put together."""

from __future__ import annotations

import asyncio

from ..checks import Checks
from ..faults import Crash, Faults, Partition
from ..result import LIVENESS, SAFETY
from ..scenario import scenario
from ..workload import Workload
from ..world import World
from .setting import draw_link, draw_transport, make_chain, make_hosts

__all__ = ["partition"]

INCLUSION_BLOCKS = 30
"""Blocks after which the transactions of the losing half must be back in the chain."""


@scenario("partition", about="halves apart for 60 blocks, healed: one head, no transaction lost")
async def partition(
    world: World,
    check: Checks,
    *,
    nodes: int = 10,
    validators: int = 4,
    blocks: int = 60,
    rate: float = 0.2,
) -> None:
    """The half with more validators makes `blocks` blocks on its own. In every second seed a
    quarter of the nodes is killed within seconds of the healing, and started again."""
    random = world.random
    block_time = random.choice((2, 2, 3))
    keys, users = make_chain(world, validators=validators, block_time=block_time)
    world.link = draw_link(world)
    hosts = make_hosts(
        world, nodes, keys, target_outbound=random.randint(2, 8), transport=draw_transport(world)
    )
    # Some are killed while they reorganise, and what only their mempools hold is lost.
    fragile = random.sample(hosts, random.choice((0, len(hosts) // 4)))
    workload = Workload(world, users, [host for host in hosts if host not in fragile])
    await world.start(hosts, over=random.uniform(1, 10))
    await asyncio.sleep(random.uniform(1, 4) * block_time * validators)
    producers = [host for host in hosts if host.validator is not None]
    left = set(random.sample(producers, random.randint(1, len(producers) // 2)))
    others = [host for host in hosts if host not in left and host.validator is None]
    left.update(random.sample(others, len(hosts) // 2 - min(len(left), len(hosts) // 2)))
    right_producers = [host for host in producers if host not in left]
    length = blocks * block_time * validators / len(right_producers)
    apart = Partition(
        start=world.now, end=world.now + length, group=frozenset(host.name for host in left)
    )
    crashes = [
        Crash(
            start=(start := apart.end + random.expovariate(0.4)),
            end=start + random.expovariate(0.2),
            host=host.name,
            silent=random.random() < 0.5,
        )
        for host in fragile
    ]
    before = max(host.node.chain.head.height for host in hosts if host.node is not None)
    async with asyncio.TaskGroup() as group:
        group.create_task(workload.run(rate, length), name="workload")
        group.create_task(Faults(world, check).run([apart, *crashes]), name="faults")
    heights = [
        max(host.node.chain.head.height for host in half if host.node is not None) - before
        for half in (left, [host for host in hosts if host not in left])
    ]
    if max(heights) < blocks // 2:
        check.violate(LIVENESS, f"the halves made {heights} blocks of {blocks}")
    check.metrics["blocks_of_the_smaller_half"] = float(min(heights))
    await check.recovered()
    for _ in range(INCLUSION_BLOCKS):
        missing = workload.missing(hosts[0])
        if not missing:
            break
        await asyncio.sleep(block_time)
    else:
        names = ", ".join(f"{each.transaction.hash.hex()[:12]} of {each.host}" for each in missing)
        check.violate(SAFETY, f"{len(missing)} transactions did not come back: {names}")
    await check.recovered()
    check.metrics["transactions"] = float(len(workload.submitted))
