"""Who is inside a store: the readers, the one writer, and whoever needs it to be empty.

The map of an LMDB file may only grow, and a store may only close, while no transaction is open;
a transaction that runs on regardless would read memory that is gone.
"""

from __future__ import annotations

import os
import threading
from typing import ClassVar, Final

from ..errors import StorageError

DRAIN_SECONDS: Final = 30.0  # far above any transaction of ours; a leaked one must not hang us


class Gate:
    """Counts open transactions by thread; lets one writer in; drains and closes."""

    # What `fork` has made of the process that began: told by the system once, where asking for the
    # process id at each transaction costs as much as reading a small value.
    _generation_now: ClassVar[int] = 0

    def __init__(self, name: str) -> None:
        self._name = name
        self._generation = Gate._generation_now
        self._changed = threading.Condition(threading.Lock())
        self._readers: dict[int, int] = {}
        self._writer: int | None = None
        self._draining = False
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def enter_read(self) -> int:
        """Admit a reader; returns what `leave_read` wants back."""
        thread = threading.get_ident()
        with self._changed:
            self._check_open()
            # A thread that is inside already is being waited for, so it must not wait itself.
            while self._draining and thread not in self._readers and thread != self._writer:
                self._changed.wait()
                self._check_open()
            self._readers[thread] = self._readers.get(thread, 0) + 1
        return thread

    def leave_read(self, thread: int) -> None:
        with self._changed:
            left = self._readers[thread] - 1
            if left:
                self._readers[thread] = left
            else:
                del self._readers[thread]
                if self._draining or self._closed:
                    self._changed.notify_all()

    def enter_write(self) -> None:
        """Admit the writer, once no other is inside."""
        thread = threading.get_ident()
        with self._changed:
            self._check_open()
            if self._writer == thread:
                raise StorageError(f"{self._name}: this thread has a write transaction open")
            while self._writer is not None:
                self._changed.wait()
                self._check_open()
            self._writer = thread

    def leave_write(self) -> None:
        with self._changed:
            self._writer = None
            self._changed.notify_all()

    def drain(self) -> bool:
        """Called by the writer: keep new readers out and wait until all have left.

        False, with the gate as it was, if they do not: this thread reads, or another stays.
        After True the gate stays shut to readers until `undrain`.
        """
        with self._changed:
            if threading.get_ident() in self._readers:
                return False
            self._draining = True
            if self._changed.wait_for(lambda: not self._readers, DRAIN_SECONDS):
                return True
            self._draining = False
            self._changed.notify_all()
            return False

    def undrain(self) -> None:
        with self._changed:
            self._draining = False
            self._changed.notify_all()

    def close(self) -> bool:
        """Let no one in any more and wait until all have left. False if it was closed before."""
        thread = threading.get_ident()
        with self._changed:
            if self._closed:
                return False
            if thread == self._writer or thread in self._readers:
                raise StorageError(f"{self._name}: close() inside a transaction of this thread")
            self._closed = True
            self._changed.notify_all()
            if not self._changed.wait_for(
                lambda: not self._readers and self._writer is None, DRAIN_SECONDS
            ):
                self._closed = False
                raise StorageError(f"{self._name}: transactions of other threads stay open")
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"{self._name}: the store is closed")
        if Gate._generation_now != self._generation:
            raise StorageError(f"{self._name}: the store was opened by the parent process")


def _forked() -> None:
    Gate._generation_now += 1


if hasattr(os, "register_at_fork"):  # where processes fork at all
    os.register_at_fork(after_in_child=_forked)
