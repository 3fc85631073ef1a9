"""What handlers work with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..network.tasks import TaskSet
from ..node import FullNode
from .events import EventStream
from .page_files import PageFile
from .reads import Kept, Reads

__all__ = ["Context", "Measured", "measure", "scrape"]


class Measured(NamedTuple):
    """What only the store and its disk know."""

    has_state: bool
    database: int
    """Bytes."""
    disk_free: int | None
    """Bytes; None in memory."""


def measure(node: FullNode) -> Measured:
    """For a worker thread."""
    store = node.chain.store
    free = None if store.path is None else shutil.disk_usage(store.path).free
    return Measured(node.chain.has_state, store.size_on_disk(), free)


async def scrape(node: FullNode) -> bytes:
    """The node's metrics. Raises ConfigError without prometheus-client."""
    from ..metrics import scrape as text  # noqa: PLC0415 - an extra of its own

    return await text(node)


@dataclass(slots=True)
class Context:
    """The node and the server's parts."""

    node: FullNode
    reads: Reads
    measured: Kept[Measured]
    scraped: Kept[bytes]
    """The text of `/metrics`."""
    events: EventStream
    tasks: TaskSet
    page: Mapping[str, PageFile]
    started: float
    """Loop time."""
    started_at: float
    """Unix seconds."""
    description: bytes = b""
    """The OpenAPI document."""
    stopping: bool = False
