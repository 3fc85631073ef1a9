"""What waits to leave through one socket: bounded, coalesced, watched for a peer that stalls."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import PeerBusyError, PeerDisconnectedError
from .channel import LARGE, Channel

__all__ = ["WRITE_HIGH", "WRITE_LIMIT", "WRITE_SIZE", "WRITE_STALL", "SendQueue"]

# Above this `drained()` waits: some round trips of a good line, and little enough per peer.
WRITE_HIGH = 1024 * 1024
# Above this `put` refuses: the largest frame (10 MiB) and what may wait before it.
WRITE_LIMIT = 16 * 1024 * 1024
# What is sealed and written together, larger frames excepted. It leaves as soon as there is so
# much, still in the cache when the kernel copies it, and is small enough that malloc reuses the
# memory: blocks of 128 KiB come from the kernel page by page, and go back.
WRITE_SIZE = 96 * 1024
# Large frames are gathered to more: they are not joined, and cost less the fewer segments of TCP
# they end within.
_GATHER_SIZE = 4 * WRITE_SIZE
# A peer that takes nothing at all for so long does not read; as long as a frame may need.
WRITE_STALL = 30.0


def _gather(transport: asyncio.Transport, buffers: Sequence[bytes]) -> int:
    """How many bytes of `buffers` the kernel took at once: the transport would join them first
    (asyncio until Python 3.12), so they go past it. 0 where that is not possible; what is wrong
    with the socket the transport finds out when it is given the rest."""
    if (
        not hasattr(os, "writev")
        or (sock := transport.get_extra_info("socket")) is None
        or transport.get_extra_info("sslcontext") is not None
        or transport.get_write_buffer_size()
    ):
        return 0
    try:
        return os.writev(sock.fileno(), buffers)
    except OSError:
        return 0


def _nothing() -> None:
    """Stands in for the owner's callback once the queue is closed."""


class SendQueue:
    """Frames on their way out: those of one turn of the loop leave together, `WRITE_SIZE` a write.

    While the socket takes no more they wait here and are coalesced further. A peer that takes
    no byte for `stall` seconds meanwhile is reported once by `on_stalled()`.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        high: int,
        limit: int,
        stall: float,
        on_stalled: Callable[[], None],
    ) -> None:
        """`high` and `limit` in bytes, `stall` in seconds. Must be called while the loop runs."""
        self.bytes_sent = 0  # handed to the socket
        self.frames_sent = 0
        self.writes = 0  # coalesced writes

        self._channel = channel
        self._high = high
        self._limit = limit
        self._stall = stall
        self._on_stalled = on_stalled

        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        # The frames of one write each, and their bytes; then those of the last write, which may
        # grow to `_parts_room` bytes before `put` has to look at anything else. No room is left
        # by a write, so that the first frame after it sees to the next one.
        self._groups: deque[tuple[list[bytes], int]] = deque()
        self._groups_size = 0
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._parts_room = 0
        self._flush_handle: asyncio.Handle | None = None
        self._writing = False
        self._full = False
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._stall_handle: asyncio.TimerHandle | None = None
        self._taken_before = 0

    @property
    def size(self) -> int:
        """Bytes that wait, here and in the socket's buffer."""
        size = self._groups_size + self._parts_size
        if self._transport is not None:
            size += self._transport.get_write_buffer_size()
        return size

    def attach(self, transport: asyncio.Transport) -> None:
        """The socket is open."""
        self._transport = transport
        # What the kernel does not take waits here, where it is coalesced and not copied.
        transport.set_write_buffer_limits(high=0)

    def put(self, frame: bytes) -> None:
        """Queue one frame. Raises `PeerDisconnectedError`, `PeerBusyError`."""
        size = self._parts_size + len(frame)
        if size > self._parts_room:
            size = self._admit(len(frame))
        self._parts.append(frame)
        self._parts_size = size

    def put_now(self, frame: bytes) -> None:
        """Queue one frame and write it, with all that waits, unless the socket takes no more: for
        who knows that nothing follows in this turn. Raises as `put` does."""
        self._writing = True  # no flush needs to be scheduled
        try:
            self.put(frame)
        finally:
            self._writing = False
        self.flush()

    def put_many(self, frames: Sequence[bytes]) -> None:
        """Queue frames, all or none. Raises as `put` does."""
        size = sum(map(len, frames))
        if self._parts_size + size > self._parts_room:
            self._check(size)
            for frame in frames:
                self.put(frame)
        else:
            self._parts += frames
            self._parts_size += size

    def _check(self, size: int) -> None:
        if self._closed:
            raise PeerDisconnectedError("the connection is closed")
        if self.size + size > self._limit:
            raise PeerBusyError(
                f"{self.size} bytes wait to be sent to this peer, {size} more are over the limit"
            )

    def _admit(self, size: int) -> int:
        """Find room for a frame of `size` bytes; the size of its group with it."""
        self._check(size)
        if self._parts_size + size > (WRITE_SIZE if size < LARGE else _GATHER_SIZE):
            self._end_group()
            self._write_groups()
        elsewhere = self.size - self._parts_size  # does not grow before the next write
        size += self._parts_size
        self._parts_room = min(max(size, WRITE_SIZE), self._limit - elsewhere)
        self.schedule()
        return size

    def _end_group(self) -> None:
        """What comes next is for another write."""
        if self._parts:
            self._groups.append((self._parts, self._parts_size))
            self._groups_size += self._parts_size
            self._parts, self._parts_size = [], 0

    def schedule(self) -> None:
        """Flush at the end of this turn of the loop."""
        if self._flush_handle is None and not self._writing:
            self._flush_handle = self._loop.call_soon(self.flush)

    async def drained(self) -> None:
        """Wait until at most `high` bytes wait. Raises `PeerDisconnectedError` once closed."""
        while not self._closed:
            if self.size <= self._high:
                return
            waiter = self._loop.create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        raise PeerDisconnectedError("the connection is closed")

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket as they are."""
        if self._transport is not None:
            self.bytes_sent += len(data)
            self.writes += 1
            self._parts_room = 0  # what waits in the socket's buffer has changed
            self._transport.write(data)

    def pause(self) -> None:
        """The socket's buffer is full."""
        self._full = True
        if self._stall_handle is None and not self._closed:
            self._watch_stall()

    def resume(self) -> None:
        """The socket's buffer has room again."""
        self._full = False
        self.flush()

    def close(self, *, flush: bool) -> None:
        """Refuse what comes, hand what waits to the socket (`flush`) or drop it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if flush:
            self._end_group()
            self._write_groups()
        self._groups.clear()
        self._parts.clear()
        self._groups_size = self._parts_size = 0
        self._parts_room = -1  # so that `put` looks further
        for handle in (self._flush_handle, self._stall_handle):
            if handle is not None:
                handle.cancel()
        self._flush_handle = self._stall_handle = None
        self._on_stalled = _nothing  # it holds our owner, which holds us
        self._wake()

    def flush(self) -> None:
        """Write what waits, unless the socket's buffer is full."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        if not self._full and not self._closed:
            self._end_group()
            self._write_groups()
        self._wake()

    def _write_groups(self) -> None:
        """Write until the kernel takes no more; once closed, all: the transport keeps the rest."""
        if self._transport is None or not self._channel.ready:
            return
        while self._groups and (self._closed or not self._full):
            parts, size = self._groups.popleft()
            self._groups_size -= size
            self.frames_sent += len(parts)
            self._write_all(self._channel.seal(parts))

    def _write_all(self, buffers: Sequence[bytes]) -> None:
        if len(buffers) == 1:
            self.write(buffers[0])
            return
        transport = self._transport
        assert transport is not None  # noqa: S101 - our caller has looked
        self.bytes_sent += sum(map(len, buffers))
        self.writes += 1
        self._parts_room = 0
        done = _gather(transport, buffers)
        for buffer in buffers:
            if done < len(buffer):
                transport.write(memoryview(buffer)[done:])
            done = max(0, done - len(buffer))

    def _wake(self) -> None:
        if self._waiters and (self._closed or self.size <= self._high):
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    @property
    def _taken(self) -> int:
        """Bytes that the kernel took so far."""
        if self._transport is None:
            return self.bytes_sent
        return self.bytes_sent - self._transport.get_write_buffer_size()

    def _watch_stall(self) -> None:
        self._taken_before = self._taken
        self._stall_handle = self._loop.call_later(self._stall, self._check_stall)

    def _check_stall(self) -> None:
        self._stall_handle = None
        if not self._full:
            return
        if self._taken > self._taken_before:
            self._watch_stall()
        else:
            self._on_stalled()
