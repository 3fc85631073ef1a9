"""Syncs over loopback in processes of their own, for the comparison: one chain, many runs."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moderntensor.blockchain.chain_types import ChainHead

sys.path.insert(0, str(Path(__file__).parent.parent))

import sync_loopback as loopback

PEERS = 3


@dataclass(frozen=True, slots=True)
class Source:
    """A chain in `directory` and the ports of those who serve it."""

    directory: Path
    head: ChainHead
    ports: Sequence[int]

    def sync(self, *options: object, start: str | None = None) -> list[dict[str, Any]]:
        """One process syncs all of it, or the rest of `start`; what it said on the way, the
        result last. AssertionError unless it came to the same chain."""
        options = ("--report", 60, *options)
        said = loopback.run_once(self.directory, self.ports, *options, start=start)
        last = said[-1]
        assert last["peers"] == len(self.ports), "a peer was dropped"
        if "--headers" in options:
            assert last["header_hash"] == self.head.hash.hex()
        elif "--target" not in options:
            assert last["hash"] == self.head.hash.hex()
            assert last["state_root"] == self.head.state_root.hex()
        return said

    def sync_to(self, height: int, name: str) -> None:
        """Sync as far as `height` into a store that stays."""
        options = ("--report", 60, "--target", height)
        with loopback.syncing(self.directory, name, self.ports, *options) as process:
            *_, last = loopback.lines(process.stdout)
        assert last["done"] == height


@contextmanager
def served(blocks: int, transfers: int, peers: int = PEERS) -> Iterator[Source]:
    """A signed chain, and processes that serve copies of it."""
    with tempfile.TemporaryDirectory(prefix="moderntensor-") as name:
        directory = Path(name)
        head = loopback.build(directory, blocks, transfers)
        with loopback.servers(directory, peers) as ports:
            yield Source(directory, head, ports)
