"""The live node, its two honest peers, and what every test about it holds them to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from moderntensor.blockchain.block import Block
from moderntensor.config import NodeConfig

from . import scene, state_scene
from .control import Child
from .hostile import Hostile, Target, until

MIB = 1024 * 1024
# What a node may have more after an attack than before: what allocators keep, and caches that
# fill once (signatures, addresses, log lines). It does not grow from test to test.
MEMORY_SLACK = 24 * MIB
BYTE_BUDGET = 96 * MIB
# Figures go here, one file a test, where `adversity.report` asks for them.
FIGURES = os.environ.get("MODERNTENSOR_ADVERSITY_FIGURES")

# After so long who was dropped is let in again, if it is not banned.
REFUSED = 33.0

SETTINGS: dict[str, Any] = {
    "listen_host": "127.0.0.1",
    "listen_port": 0,
    "discovery": False,
    "exempt_local": False,  # the addresses of this machine stand for so many strangers
    "refusal_time": 20.0,  # who was dropped may come back sooner than after ten minutes
    "follow_interval": 0.25,  # claims are looked at sooner than every 5 s
}


class Live(Child):
    """The node under attack."""

    def __init__(
        self,
        directory: Path,
        *,
        blocks: Sequence[Block] | None = None,
        bootstrap: Sequence[str] = (),
        with_state: bool = False,
        **settings: Any,
    ) -> None:
        """In `directory`, which may be that of another one which has ended. `blocks` of its
        chain: those of the scene if none are given; that with the large state if `with_state`."""
        directory.mkdir(exist_ok=True)
        self.directory = directory
        setting: Any = state_scene if with_state else scene
        blocks = setting.chain() if blocks is None else blocks
        known = NodeConfig.__dataclass_fields__
        wanted = {**SETTINGS, "byte_budget": BYTE_BUDGET, **settings}
        wanted = {name: value for name, value in wanted.items() if name in known}
        setup = {
            "data_dir": str(directory / "live"),
            "settings": wanted,
            "bootstrap": list(bootstrap),
            "blocks": [block.encode().hex() for block in blocks],
            "with_state": with_state,
        }
        super().__init__("adversity.live_node", setup, directory / "live.err")
        assert self.ready["height"] == len(blocks)
        self.target = Target(
            port=self.ready["port"],
            node_id=bytes.fromhex(self.ready["node_id"]),
            genesis=setting.maker().genesis.hash,
            secure=NodeConfig(**wanted).transport == "secure",
        )

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("state")
        return found

    def advance(self, seconds: float) -> None:
        """Let so much of its time go by, at once."""
        self.ask("advance", seconds=seconds)

    def bans(self) -> list[str]:
        found: list[str] = self.ask("bans")
        return found

    def banned(self, host: str) -> bool:
        return any(re.search(rf"\b{re.escape(host)}\b", ban) for ban in self.bans())

    def budget(self) -> int:
        """Bytes that it holds because of peers, as it accounts for them."""
        held: int = self.ask("budget")
        return held

    def peers(self) -> dict[str, Any]:
        found: dict[str, Any] = self.state()["peers"]
        return found

    def log(self, text: str, last: int = 200) -> list[str]:
        """Of the last log lines those with this text."""
        return [line for line in self.ask("lines", last=last) if text in line]


class Honest(Child):
    """Two peers of the live node: one came to it, one it dialled."""

    def __init__(self, live: Live, directory: Path) -> None:
        setup = {
            "hosts": ["127.0.0.11", "127.0.0.12"],
            "settings": {"transport": "secure" if live.target.secure else "plaintext"},
        }
        super().__init__("adversity.honest_peers", setup, directory / "honest.err")
        self.ask("connect", index=0, port=live.target.port, node_id=live.target.node_id.hex())
        address = {"host": "127.0.0.12", "port": self.ready["ports"][1]}
        assert live.ask("connect", **address, node_id=self.ready["node_ids"][1]) == "connected"

    def report(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("report")
        self.slowest_pong = max(self.slowest_pong, *(one["slowest_pong"] for one in found))
        return found

    slowest_pong = 0.0  # s, since it was last set to 0

    def progress(self, before: list[dict[str, Any]]) -> bool:
        """Whether each has begun and ended a sync since, and had a PING answered."""
        return all(
            now["syncs"] >= then["syncs"] + 2 and now["pongs"] > then["pongs"]
            for then, now in zip(before, self.report(), strict=True)
        )


class Row:
    """One attack: opens connections that are closed at its end, and notes figures."""

    def __init__(self, live: Live, honest: Honest, name: str) -> None:
        self.live, self.honest, self.name = live, honest, name
        self.figures: dict[str, Any] = {}
        self.hostile: list[Hostile] = []
        self.before = live.state()
        self.descriptors = live.descriptors()
        self.memory = live.memory()
        self._progress = honest.report()
        honest.slowest_pong = 0.0

    @property
    def target(self) -> Target:
        return self.live.target

    def meet(self, host: str | None = None, **hello: Any) -> Hostile:
        peer = Hostile.meet(self.live.target, host, **hello)
        self.hostile.append(peer)
        return peer

    def connect(self, host: str | None = None) -> Hostile:
        """TCP alone."""
        peer = Hostile(self.live.target, host)
        self.hostile.append(peer)
        return peer

    def measure(self, **figures: Any) -> None:
        """Keep figures for the table in docs/security.md."""
        self.figures.update(figures)

    def undisturbed(self) -> None:
        """The honest peers go on while the attack does: wait until both have got somewhere since
        it began."""
        self.honest.ask("hurry")
        try:
            until(lambda: self.honest.progress(self._progress))
        except AssertionError:
            raise AssertionError(f"honest peers got nowhere: {self.honest.report()}") from None

    def over(self) -> None:
        """The attack ends; what it cost."""
        self.undisturbed()
        self.measure(slowest_pong=self.honest.slowest_pong)
        for peer in self.hostile:
            peer.close()
        until(lambda: self.live.descriptors() <= self.descriptors)
        until(lambda: self.live.state()["tasks"] <= self.before["tasks"])
        grown = self.live.memory() - self.memory
        assert grown <= MEMORY_SLACK, f"{grown / MIB:.1f} MiB more than before"
        now = self.honest.report()
        for one in now:
            assert not one["partings"]
            assert one["peers"] == 1
        self.measure(
            memory_grown=grown,
            syncs=sum(one["syncs"] for one in now) - sum(one["syncs"] for one in self._progress),
        )
        if FIGURES:
            path = Path(FIGURES) / (re.sub(r"\W+", "_", self.name).strip("_") + ".json")
            path.write_text(json.dumps({"test": self.name, **self.figures}))


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    node = Live(tmp_path_factory.mktemp("live"))
    try:
        yield node
    finally:
        said = node.stop()
    assert "Traceback" not in said, said


@pytest.fixture(scope="session")
def honest(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Honest]:
    peers = Honest(live, tmp_path_factory.mktemp("honest"))
    try:
        yield peers
    finally:
        said = peers.stop()
    assert "Traceback" not in said, said


@pytest.fixture
def row(live: Live, honest: Honest, request: pytest.FixtureRequest) -> Iterator[Row]:
    scenes = Row(live, honest, request.node.name)
    try:
        yield scenes
        scenes.over()
    finally:
        for peer in scenes.hostile:
            peer.close()


@pytest.fixture
def another_live(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Make a live node with other settings; it is stopped at the end."""
    nodes: list[Live] = []

    def make(*, directory_of: Live | None = None, **settings: Any) -> Live:
        directory = tmp_path / f"{len(nodes)}" if directory_of is None else directory_of.directory
        nodes.append(Live(directory, **settings))
        return nodes[-1]

    try:
        yield make
    finally:
        for node in nodes:
            if node.running:
                node.stop()
