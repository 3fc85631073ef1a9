"""From an open socket to a peer: the exchange of HELLO and its checks."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from ..backend import framing
from ..config import NodeConfig
from ..errors import (
    DecodeError,
    FrameError,
    HandshakeError,
    NetworkError,
    PeerDisconnectedError,
    ProtocolViolationError,
    SecureChannelError,
)
from ..runtime import Runtime
from .channel import Channel, PlaintextChannel
from .connection import Connection
from .identity import NodeIdentity
from .loop_memory import loop_memory
from .messages import (
    HELLO_CAPS,
    IDLE_CAPS,
    DisconnectCode,
    DisconnectMessage,
    HelloMessage,
    MessageCodec,
    MessageType,
)
from .offences import Offence
from .peer import Peer
from .protocol import PROTOCOL_VERSION
from .purpose import Purpose
from .secure import SecureChannel, looks_like
from .traffic import Traffic

__all__ = ["Handshake", "HandshakeHost", "check_hello"]

logger = logging.getLogger(__name__)

NO_GENESIS = bytes(32)


def check_hello(
    ours: HelloMessage,
    theirs: HelloMessage,
    *,
    proved_id: bytes | None = None,
    expected_id: bytes | None = None,
    own_nonces: frozenset[int] | set[int] = frozenset(),
) -> None:
    """Raises `HandshakeError` with the DISCONNECT code if the other side is no peer for us.

    `proved_id` is the key that the transport proved (None in plaintext), `expected_id` whom we
    meant to dial, `own_nonces` those of our handshakes under way. A side without a chain (zero
    genesis) fits every chain.
    """
    if theirs.protocol_version != PROTOCOL_VERSION:
        raise HandshakeError(
            DisconnectCode.UNSUPPORTED_VERSION,
            f"protocol version {theirs.protocol_version}, here {PROTOCOL_VERSION}",
        )
    if theirs.network_id != ours.network_id:
        raise HandshakeError(
            DisconnectCode.WRONG_NETWORK, f"network {theirs.network_id}, here {ours.network_id}"
        )
    if NO_GENESIS not in (theirs.genesis_hash, ours.genesis_hash) and (
        theirs.genesis_hash != ours.genesis_hash
    ):
        raise HandshakeError(
            DisconnectCode.WRONG_GENESIS,
            f"genesis {theirs.genesis_hash.hex()[:16]}, here {ours.genesis_hash.hex()[:16]}",
        )
    if proved_id is not None and theirs.node_id != proved_id:
        raise HandshakeError(
            DisconnectCode.IDENTITY,
            "node_id is not the key of the transport",
            Offence.FALSE_IDENTITY,
        )
    if theirs.node_id == ours.node_id or theirs.nonce in own_nonces:
        raise HandshakeError(DisconnectCode.SELF, "connected to itself")
    if expected_id is not None and theirs.node_id != expected_id:
        raise HandshakeError(DisconnectCode.IDENTITY, "another node_id than expected")


class HandshakeHost(Protocol):
    """What a handshake needs of the node."""

    config: NodeConfig
    runtime: Runtime
    traffic: Traffic
    identity: NodeIdentity | None
    """Its key; None only where `config.transport` is plaintext."""

    def opened(self, handshake: Handshake) -> None:
        """The socket is open, its addresses are known and nothing was said; called once."""

    def make_hello(self, handshake: Handshake) -> HelloMessage:
        """Our HELLO to this connection."""

    def recognise(self, node_id: bytes) -> None:
        """Whom we dialled has proved to be this node, and knows nothing of us yet. Raises
        `HandshakeError` if it has to remain so."""

    def admit(self, handshake: Handshake, hello: HelloMessage) -> Peer:
        """Check a HELLO and make a peer of it, or raise `HandshakeError`."""

    def handshake_done(self, handshake: Handshake) -> None:
        """It has its peer, or never will; called once."""

    def refused(self, handshake: Handshake) -> None:
        """The other side was told why and its socket lingers."""

    def connection_closed(self, handshake: Handshake) -> None:
        """Its socket is gone; called once."""


class Handshake:
    """One connection until its HELLO is checked; from then on it only hands frames to its peer.

    The dialler speaks first. A listener answers a HELLO with its own even if it then refuses, so
    that the other side learns why; whoever sends anything else, another transport included, is
    dropped without a word.
    """

    def __init__(
        self,
        host: HandshakeHost,
        *,
        outbound: bool,
        expected_id: bytes | None = None,
        purpose: Purpose = Purpose.FULL,
    ) -> None:
        self.outbound = outbound
        self.purpose = purpose
        self.expected_id = expected_id
        self.nonce = host.runtime.random.getrandbits(64)
        self.peer: Peer | None = None
        self.error: Exception | None = None
        self.remote_id: bytes | None = None
        self.retry_after = 0  # seconds, told with a refusal
        self.settled = asyncio.Event()  # set by the node once the outcome is final
        self._host = host
        self.done = False
        decoder = framing.FrameDecoder(HELLO_CAPS, pause_after=MessageType.HELLO)
        self.connection = Connection(
            decoder,
            channel=self._channel(decoder),
            on_opened=lambda _: host.opened(self),
            on_connected=self._on_connected,
            on_frames=self._on_frames,
            on_error=self._on_error,
            on_closed=self._on_closed,
            write_stall=host.config.send_stall_timeout,
            sent=host.traffic.sent,
        )
        # Until when HELLO must be complete; set when the socket is open.
        self.deadline: asyncio.TimerHandle | None = None
        self._hello: HelloMessage | None = None

    def _channel(self, decoder: framing.FrameDecoder) -> Channel:
        """The transport that the settings name, and no other."""
        host = self._host
        if host.config.transport == "plaintext":
            return PlaintextChannel(decoder, loop_memory().read)
        assert host.identity is not None  # noqa: S101 - the node has seen to it
        memory = loop_memory()
        return SecureChannel(
            decoder,
            host.identity,
            initiator=self.outbound,
            entropy=host.runtime.entropy,
            shared=memory.read,
            workspace=memory.workspace,
            expected_id=self.expected_id,
        )

    @property
    def hello(self) -> HelloMessage:
        """What we say on this connection, the same each time."""
        if self._hello is None:
            self._hello = self._host.make_hello(self)
        return self._hello

    def give_up(self, reason: str) -> None:
        """Drop the connection quietly."""
        self._fail(PeerDisconnectedError(reason))
        self.connection.abort(self.error)

    def _on_connected(self, connection: Connection) -> None:
        if not self.outbound:
            return
        self.remote_id = connection.remote_key
        if self.remote_id is not None:
            try:
                self._host.recognise(self.remote_id)
            except HandshakeError as error:
                self._fail(error)
                connection.abort(error)
                return
        connection.send(MessageCodec.encode(self.hello))

    def _on_frames(self, frames: list[framing.Frame]) -> None:
        if self.peer is not None:
            self.peer.on_frames(frames)
            return
        self._host.traffic.received.add(MessageType.HELLO, 1, len(frames[0].payload))
        try:
            theirs = HelloMessage.decode(frames[0].payload)
        except DecodeError as error:
            self.give_up(str(error))
            return
        self.remote_id = theirs.node_id
        if not self.outbound:
            self.connection.send(MessageCodec.encode(self.hello))
        try:
            self.peer = self._host.admit(self, theirs)
        except HandshakeError as error:
            self._refuse(error)
            return
        for kind, cap in IDLE_CAPS.items():
            self.connection.decoder.set_cap(kind, cap)
        self.connection.resume()
        self._finish()

    @property
    def _in_the_dark(self) -> bool:
        """Whether the other side need not have understood a word."""
        return self.outbound and self._host.config.transport == "plaintext"

    def _stranger(self, error: FrameError | ProtocolViolationError) -> NetworkError:
        """What the first bytes of a plaintext stream tell, if they are no frame."""
        if (
            self.connection.remote_key is None
            and isinstance(error, FrameError)
            and error.reason != "empty"
        ):
            kind = looks_like((error.length + 1).to_bytes(4, "big"))
            if kind is not None:
                return SecureChannelError(f"the other side speaks {kind}, not our plaintext")
        return PeerDisconnectedError(str(error))

    def _refuse(self, error: HandshakeError) -> None:
        self.connection.send(
            MessageCodec.encode(
                DisconnectMessage(
                    code=error.code, reason=error.reason, retry_after=self.retry_after
                )
            )
        )
        self._fail(error)
        self.connection.close(error)
        self._host.refused(self)

    def _on_error(self, error: FrameError | ProtocolViolationError) -> None:
        if self.peer is not None:
            self.peer.on_error(error)
        else:  # a stranger who came by mistake
            self._fail(self._stranger(error))
            self.connection.abort(self.error)

    def _on_closed(self, reason: BaseException | None) -> None:
        try:
            self._over(reason)
        finally:  # a node that stops waits until it knows of no socket
            self._host.connection_closed(self)

    def _over(self, reason: BaseException | None) -> None:
        if self.peer is not None:
            self.peer.on_closed(reason)
        elif isinstance(reason, NetworkError):
            self._fail(reason)
        else:
            hint = "; it may speak the encrypted transport, or have no place for us"
            self._fail(
                PeerDisconnectedError(
                    f"the other side closed the connection before HELLO{hint * self._in_the_dark}"
                )
            )

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
        self._finish()

    def _finish(self) -> None:
        if self.done:
            return
        self.done = True
        if self.deadline is not None:
            self.deadline.cancel()
        self._host.handshake_done(self)
