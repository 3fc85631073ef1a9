"""One direction of a simulated TCP connection: what the two kernels and the way between them do.

Modelled, since protocols are helped or harmed by it:

- order: a segment that is late keeps all later ones waiting; nothing is ever lost within a stream;
- flow control: a reader that pauses stops its sender after `RECEIVE_WINDOW`, and the sender's
  writes then wait in the kernel (`SEND_BUFFER`) and above it, where asyncio tells the protocol;
- congestion: slow start from ten packets (again after a pause), one window per connection, halved
  at most once a round trip by a loss or by a line whose queue grew too long;
- loss as lateness: a round trip if enough is under way to tell the sender, else a timeout;
- outages: what is sent meanwhile arrives after the healing, at the sender's next attempt, whose
  pauses have doubled; a sender that hears nothing for `TCP_GIVE_UP` ends with ETIMEDOUT, the other
  side with nothing at all (a half-open connection);
- a closed socket answers bytes with a reset, which is lost in an outage as any packet without
  retransmission, and takes with it what the other side has not read yet.

Not modelled: packets and their headers (a segment is up to `SEGMENT` bytes that arrive at once,
and only payload takes time on a line), acknowledgements that are late or take bandwidth, selective
acknowledgement, reordering, corrupted bytes, keep-alive, MTU, NAT, a limit of open sockets.
"""

from __future__ import annotations

import errno
from collections import deque
from math import cbrt, exp
from typing import TYPE_CHECKING, Final

from .lines import LINE_QUEUE, MSS, NORMAL, NORMAL_BITS, RETRANSMIT_MIN, Link, retransmission
from .transport import os_error

if TYPE_CHECKING:
    from .network import NetHost, SimNetwork
    from .transport import SimTransport

__all__ = ["RECEIVE_WINDOW", "SEGMENT", "SEND_BUFFER", "TCP_GIVE_UP", "Stream"]

# What travels in one piece: little enough that a message of another connection need not wait long.
SEGMENT: Final = 16 * 1024
# Bytes under way and unread; Linux grows its own to 6 MiB for those who read fast.
RECEIVE_WINDOW: Final = 1024 * 1024
# What the sending kernel takes at least; from there on twice the congestion window, as Linux does.
SEND_BUFFER: Final = 64 * 1024
# Linux: tcp_retries2, some 15 minutes.
TCP_GIVE_UP: Final = 924.6
_FIRST_WINDOW: Final = 10 * MSS
_LEAST_WINDOW: Final = 2 * MSS
# After a pause of a second, which is longer than most timeouts, the window begins anew.
_IDLE: Final = 1.0
# The sender learns of a loss from three packets that arrive after it.
_FAST_RETRANSMIT: Final = 4 * MSS

# CUBIC (RFC 9438), what Linux does: a loss leaves 0.7 of the window, which is sought again after
# some seconds and then cautiously exceeded.
_BETA: Final = 0.7
_CUBIC: Final = 0.4

# The stream, its bytes (none: the end; None: it opens), when they were sent, and whether the sender
# is to slow down for it.
_Segment = tuple["Stream", bytes | memoryview | None, float, bool]


class Stream:
    """From `sender`'s socket to `receiver`'s."""

    __slots__ = (
        "_acks",
        "_cut",
        "_ended",
        "_fin",
        "_held",
        "_last_arrival",
        "_last_delivery",
        "_last_sent",
        "_latency",
        "_loss",
        "_lost_acks",
        "_network",
        "_queue",
        "_reduced_at",
        "_release_at",
        "_reset",
        "_round_trip",
        "_sigma",
        "_stuck",
        "_threshold",
        "_wake_set",
        "_watched",
        "_window",
        "_window_before",
        "flying",
        "receiver",
        "sender",
        "source",
        "target",
        "unread",
        "unsent",
    )

    def __init__(self, network: SimNetwork, source: NetHost, target: NetHost, link: Link) -> None:
        self.source, self.target = source, target
        self.sender: SimTransport | None = None
        self.receiver: SimTransport | None = None
        self.unsent = 0  # bytes that wait to be sent
        self.flying = 0  # bytes that were sent and are not acknowledged
        self.unread = 0  # bytes that the receiving socket holds
        self._network = network
        self._queue: deque[bytes | memoryview] = deque()
        self._acks: deque[tuple[float, int, float, bool]] = deque()
        self._window: float = _FIRST_WINDOW
        self._threshold: float = RECEIVE_WINDOW
        self._window_before: float = RECEIVE_WINDOW  # the last reduction
        self._reduced_at = 0.0  # one loss among what was under way then is as good as many
        self._last_sent = self._last_arrival = network.loop.now
        self._last_delivery = -1.0
        self._wake_set = self._watched = False
        self._fin = self._ended = self._cut = self._reset = False
        self._held: list[_Segment] = []
        self._release_at = 0.0
        self._lost_acks = 0
        self._stuck: float | None = None  # since when nothing gets through
        self.use(link)

    def use(self, link: Link) -> None:
        """What is sent from now on takes so long."""
        self._latency, self._sigma, self._loss = link.latency, link.sigma, link.loss
        self._round_trip = 2 * link.latency

    # --- sending ---------------------------------------------------------------------------

    def open(self) -> None:
        """The last packet of the handshake: the other side accepts."""
        self._send(None, 0, self._network.loop.now)

    def write(self, data: bytes) -> None:
        """Send, at once or when there is room."""
        now = self._network.loop.now
        size = len(data)
        if size <= SEGMENT and not self.unsent and not self._cut:
            acks = self._acks
            if acks and acks[0][0] <= now:
                self._collect(now)
            if size <= self._room(now):
                self._send(data, size, now)
                return
        if not self._cut:
            self._queue.append(data)
            self.unsent += size
            self._pump(now)

    def _room(self, now: float) -> float:
        flying, window = self.flying, self._window
        if not flying and window > _FIRST_WINDOW and now - self._last_sent > _IDLE:
            self._window = window = _FIRST_WINDOW
        if self.unread and self.unread > RECEIVE_WINDOW - window:
            window = RECEIVE_WINDOW - self.unread
        return window - flying

    def _pump(self, now: float) -> None:
        queue = self._queue
        while self.unsent:
            room = int(self._room(now))
            # No small pieces, or there would be more and more of them.
            if room < min(self.unsent, SEGMENT, self._window / 4):
                self.watch()
                return
            data = queue[0]
            size = min(len(data), room, SEGMENT)
            if size < len(data):
                queue[0] = memoryview(data)[size:]
                data = memoryview(data)[:size]
            else:
                queue.popleft()
            self.unsent -= size
            self._send(data, size, now)
        if self._fin and not self._ended:
            self._ended = True
            self._send(b"", 0, now)

    def _send(self, data: bytes | memoryview | None, size: int, now: float) -> None:
        source, network = self.source, self._network
        self.flying += size
        self._last_sent = now
        source.bytes_out += size
        source.segments_out += 1
        marked = False
        at = now
        if source.up is not None:
            marked = source.up.free_at - now > LINE_QUEUE
            at = source.up.passed(now, size)
        if self._sigma:
            at += self._latency * exp(self._sigma * NORMAL[network.random.getrandbits(NORMAL_BITS)])
        else:
            at += self._latency
        if self._loss and network.random.random() > (1 - self._loss) ** -(-(size or 1) // MSS):
            marked = True
            at += self._late()
        if at < self._last_arrival:
            at = self._last_arrival
        else:
            self._last_arrival = at
        network.loop.post(at, _arrive, (self, data, now, marked))

    def _late(self) -> float:
        """How long a retransmission takes that gets through."""
        late = pause = max(RETRANSMIT_MIN, 2 * self._round_trip)
        if self.flying + self.unsent >= _FAST_RETRANSMIT:
            late = self._round_trip
        while self._network.random.random() < self._loss:
            pause *= 2
            late += pause
        return late

    def finish(self) -> None:
        """Send the end of the stream, behind what waits. Idempotent."""
        if not self._fin and not self._cut:
            self._fin = True
            self._pump(self._network.loop.now)

    def reset(self) -> None:
        """Send nothing more but a reset. Idempotent."""
        if not self._reset:
            self._reset = True
            self.cut()
            self._refuse()

    def _refuse(self) -> None:
        loop = self._network.loop
        loop.post(max(loop.now + self._latency, self._last_arrival), _reset_arrives, self)

    def cut(self) -> None:
        """Nothing more leaves and nothing is sent again; what is under way arrives. Idempotent."""
        self._cut = True
        self._queue.clear()
        self._acks.clear()
        self._held.clear()
        self.unsent = self.flying = self._lost_acks = 0
        self._stuck = None

    # --- what the sender sees --------------------------------------------------------------

    def excess(self) -> int:
        """Bytes for which the sending kernel has no room."""
        if not self.unsent:
            return 0
        self._collect(self._network.loop.now)
        return max(0, self.unsent + self.flying - int(max(SEND_BUFFER, 2 * self._window)))

    def keep_to_kernel(self) -> None:
        """The sending process is gone, or done: what the kernel has not taken never leaves."""
        drop = self.excess()
        self.unsent -= drop
        while drop:
            last = self._queue.pop()
            if len(last) > drop:
                self._queue.append(memoryview(last)[: len(last) - drop])
                return
            drop -= len(last)

    def watch(self) -> None:
        """Tell the sender (`room`) at the next acknowledgement."""
        self._watched = True
        if self._acks and not self._wake_set:
            self._wake_set = True
            self._network.loop.post(self._acks[0][0], _wake, self)

    def wake(self) -> None:
        """An acknowledgement may have come."""
        self._wake_set = False
        now = self._network.loop.now
        self._collect(now)
        self._watched = False
        self._pump(now)
        if self.sender is not None:
            self.sender.room()

    def _collect(self, now: float) -> None:
        """Acknowledgements that have come by now."""
        acks = self._acks
        while acks and acks[0][0] <= now:
            _, size, sent, marked = acks.popleft()
            window = self._window
            limited = self.flying * 2 >= window
            self.flying -= size
            if marked and sent >= self._reduced_at:
                self._reduced_at = now
                self._window_before = window
                self._window = self._threshold = max(window * _BETA, _LEAST_WINDOW)
            elif limited and window < RECEIVE_WINDOW:
                self._window = window + self._growth(size, window, now)

    def _growth(self, size: int, window: float, now: float) -> float:
        """Of the congestion window, when `size` bytes of it were acknowledged."""
        if window < self._threshold:
            return size
        before = self._window_before
        until = cbrt(before * (1 - _BETA) / (_CUBIC * MSS))
        sought = before + _CUBIC * MSS * (now - self._reduced_at - until) ** 3
        return max(MSS, min(sought - window, window / 2)) * size / window

    # --- outages ---------------------------------------------------------------------------

    def hold(self, segment: _Segment) -> bool:
        """Whether this segment cannot arrive now; it is then sent again later."""
        if self._release_at > self._network.loop.now:
            self._network.loop.post(self._release_at, _arrive, segment)
            return True
        self._release_at = 0.0
        if not self._network.apart(self.source, self.target):
            return False
        self._keep(segment)
        return True

    def _keep(self, segment: _Segment) -> None:
        if not self._cut:  # or nobody would send it again
            self._held.append(segment)
            self._get_stuck()

    def _get_stuck(self) -> None:
        network = self._network
        network.stuck[self] = None
        if self._stuck is None:
            self._stuck = network.loop.now
            network.loop.post(self._stuck + TCP_GIVE_UP, _give_up, (self, self._stuck))

    def try_again(self) -> bool:
        """Something has healed. Whether nothing is left to be sent again."""
        network = self._network
        if self._stuck is None:
            return True
        if network.apart(self.source, self.target) or network.apart(self.target, self.source):
            return False
        at = retransmission(self._stuck, network.loop.now, self._round_trip)
        at = max(at + self._latency, self._last_arrival)
        self._last_arrival = self._release_at = at
        for segment in self._held:
            network.loop.post(at, _arrive, segment)
        self._held.clear()
        if self._lost_acks:
            self._acks.append((at + self._latency, self._lost_acks, at, True))
            self._lost_acks = 0
        self._stuck = None
        if self.unsent or self._watched:
            self.watch()
        return True

    def give_up(self, since: float) -> None:
        """Nothing has got through since then."""
        if self._stuck == since:
            self.cut()
            if self.sender is not None:
                self.sender.broken(os_error(errno.ETIMEDOUT))

    # --- arriving --------------------------------------------------------------------------

    def deliver(self, data: bytes | memoryview | None, sent: float, marked: bool) -> None:
        """To the receiving socket."""
        network, receiver = self._network, self.receiver
        if data is None:
            network.accept(self)
            return
        if receiver is None or receiver.closed or not receiver.process.alive:
            if receiver is not None and data:
                if network.apart(self.target, self.source):
                    self._keep((self, data, sent, marked))  # the reset would not be heard
                else:
                    receiver.outgoing._refuse()
            return
        size = len(data)
        target = self.target
        target.bytes_in += size
        target.segments_in += 1
        if network.trace is not None:
            network.trace.segment(self.source.ip, target.ip, data)
        if network.obstacles and network.apart(target, self.source):
            if not self._cut:
                self._lost_acks += size
                self._get_stuck()
        elif not self._cut:
            at = network.loop.now + self._latency
            self._acks.append((at, size, sent, marked))
            if self._watched and not self._wake_set:
                self._wake_set = True
                network.loop.post(at, _wake, self)
        receiver.arrive(data)

    def read(self, size: int) -> None:
        """The receiving process has taken so many bytes."""
        self.unread -= size
        if self.unsent and not self._wake_set:
            self._wake_set = True
            loop = self._network.loop
            loop.post(loop.now + self._latency, _wake, self)


def _arrive(segment: _Segment) -> None:
    """At the other host's line."""
    stream, data, sent, marked = segment
    network = stream._network
    if (network.obstacles or stream._release_at) and stream.hold(segment):
        return
    pipe, now = stream.target.down, network.loop.now
    if pipe is None and stream._last_delivery < now:
        stream.deliver(data, sent, marked)
        return
    at = now
    if pipe is not None:
        marked = marked or pipe.free_at - now > LINE_QUEUE
        at = pipe.passed(now, len(data or b""))
    # A line that has become faster does not let anything overtake.
    stream._last_delivery = max(at, stream._last_delivery)
    network.loop.post(stream._last_delivery, _deliver, (stream, data, sent, marked))


def _deliver(segment: _Segment) -> None:
    stream, data, sent, marked = segment
    stream.deliver(data, sent, marked)


def _reset_arrives(stream: Stream) -> None:
    network = stream._network
    if stream.receiver is not None and not network.apart(stream.source, stream.target):
        stream.receiver.hit_reset()


def _wake(stream: Stream) -> None:
    stream.wake()


def _give_up(stuck: tuple[Stream, float]) -> None:
    stuck[0].give_up(stuck[1])
