"""What waits to leave through one socket: bounded, coalesced, watched for a peer that stalls."""

from __future__ import annotations

import asyncio
import os
import struct
from asyncio.trsock import TransportSocket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from ..backend import framing
from ..errors import PeerBusyError, PeerDisconnectedError
from .channel import LARGE, Channel
from .traffic import Flow

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
_GATHER_PIECES = 1024  # IOV_MAX of Linux, macOS and the BSDs
# A peer that takes nothing at all for so long does not read; as long as a frame may need.
WRITE_STALL = 30.0

_HEADER = struct.Struct(">IB")


# What is sealed at a time: its parts, their bytes, the frames that end within.
_Group: TypeAlias = tuple[Sequence[bytes | memoryview], int, int]


def _nothing() -> None:
    """Stands in for the owner's callback once the queue is closed."""


class SendQueue:
    """Frames on their way out: those of one turn of the loop leave together, `WRITE_SIZE` a write.

    While the socket takes no more they wait here and are coalesced further. A peer that takes
    no byte for `stall` seconds meanwhile is reported once by `on_stalled()`.

    A frame is in `_parts`, then in one of `_groups`, then its bytes are in `_sealed`, and at last
    in the kernel; of what the kernel refuses, the transport has the little that makes it tell us
    when there is room.
    """

    def __init__(
        self,
        channel: Channel,
        *,
        high: int,
        limit: int,
        stall: float,
        on_stalled: Callable[[], None],
        sent: Flow | None = None,
    ) -> None:
        """`high` and `limit` in bytes, `stall` in seconds; `sent` is told what leaves. Must be
        called while the loop runs."""
        self.bytes_sent = 0  # handed to the socket
        self.frames_sent = 0
        self.writes = 0  # coalesced writes

        self._channel = channel
        self._high = high
        self._limit = limit
        self._stall = stall
        self._on_stalled = on_stalled
        self._sent = sent

        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        # The transport's socket, where it is given bytes as they are.
        self._socket: TransportSocket | None = None
        # The last write, and how many of its parts are headers alone. It may grow to `_room` bytes
        # before anything else has to be looked at; 0 makes the next frame look.
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._headers = 0
        self._room = 0
        # The writes before it.
        self._groups: deque[_Group] = deque()
        self._groups_size = 0
        # What the socket did not take of the first write of all.
        self._sealed: list[bytes | memoryview] = []
        self._sealed_size = 0
        self._lent = False  # `_sealed` must be copied before anything else is sealed
        self._flush_handle: asyncio.Handle | None = None
        self._full = False
        self._closed = False
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._stall_handle: asyncio.TimerHandle | None = None
        self._taken_before = 0

    @property
    def size(self) -> int:
        """Bytes that wait, here and in the socket's buffer."""
        size = self._sealed_size + self._groups_size + self._parts_size
        if self._transport is not None:
            size += self._transport.get_write_buffer_size()
        return size

    def attach(self, transport: asyncio.Transport) -> None:
        """The socket is open."""
        self._transport = transport
        # What the kernel does not take waits here, where it is coalesced and not copied.
        transport.set_write_buffer_limits(high=0)
        if hasattr(os, "writev") and transport.get_extra_info("sslcontext") is None:
            self._socket = transport.get_extra_info("socket")

    # --- in --------------------------------------------------------------------------------

    def put(self, frame: bytes) -> None:
        """Queue one frame. Raises `PeerDisconnectedError`, `PeerBusyError`."""
        size = self._parts_size + len(frame)
        if size > self._room:
            if size <= min(WRITE_SIZE, self._limit) and not self._closed and not self.size:
                self._room = min(WRITE_SIZE, self._limit)  # the first of all
            else:
                self._check(len(frame))
                size = self._make_room(len(frame))
            self.schedule()
        self._parts.append(frame)
        self._parts_size = size

    def put_now(self, frame: bytes) -> None:
        """Queue one frame and write it, with all that waits, unless the socket takes no more: for
        who knows that nothing follows in this turn. Raises as `put` does."""
        if len(frame) <= min(LARGE, self._limit) and not self._parts_size and self._idle():
            self._write_alone([frame], len(frame))
            return
        self._check(len(frame))
        self._parts_size = self._make_room(len(frame))
        self._parts.append(frame)
        self.flush()

    def put_many(self, frames: Sequence[bytes]) -> None:
        """Queue frames, all or none. Raises as `put` does."""
        size = self._parts_size + sum(map(len, frames))
        if size <= self._room:
            self._parts += frames
            self._parts_size = size
            return
        self._check(size - self._parts_size)
        for frame in frames:
            size = self._parts_size + len(frame)
            if size > self._room:
                size = self._make_room(len(frame))
            self._parts.append(frame)
            self._parts_size = size
        self.schedule()

    def put_payload(self, type: int, payload: bytes) -> None:
        """Queue the frame of `payload`, which is not copied if it is large. Raises as `put` and
        `framing.encode_frame` do."""
        if not isinstance(payload, bytes) or len(payload) < LARGE:
            self.put(framing.encode_frame(type, payload))
            return
        framing.Frame(type, payload)  # refuses what no frame can hold
        size = _HEADER.size + len(payload)
        self._check(size)
        self._parts_size = self._make_room(size)
        self._parts += (_HEADER.pack(1 + len(payload), type), payload)
        self._headers += 1
        self.schedule()

    def _check(self, size: int) -> None:
        if self._closed:
            raise PeerDisconnectedError("the connection is closed")
        if self.size + size > self._limit:
            raise PeerBusyError(
                f"{self.size} bytes wait to be sent to this peer, {size} more are over the limit"
            )

    def _make_room(self, size: int) -> int:
        """Begin another write if the last one has no room for a frame of `size` bytes; the bytes
        of the last one with it."""
        if self._parts_size + size > (WRITE_SIZE if size < LARGE else _GATHER_SIZE):
            self._end_group()
            self._write_out()
        elsewhere = self.size - self._parts_size  # does not grow before `_room` is 0 again
        size += self._parts_size
        self._room = min(max(size, WRITE_SIZE), self._limit - elsewhere)
        return size

    def _end_group(self) -> None:
        """What comes next is for another write."""
        if self._parts:
            frames = len(self._parts) - self._headers
            channel, size = self._channel, self._parts_size
            if self._sent is not None:
                if self._headers:
                    self._sent.add_parts(self._parts)
                else:
                    self._sent.add_frames(self._parts, size)
            if size <= (channel.slice_size if self._headers else channel.seal_limit):
                self._groups.append((self._parts, size, frames))
            else:
                self._groups += _slices(self._parts, channel.slice_size, frames)
            self._groups_size += self._parts_size
            self._parts, self._parts_size, self._headers = [], 0, 0
        self._room = 0

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket as they are."""
        self.writes += 1
        self._seal((data,))
        self._write_out()

    # --- out -------------------------------------------------------------------------------

    def schedule(self) -> None:
        """Flush at the end of this turn of the loop."""
        if self._flush_handle is None:
            self._flush_handle = self._loop.call_soon(self._flush_due)

    def flush(self) -> None:
        """Write what waits, unless the socket's buffer is full."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        self._flush_due()

    def _flush_due(self) -> None:
        """This turn of the loop is over."""
        self._flush_handle = None
        if not self._full and not self._closed:
            if 0 < self._parts_size <= LARGE and not self._headers and self._idle():
                parts, self._parts = self._parts, []
                size, self._parts_size = self._parts_size, 0
                self._write_alone(parts, size)
            else:
                self._end_group()
                self._write_out()
        if self._waiters:
            self._wake()

    def _idle(self) -> bool:
        """Whether nothing waits, in groups or in the socket's buffer, and bytes may leave."""
        transport = self._transport
        return (
            transport is not None
            and not (self._groups_size or self._sealed_size)
            and not (self._full or self._closed or transport.is_closing())
            and not transport.get_write_buffer_size()
            and self._channel.ready
        )

    def _write_alone(self, frames: list[bytes], size: int) -> None:
        """The short way of little, where nothing else is on its way: little enough for the
        transport to keep what the kernel does not take."""
        transport = self._transport
        assert transport is not None  # noqa: S101 - `_idle` has looked
        self.frames_sent += len(frames)
        self.writes += 1
        self._room = 0
        if self._sent is not None:
            self._sent.add_frames(frames, size)
        for data in self._channel.seal(frames):
            self.bytes_sent += len(data)
            # Lent memory is copied: the transport keeps what it was given (Python 3.12 and later).
            transport.write(bytes(data))

    def _write_out(self) -> None:
        """Write until the kernel takes no more; once closed, all: the transport keeps the rest."""
        transport = self._transport
        if transport is None:
            return
        # A transport that has met an error only waits to tell us.
        while not transport.is_closing() and (self._closed or not self._full):
            if not self._sealed:
                if not self._groups or not self._channel.ready:
                    break
                parts, size, frames = self._groups.popleft()
                self._groups_size -= size
                self.frames_sent += frames
                self.writes += 1
                self._seal(self._channel.seal(parts))
                self._lent = self._channel.lends
            self._write_sealed(transport)

    def _seal(self, buffers: Sequence[bytes | memoryview]) -> None:
        self._sealed += buffers
        self._sealed_size += sum(map(len, buffers))
        self._room = 0

    def _write_sealed(self, transport: asyncio.Transport) -> None:
        """Write sealed bytes past the transport, which would copy what the kernel does not take,
        and join what is in pieces (asyncio until Python 3.12); then one piece through it, for it
        to find out when there is room, or what is wrong with the socket."""
        if self._socket is not None and not transport.get_write_buffer_size():
            try:
                taken = os.writev(self._socket.fileno(), self._sealed[:_GATHER_PIECES])
            except OSError:
                taken = 0
            self._drop(taken)
        if self._sealed:
            if self._lent:
                self._sealed = [b"".join(self._sealed)]
                self._lent = False
            piece = self._sealed[0]
            if self._socket is not None and not self._closed:
                piece = memoryview(piece)[:LARGE]
            self._drop(len(piece))
            transport.write(piece)

    def _drop(self, size: int) -> None:
        """The first bytes that were sealed have left."""
        self.bytes_sent += size
        self._sealed_size -= size
        if not self._sealed_size:
            self._sealed.clear()
            return
        whole = 0
        while size >= len(self._sealed[whole]):
            size -= len(self._sealed[whole])
            whole += 1
        del self._sealed[:whole]
        if size:
            self._sealed[0] = memoryview(self._sealed[0])[size:]

    def pause(self) -> None:
        """The socket's buffer is full."""
        self._full = True
        if self._stall_handle is None and not self._closed:
            self._watch_stall()

    def resume(self) -> None:
        """The socket's buffer has room again."""
        self._full = False
        self.flush()

    async def drained(self) -> None:
        """Wait until at most `high` bytes wait. Raises `PeerDisconnectedError` once closed."""
        while not self._closed:
            if self.size <= self._high:
                return
            waiter = self._loop.create_future()
            self._waiters[waiter] = None
            try:
                await waiter
            finally:
                del self._waiters[waiter]
        raise PeerDisconnectedError("the connection is closed")

    def _wake(self) -> None:
        if self._waiters and (self._closed or self.size <= self._high):
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    # --- the end ---------------------------------------------------------------------------

    def close(self, *, flush: bool) -> None:
        """Refuse what comes, hand what waits to the socket (`flush`) or drop it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if flush:
            self._end_group()
            self._write_out()
        for waiting in (self._parts, self._groups, self._sealed):
            waiting.clear()
        self._parts_size = self._groups_size = self._sealed_size = 0
        self._room = -1  # so that `put` looks further
        for handle in (self._flush_handle, self._stall_handle):
            if handle is not None:
                handle.cancel()
        self._flush_handle = self._stall_handle = None
        self._on_stalled = _nothing  # it holds our owner, which holds us
        self._wake()

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


def _slices(parts: Sequence[bytes], limit: int, frames: int) -> Iterator[_Group]:
    """Groups of `limit` bytes, the last one of what is left."""
    group: list[bytes | memoryview] = []
    room = limit
    for part in parts:
        rest = memoryview(part)
        while len(rest) > room:
            group.append(rest[:room])
            yield group, limit, 0
            rest, group, room = rest[room:], [], limit
        group.append(rest)
        room -= len(rest)
    yield group, limit - room, frames
