"""One peer: its messages in and out, what it claims, what it was asked and what it asks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from ..errors import FrameError, PeerBusyError, PeerDisconnectedError, ProtocolViolationError
from .budget import GRAIN, HASH_BYTES, SETTLE_INTERVAL, Kind
from .connection import WRITE_HIGH, Connection
from .heartbeat import Heartbeat
from .inbox import Inbox
from .intake import Intake
from .known import KnownSet
from .limits import (
    KNOWN_BLOCKS,
    KNOWN_TRANSACTIONS,
    LOGS_BURST,
    LOGS_PER_SECOND,
    WRITE_TOGETHER,
)
from .log_limit import LogLimit
from .messages import (
    DisconnectCode,
    DisconnectMessage,
    HelloMessage,
    Message,
    MessageCodec,
    PongMessage,
    Reply,
    Request,
)
from .offences import Offence, offence_of_code, offence_of_frame
from .peer_claims import PeerClaims
from .peer_extensions import PeerExtensions, missing
from .peer_host import PeerHost
from .peer_info import PeerInfo, info_of
from .protocol import FIRST_EXTENSION_TYPE
from .rates import PeerRates
from .reading import Reading, Why
from .reputation import DISCONNECT_AT
from .requests import RequestTable
from .serving_queue import ServingQueue
from .text import printable

__all__ = ["Peer", "PeerInfo"]

logger = logging.getLogger(__name__)


class Peer(PeerClaims):
    """A connected node that has passed the handshake.

    Made by the node. Methods are for the loop's thread.
    """

    def __init__(
        self, host: PeerHost, connection: Connection, hello: HelloMessage, *, outbound: bool
    ) -> None:
        super().__init__(connection, hello, outbound=outbound)
        self.dial_nonce = 0  # of the HELLO of whoever dialled
        self.on_told: Callable[[], None] | None = None  # a PONG has come
        # Loop times of its last news that was new and valid.
        self.last_block_at: float | None = None
        self.last_transaction_at: float | None = None
        self.known_transactions, self.known_blocks = (
            KnownSet(KNOWN_TRANSACTIONS),
            KnownSet(KNOWN_BLOCKS),
        )
        self.wanted_from = 0  # announced transactions that it is being asked for
        # Why it went: a DisconnectCode where one was said, and by whom.
        self.drop_code: int | None = None
        self.drop_reason = ""
        self.dropped_by_us = False
        self.drop_retry_after = 0  # seconds that it told us to stay away
        self.offence: Offence | None = None  # for which we dropped it
        self.announced = False  # the node's user was told of it
        self._points = 0  # of this connection
        self._left = False

        self._host = host
        self._runtime = host.runtime
        self._config = host.config
        now = host.runtime.loop_time()
        self.connected_at = now
        self._requests = RequestTable(
            connection.decoder,
            self._send_request,
            host.runtime,
            max_inflight=hello.max_inflight,
            max_per_type=hello.max_per_type,
            traffic=host.traffic,
        )
        self._reading = Reading(self, host.runtime)
        self._inbox = Inbox(self, self._reading, self.on_read)
        self._extensions: PeerExtensions | None = None
        self._account = host.budget.open(self)  # which may look at what it owes us
        self._serving = ServingQueue(
            self, self._account, host.router, host.config, host.runtime, host.traffic
        )
        self._rates = PeerRates(host.config.rate_limits, now)
        shared = host.router.extensions.shared(self.capabilities)
        if shared:
            self._extensions = PeerExtensions(self, host, shared, self._send_request, self._account)
        self._heartbeat = Heartbeat(self, host.config, host.runtime)
        self._logs = LogLimit(LOGS_PER_SECOND, LOGS_BURST, now)
        self._settled = True  # its account says that nothing much is held
        # What it says, and when it is brought up to date, little as the change may be.
        self._books, self._settle_at = (0, 0, 0, 0, 0, 0), now
        self.on_frames = Intake(
            self,
            host.router,
            self._rates,
            self._requests,
            self._serving,
            self._inbox,
            self._reading,
            host.runtime,
            host.traffic,
            self._extensions,
        ).on_frames
        connection.on_pending = self.settle

    def __repr__(self) -> str:
        return f"<Peer {self.address} {self.node_id.hex()[:8]}>"

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent to it any more."""
        return self.connection.closing

    @property
    def proved_id(self) -> bytes | None:
        """Its id, where the transport has proved it."""
        return self.connection.remote_key

    @property
    def extensions(self) -> frozenset[str]:
        """The names of those that both have."""
        return frozenset() if self._extensions is None else self._extensions.names

    @property
    def latency(self) -> float | None:
        """Seconds from the last PING to its PONG."""
        return self._heartbeat.latency

    @property
    def min_latency(self) -> float | None:
        """The least that was measured."""
        return self._heartbeat.minimum

    @property
    def connected_for(self) -> float:
        """Seconds since its handshake."""
        return self._runtime.loop_time() - self.connected_at

    @property
    def info(self) -> PeerInfo:
        """All that is known of it now."""
        parts = (self._requests, self._rates, self._serving, self._inbox, self._extensions)
        return info_of(self, *parts, self._account.held)

    # --- out -------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Queue one message that is not a request.

        Raises `PeerDisconnectedError`, or `PeerBusyError` if too much waits to be sent already.
        Messages of extensions also raise `CapabilityError` if the peer does not have theirs, and
        `PeerBusyError` over the rate that they are declared with.
        """
        if isinstance(message, Request):
            raise TypeError(f"{type(message).__name__} needs request(), which awaits its reply")
        frame = MessageCodec.encode(message)
        if message.TYPE >= FIRST_EXTENSION_TYPE:
            seconds = self._with(message).pace(message, len(frame))
            if seconds:
                raise PeerBusyError(f"{message.TYPE.name} is over its rate for {seconds:.2f} s")
        self.connection.send(frame)

    def send_frame(self, frame: bytes, *, now: bool = False) -> None:
        """Queue one encoded frame, for a message that goes to many peers. Raises as `send`.

        `now`: nothing follows in this turn of the loop, so it may leave.
        """
        if now:
            self.connection.send_now(frame)
        else:
            self.connection.send(frame)

    def offer(self, frame: bytes, *, now: bool = True) -> bool:
        """Send a frame of news; False if the peer is leaving, or has so much to read that it would
        have to wait: others will tell it. `now`: as for `send_frame`."""
        connection = self.connection
        if connection.closing or connection.write_buffer_size > WRITE_HIGH:
            return False
        self.send_frame(frame, now=now)
        return True

    async def request(self, message: Request, timeout: float | None = None) -> Reply:  # noqa: ASYNC109
        """Send a request and return its reply (BUSY, NOT_FOUND and the like are replies too).

        `timeout` seconds (default: the node's `request_timeout`) cover the wait for a free slot
        and for the reply. Raises `RequestTimeoutError`, `PeerBusyError`, `PeerDisconnectedError`,
        and `CapabilityError` for a request of an extension that the peer does not have.
        """
        seconds = self._config.request_timeout if timeout is None else timeout
        if message.TYPE < FIRST_EXTENSION_TYPE:
            return await self._requests.request(message, seconds)
        return await self._with(message).table_for(message).request(message, seconds)

    def offer_message(self, message: Message, frame: bytes, *, now: bool = True) -> bool:
        """As `offer`, for a message of an extension; False also if the peer does not have it, or if
        it is over its rate."""
        ours = self._extensions
        return (
            ours is not None
            and ours.knows(message)
            and not ours.pace(message, len(frame))
            and self.offer(frame, now=now)
        )

    def _with(self, message: Message) -> PeerExtensions:
        """The extensions, of which one has this message. Raises `CapabilityError`, and
        `ConfigError` if it belongs to none of ours."""
        if self._extensions is None or not self._extensions.knows(message):
            raise missing(self._host.router.extensions, message, str(self))
        return self._extensions

    def _send_request(self, frame: bytes) -> None:
        # Whoever asks must read, or two nodes that both pause would wait for each other.
        self._reading.resume_for_reply()
        # The first of a row is on its way while the others follow.
        self.send_frame(frame, now=self._requests.in_flight % WRITE_TOGETHER == 1)

    def disconnect(self, code: DisconnectCode, reason: str = "", *, retry_after: int = 0) -> None:
        """Tell the peer why, and close. `retry_after`: seconds it should stay away. Idempotent."""
        if self._left or self.connection.closing:
            return
        text = printable(reason or code.name.lower().replace("_", " "))
        self._gone(code, text, by_us=True)
        try:
            self.send(DisconnectMessage(code=code, reason=text, retry_after=retry_after))
        except PeerBusyError:  # it does not read, so it would not read this either
            self.connection.abort(PeerDisconnectedError(text))
            return
        self.connection.close(PeerDisconnectedError(text))

    def punish(self, offence: Offence, detail: str = "") -> None:
        """It did something wrong: its address gets the points, and if they or the offence demand
        it, it is disconnected or banned. Also for one that has left already."""
        self._punish(offence, offence.code, detail, drop=False)

    def breach(self, error: ProtocolViolationError) -> None:
        """It broke a rule of the protocol: `punish` it, and part in any case."""
        offence = offence_of_code(error.code, error.offence)
        try:
            code = DisconnectCode(error.code)
        except ValueError:  # a handler's invention
            code = offence.code
        self._punish(offence, code, error.reason, drop=True)

    def _punish(self, offence: Offence, code: DisconnectCode, detail: str, *, drop: bool) -> None:
        if self.offence is not None and self.offence.points >= offence.points:
            return  # it is gone for that already; what it sent along costs no more
        # Beside those of its address: who dials from this machine may have none that lasts.
        self._points += offence.points
        drop = drop or self._points >= DISCONNECT_AT
        reputation = self._host.reputation
        verdict = reputation.punish(self, offence, detail, drop=drop)
        if verdict.drop:
            self.offence = offence
            why = detail or offence.value.replace("_", " ")
            self.disconnect(code, why, retry_after=math.ceil(verdict.refused_for))
        if verdict.banned_for:
            reputation.part_from_banned()

    def _gone(self, code: int | None, reason: str, *, by_us: bool) -> None:
        if self._left:
            return
        self._left = True
        self.drop_code, self.drop_reason, self.dropped_by_us = code, reason, by_us
        self._requests.close(reason)
        self._serving.close()
        if self._extensions is not None:
            self._extensions.close(reason, discard=by_us)
        self._inbox.finish(discard=by_us)
        # Freed here: the collector, which finds peers, may take its time.
        self.known_transactions, self.known_blocks = KnownSet(1), KnownSet(1)
        self._account.part(self.connection.write_buffer_size)
        self._heartbeat.end()
        self._host.peer_gone(self)

    # --- in --------------------------------------------------------------------------------

    def on_error(self, error: FrameError | ProtocolViolationError) -> None:
        """Called by the connection: no further frame can be read."""
        if isinstance(error, ProtocolViolationError):
            self.breach(error)
        else:
            caps = self._host.router.extensions.all_caps
            self.punish(offence_of_frame(error, caps), str(error))

    def on_closed(self, reason: BaseException | None) -> None:
        """Called by the connection, once: the socket is gone."""
        if isinstance(reason, ProtocolViolationError):
            if not self._left:
                self.offence = offence_of_code(reason.code, reason.offence)
                self._host.reputation.punish(self, self.offence, reason.reason)
            self._gone(reason.code, reason.reason, by_us=True)
        self._gone(None, str(reason) if reason is not None else "closed by the peer", by_us=False)
        self._account.close()

    def on_ping(self, nonce: int) -> None:
        """A PING within its rate: answered, unless there were many."""
        if self._heartbeat.may_answer():
            self.send_frame(MessageCodec.encode(self._host.make_pong(nonce)), now=True)

    def on_pong(self, pong: PongMessage) -> None:
        """A PONG has come."""
        if self._heartbeat.answered(pong):
            self.best_height, self.best_hash = pong.best_height, pong.best_hash
            self.earliest_height, self.snapshots = pong.earliest_height, pong.snapshots
            if self.on_told is not None:
                self.on_told()

    def on_goodbye(self, message: DisconnectMessage) -> None:
        """DISCONNECT has come."""
        self.drop_retry_after = message.retry_after
        self._gone(message.code, message.reason, by_us=False)

    def on_read(self) -> None:
        """All that came at once has been looked at, or handled. What little is held is said
        later."""
        if not self._settled or self._inbox.bytes >= GRAIN:
            self.settle()

    # --- upkeep ----------------------------------------------------------------------------

    @property
    def owes_us(self) -> bool:
        """Whether a reply of it is outstanding: reading must go on."""
        ours = self._extensions
        return self._requests.in_flight > 0 or (ours is not None and ours.in_flight > 0)

    @property
    def late_replies(self) -> int:
        """How many have come after their time so far."""
        return self._requests.late_replies

    def start(self) -> None:
        """Begin to handle and to serve its messages."""
        self._inbox.start(self._host.tasks)
        self._serving.start(self._host.tasks)
        if self._extensions is not None:
            self._extensions.start(self._host.tasks)
        self.tick(self._runtime.loop_time())

    def tick(self, now: float) -> None:
        """Ping it when it is time, drop it if it has not answered; called by the node."""
        if self.connection.closing:
            return
        self._requests.expire()
        if self._extensions is not None:
            self._extensions.expire()
        if (
            not self._settled
            or now >= self._settle_at
            or self.connection.write_buffer_size >= GRAIN
            or self._inbox.bytes >= GRAIN
        ):
            self._settle_at = now + SETTLE_INTERVAL
            self.settle()
        if not self._reading.paused:  # else its PONG could not reach us
            self._heartbeat.tick(now, self._reading.resumed_at)

    def probe(self) -> None:
        """It may be dead: ping it now, and do not wait for its PONG as long as usual."""
        self._heartbeat.hurry()
        self.tick(self._runtime.loop_time())

    def refresh(self) -> None:
        """Ask it now for its head and its snapshots. Not often: it answers so many PINGs only."""
        self._heartbeat.refresh()
        self.tick(self._runtime.loop_time())

    async def reachable(self) -> bool:
        """Wait until it has answered a PING sent from now on; False if it leaves first, as it
        does in time, or has left."""
        if self._left:
            return False
        waiting = self._heartbeat.answer()
        self.refresh()
        return await waiting

    def settle(self) -> None:
        """Bring its account up to date, and read from it or not accordingly."""
        if self._left:
            return
        connection, account = self.connection, self._account
        frames = connection.channel.pending + connection.decoder.held
        sending = connection.write_buffer_size
        inbox, requests = self._inbox.bytes, self._serving.bytes
        extensions = 0 if self._extensions is None else self._extensions.held
        known = HASH_BYTES * (len(self.known_transactions) + len(self.known_blocks))
        books = (frames, inbox, requests, extensions, sending, known)
        if self._settled and books == self._books:
            return  # as most are at most times
        self._settled = frames + sending + inbox + requests + extensions < GRAIN
        self._books = books
        account.hold(Kind.FRAMES, frames)
        account.hold(Kind.INBOX, inbox)
        account.hold(Kind.REQUESTS, requests)
        account.hold(Kind.EXTENSIONS, extensions)
        account.hold(Kind.SENDING, sending)
        account.hold(Kind.KNOWN, known)
        if account.over:
            self._reading.pause(Why.BUDGET)
        else:
            self._reading.resume(Why.BUDGET)

    def make_room(self) -> None:
        """The byte budget is full, and it holds most: it has to go, its last bytes at once."""
        if self._left:
            self.connection.abort()
            return
        held = f"holds {self._account.held} bytes, and the budget is full"
        self._punish(Offence.OVER_BUDGET, Offence.OVER_BUDGET.code, held, drop=True)

    def log(self, level: int, text: str, *args: object, exc_info: bool = False) -> None:
        """Log a line about this peer, unless it has caused too many of late."""
        more = self._logs.admit(self._runtime.loop_time())
        if more is not None:
            logger.log(level, "%s: " + text + "%s", self, *args, more, exc_info=exc_info)
