"""Floods of competing headers, branches and equivocations, by a validator or on open rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from ...blockchain.crypto import KeyPair
from ...blockchain.side import MAX_SIDE_BLOCKS
from ...blockchain.tables import PENDING, SIDE
from ...blockchain.workload import demo_keys
from ...node import FullNode
from ..adversaries import Forker
from ..checks import Checks
from ..host import Host
from ..result import SAFETY
from ..scenario import scenario
from ..world import World
from .setting import draw_link, make_chain, make_hosts

__all__ = ["forks"]


@scenario(
    "forks", about="masses of competing headers, branches and equivocations, deep and shallow"
)
async def forks(
    world: World,
    check: Checks,
    *,
    nodes: int = 8,
    validators: int = 4,
    adversaries: int = 2,
    seconds: float = 45.0,
    most: int = 24,
) -> None:
    """Some of the validators are hostile, or all rules are open. Each adversary makes up to `most`
    headers every few seconds, on parents down to below what is final."""
    random = world.random
    is_open = random.random() < 0.3
    block_time = random.choice((2, 3))
    depth = 128 if is_open else random.choice((8, 16, 128))
    keys, _ = make_chain(
        world, validators=0 if is_open else validators, block_time=block_time, max_reorg=depth
    )
    world.link = draw_link(world)
    evil = demo_keys(adversaries, "evil") if is_open else keys[:adversaries]
    good = demo_keys(1, "good") if is_open else keys[adversaries:]
    check.expected_errors.append("is on a chain that we cannot follow")  # below what is final
    hosts = make_hosts(world, nodes, good, transport="plaintext", target_outbound=4)
    forkers: dict[str, Forker] = {}
    hostile = [
        world.add_host(
            f"forker{number}",
            bootstrap=random.sample(hosts, min(4, len(hosts))),
            honest=False,
            settings={"transport": "plaintext"},
            factory=_maker(check, key, forkers),
        )
        for number, key in enumerate(evil)
    ]
    await world.start(hosts, over=random.uniform(1, 5))
    await asyncio.sleep(random.uniform(1, 4) * block_time)
    await world.start(hostile)
    end = world.now + seconds
    while world.now < end:
        await asyncio.sleep(random.uniform(0.5, 2) * block_time)
        for host in hostile:
            if host.up:
                await host.within(_flood(forkers[host.name], random, most, depth), "flood")
        _bounded(check)
    for host in hostile:
        await host.stop()
    await check.recovered()
    _bounded(check)
    check.metrics["headers_made"] = float(sum(len(each.made) for each in forkers.values()))
    signed = sum(each.equivocations for each in forkers.values())
    kept = [len(host.node.chain.evidence()) for host in world.honest if host.node is not None]
    check.metrics["equivocations"] = float(signed)
    check.metrics["evidence_kept"] = float(max(kept, default=0))
    if signed and not is_open and not any(kept):
        check.violate(SAFETY, f"nobody keeps evidence of {signed} equivocations")


async def _flood(forker: Forker, random: Random, most: int, depth: int) -> None:
    """One burst of a drawn kind."""
    kind = random.choice(("rivals", "shallow", "deep", "final", "false"))
    if kind == "rivals":
        made = forker.rivals(random.randint(2, most))
    else:
        below = {"shallow": 4, "deep": depth, "final": 2 * depth + 8, "false": 6}[kind]
        made = forker.branch(
            random.randint(1, below), random.randint(1, most), false=kind == "false"
        )
    await forker.announce(made)


def _bounded(check: Checks) -> None:
    for host in check.world.honest:
        if host.node is None:
            continue
        with host.node.chain.store.read() as txn:
            beside, ahead = txn.count(SIDE), txn.count(PENDING)
        if beside > MAX_SIDE_BLOCKS:
            check.violate(SAFETY, f"{host.name} keeps {beside} blocks beside its chain")
        check.metrics["most_beside"] = max(_figure(check, "most_beside"), float(beside))
        check.metrics["most_ahead"] = max(_figure(check, "most_ahead"), float(ahead))


def _figure(check: Checks, name: str) -> float:
    value = check.metrics.get(name, 0.0)
    return value if isinstance(value, float) else 0.0


def _maker(check: Checks, key: KeyPair, forkers: dict[str, Forker]) -> Callable[[Host], FullNode]:
    def make(host: Host) -> FullNode:
        node = host.make_node()
        random = host.world.seeded_random("forker", host.name)
        forkers[host.name] = Forker(
            node,
            key,
            random,
            lambda block_hash: check.forbid(block_hash, f"{host.name} made it false"),
        )
        return node

    return make
