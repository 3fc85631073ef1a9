"""Peers that say nothing but PING and PONG: what each takes of memory, and all of the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from ..case import OURS, Case, Contender, Mark, Scale
from ..nodes.process import Worker

TITLE = "Idle peers"

_INTERVAL = 15.0  # seconds between pings: NodeConfig.ping_interval
_PEERS = 1000
_BUSY = f"{OURS}, each once busy"
_KIB = 1024


class Gathering:
    """A process with one node (or server), and one with all its peers."""

    def __init__(self, stack: ExitStack, end: str, peers: int, heartbeat: float) -> None:
        ours = end == OURS
        room = {"max_peers": peers + 10} if ours else {}
        self.peers = peers
        self.node = stack.enter_context(Worker(end, heartbeat=heartbeat, **room))
        self.others = stack.enter_context(Worker("crowd" if ours else end, heartbeat=heartbeat))
        port = self.node.ask("listen")
        self._before = self.node.ask("usage")["memory"]
        self.others.ask("connect", port=port, count=peers)
        self.node.ask("ready", peers=peers)
        time.sleep(0.5)  # until the first pings are answered

    def memory(self) -> float:
        """Bytes for each peer."""
        return float(self.node.ask("usage")["memory"] - self._before) / self.peers

    def load(self, seconds: float) -> float:
        """Percent of one core, over so long."""
        self.node.ask("usage")  # what it costs itself is no load
        before, began = self.node.ask("usage")["seconds"], time.monotonic()
        time.sleep(seconds)
        used = self.node.ask("usage")["seconds"] - before
        return 100 * float(used) / (time.monotonic() - began)


def cases(scale: Scale) -> Iterator[Case]:
    yield _memory(scale)
    with ExitStack() as stack:
        yield _load(scale, stack)


def _memory(scale: Scale) -> Case:
    peers = scale.pick(_PEERS, 100)

    def sample(end: str, *, busy: bool = False) -> Callable[[], float]:
        def run() -> float:
            with ExitStack() as stack:
                gathering = Gathering(stack, end, peers, _INTERVAL)
                if busy:
                    gathering.others.ask("be_busy")
                    time.sleep(0.2)
                return gathering.memory()

        return run

    return Case(
        f"anonymous memory of an idle peer, of {peers}",
        "bytes",
        (
            Contender(OURS, sample(OURS)),
            Contender(_BUSY, sample(OURS, busy=True), "256 KiB were read from each before"),
            Contender("aiohttp", sample("aiohttp")),
        ),
        (Mark(48 * _KIB), Mark(48 * _KIB, ours=_BUSY)),
        better="lower",
        rounds=scale.pick(3, 1),
        note="RssAnon of the node's process with its peers, less that without, by their number; in "
        "plaintext",
    )


def _load(scale: Scale, stack: ExitStack) -> Case:
    # In small: a tenth of the peers, pinged ten times as often.
    peers = scale.pick(_PEERS, _PEERS // 10)
    interval = _INTERVAL * peers / _PEERS
    seconds = scale.pick(2 * _INTERVAL, 2.0)

    def sample(end: str) -> Callable[[], float]:
        gathering = Gathering(stack, end, peers, interval)
        return lambda: gathering.load(seconds)

    return Case(
        f"{peers} idle peers, pinged and pinging every {interval:g} s",
        "% of a core",
        (Contender(OURS, sample(OURS)), Contender("aiohttp", sample("aiohttp"))),
        (Mark(3.0),),
        better="lower",
        rounds=1,
        note=f"processor time of the node's process over {seconds:g} s"
        + scale.pick("", "; as many pings as 1,000 peers at the default interval cause"),
    )
