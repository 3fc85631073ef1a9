"""The way in and out of a node: sockets that are opened, judged by their HELLO, and closed."""

from __future__ import annotations

import asyncio
import logging
from math import ceil

from ..config import NodeConfig
from ..errors import ConnectError, HandshakeError, SecureChannelError
from ..runtime import Runtime
from .addresses import format_address, is_exempt, netgroup
from .bans import host_key
from .eviction import Candidate, select_to_evict
from .handshake import Handshake, check_hello
from .host import GateHost
from .limits import CLOSING_CONNECTIONS, LOGS_BURST, LOGS_PER_SECOND, PENDING_HANDSHAKES
from .messages import DisconnectCode, HelloMessage
from .offences import offence_of_code
from .peer import Peer
from .pending import Pending
from .purpose import Purpose
from .rates import TokenBucket
from .refusals import Refusals

__all__ = ["Gate"]

logger = logging.getLogger(__name__)

# What a HELLO can say that will be the same next time.
_OTHERS = frozenset(
    {
        DisconnectCode.WRONG_NETWORK,
        DisconnectCode.WRONG_GENESIS,
        DisconnectCode.UNSUPPORTED_VERSION,
        DisconnectCode.IDENTITY,
    }
)

_SECRET_SIZE = 16


class Gate:
    """Owns every socket of the node, from its opening to its end, and decides who gets in.

    Handshakes are bounded in number and in time and take no peer's place; refused addresses are
    turned away; of two connections with one node both sides keep the same. When the places for
    those who dial us are taken, a newcomer takes that of a peer without merits.
    """

    def __init__(self, host: GateHost) -> None:
        self._node = host
        self.runtime: Runtime = host.runtime
        self.config: NodeConfig = host.config
        self.traffic = host.traffic
        self.identity = host.identity
        # Every open socket in order of opening; of those, who dialled us and has said no HELLO.
        self._connections: dict[Handshake, None] = {}
        self._pending = Pending(PENDING_HANDSHAKES)
        self._recent_hosts = Refusals()
        self._secret = host.runtime.entropy(_SECRET_SIZE)
        self._logs: TokenBucket | None = None

    def __len__(self) -> int:
        """Open sockets, lingering ones included."""
        return len(self._connections)

    @property
    def pending(self) -> int:
        """Who dialled us and has said no HELLO."""
        return len(self._pending)

    def close(self) -> None:
        """Drop those who are not peers yet.

        A socket that was accepted but has not reached its protocol is dropped by `opened`, or it
        would outlive the node.
        """
        for handshake in tuple(self._connections):
            connection = handshake.connection
            reached = handshake.outbound or connection.remote_address is not None
            if reached and handshake.peer is None and not connection.closing:
                handshake.give_up("shutting down")

    async def wait_closed(self) -> None:
        """Wait until no socket is open."""
        while self._connections:
            await next(iter(self._connections)).connection.wait_closed()

    def banned(self, host: str, port: int, node_id: bytes | None) -> float:
        """For how many more seconds the node at this address is banned; 0 if it is not."""
        keys = [host_key(host), format_address(host, port)]
        if node_id is not None:
            keys.append(node_id.hex())
        return self._node.reputation.bans.left(keys, host)

    # --- opening ---------------------------------------------------------------------------

    def accept(self) -> asyncio.BaseProtocol:
        """A socket has dialled us."""
        handshake = Handshake(self, outbound=False)
        self._connections[handshake] = None
        self._set_deadline(handshake)
        return handshake.connection

    def dial(self, node_id: bytes | None, purpose: Purpose = Purpose.FULL) -> Handshake:
        """A socket that is about to be opened by us, to the node of this id if one is given."""
        handshake = Handshake(self, outbound=True, expected_id=node_id, purpose=purpose)
        self._connections[handshake] = None
        return handshake

    def dialled(self, handshake: Handshake) -> None:
        """TCP is connected: the time for HELLO runs."""
        if not handshake.done:
            self._set_deadline(handshake)

    def _set_deadline(self, handshake: Handshake) -> None:
        seconds = self.config.handshake_timeout
        handshake.deadline = asyncio.get_running_loop().call_later(
            seconds, handshake.give_up, f"no HELLO within {seconds:g} s"
        )

    def opened(self, handshake: Handshake) -> None:
        """The address of the other side is known."""
        host, _ = handshake.connection.remote_address or ("", 0)
        if not self._node.running:
            handshake.give_up("shutting down")
        elif not handshake.outbound:
            if not self._first_attempt(host):
                handshake.give_up("one attempt per interval")
                return
            dawdler = self._pending.add(handshake, host)
            if dawdler is not None:
                dawdler.give_up("too many handshakes at a time")
        elif handshake.connection.local_address == handshake.connection.remote_address:
            # TCP: a port that nobody listens on may be chosen as the one to dial from.
            handshake.give_up("nobody is there, the socket has met itself")

    def _first_attempt(self, host: str) -> bool:
        """Whether this host has not dialled us within the last interval."""
        if is_exempt(host, self.config):
            return True
        key, now = host_key(host), self.runtime.loop_time()
        if self._recent_hosts.remaining(key, now):
            return False
        self._recent_hosts.refuse(key, now, self.config.redial_interval)
        return True

    # --- judging ---------------------------------------------------------------------------

    def make_hello(self, handshake: Handshake) -> HelloMessage:
        """Our HELLO on one connection."""
        host, port = handshake.connection.remote_address or ("", 0)
        return self._node.make_hello(handshake.nonce, host, port)

    def recognise(self, node_id: bytes) -> None:
        """Leave a node that is connected under another address before it hears of us, or that
        connection would have to go: anybody could tell us an address that he passes on to it, and
        so end our connections (feelers) or take them over."""
        older = self._node.table.by_id.get(node_id)
        if older is not None:
            older.probe()
            raise HandshakeError(DisconnectCode.ALREADY_CONNECTED, "already connected")

    def admit(self, handshake: Handshake, hello: HelloMessage) -> Peer:
        """Check a HELLO and make a peer of it, or raise `HandshakeError`."""
        node = self._node
        check_hello(
            handshake.hello,
            hello,
            proved_id=handshake.connection.remote_key,
            expected_id=handshake.expected_id,
            own_nonces={other.nonce for other in self._connections},
        )
        if not node.running:
            raise HandshakeError(DisconnectCode.SHUTTING_DOWN, "shutting down")
        if handshake.purpose is Purpose.FEELER:
            if not self._is_news(hello):
                raise HandshakeError(DisconnectCode.SHUTTING_DOWN, "only to see who is here")
            handshake.purpose = Purpose.EXTRA
        host, port = handshake.connection.remote_address or ("", 0)
        proved = handshake.connection.remote_key
        if handshake.outbound:  # whom we dial was looked at before, but for who is there
            left = self.banned(host, port, proved)
        else:
            left = node.reputation.refused(host, hello.listen_port, proved)
        if left:
            handshake.retry_after = int(left) + 1
            raise HandshakeError(DisconnectCode.BANNED, "refused for a while")
        self._find_place(handshake, hello)
        peer = Peer(node, handshake.connection, hello, outbound=handshake.outbound)
        peer.purpose = handshake.purpose
        peer.dial_nonce = _dial_nonce(handshake, hello)
        node.table.add(peer)
        return peer

    def _is_news(self, hello: HelloMessage) -> bool:
        """Whether a node has blocks that we know nothing of, and may undo ours for, or the other
        way round: those whom we know may all be on one side of a network that was torn in two."""
        chain = self._node.chain
        if chain is None or self._node.table.extra or hello.genesis_hash != chain.genesis_hash:
            return False
        deepest = chain.head.height - chain.config.max_reorg_depth
        return hello.best_height > max(0, deepest) and not chain.is_known(hello.best_hash)

    def _find_place(self, handshake: Handshake, hello: HelloMessage) -> None:
        """Part from whoever has to go for a new peer, or raise `HandshakeError`."""
        table, outbound = self._node.table, handshake.outbound
        older = table.duplicate(
            hello.node_id,
            outbound=outbound,
            dial_nonce=_dial_nonce(handshake, hello),
            now=self.runtime.loop_time(),
        )
        if older is not None:
            older.disconnect(DisconnectCode.ALREADY_CONNECTED, "replaced by another connection")
        if not table.full(outbound=outbound, purpose=handshake.purpose):
            return
        victim = None if outbound else self._to_evict()
        # Who is connected already keeps its place, or the two of us would end with none.
        if victim is None and older is None:
            handshake.retry_after = self._stay_away
            raise HandshakeError(DisconnectCode.TOO_MANY_PEERS, "too many peers")
        if victim is not None:
            victim.disconnect(
                DisconnectCode.EVICTED,
                "a newcomer takes the place",
                retry_after=self._stay_away,
            )

    @property
    def _stay_away(self) -> int:
        """Seconds that we ask those for who found no place, or lost it."""
        return ceil(self.config.redial_interval)

    def _to_evict(self) -> Peer | None:
        """The inbound peer that makes room; exempt ones never do."""
        inbound = [
            peer
            for peer in self._node.table
            if not (peer.outbound or is_exempt(peer.host_address, self.config))
        ]
        candidates = [_candidate(number, peer) for number, peer in enumerate(inbound)]
        victim = select_to_evict(candidates, self._secret)
        return None if victim is None else inbound[victim.number]

    def handshake_done(self, handshake: Handshake) -> None:
        """It has its peer, or never will."""
        self._pending.remove(handshake)
        # A DISCONNECT that was glued to the other side's HELLO is looked at first.
        asyncio.get_running_loop().call_soon(self._settle, handshake)

    def _settle(self, handshake: Handshake) -> None:
        peer = handshake.peer
        if peer is None:
            self._failed(handshake)
        elif peer.closed:
            text = f"{peer.drop_reason} (code {peer.drop_code})"
            handshake.error = ConnectError(text, retry_after=peer.drop_retry_after)
        else:
            self._node.peer_ready(peer)
        handshake.settled.set()

    def _failed(self, handshake: Handshake) -> None:
        remote, error = handshake.connection.remote_address, handshake.error
        logger.log(self._level(handshake), "no handshake with %s: %s", remote, error)
        if not isinstance(error, HandshakeError) or remote is None:
            return
        outbound, reputation = handshake.outbound, self._node.reputation
        if error.code == DisconnectCode.SELF:
            if outbound:
                self._node.book.is_own(*remote)
        elif error.offence is not None or (outbound and error.code in _OTHERS):
            offence = offence_of_code(error.code, error.offence)
            verdict = reputation.punish_stranger(*remote, offence, error.reason, outbound=outbound)
            if outbound:
                self._node.book.postpone(*remote, verdict.refused_for)
            reputation.part_from_banned()

    def _level(self, handshake: Handshake) -> int:
        """That somebody speaks another transport is told, as often as strangers may make us."""
        if handshake.outbound or not isinstance(handshake.error, SecureChannelError):
            return logging.DEBUG
        now = self.runtime.loop_time()
        if self._logs is None:
            self._logs = TokenBucket(LOGS_PER_SECOND, LOGS_BURST, now)
        return logging.INFO if self._logs.take(now) else logging.DEBUG

    # --- closing ---------------------------------------------------------------------------

    def refused(self, handshake: Handshake) -> None:
        """It was told why and now lingers."""
        self.limit_lingering()

    def limit_lingering(self) -> None:
        """Of the sockets that wait for the other side's end keep so many, or nobody would have
        to stop at any number."""
        lingering = [h for h in self._connections if h.connection.closing]
        for oldest in lingering[: max(0, len(lingering) - CLOSING_CONNECTIONS)]:
            oldest.connection.abort()

    def connection_closed(self, handshake: Handshake) -> None:
        """The socket is gone."""
        self._connections.pop(handshake, None)


def _dial_nonce(handshake: Handshake, hello: HelloMessage) -> int:
    return handshake.nonce if handshake.outbound else hello.nonce


def _candidate(number: int, peer: Peer) -> Candidate:
    return Candidate(
        number=number,
        netgroup=netgroup(peer.host_address),
        connected_at=peer.connected_at,
        min_latency=peer.min_latency,
        last_transaction_at=peer.last_transaction_at,
        last_block_at=peer.last_block_at,
    )
