"""One end of a simulated TCP connection: what asyncio's socket transport and the kernel do."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from .network import Process
    from .stream import Stream

__all__ = ["SimTransport", "os_error"]

# asyncio's own: above the first `pause_writing`, from the second on `resume_writing`.
_HIGH_WATER: Final = 64 * 1024


def os_error(code: int) -> OSError:
    """As the system raises it."""
    return OSError(code, os.strerror(code))


class SimTransport(asyncio.Transport):
    """The transport of a protocol, and the socket below it, which outlives it.

    Calls its protocol as a selector loop's transport does: in the same order, never from within
    the protocol's own call (but for `pause_writing`), in the context of who made the connection.
    """

    def __init__(
        self,
        process: Process,
        context: Context,
        sockname: tuple[Any, ...],
        peername: tuple[Any, ...],
    ) -> None:
        super().__init__({"sockname": sockname, "peername": peername})
        self.process = process
        self.peer: SimTransport | None = None
        self.outgoing: Stream
        self.incoming: Stream
        self.context = context
        self._loop = process.loop
        self._protocol: asyncio.BaseProtocol | None = None
        self._buffered = False  # the protocol is a BufferedProtocol
        self._low, self._high = _HIGH_WATER // 4, _HIGH_WATER
        self._write_paused = False
        self._eof_written = False
        # What has come and was not read: by the socket's buffer, in order.
        self._unread: deque[bytes | memoryview] = deque()
        self._end_came = False
        self._paused = False
        self._reading = False  # the socket is watched: not before connection_made, nor after EOF
        self._read_asked = False
        self._closing = False
        self._lost = False  # connection_lost was called, or will be in the next turn
        self.closed = False  # the socket is: the kernel answers
        self._error: OSError | None = None  # what the next read or write meets

    # --- opening ---------------------------------------------------------------------------

    def open(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell `protocol`. Called by the network, in no context."""
        self.set_protocol(protocol)
        self._call(protocol.connection_made, self)
        self._reading = not self._closing
        if self._unread:
            self._ask_read()

    def _call(self, function: Any, *args: Any) -> Any:
        """Of the protocol. What it raises ends the connection, as in asyncio."""
        try:
            return self.context.run(function, *args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(error, f"Fatal error: protocol.{function.__name__}() call failed.")
            return None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """As in asyncio."""
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """As in asyncio."""
        return cast(asyncio.BaseProtocol, self._protocol)

    # --- reading ---------------------------------------------------------------------------

    def arrive(self, data: bytes | memoryview) -> None:
        """Bytes have reached the socket; none mean that no more will come."""
        if not data:
            self._end_came = True
        if self._reading and not self._paused and not self._unread:
            self._take(data)
        else:
            self._unread.append(data)
            self.incoming.unread += len(data)

    def _take(self, data: bytes | memoryview) -> None:
        """Hand to the protocol what one read gives; keep the rest."""
        if not data:
            self._ended()
        elif self._buffered:
            try:
                read = self.context.run(self._fill, data)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._fail(error, "Fatal error: protocol.buffer_updated() call failed.")
                return
            if read < len(data):
                self._unread.appendleft(memoryview(data)[read:])
                self.incoming.unread += len(data) - read
                self._ask_read()
        else:
            self._call(cast(asyncio.Protocol, self._protocol).data_received, bytes(data))

    def _fill(self, data: bytes | memoryview) -> int:
        protocol: Any = self._protocol
        buffer = protocol.get_buffer(-1)
        room, size = len(buffer), len(data)
        if room >= size:
            buffer[:size] = data
            protocol.buffer_updated(size)
            return size
        if not room:
            raise RuntimeError("get_buffer() returned an empty buffer")
        buffer[:room] = memoryview(data)[:room]
        protocol.buffer_updated(room)
        return room

    def _ended(self) -> None:
        """The other side sends no more."""
        keep_open = self._call(cast(asyncio.Protocol, self._protocol).eof_received)
        self._reading = False
        if not keep_open and not self._lost:
            self.close()

    def _ask_read(self) -> None:
        if not self._read_asked:
            self._read_asked = True
            self._loop.post(self._loop.now, SimTransport.read, self)

    def read(self) -> None:
        """Read what waits, as one `recv` would, and ask again if there is more."""
        self._read_asked = False
        if not self._reading or self._paused or not self.process.alive:
            return
        if self._error is not None:
            self._fail(self._error)
        elif self._unread:
            data = self._unread.popleft()
            self.incoming.read(len(data))
            self._take(data)
            if self._unread and self._reading and not self._paused:
                self._ask_read()

    def is_reading(self) -> bool:
        """As in asyncio."""
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        """As in asyncio: what comes stays in the kernel, and the sender feels it."""
        if not self._closing:
            self._paused = True

    def resume_reading(self) -> None:
        """As in asyncio."""
        if not self._closing and self._paused:
            self._paused = False
            if self._unread or self._error is not None:
                self._ask_read()

    # --- writing ---------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As in asyncio. The bytes are copied unless they are `bytes`."""
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._lost or not self.process.alive:
            return
        if self._error is not None:
            self._fail(self._error)
            return
        self.outgoing.write(data if isinstance(data, bytes) else bytes(data))
        if not self._write_paused and self.outgoing.unsent and self._over(self._high):
            self._write_paused = True
            self._tell("pause_writing")

    def _over(self, mark: int) -> bool:
        if self.outgoing.excess() <= mark:
            return False
        self.outgoing.watch()
        return True

    def writelines(self, list_of_data: Any) -> None:
        """As in asyncio."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Always."""
        return True

    def write_eof(self) -> None:
        """As in asyncio: what was written leaves, then the end of the stream."""
        if self._closing or self._eof_written:
            return
        self._eof_written = True
        if self.process.alive and self._error is None:
            self.outgoing.finish()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As in asyncio."""
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        if not self._write_paused and self._over(high):
            self._write_paused = True
            self._tell("pause_writing")

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """As in asyncio: low and high."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket's own buffer had no room for."""
        stream = self.outgoing
        return stream.excess() if stream.unsent and not self._lost else 0

    def room(self) -> None:
        """The kernel has taken more. Called by the stream, in no context."""
        if self._lost or not self.process.alive:
            return
        if self._write_paused and not self._over(self._low):
            self._write_paused = False
            self.context.run(self._tell, "resume_writing")
        if self._closing and not self._lost and not self._over(0):
            self._lose(None)

    def _tell(self, name: str) -> None:
        try:
            getattr(self._protocol, name)()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._loop.call_exception_handler(
                {"message": f"protocol.{name}() failed", "exception": error}
            )

    # --- the end ---------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """As in asyncio."""
        return self._closing

    def close(self) -> None:
        """As in asyncio: read no more; closed when what was written is with the kernel."""
        if self._closing:
            return
        self._closing = True
        self._reading = False
        if not self._over(0):
            self._lose(None)

    def abort(self) -> None:
        """As in asyncio: what is not with the kernel is lost."""
        self._lose(None)

    def _fail(self, error: BaseException, message: str | None = None) -> None:
        if message is not None and not isinstance(error, OSError):
            self._loop.call_exception_handler({"message": message, "exception": error})
        self._lose(error)

    def _lose(self, error: BaseException | None) -> None:
        """The protocol will be told in the next turn; then the socket is closed."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._reading = False
        self.outgoing.keep_to_kernel()
        self._loop.call_soon(self._told, error, context=self.context)

    def _told(self, error: BaseException | None) -> None:
        protocol, self._protocol = self._protocol, None
        try:
            if protocol is not None and self.process.alive:
                protocol.connection_lost(cast("Exception | None", error))
        finally:
            self.close_socket()

    def close_socket(self) -> None:
        """As the kernel does it, also for who was killed: the end of the stream behind what it
        had taken, or a reset if there is something that nobody has read."""
        if self.closed:
            return
        self.closed = True
        self.process.gone(self)
        if self._error is not None:
            return
        if any(self._unread):
            self._unread.clear()
            self.outgoing.reset()
        else:
            self.outgoing.finish()

    def broken(self, error: OSError) -> None:
        """A reset has come, or the kernel has given up: nothing leaves, nothing unread is given."""
        self.outgoing.cut()
        self.incoming.unread = 0
        self._unread.clear()
        if self.closed or self._error is not None:
            return
        self._error = error
        if self._lost or not self.process.alive:
            return
        # Who reads, or waits to write, is told by the kernel; others find out when they try.
        if (self._reading and not self._paused) or self._write_paused or self._closing:
            self._fail(error)

    def hit_reset(self) -> None:
        """The other side knows nothing of this connection any more."""
        self.broken(os_error(errno.EPIPE if self._end_came else errno.ECONNRESET))
