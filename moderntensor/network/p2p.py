"""The node: who is connected, who is told what, and what all of them share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..blockchain.block import Block
from ..blockchain.chain import Blockchain
from ..blockchain.mempool import Mempool
from ..blockchain.snapshots import SnapshotKeeper
from ..blockchain.transaction import Transaction
from ..config import NodeConfig
from ..errors import ConfigError, NetworkError
from ..runtime import Runtime
from .addressbook import AddressBook
from .addresses import is_loopback, parse_node_address
from .anchors import Anchors
from .ban_file import BanKeeper
from .bans import OPERATOR, Ban, Bans
from .budget import ByteBudget, Kind
from .callbacks import tell
from .clock import ClockReading
from .dialer import Dialer
from .discovery import Discovery
from .dispatch import Handler, Router
from .extensions import Extension, ExtensionSet
from .external import ExternalAddress
from .gate import Gate
from .gossip import BlockHook, Gossip
from .greeting import hello_of, pong_of
from .identity import NodeIdentity
from .life import Life, Work
from .limits import DROP_LOGS_BURST, DROP_LOGS_PER_SECOND, RETRY_AFTER_MAX
from .log_limit import LogLimit
from .memory import Memory
from .messages import (
    DisconnectCode,
    HelloMessage,
    Message,
    PongMessage,
    Request,
)
from .outlook import Outlook
from .peer import Peer
from .peers import NodeInfo, PeerTable
from .reputation import Reputation
from .serving import Server
from .state_file import Directory
from .tasks import TaskSet
from .traffic import Traffic

__all__ = ["P2PNode"]

logger = logging.getLogger(__name__)

_TICKS = 4.0  # upkeep per ping interval or timeout, whichever is shorter
_TICK_MAX = 1.0


class P2PNode:
    """One node of the network.

    Peers are kept in `peers`, by ``"host:port"`` of their end of the socket. Callbacks in
    `on_peer_connected` and `on_peer_disconnected` get the `Peer`; they may be coroutine
    functions. All methods are for the loop's thread.

    Without a chain (`attach_chain`) it speaks HELLO with a zero genesis and finds nothing that it
    is asked for.
    """

    def __init__(
        self,
        listen_port: int | None = None,
        bootstrap_nodes: Iterable[str] = (),
        *,
        listen_host: str | None = None,
        identity: NodeIdentity | None = None,
        node_id: bytes | None = None,
        network_id: int | None = None,
        max_peers: int | None = None,
        config: NodeConfig | None = None,
        data_dir: Path | Directory | None = None,
        runtime: Runtime | None = None,
        extensions: Iterable[Extension] = (),
    ) -> None:
        """What is given here counts before `config`. `bootstrap_nodes` are ``host:port``, or
        ``id@host:port`` where nobody else will do.

        `node_id` (32 bytes) names a node that has no `identity` and can only speak plaintext;
        without either a new identity is made. `data_dir` is an existing directory for what the
        network remembers between runs; None remembers nothing. A `runtime` that is given stays the
        caller's to close. `extensions` bring messages of the application's own. Raises
        `ConfigError`.
        """
        given = {
            "listen_port": listen_port,
            "listen_host": listen_host,
            "network_id": network_id,
            "max_peers": max_peers,
        }
        config = config or NodeConfig()
        self.config = config.replace(**{k: v for k, v in given.items() if v is not None})
        self.data_dir = data_dir
        self.runtime = runtime or Runtime()
        if identity is None and node_id is None:
            identity = NodeIdentity.generate(self.runtime)
        if identity is None and self.config.transport != "plaintext":
            self.config = self.config.replace(transport="plaintext")  # nothing proves such an id
        self.identity = identity
        self.node_id: bytes = identity.node_id if identity is not None else bytes(node_id or b"")
        if len(self.node_id) != 32:
            raise ConfigError(f"node_id: {len(self.node_id)} bytes, needs 32")
        self.bootstrap_nodes = tuple(bootstrap_nodes)
        self.chain: Blockchain | None = None
        self.mempool: Mempool | None = None
        self.snapshots: SnapshotKeeper | None = None
        self.on_peer_connected: list[Callable[[Peer], Any]] = []
        self.on_peer_disconnected: list[Callable[[Peer], Any]] = []

        self.table = PeerTable(self.config, self.node_id)
        self.book = AddressBook(self.config, self.runtime, self.node_id, data_dir)
        self.external = ExternalAddress(self.config, self.runtime)
        for address in self.bootstrap_nodes:
            at = parse_node_address(address)
            self.book.add_bootstrap(at.host, at.port, at.node_id)
        self.budget = ByteBudget(self.config)
        ours = ExtensionSet(extensions)
        self.traffic = Traffic(ours.type_names)
        self.bans = Bans(self.runtime)
        self.reputation = Reputation(self.config, self.runtime, self.bans, peers=lambda: self.table)
        self.ban_keeper = (
            BanKeeper(self.bans, self.runtime, data_dir, on_changed=self.reputation.bans_changed)
            if data_dir is not None
            else None
        )
        self.gate = Gate(self)
        self.dialer = Dialer(self, self.gate)
        self.anchors = Anchors(self.runtime, data_dir)
        self.memory = Memory(self.book, self.anchors, self.ban_keeper)
        self.discovery = Discovery(self, self.dialer, self.anchors)
        self.outlook = Outlook(self, self.dialer, self.discovery.wanted, self.discovery.wake)
        self.router: Router[Peer] = Router(self._answer, ours)
        self.gossip = Gossip(self)
        self.server = Server(self, self.gossip.relayed)
        self.life = Life(self, owns_runtime=runtime is None)
        self.tasks = TaskSet(self.life.task_failed)
        self._unfollow: Callable[[], None] | None = None
        self._logs: LogLimit | None = None  # of peers that come and go

    # --- life ------------------------------------------------------------------------------

    @property
    def listen_port(self) -> int:
        """The port that is listened on, or would be; 0 if none is known."""
        if self.running or not self.config.listen:
            return self.life.port
        return self.config.listen_port

    @property
    def listen_host(self) -> str:
        """The address that is listened on."""
        return self.config.listen_host

    @property
    def external_address(self) -> str | None:
        """The IP address at which others reach us, once several of them agree on it; IPv4 before
        IPv6."""
        return next(iter(self.external.hosts), None)

    @property
    def running(self) -> bool:
        """Whether it is between `start` and `stop`."""
        return self.life.running

    async def start(self) -> None:
        """Listen, dial bootstrap nodes, look after peers. Idempotent.

        Raises `NetworkError` if the port cannot be listened on.
        """
        works: list[Work] = [
            ("keeping peers alive", self._keep_alive),
            ("discovery", self.discovery.run),
            ("gossip", self.gossip.run),
            *self.memory.works(),
        ]
        if self.config.discovery:
            works.append(("feelers", self.outlook.run_feelers))
            works.append(("watching the head", self.outlook.watch_head))
        await self.life.start(self._prepare, works)

    async def stop(self) -> None:
        """Tell the peers, close everything, wait until nothing of it runs. Idempotent.

        Raises what ended one of its own tasks before, if anything did. Cancelled half-way, it can
        be called again.
        """
        await self.life.stop(self.memory.close)

    async def _prepare(self) -> None:
        """Before anything listens: what was remembered of earlier runs."""
        await self.memory.load()
        if self.config.transport == "plaintext":
            logger.log(
                logging.INFO if is_loopback(self.config.listen_host) else logging.WARNING,
                "node %s speaks plaintext: what it sends can be read and changed on the way, and "
                "the ids of its peers are not proved",
                self.node_id.hex()[:16],
            )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _keep_alive(self) -> None:
        shortest = min(self.config.ping_interval, self.config.ping_timeout)
        pause = min(max(shortest / _TICKS, 0.01), _TICK_MAX)
        while True:
            now = self.runtime.loop_time()
            for peer in self.table:
                peer.tick(now)
            self.budget.sample()
            await asyncio.sleep(pause)

    # --- the chain -------------------------------------------------------------------------

    def attach_chain(
        self,
        chain: Blockchain,
        mempool: Mempool | None = None,
        snapshots: SnapshotKeeper | None = None,
    ) -> None:
        """Serve `chain`, say its head in HELLO, relay what is new, and let `mempool` follow it.
        With `snapshots`, which stays the caller's to run, its states are served as well.

        Best before `start`: peers that are connected already were told of no chain.
        """
        if self._unfollow is not None:
            self._unfollow()
        self._unfollow = None if mempool is None else chain.subscribe(mempool.on_head_changed)
        self.chain, self.mempool, self.snapshots = chain, mempool, snapshots
        self.budget.watch(Kind.MEMPOOL, lambda: 0 if mempool is None else mempool.size)
        self.gossip.attach(chain)

    @property
    def on_new_block(self) -> BlockHook | None:
        """``async def hook(block, peer)``: takes the blocks that peers announce, complete with
        their transactions, in place of a plain import into the chain."""
        return self.gossip.on_new_block

    @on_new_block.setter
    def on_new_block(self, hook: BlockHook | None) -> None:
        self.gossip.on_new_block = hook

    @property
    def clock_offset(self) -> ClockReading:
        """How far our clock is off, as far as new blocks of peers can tell."""
        return self.gossip.clock.reading()

    # --- peers -----------------------------------------------------------------------------

    @property
    def info(self) -> NodeInfo:
        """How its places are taken now."""
        return NodeInfo(
            **self.table.counts,
            pending=self.gate.pending,
            dialling=len(self.dialer),
            sockets=len(self.gate),
            known_addresses=len(self.book),
        )

    @property
    def peers(self) -> dict[str, Peer]:
        """The connected peers by ``"host:port"``; a copy."""
        return dict(self.table.by_address)

    def peers_with(self, extension: str) -> list[Peer]:
        """The connected peers that share an extension of this name with us."""
        return [peer for peer in self.table if extension in peer.extensions]

    async def connect_peer(self, address: str, port: int, *, node_id: bytes | None = None) -> Peer:
        """The peer at this address, dialled unless it is connected.

        Raises `ConnectError` if nobody is there or we are turned away, `HandshakeError` if what
        is there is no peer for us, or another one than `node_id`.
        """
        if not self.running:
            raise NetworkError("the node is not running")
        return await self.dialer.connect(address, port, node_id)

    async def disconnect_peer(self, peer_addr: str) -> bool:
        """Part from the peer at ``"host:port"``; False if there is none."""
        peer = self.table.find(peer_addr)
        if peer is None:
            return False
        peer.disconnect(DisconnectCode.SHUTTING_DOWN, "disconnected by its user")
        return True

    def ban(self, key: str, seconds: float, reason: str = OPERATOR) -> Ban:
        """Neither dial nor admit whom `key` names, and part from those who are connected: an IP
        address, a network (``10.0.0.0/8``), ``host:port`` or a node id (64 hex digits).

        Kept over a restart where the node has a data directory. Raises `ConfigError`.
        """
        return self.reputation.ban(key, seconds, reason)

    def lift_ban(self, key: str) -> bool:
        """End a ban, by this key; whether there was one. Raises `ConfigError`."""
        return self.reputation.lift(key)

    def list_bans(self) -> list[Ban]:
        """The bans in force, the one that ends first in front."""
        return self.bans.list()

    def get_best_peer(self) -> Peer | None:
        """The peer that claims the greatest height; among equals the quickest."""
        return max(
            self.table,
            key=lambda p: (p.best_height, -(p.latency if p.latency is not None else 1e9)),
            default=None,
        )

    def get_random_peer(self) -> Peer | None:
        """Any peer."""
        peers = list(self.table)
        return self.runtime.random.choice(peers) if peers else None

    # --- messages --------------------------------------------------------------------------

    def register_handler(self, message_type: int, handler: Handler[Peer]) -> None:
        """Await ``handler(peer, message)`` for each message of a type, in order per peer.

        `message_type` is a `MessageType`, or the `TYPE` of a message of an extension. For a request
        the handler may return the reply, which then takes the place of the node's own answer (to
        one of an extension NOT_FOUND). What it raises is logged; a `ProtocolViolationError` drops
        the peer. Raises `ConfigError` for HELLO, PING, PONG and DISCONNECT, which concern the
        connection alone, for types that belong to no extension of this node, and for a handler
        that cannot be called.
        """
        self.router.add(message_type, handler)

    def unregister_handler(self, message_type: int, handler: Handler[Peer]) -> None:
        """Undo `register_handler`. Raises ValueError if it is not registered."""
        self.router.remove(message_type, handler)

    async def broadcast_transaction(self, tx: Transaction) -> int:
        """Add a transaction to the mempool, if there is one, and send it to all peers that do
        not know it; to how many. Raises `InvalidTransactionError`."""
        return await self.gossip.broadcast_transaction(tx)

    async def broadcast_block(self, block: Block) -> int:
        """Announce a block to all peers that do not know it; to how many."""
        return self.gossip.broadcast_block(block)

    async def broadcast(self, message: Message) -> int:
        """Send any message that is no request to all peers, one of an extension to those who have
        it; to how many. Raises `ConfigError` for one of an extension that this node has not."""
        return self.gossip.broadcast(message)

    # --- what connections and peers need ----------------------------------------------------

    def make_hello(self, nonce: int, host: str, port: int) -> HelloMessage:
        """Our HELLO to a node that we see at `host` and `port`."""
        return hello_of(self, nonce, host, port)

    async def _answer(self, peer: Peer, request: Request) -> bytes:
        return await self.server.frame(peer, request)

    def make_pong(self, nonce: int) -> PongMessage:
        """The answer to a PING: our executed head, from where on we have bodies, and which
        snapshots."""
        return pong_of(self, nonce)

    def peer_ready(self, peer: Peer) -> None:
        """The handshake stands: begin to listen to the peer."""
        peer.start()
        peer.announced = True
        if peer.outbound:
            self.external.vote(peer.host_address, peer.observed_host)
        for host in self.external.hosts:
            self.book.seems_own(host, self.listen_port)
        self._say("connected to %s (%s)", peer, peer.user_agent)
        if peer.outbound:
            self.anchors.update(self.table)
        self.discovery.peer_connected(peer)
        self.gossip.transactions.welcome(peer)
        tell(self.on_peer_connected, peer, self.tasks if self.running else None)

    def peer_gone(self, peer: Peer) -> None:
        """The peer has left or was dropped; its socket may linger."""
        self.table.remove(peer)
        who = "dropped" if peer.dropped_by_us else "lost"
        code = f", code {peer.drop_code}" if peer.drop_code is not None else ""
        if peer.offence is None:  # else its line stands already
            self._say("%s %s: %s%s", who, peer, peer.drop_reason, code)
        refused = self.reputation.parted(peer)
        if refused:  # looked at again before it is over, should a ban be lifted
            seconds = min(refused, self.config.redial_interval)
            self.book.postpone(peer.host_address, peer.dial_port, seconds)
        told = min(peer.drop_retry_after, RETRY_AFTER_MAX)
        if told:
            self.book.postpone(peer.host_address, peer.dial_port, told)
        self.book.parted(peer.host_address, peer.dial_port)
        if self.running and peer.outbound:
            self.anchors.update(self.table)
        if peer.announced:
            tell(self.on_peer_disconnected, peer, self.tasks if self.running else None)
        if self.running:
            self.gate.limit_lingering()
        self.discovery.wake()

    def _say(self, text: str, *args: object) -> None:
        """A line about who comes or goes, which strangers can do in a loop."""
        now = self.runtime.loop_time()
        if self._logs is None:
            self._logs = LogLimit(DROP_LOGS_PER_SECOND, DROP_LOGS_BURST, now)
        more = self._logs.admit(now)
        if more is not None:
            logger.info(text + "%s", *args, more)
