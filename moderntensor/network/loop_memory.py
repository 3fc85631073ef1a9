"""Memory that all connections of one event loop take turns in, whosever they are."""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

from .channel import new_read_buffer
from .secure import Workspace

__all__ = ["LoopMemory", "loop_memory"]


class LoopMemory:
    """640 KiB, once per loop: nodes that share a loop share it as well."""

    __slots__ = ("read", "workspace")

    def __init__(self) -> None:
        self.read = new_read_buffer()
        """Where all sockets read to."""
        self.workspace = Workspace()
        """What encrypted connections share besides."""


_BY_LOOP: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, LoopMemory]] = WeakKeyDictionary()


def loop_memory() -> LoopMemory:
    """That of the running loop; it goes with the loop."""
    loop = asyncio.get_running_loop()
    memory = _BY_LOOP.get(loop)
    if memory is None:
        memory = _BY_LOOP[loop] = LoopMemory()
    return memory
