"""What waits to leave through one socket: bounded, coalesced, watched for a peer that stalls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..errors import PeerBusyError, PeerDisconnectedError
from .channel import Channel

__all__ = ["WRITE_HIGH", "WRITE_LIMIT", "WRITE_STALL", "SendQueue"]

# Above this `drained()` waits: some round trips of a good line, and little enough per peer.
WRITE_HIGH = 1024 * 1024
# Above this `put` refuses: the largest frame (10 MiB) and what may wait before it.
WRITE_LIMIT = 16 * 1024 * 1024
# What the socket's own buffer may hold before the rest waits here, where it can be coalesced.
_SOCKET_HIGH = 256 * 1024
# A peer that takes nothing at all for so long does not read; as long as a frame may need.
WRITE_STALL = 30.0


def _nothing() -> None:
    """Stands in for the owner's callback once the queue is closed."""


class SendQueue:
    """Frames on their way out. All of one turn of the loop leave in one write.

    While the socket's buffer is full they wait here and are coalesced further. A peer that takes
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
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._flush_handle: asyncio.Handle | None = None
        self._full = False
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._stall_handle: asyncio.TimerHandle | None = None
        self._stalled_size = 0

    @property
    def size(self) -> int:
        """Bytes that wait, here and in the socket's buffer."""
        if self._transport is None:
            return self._parts_size
        return self._parts_size + self._transport.get_write_buffer_size()

    def attach(self, transport: asyncio.Transport) -> None:
        """The socket is open."""
        self._transport = transport
        transport.set_write_buffer_limits(high=_SOCKET_HIGH)

    def put(self, frames: Sequence[bytes]) -> None:
        """Queue frames, all or none. Raises `PeerDisconnectedError`, `PeerBusyError`."""
        size = sum(map(len, frames))
        if self._closed:
            raise PeerDisconnectedError("the connection is closed")
        if self.size + size > self._limit:
            raise PeerBusyError(
                f"{self.size} bytes wait to be sent to this peer, {size} more are over the limit"
            )
        self._parts += frames
        self._parts_size += size
        self.schedule()

    def schedule(self) -> None:
        """Flush at the end of this turn of the loop."""
        if self._flush_handle is None:
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
            self._transport.write(data)

    def pause(self) -> None:
        """The socket's buffer is full."""
        self._full = True
        if self._transport is not None and not self._closed:
            self._stalled_size = self._transport.get_write_buffer_size()
            self._stall_handle = self._loop.call_later(self._stall, self._check_stall)

    def resume(self) -> None:
        """The socket's buffer has room again."""
        self._full = False
        if self._stall_handle is not None:
            self._stall_handle.cancel()
            self._stall_handle = None
        self.flush()

    def close(self, *, flush: bool) -> None:
        """Refuse what comes, hand what waits to the socket (`flush`) or drop it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if flush and self._channel.ready:
            self._write_parts()
        self._parts.clear()
        self._parts_size = 0
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
        if not self._full and not self._closed and self._channel.ready:
            self._write_parts()
        self._wake()

    def _write_parts(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._parts_size = 0
            self.frames_sent += len(parts)
            self.write(self._channel.seal(parts))

    def _wake(self) -> None:
        if self._waiters and (self._closed or self.size <= self._high):
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _check_stall(self) -> None:
        self._stall_handle = None
        if self._transport is None:
            return
        size = self._transport.get_write_buffer_size()
        if size < self._stalled_size:
            self._stalled_size = size
            self._stall_handle = self._loop.call_later(self._stall, self._check_stall)
        else:
            self._on_stalled()
