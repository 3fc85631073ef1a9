"""Messages of applications in a simulated network: talk, history, a handler that hangs, a crash."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import Any

from helpers.extended import CHAT, DICE, GetLog, Log, Roll, Say
from helpers.simulated import VALIDATORS, agree, make_world
from moderntensor.errors import NetworkError
from moderntensor.network.extensions import Extension, Status
from moderntensor.network.peer import Peer
from moderntensor.simulation import Host, World

ROOM = "tea"
SPEAKS: list[list[Extension]] = [[CHAT], [CHAT], [CHAT], [DICE], []]


class Talk:
    """What happened, by host."""

    def __init__(self) -> None:
        self.heard: dict[str, list[str]] = {}
        self.answers: Counter[str] = Counter()
        self.rolled: list[tuple[str, int]] = []
        self.events: Counter[str] = Counter()


def _furnish(host: Host, talk: Talk) -> None:
    """Handlers of the node that was made here: the first of each host hangs at 'hang'."""
    node = host.node
    assert node is not None
    lines = talk.heard.setdefault(host.name, [])
    p2p = node.p2p

    async def hear(_: Peer, said: Say) -> None:
        if said.text == "hang" and host.name == "n2":
            await asyncio.Event().wait()  # until it is cancelled
        if said.text not in lines:
            lines.append(said.text)
            host.world.trace.record("heard", f"{host.name} {said.text}")
            await p2p.broadcast(said)

    async def log(_: Peer, asked: GetLog) -> Log | None:
        return Log(request_id=asked.request_id, lines=tuple(lines)) if lines else None

    async def roll(peer: Peer, rolled: Roll) -> None:
        talk.rolled.append((host.name, rolled.dice))

    if CHAT.name in p2p.router.extensions.names:
        p2p.register_handler(Say.TYPE, hear)
        p2p.register_handler(GetLog.TYPE, log)
    elif DICE.name in p2p.router.extensions.names:
        p2p.register_handler(Roll.TYPE, roll)


async def chatting(world: World, talk: Talk) -> None:
    """Twenty lines by three who chat, among a host that rolls dice and one that does neither, while
    the chain goes on; one is killed and comes again."""

    def add(number: int) -> Host:
        return world.add_host(
            validator=VALIDATORS[number] if number < len(VALIDATORS) else None,
            bootstrap=hosts[-3:],
            factory=lambda host: host.make_node(extensions=SPEAKS[number]),
        )

    hosts: list[Host] = []
    world.on_node.append(lambda host: _furnish(host, talk))
    for number in range(len(SPEAKS)):
        hosts.append(add(number))
    await world.start(hosts, over=1)
    await asyncio.sleep(2)
    for number in range(20):
        # The last one when whoever was killed has found the others again.
        await asyncio.sleep(world.random.uniform(0.1, 1) if number < 19 else 40)
        who = world.random.choice(hosts[:2])
        said: Any = Say(room=ROOM, text="hang" if number == 5 else f"line {number}")
        assert who.node is not None
        told = await who.within(who.node.p2p.broadcast(said), "talk")
        world.trace.record("said", f"{who.name} {said.text} to {told}")
        if number == 8:
            await hosts[2].crash(silent=True)
            await hosts[2].start()
        for peer in who.node.p2p.peers_with(CHAT.name):
            try:
                reply = await who.within(peer.request(GetLog(room=ROOM), timeout=3), "ask")
            except NetworkError as error:
                talk.answers[type(error).__name__] += 1
            else:
                talk.answers[Status(reply.status).name] += 1
    await agree(hosts, 4)


def run(seed: int) -> tuple[str, Talk]:
    """The digest of the trace, and what happened."""
    world, talk = make_world(seed), Talk()
    world.trace.on_record = lambda _time, kind, _text: talk.events.update((kind,))
    world.run(lambda world: chatting(world, talk))
    return world.trace.digest(), talk


if __name__ == "__main__":
    print(run(int(sys.argv[1]))[0])
