"""One socket: frames in as lists, frames out coalesced into one write per turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import cast

from ..backend import framing
from ..errors import (
    FrameError,
    NetworkError,
    PeerDisconnectedError,
    ProtocolViolationError,
)
from .addresses import canonical
from .channel import Channel, PlaintextChannel
from .send_queue import WRITE_HIGH, WRITE_LIMIT, WRITE_STALL, SendQueue
from .traffic import Flow

__all__ = [
    "CLOSE_BYTES",
    "CLOSE_TIMEOUT",
    "FRAME_BASE_TIME",
    "FRAME_MIN_RATE",
    "WRITE_HIGH",
    "WRITE_LIMIT",
    "WRITE_STALL",
    "Connection",
]

# The protocol, section 2: a frame must be complete within 30 s + 1 s per 16 KiB of its length.
FRAME_BASE_TIME = 30.0
FRAME_MIN_RATE = 16 * 1024
# How long a close may wait for the last bytes to leave and for the other side's FIN.
CLOSE_TIMEOUT = 2.0
# What is read and thrown away meanwhile; more is left in the kernel, and its end is not seen.
CLOSE_BYTES = 1024 * 1024

_CODE_TIMEOUT = 8  # DISCONNECT code "timeout"


def _ignore(*_: object) -> None:
    """Stands in for an owner's callback once the connection is closed."""


def _address(name: tuple[str, int] | None) -> tuple[str, int] | None:
    if not name:
        return None
    host, port = name[:2]  # IPv6 has a flow and a scope behind them
    # A socket for both families shows IPv4 mapped into IPv6.
    return (canonical(host) or host) if host.startswith("::ffff:") else host, port


class Connection(asyncio.BufferedProtocol):
    """One socket with frames in both directions, for `create_connection` and `create_server`.

    The owner is told by plain callbacks, from the loop:

    - `on_opened(connection)`: the socket is open and its addresses are known; whoever aborts the
      connection here has spent nothing on it;
    - `on_connected(connection)`: frames may flow (once, for a channel with a handshake after it);
    - `on_frames(frames)`: a non-empty list, in order. Where the decoder paused (`pause_after`),
      the pausing frame is the last of its list and no more comes until `resume()`;
    - `on_error(error)`: the stream cannot be read any further. The owner may send a last frame;
      the connection closes itself right after;
    - `on_closed(reason)`: exactly once, when the socket is gone, also if it was never connected
      to anything but `abort`ed first. None means a clean end by either side, otherwise what was
      given to `close`/`abort`, what the socket raised, or what broke a rule. An exception that
      escapes from `on_frames` ends the connection too: the loop logs it and it comes back here.

    A frame that is not complete within `frame_time` seconds plus its length at `FRAME_MIN_RATE`
    bytes/s ends the connection (`ProtocolViolationError`), and so does a peer that takes no byte
    for `write_stall` seconds while the socket's buffer is full (`PeerDisconnectedError`).
    """

    def __init__(
        self,
        decoder: framing.FrameDecoder,
        *,
        on_frames: Callable[[list[framing.Frame]], None],
        on_closed: Callable[[BaseException | None], None],
        on_error: Callable[[FrameError | ProtocolViolationError], None] = _ignore,
        on_opened: Callable[[Connection], None] = _ignore,
        on_connected: Callable[[Connection], None] = _ignore,
        channel: Channel | None = None,
        frame_time: float = FRAME_BASE_TIME,
        write_high: int = WRITE_HIGH,
        write_limit: int = WRITE_LIMIT,
        write_stall: float = WRITE_STALL,
        close_timeout: float = CLOSE_TIMEOUT,
        sent: Flow | None = None,
    ) -> None:
        """Must be called while the loop runs. Times in seconds, limits in bytes; `sent` counts."""
        self.decoder = decoder
        self.channel = channel if channel is not None else PlaintextChannel(decoder)
        self.frame_time = frame_time
        self.close_timeout = close_timeout

        self.bytes_received = 0
        # Host and port of either end; None before the socket is open, kept when it is gone.
        self.remote_address: tuple[str, int] | None = None
        self.local_address: tuple[str, int] | None = None
        self.last_received = 0.0  # loop time of the last bytes

        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._on_frames = on_frames
        self._on_closed = on_closed
        self._on_error = on_error
        self._on_opened = on_opened
        self._on_connected = on_connected
        # For the owner: after a read, something unfinished is held.
        self.on_pending: Callable[[], None] = _ignore
        self._announced = False

        self._stall_time = write_stall
        self._queue = SendQueue(
            self.channel,
            high=write_high,
            limit=write_limit,
            stall=write_stall,
            on_stalled=self._stalled,
            sent=sent,
        )

        self._frame_started: float | None = None
        self._frame_handle: asyncio.TimerHandle | None = None
        self._delivering = False
        self._resume_asked = False
        self._owner_paused = False
        self._reading_paused = False

        self._closing = False
        self._lingered = 0  # bytes that came since
        self._reason: BaseException | None = None
        self._close_handle: asyncio.TimerHandle | None = None
        self._closed = asyncio.Event()

    # --- what it is ------------------------------------------------------------------------

    @property
    def remote_key(self) -> bytes | None:
        """The key that the other side proved to hold (32 bytes); None in plaintext."""
        return self.channel.remote_key

    @property
    def frames_received(self) -> int:
        """Frames decoded so far."""
        return self.decoder.frames_decoded

    @property
    def write_buffer_size(self) -> int:
        """Bytes that were sent but have not left: queued here and in the socket's buffer."""
        return self._queue.size

    @property
    def bytes_sent(self) -> int:
        """Bytes handed to the socket."""
        return self._queue.bytes_sent

    @property
    def frames_sent(self) -> int:
        """Frames handed to the socket."""
        return self._queue.frames_sent

    @property
    def writes(self) -> int:
        """Coalesced writes that carried them."""
        return self._queue.writes

    @property
    def closing(self) -> bool:
        """Whether `close`, `abort`, the peer or a fault has ended it: nothing can be sent."""
        return self._closing

    @property
    def closed(self) -> bool:
        """Whether the socket is gone and `on_closed` was called."""
        return self._closed.is_set()

    # --- sending ---------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Queue one encoded frame; those of this turn of the loop leave in as few writes as can be.

        Raises `PeerDisconnectedError` if the connection is closing, `PeerBusyError` if more than
        `write_limit` bytes would wait (the frame is then not queued).
        """
        self._queue.put(frame)

    def send_many(self, frames: Iterable[bytes]) -> None:
        """Queue encoded frames in order, all or none. Raises as `send` does."""
        self._queue.put_many(tuple(frames))

    def send_payload(self, type: int, payload: bytes) -> None:
        """Queue the frame of `payload`. From 16 KiB on the payload goes to the kernel from where it
        is, without a copy, so that this is the way to send large ones. Raises as `send` does, and
        `EncodeError` as `framing.encode_frame` does."""
        self._queue.put_payload(type, payload)

    def send_now(self, frame: bytes) -> None:
        """As `send`, but the frame leaves at once with all that waits: for who knows that nothing
        follows in this turn of the loop."""
        self._queue.put_now(frame)

    async def drained(self) -> None:
        """Wait until no more than `write_high` bytes wait to leave.

        Raises `PeerDisconnectedError` if the connection is closing or closes meanwhile.
        """
        await self._queue.drained()

    def pause_writing(self) -> None:
        """Called by the transport: its buffer is full."""
        self._queue.pause()

    def resume_writing(self) -> None:
        """Called by the transport: its buffer has room again."""
        self._queue.resume()

    def _stalled(self) -> None:
        self.abort(PeerDisconnectedError(f"the peer read nothing for {self._stall_time:g} s"))

    # --- receiving -------------------------------------------------------------------------

    def resume(self) -> None:
        """Let decoding go on after the frame that paused it; frames behind it are delivered.

        May be called from within `on_frames`: they are then delivered after it returns.
        """
        if self._delivering:
            self._resume_asked = True
        elif self.decoder.paused and not self._closing:
            self._deliver(self.channel.resume())

    def pause_reading(self) -> None:
        """Leave what the peer sends in the kernel, so that TCP slows it down. Idempotent.

        A peer that goes away meanwhile is not noticed before `resume_reading`.
        """
        self._owner_paused = True
        self._frame_started = None  # that a frame comes no further is our doing
        self._update_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`. Idempotent."""
        if self._owner_paused:
            self._owner_paused = False
            self._update_reading()
            self._watch_frame(True)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the transport: where to read to."""
        return self.channel.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the transport: bytes have come."""
        self.bytes_received += nbytes
        if self._closing:
            self._lingered += nbytes
            if self._lingered > CLOSE_BYTES:
                self._update_reading()
            return  # what arrives while lingering is not looked at
        self.last_received = self._loop.time()
        frames = self.channel.received(nbytes)
        if not self._announced and self.channel.ready:
            self._announce()
        self._deliver(frames)

    def eof_received(self) -> bool:
        """Called by the transport: the other side sends no more. What is queued still leaves."""
        self._begin_close(None if self._closing else self.channel.ended())
        return False  # the transport flushes and closes

    def _announce(self) -> None:
        self._announced = True
        self._on_connected(self)
        self._queue.schedule()

    def _deliver(self, frames: list[framing.Frame]) -> None:
        decoder = self.decoder
        fresh = bool(frames)
        while True:
            if frames:
                self._delivering = True
                try:
                    self._on_frames(frames)
                finally:
                    self._delivering = False
            if self._closing:
                return
            if decoder.error is not None:
                self._on_error(decoder.error)
                self.close(decoder.error)
                return
            if self.channel.error is not None:
                self._channel_failed(self.channel.error)
                return
            if not decoder.paused:
                break
            if not self._resume_asked:
                break
            self._resume_asked = False
            frames = self.channel.resume()
        self._resume_asked = False
        if self._reading_paused or decoder.paused or self._owner_paused:
            self._update_reading()
        if self.channel.pending:
            self._watch_frame(fresh)
        else:
            self._frame_started = None

    def _channel_failed(self, error: NetworkError) -> None:
        if self.channel.ready:
            self.close(error)
        else:  # nothing could be told, and nobody is there to linger for
            self.abort(error)

    def _update_reading(self) -> None:
        """While the owner wants no bytes, or thinks about the frame that paused, the peer waits in
        the kernel. Some of what comes while closing is read, to see the end behind it."""
        if self._closing:
            pause = self._lingered > CLOSE_BYTES
        else:
            pause = self._owner_paused or self.decoder.paused
        if self._transport is None or pause == self._reading_paused:
            return
        self._reading_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _watch_frame(self, fresh: bool) -> None:
        """Note when the unfinished frame, if there is one, began; one timer serves them all."""
        if not self.channel.pending or self._owner_paused:
            self._frame_started = None
            return
        if fresh or self._frame_started is None:
            self._frame_started = self._loop.time()
            if self._frame_handle is None:
                self._frame_handle = self._loop.call_later(self.frame_time, self._check_frame)
        self.on_pending()

    def _check_frame(self) -> None:
        self._frame_handle = None
        if self._frame_started is None:
            return
        allowed = self.frame_time + self.channel.expected / FRAME_MIN_RATE
        if self._loop.time() < self._frame_started + allowed:
            self._frame_handle = self._loop.call_at(
                self._frame_started + allowed, self._check_frame
            )
        else:
            error = ProtocolViolationError(
                _CODE_TIMEOUT, f"a frame was not complete within {allowed:.0f} s", "slow_frame"
            )
            self._on_error(error)
            self.close(error)

    # --- opening and closing ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop: the socket is open."""
        stream = cast(asyncio.Transport, transport)
        if self._closing:
            stream.abort()
            return
        self._transport = stream
        self._queue.attach(stream)
        self.remote_address = _address(transport.get_extra_info("peername"))
        self.local_address = _address(transport.get_extra_info("sockname"))
        self.last_received = self._loop.time()
        self._update_reading()
        self._on_opened(self)
        if self._closing:
            return
        self.channel.start(self._queue.write)
        if self.channel.ready:
            self._announce()

    def close(self, reason: BaseException | None = None) -> None:
        """Stop reading frames, let what was sent leave, then close. Idempotent.

        The last bytes reach a peer that is itself sending, because the socket is not closed
        before the peer's own end was seen; after `close_timeout` seconds it is aborted.
        """
        if self._closing:
            return
        self._begin_close(reason)
        transport = self._transport
        if transport is None:
            return
        self._update_reading()
        try:
            transport.write_eof()
        except OSError:  # the peer reset the connection before we looked
            transport.abort()

    def abort(self, reason: BaseException | None = None) -> None:
        """Close at once; what has not left is lost. Idempotent."""
        self._begin_close(reason, flush=False)
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the socket is gone and `on_closed` has returned. Raises nothing itself."""
        await self._closed.wait()

    def _begin_close(self, reason: BaseException | None, *, flush: bool = True) -> None:
        if self._closing:
            return
        self._closing = True
        self._reason = reason
        self._queue.close(flush=flush)
        self.channel.discard()
        self._cancel_timers()
        if self._transport is None:
            self._finish()
        else:
            self._close_handle = self._loop.call_later(self.close_timeout, self._transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the loop: the socket is gone."""
        if not self._closing:
            self._closing = True
            self._reason = exc if self.channel.ready else self.channel.ended() or exc
        self._finish()

    def _finish(self) -> None:
        if self._closed.is_set():
            return
        self._queue.close(flush=False)
        self._cancel_timers()
        self._transport = None
        on_closed = self._on_closed
        # The callbacks hold the owner, which holds this connection.
        self._on_frames = self._on_closed = self._on_error = self._on_connected = _ignore
        self._on_opened = self.on_pending = _ignore
        try:
            on_closed(self._reason)
        finally:
            self._closed.set()

    def _cancel_timers(self) -> None:
        for handle in (self._frame_handle, self._close_handle):
            if handle is not None:
                handle.cancel()
        self._frame_handle = self._close_handle = None
