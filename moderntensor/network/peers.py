"""Who is connected: by address and by id, how many, and which of two connections stays."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import NodeConfig
from ..errors import HandshakeError
from .messages import DisconnectCode
from .peer import Peer

__all__ = ["PeerTable"]


class PeerTable:
    """The connected peers."""

    def __init__(self, config: NodeConfig, own_id: bytes) -> None:
        self._config = config
        self._own_id = own_id
        self.by_address: dict[str, Peer] = {}
        self.by_id: dict[bytes, Peer] = {}

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Peer]:
        return iter(tuple(self.by_id.values()))

    @property
    def outbound(self) -> int:
        """How many we dialled."""
        return sum(peer.outbound for peer in self.by_id.values())

    def place_for(self, node_id: bytes, *, outbound: bool) -> Peer | None:
        """Admit a new connection: the older one that it replaces, or None.

        Raises `HandshakeError` with ALREADY_CONNECTED or TOO_MANY_PEERS.
        """
        older = self.by_id.get(node_id)
        if older is not None:
            if outbound in (older.outbound, self._own_id < node_id):  # newest, or lower id dialled
                return older
            raise HandshakeError(DisconnectCode.ALREADY_CONNECTED, "already connected")
        total = len(self.by_id)
        if total >= self._config.max_peers or (
            not outbound and total - self.outbound >= self._config.inbound_limit
        ):
            raise HandshakeError(DisconnectCode.TOO_MANY_PEERS, "too many peers")
        return None

    def add(self, peer: Peer) -> None:
        """Enter a peer for which `place_for` found a place."""
        self.by_id[peer.node_id] = peer
        self.by_address[peer.address] = peer

    def remove(self, peer: Peer) -> bool:
        """Take a peer out; whether it was there and not replaced."""
        if self.by_address.get(peer.address) is peer:
            del self.by_address[peer.address]
        if self.by_id.get(peer.node_id) is not peer:
            return False
        del self.by_id[peer.node_id]
        return True

    def find(self, address: str) -> Peer | None:
        """The peer at an address: of its socket, or where it says it listens."""
        found = self.by_address.get(address)
        if found is None:
            found = next((p for p in self.by_id.values() if p.listen_address == address), None)
        return found
