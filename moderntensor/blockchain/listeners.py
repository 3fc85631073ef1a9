"""Who is told when the head of a chain moves."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .chain_types import HeadChanged

log = logging.getLogger(__name__)


class HeadListeners:
    """Callbacks, called in the order of commits on the thread that made them."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[HeadChanged], object]] = []

    def __len__(self) -> int:
        return len(self._callbacks)

    def add(self, callback: Callable[[HeadChanged], object]) -> Callable[[], None]:
        """Call `callback` from now on; returns what ends it."""
        self._callbacks.append(callback)

        def remove() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return remove

    def tell(self, event: HeadChanged) -> None:
        """Call all of them. What one raises is logged: the commit stands."""
        for callback in tuple(self._callbacks):
            try:
                callback(event)
            except Exception:  # whatever a listener makes of it
                log.exception("a listener failed on the new head %d", event.head.height)
