"""Forty hostile addresses against ten honest ones: one node is to see no honest peer any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ...network.messages import PeerRecord
from ...node import FullNode
from ..adversaries import Loner, invented, turn
from ..checks import POLL, RECOVERY_SECONDS, Checks
from ..host import Host
from ..result import LIVENESS
from ..scenario import scenario
from ..world import World
from .setting import draw_link, draw_transport, make_chain, make_hosts

__all__ = ["eclipse"]


@scenario(
    "eclipse", about="40 hostile addresses try to surround a node, before and after a restart"
)
async def eclipse(
    world: World,
    check: Checks,
    *,
    honest: int = 10,
    hostile: int = 40,
    validators: int = 4,
    seconds: float = 30.0,
) -> None:
    """The last of the `honest` hosts is the victim. The hostile ones share a few networks or have
    one each, dial it, tell it of each other and of addresses that nobody has, and serve the genesis
    block, a short fork that one of the validators makes, or a head that is only claimed. A quarter
    of them behave as all do until just before or after the victim is restarted (or killed), with
    what its disk has kept, half-way; then they answer nothing any more."""
    random = world.random
    block_time = random.choice((3, 6))
    keys, _ = make_chain(world, validators=validators, block_time=block_time)
    world.link = draw_link(world)
    outbound = random.choice((2, 3, 4))
    transport = draw_transport(world)
    usual: dict[str, Any] = {
        "transport": transport,
        "target_outbound": outbound,
        "discovery_interval": 5.0,
    }
    hosts = make_hosts(world, honest - 1, keys[1:], max_peers=honest + outbound, **usual)
    victim = world.add_host(
        "victim",
        bootstrap=random.sample(hosts, random.randint(1, 2)),
        settings={**usual, "max_peers": random.choice((8, 12, 20))},
    )
    further = random.sample(hosts, random.choice((0, 0, 0, 2)))
    networks = random.choice((2, 8, hostile))
    forkers = random.choice((0, 1))
    boasters = random.choice((0, hostile // 4))
    turncoats = random.choice((0, hostile // 4))
    nowhere = invented(random, random.choice((0, 100)))
    hostiles: list[Host] = []
    for number in range(hostile):
        loyal = number >= hostile - turncoats
        hostiles.append(
            world.add_host(
                f"hostile{number}",
                ip=f"{150 + number % networks}.77.{number}.9",
                honest=False,
                bootstrap=[victim, random.choice(hosts)],
                validator=keys[0] if number < forkers else None,
                settings={
                    "transport": transport,
                    "discovery": False,
                    "max_peers": 60,
                    "target_outbound": 2,
                },
                factory=None
                if loyal
                else _maker(
                    victim, further, hostiles, nowhere, boasts=forkers <= number < boasters
                ),
            )
        )
    first = random.random() < 0.5
    await world.start(hosts, over=random.uniform(1, 5))
    await asyncio.sleep(random.uniform(1, 3) * block_time)
    if first:
        await world.start(hostiles, over=random.uniform(0, 5))
        await world.start([victim])
    else:
        await world.start([victim])
        await asyncio.sleep(random.uniform(0, 10))
        await world.start(hostiles, over=random.uniform(0, 5))
    await asyncio.sleep(seconds / 2)
    await _free(check, victim, "before")
    before = random.random() < 0.5
    if before:
        _turn(hostiles[hostile - turncoats :])
        await asyncio.sleep(seconds / 4)
    how = random.choice(("orderly", "killed", "silent"))
    if how == "orderly":
        await victim.stop()
    else:
        await victim.crash(silent=how == "silent")
    await asyncio.sleep(random.choice((0.1, 5.0, 20.0)))
    await victim.restart()
    await asyncio.sleep(seconds / 4)
    if not before:
        _turn(hostiles[hostile - turncoats :])
    await asyncio.sleep(seconds / 4)
    await check.recovered()
    await _free(check, victim, "after")
    check.metrics["turncoats"] = float(turncoats)


def _maker(
    victim: Host,
    further: list[Host],
    hostiles: list[Host],
    nowhere: Sequence[PeerRecord],
    *,
    boasts: bool,
) -> Callable[[Host], FullNode]:
    def make(host: Host) -> FullNode:
        random = host.world.seeded_random("hostile", host.name)
        return Loner(host, [victim, *further], hostiles, random, invented=nowhere, boasts=boasts)

    return make


def _turn(turncoats: list[Host]) -> None:
    for host in turncoats:
        if host.node is not None:
            turn(host.node)


async def _free(check: Checks, victim: Host, when: str) -> None:
    """Who is around the victim. Chance may give all its places to hostile nodes, which are four in
    five; to be held there would be the eclipse."""
    world = check.world
    began = world.now
    good, bad = _around(check, victim)
    check.metrics[f"honest_peers_{when}"] = float(good)
    check.metrics[f"hostile_peers_{when}"] = float(bad)
    while not good:
        if world.now - began > RECOVERY_SECONDS:
            check.violate(
                LIVENESS, f"the victim has {bad} peers {when} the restart, all hostile, and stays"
            )
            break
        await asyncio.sleep(POLL)
        good, bad = _around(check, victim)
    check.metrics[f"surrounded_{when}"] = world.now - began


def _around(check: Checks, victim: Host) -> tuple[int, int]:
    """Honest and hostile peers of the victim."""
    node = victim.node
    assert node is not None  # noqa: S101
    peers = [check.world.host_at(peer.host_address) for peer in node.p2p.peers.values()]
    good = sum(peer is not None and peer.honest for peer in peers)
    return good, len(peers) - good
