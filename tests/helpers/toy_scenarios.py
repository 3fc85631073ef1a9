"""Scenarios that take no time, to run campaigns of; `moderntensor simulate -m` imports them."""

from __future__ import annotations

import asyncio
import os
import time

from moderntensor.simulation import Checks, World
from moderntensor.simulation.scenario import scenario
from moderntensor.simulation.scenarios.setting import make_chain


@scenario("toy", about="no nodes, only time")
async def toy(world: World, check: Checks, *, nodes: int = 3, bad: int = -1) -> None:
    """Seed `bad` breaks liveness."""
    make_chain(world, validators=1)
    await asyncio.sleep(10 + world.random.random())
    world.trace.record("toy", "is awake")
    check.metrics["sync_seconds"] = [world.now, world.now + nodes]
    check.metrics["recovery_seconds"] = [world.now]
    check.metrics["block_propagation"] = [0.01 * percent for percent in range(1, 101)]
    check.metrics["received_per_second"] = [100.0, 200.0, 300.0]
    check.metrics["turns"] = float(nodes)
    if world.seed == bad:
        check.violate("liveness", "no head <in> sight")


@scenario("toy-trouble", about="ends its worker, or never comes to an end")
async def trouble(world: World, check: Checks, *, dies: int = -1, hangs: int = -1) -> None:
    """Seed `dies` takes its process down, seed `hangs` computes for longer than anyone waits."""
    make_chain(world, validators=1)
    if world.seed == dies:
        os._exit(9)
    if world.seed == hangs:
        while True:
            time.sleep(60)  # noqa: ASYNC251  (what no simulated node does)
