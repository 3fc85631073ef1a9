"""Peers to return to after a restart, so that whoever fills the address book meanwhile, or cuts
us off while we are down, does not choose all our peers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import StorageError
from ..runtime import Runtime
from . import state_file
from .addresses import canonical
from .peer import Peer
from .purpose import Purpose

__all__ = ["ANCHORS", "ANCHORS_FILE", "Anchor", "Anchors", "decode_anchors", "encode_anchors"]

logger = logging.getLogger(__name__)

ANCHORS_FILE: Final = "anchors.json"
ANCHORS: Final = 2  # Bitcoin Core's MAX_BLOCK_RELAY_ONLY_ANCHORS
_VERSION: Final = 1
_FILE_CAP: Final = 4096  # bytes; one anchor takes about 150
# Between two writings while peers come and go. The first ones are written at once, so that a node
# that is killed has them.
_SAVE_INTERVAL: Final = 60.0


@dataclass(frozen=True, slots=True)
class Anchor:
    """A node that we dialled: an IP address, a port, and the id of who was there."""

    host: str
    port: int
    node_id: bytes


def encode_anchors(anchors: Iterable[Anchor]) -> bytes:
    """The content of the file."""
    entries = [{"host": a.host, "port": a.port, "node_id": a.node_id.hex()} for a in anchors]
    return json.dumps({"version": _VERSION, "anchors": entries}, indent=1).encode() + b"\n"


def decode_anchors(data: bytes) -> list[Anchor]:
    """Of the content of the file. Raises `StorageError` unless all of it is as it should be."""
    try:
        content = json.loads(data)
        if not isinstance(content, dict) or content.keys() != {"version", "anchors"}:
            raise ValueError("no list of anchors")
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']!r}, here {_VERSION}")
        entries = content["anchors"]
        if not isinstance(entries, list) or len(entries) > ANCHORS:
            raise ValueError(f"anchors: needs a list of at most {ANCHORS}")
        return [_anchor(entry) for entry in entries]
    except (ValueError, RecursionError) as error:
        raise StorageError(f"not a file of anchors: {error}") from error


def _anchor(entry: object) -> Anchor:
    if not isinstance(entry, dict) or entry.keys() != {"host", "port", "node_id"}:
        raise ValueError("an anchor needs host, port and node_id")
    host, port, name = entry["host"], entry["port"], entry["node_id"]
    if not isinstance(host, str) or canonical(host) != host:
        raise ValueError(f"host {host!r} is no IP address")
    if type(port) is not int or not 0 < port < 65536:
        raise ValueError(f"port {port!r} is not from 1 to 65535")
    node_id = bytes.fromhex(name) if isinstance(name, str) else b""
    if len(node_id) != 32 or node_id.hex() != name:
        raise ValueError("node_id needs 64 hex digits")
    return Anchor(host, port, node_id)


class Anchors:
    """Remembers the outbound peers that have been there for longest, in a file if it has one."""

    def __init__(self, runtime: Runtime, directory: Path | state_file.Directory | None) -> None:
        self._runtime = runtime
        self._file = None if directory is None else state_file.place(directory, ANCHORS_FILE)
        self._current: list[Anchor] = []
        self._saved: list[Anchor] = []
        self._changed = asyncio.Event()

    async def load(self) -> None:
        """Take in those of the last run. A damaged file is set aside."""
        if self._file is not None and not self._current:
            found = await self._runtime.run(state_file.load, self._file, _FILE_CAP, decode_anchors)
            self._current = self._saved = found or []

    def __iter__(self) -> Iterator[Anchor]:
        return iter(self._current)

    def update(self, peers: Iterable[Peer]) -> None:
        """Who is connected has changed. Those of before fill what the outbound peers leave: a
        node that has lost its line still knows where to return to."""
        outbound = [p for p in peers if p.outbound and p.purpose is Purpose.FULL and not p.closed]
        outbound.sort(key=lambda peer: peer.connected_at)
        chosen = [Anchor(p.host_address, p.dial_port, p.node_id) for p in outbound]
        self._current = list(dict.fromkeys((*chosen, *self._current)))[:ANCHORS]
        if self._current != self._saved:
            self._changed.set()

    async def run(self) -> None:
        """Save what changes, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not await self._save() or len(self._saved) == ANCHORS:
                await asyncio.sleep(_SAVE_INTERVAL)

    async def close(self) -> None:
        """Save what has changed since."""
        await self._save()

    async def _save(self) -> bool:
        """False if it could not be."""
        current = self._current
        if self._file is None or current == self._saved:
            return True
        try:
            await self._runtime.run(self._file.write, encode_anchors(current))
        except StorageError as error:
            logger.warning("anchors were not saved: %s", error)
            return False
        self._saved = current
        return True
