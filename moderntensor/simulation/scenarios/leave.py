"""All peers of a node leave, or all nodes, and return."""

from __future__ import annotations

import asyncio

from ..checks import Checks
from ..faults import Crash, Fault, Faults
from ..scenario import scenario
from ..workload import Workload
from ..world import World
from .setting import draw_link, draw_transport, make_chain, make_hosts

__all__ = ["leave"]


@scenario("leave", about="all peers of a node, or all nodes, leave and return, in a sync or later")
async def leave(
    world: World,
    check: Checks,
    *,
    nodes: int = 9,
    validators: int = 4,
    rounds: int = 3,
    longest: float = 90.0,
    rate: float = 0.2,
) -> None:
    """In each of `rounds` all but one to three nodes, or all, go within seconds, for up to
    `longest` seconds. A node that has nothing yet joins at about that time."""
    random = world.random
    block_time = random.choice((3, 6, 12))
    keys, users = make_chain(world, validators=validators, block_time=block_time)
    world.link = draw_link(world)
    hosts = make_hosts(
        world, nodes, keys, target_outbound=random.randint(2, 8), transport=draw_transport(world)
    )
    workload = Workload(world, users, hosts)
    late = random.choice([host for host in hosts if host.validator is None])
    await world.start([host for host in hosts if host is not late], over=random.uniform(1, 10))
    await asyncio.sleep(random.uniform(2, 8) * block_time)
    faults = Faults(world, check)
    async with asyncio.TaskGroup() as group:
        group.create_task(workload.run(rate, rounds * longest), name="workload")
        for number in range(rounds):
            stay = random.sample(hosts, random.choice((0, 1, 1, 2, 3)))
            over = random.choice((0.0, 1.0, 10.0))
            length = random.uniform(0.05, 1) * longest
            manner = random.choice(("silent", "killed", "orderly", "mixed"))
            schedule: list[Fault] = []
            for host in hosts:
                if host in stay or not host.up:
                    continue
                how = (
                    random.choice(("silent", "killed", "orderly")) if manner == "mixed" else manner
                )
                start = world.now + random.uniform(0.1, 3) + random.uniform(0, over)
                schedule.append(
                    Crash(
                        start=start,
                        end=start + length + random.uniform(0, over),
                        host=host.name,
                        silent=how == "silent",
                        orderly=how == "orderly",
                    )
                )
            if number == 0:
                await asyncio.sleep(random.uniform(0, 1))
                await world.start([late])
            await faults.run(schedule)
            if number + 1 < rounds:
                await asyncio.sleep(random.uniform(0, 30))
    await check.recovered()
    await check.recovered()
