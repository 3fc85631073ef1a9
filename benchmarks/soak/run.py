"""One run: nodes, load, disturbances and looks, and what is left at the end."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from moderntensor.errors import ClientError

from .fleet import Node, make
from .judge import LIMITS, WARM_UP
from .link import FlakyLink
from .load import Load, chain_of
from .schedule import Restart, Weather, plan
from .watch import Watch

RATE: Final = 3.0  # transactions a second
DRAIN: Final = 120.0  # seconds at the end in which all has to get into blocks and to all nodes
SAMPLE: Final = 5.0  # seconds
SPARED: Final = 0  # the node that lives from the beginning to the end


async def run(home: Path, seconds: float, seed: int, every: float) -> dict[str, Any]:
    """What was found; `marks` says what held. RuntimeError or TimeoutError if a node does not
    start."""
    nodes, (port, target), config = make(home)
    link, load, watch = FlakyLink(port, target), Load(nodes, config, seed), Watch(nodes)
    background: list[asyncio.Task[None]] = []
    unclean: list[int] = []
    done = {"restarts": 0, "kills": 0}

    def keep(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        background.append(task)
        return task

    try:
        await link.start()
        for node in nodes:
            await node.start()
            keep(watch.listen(node))
        sending = keep(load.send(RATE))
        keep(load.settle())
        keep(watch.sample(min(SAMPLE, seconds / 40)))
        began = asyncio.get_running_loop().time()
        spared = [node.number for node in nodes if node.number != SPARED]
        for step in plan(seed, seconds, spared, every):
            await _until(began + step.at, background)
            if isinstance(step, Weather):
                link.become(step.mood)
            else:
                await _restart(nodes[step.node], step, unclean)
                done["kills" if step.hard else "restarts"] += 1
        await _until(began + seconds, background)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        background.remove(sending)
        heads = await _drain(nodes, load, background)
        missing = await _missing(nodes, load, heads)
        samples = [len(each) for each in watch.samples.values()]
        last = {str(node.number): watch.samples[node.number, node.life][-1:] for node in nodes}
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for node in nodes:
            if not await node.stop():
                unclean.append(node.number)
            await node.client.close()
        await link.stop()
    verdicts = watch.verdicts(min(WARM_UP, seconds / 4))
    said = [node.number for node in nodes if b"Traceback" in node.log.read_bytes()]
    figures = {verdict.figure for verdict in verdicts}
    return {
        "machine": f"{os.cpu_count()} cores ({platform.machine()}), Python "
        + platform.python_version(),
        "seconds": seconds,
        "seed": seed,
        "nodes": len(nodes),
        **done,
        "link": link.counts,
        "sent": len(load.sent),
        "refused": load.refused,
        "sent_again": load.again,
        "height": max(height for height, _ in heads),
        "samples": sum(samples),
        "lives": len(samples),
        "scrapes_failed": watch.scrapes_failed,
        "events": {str(number): dict(counts) for number, counts in watch.events.items()},
        "last": last,
        "missing": len(missing),
        "verdicts": [{**asdict(verdict), "holds": verdict.holds} for verdict in verdicts],
        "marks": {
            "one head": len(set(heads)) == 1,
            "every transaction in it": bool(load.sent) and not missing,
            "no growth": figures == set(LIMITS) and all(v.holds for v in verdicts),
            "every stop clean": not unclean,
            "no traceback": not said,
            "events of every node": all(c["HeadEvent"] for c in watch.events.values()),
        },
    }


async def _until(at: float, background: list[asyncio.Task[None]]) -> None:
    """Until that loop time; raises what one of the tasks failed with."""
    seconds = max(0.0, at - asyncio.get_running_loop().time())
    done, _ = await asyncio.wait(background, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
        raise RuntimeError("what was to go on has ended")


async def _restart(node: Node, step: Restart, unclean: list[int]) -> None:
    if not await node.stop(step.hard):
        unclean.append(node.number)
    await asyncio.sleep(step.down)
    await node.start()


async def _drain(
    nodes: list[Node], load: Load, background: list[asyncio.Task[None]]
) -> list[tuple[int, str]]:
    """The heads, once nothing waits and all are one; or as they are after `DRAIN`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DRAIN
    heads: list[tuple[int, str]] = []
    while True:
        try:
            found = [(await node.client.status()).head for node in nodes]
            heads = [(head.height, head.hash) for head in found]
        except ClientError:
            heads = []
        if heads and len(set(heads)) == 1 and not load.waiting:
            return heads
        if loop.time() > end:
            return heads or [(0, "")] * 2
        await _until(loop.time() + 0.5, background)
        await load.look()


async def _missing(nodes: list[Node], load: Load, heads: list[tuple[int, str]]) -> set[str]:
    """What was handed in and is not in the chain of that head."""
    height, block_hash = heads[0]
    found, transactions = await chain_of(nodes[SPARED].client, height)
    return load.sent - transactions if found == block_hash else set(load.sent)


def told(found: dict[str, Any]) -> str:
    """For people."""
    lines = [
        f"{found['nodes']} nodes, {found['seconds']:g} s, seed {found['seed']}: "
        f"{found['restarts']} restarts and {found['kills']} kills, {found['sent']} transactions, "
        f"height {found['height']}, {found['missing']} missing"
    ]
    lines += [
        f"node {v['node']} life {v['life']}: {v['figure']} {v['growth']:+,.1f} "
        f"of {v['allowed']:,.1f} in {v['seconds']:.0f} s" + ("" if v["holds"] else "  MISSED")
        for v in found["verdicts"]
    ]
    lines += [f"{name}: {'held' if held else 'MISSED'}" for name, held in found["marks"].items()]
    return "\n".join(lines)
