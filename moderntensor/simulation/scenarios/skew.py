"""Clocks that are wrong, by seconds and by minutes, validators' among them."""

from __future__ import annotations

import asyncio

from ..checks import Checks
from ..faults import Fault, Faults, Skew
from ..scenario import scenario
from ..workload import Workload
from ..world import World
from .setting import draw_link, draw_transport, make_chain, make_hosts

__all__ = ["skew"]


@scenario("skew", about="clocks off by seconds for all, by minutes for some, then set right")
async def skew(
    world: World,
    check: Checks,
    *,
    nodes: int = 10,
    validators: int = 5,
    seconds: float = 300.0,
    worst: float = 240.0,
    rate: float = 0.2,
) -> None:
    """For `seconds` the clocks of a minority of the validators, and of any others, are off by up to
    `worst` seconds and drift."""
    random = world.random
    block_time = random.choice((3, 6, 12))
    keys, users = make_chain(world, validators=validators, block_time=block_time)
    world.link = draw_link(world)
    hosts = make_hosts(
        world, nodes, keys, target_outbound=random.randint(2, 8), transport=draw_transport(world)
    )
    usual = random.uniform(0, 6)
    for host in hosts:
        host.skew = random.uniform(-usual, usual)
    workload = Workload(world, users, hosts)
    await world.start(hosts, over=random.uniform(1, 10))
    producers = [host for host in hosts if host.validator is not None]
    others = [host for host in hosts if host.validator is None]
    wrong = random.sample(producers, random.randint(0, (len(producers) - 1) // 2))
    most = len(others) // 2
    wrong += random.sample(others, random.randint(0 if wrong else min(1, most), most))
    schedule: list[Fault] = []
    for host in wrong:
        start = world.now + random.uniform(0, seconds / 2)
        length = random.uniform(0.2, 1) * (seconds - (start - world.now))
        off = random.choice((-1, 1)) * random.uniform(0.01, 1) ** 2 * worst
        drift = random.choice((0.0, random.uniform(-0.1, 0.1)))
        fault = Skew(start=start, end=start + length, host=host.name, seconds=off, drift=drift)
        schedule.append(fault)
    async with asyncio.TaskGroup() as group:
        group.create_task(workload.run(rate, seconds), name="workload")
        group.create_task(Faults(world, check).run(schedule), name="faults")
    await check.recovered()
    await check.recovered()
    check.metrics["wrong_clocks"] = float(len(wrong))
