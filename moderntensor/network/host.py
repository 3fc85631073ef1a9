"""What the parts of a node need of it: they know this, and the node knows them."""

from __future__ import annotations

from typing import Protocol

from ..blockchain.chain import Blockchain
from ..blockchain.mempool import Mempool
from ..blockchain.snapshots import SnapshotKeeper
from .addressbook import AddressBook
from .identity import NodeIdentity
from .messages import HelloMessage
from .peer import Peer
from .peer_host import PeerHost
from .peers import PeerTable

__all__ = ["GateHost", "Host"]


class Host(PeerHost, Protocol):
    """What all parts share."""

    table: PeerTable
    book: AddressBook
    chain: Blockchain | None
    mempool: Mempool | None
    snapshots: SnapshotKeeper | None

    @property
    def running(self) -> bool:
        """Whether the node is between `start` and `stop`."""


class GateHost(Host, Protocol):
    """What those who come in need besides."""

    identity: NodeIdentity | None

    def make_hello(self, nonce: int, host: str, port: int) -> HelloMessage:
        """The node's HELLO to who is at `host` and `port`."""

    def peer_ready(self, peer: Peer) -> None:
        """The handshake stands; called once, unless the peer has left meanwhile."""
