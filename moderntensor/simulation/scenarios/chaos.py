"""Crashes, partitions and resets at random while blocks are made."""

from __future__ import annotations

import asyncio

from ..checks import Checks
from ..faults import Faults, draw_faults
from ..scenario import scenario
from ..workload import Workload
from ..world import World
from .setting import draw_link, make_chain, make_hosts

__all__ = ["chaos"]


@scenario("chaos", about="crashes, restarts, partitions and resets at random, blocks throughout")
async def chaos(
    world: World,
    check: Checks,
    *,
    nodes: int = 50,
    validators: int = 7,
    faults: int = 24,
    seconds: float = 60.0,
    rate: float = 0.4,
) -> None:
    """`seconds` of `faults` among `nodes`, `rate` transactions a second."""
    random = world.random
    # No branch may get longer than what nodes are willing to undo: then none could be final.
    keys, users = make_chain(world, validators=validators, block_time=random.choice((3, 4, 6)))
    world.link = draw_link(world)
    hosts = make_hosts(world, nodes, keys, target_outbound=random.randint(2, 3))
    workload = Workload(world, users, random.sample(hosts, min(nodes, len(users))))
    await world.start(hosts, over=random.uniform(1, 20))
    schedule = draw_faults(
        random,
        [host.name for host in hosts],
        start=world.now,
        end=world.now + seconds,
        count=faults,
        kinds=("crash", "crash", "partition", "one_way", "reset", "slow"),
        longest=seconds * random.uniform(0.2, 0.8),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(workload.run(rate, seconds), name="workload")
        group.create_task(Faults(world, check).run(schedule), name="faults")
    await check.recovered()
    await check.recovered()  # and goes on
    check.metrics["transactions"] = float(len(workload.submitted))
