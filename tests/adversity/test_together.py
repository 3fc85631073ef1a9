"""All of it at the same time, against a node that has itself something to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.flood.hostile import KINDS, Attack

from . import scene, wire
from .conftest import BYTE_BUDGET, MIB, Live, Row
from .hostile import until
from .server import ChainServer, serving

pytestmark = pytest.mark.long

PATIENCE = 90.0  # seconds: thirty attackers leave little of a machine that is busy already
SECONDS = 0.7  # of attack before, and so many after the chain has been synced


@pytest.mark.long
def test_a_node_syncs_and_serves_while_all_kinds_do_their_worst(
    row: Row, another_live: Callable[..., Live]
) -> None:
    """Thirty attackers, from as many networks as they like; the node syncs from one honest node,
    another one follows it, and a block that is made meanwhile reaches both."""
    node = another_live(blocks=scene.chain()[:4])
    follower = another_live(blocks=[])
    memory, descriptors = node.memory(), node.descriptors()
    attack = Attack(node.target)
    peak = [memory]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak.append(node.memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    attack.start()
    try:
        until(lambda: attack.connections.keys() == KINDS.keys(), PATIENCE)
        time.sleep(SECONDS)
        began = time.monotonic()
        assert follower.ask("connect", host="127.0.0.1", port=node.target.port) == "connected"
        tip = scene.chain()[-1]
        news = scene.maker().block(tip, gap=2)
        servers = [ChainServer(scene.chain())]
        claim = {"best_height": tip.height, "best_hash": tip.hash}

        def newest(asked: Any) -> Any:
            return servers[-1](asked)

        with serving(node.target, newest, **claim) as served:
            until(lambda: follower.state()["hash"] == tip.hash.hex(), PATIENCE)
            seconds = time.monotonic() - began
            servers.append(ChainServer([*scene.chain(), news]))
            served.peer.send(wire.new_block(news.header.encode()))
            until(lambda: follower.state()["hash"] == news.hash.hex(), PATIENCE)
            time.sleep(SECONDS)
            assert not served.ended.is_set()
            assert node.budget() < BYTE_BUDGET
        assert len(follower.peers()) == 1
    finally:
        done = attack.stop()
        over.set()
        watcher.join()
    assert max(peak) - memory < BYTE_BUDGET + 64 * MIB
    node.advance(40)
    until(lambda: node.descriptors() <= descriptors + 1)  # the follower's
    assert sum(done["connections"].values()) > 30  # they were thrown out, and came again
    row.measure(
        attackers=sum(done["connections"].values()),
        seconds_to_sync=seconds,
        memory_peak_over=max(peak) - memory,
    )
