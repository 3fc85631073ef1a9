"""What handlers work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..network.tasks import TaskSet
from ..node import FullNode
from .events import EventStream
from .page_files import PageFile
from .reads import Reads

__all__ = ["Context"]


@dataclass(slots=True)
class Context:
    """The node and the server's parts."""

    node: FullNode
    reads: Reads
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
