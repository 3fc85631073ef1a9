"""Who is connected: by address and by id, how many, and which of two connections stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..config import NodeConfig
from ..errors import HandshakeError
from .messages import DisconnectCode
from .peer import Peer
from .purpose import Purpose

__all__ = ["NodeInfo", "PeerTable"]


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """How a node's places are taken, at one moment."""

    inbound: int
    inbound_limit: int
    outbound: int
    """Of those that we dialled and keep; without `extra`."""
    target_outbound: int
    extra: int
    """Peers beyond that, while our head looks old."""
    max_peers: int
    pending: int
    """Who dialled us and has said no HELLO."""
    dialling: int
    sockets: int
    """All that are open, those that are being closed included."""
    known_addresses: int


class PeerTable:
    """The connected peers."""

    def __init__(self, config: NodeConfig, own_id: bytes) -> None:
        self._config = config
        self._own_id = own_id
        # Two dials of one node at the same time end within so many seconds of each other.
        self._overlap = config.connect_timeout + config.handshake_timeout
        self.by_address: dict[str, Peer] = {}
        self.by_id: dict[bytes, Peer] = {}

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Peer]:
        return iter(tuple(self.by_id.values()))

    @property
    def outbound(self) -> int:
        """How many we dialled, extra ones aside."""
        return sum(p.outbound and p.purpose is Purpose.FULL for p in self.by_id.values())

    @property
    def extra(self) -> int:
        """How many we dialled beyond our places."""
        return sum(p.purpose is Purpose.EXTRA for p in self.by_id.values())

    @property
    def inbound(self) -> int:
        """How many dialled us."""
        return sum(not p.outbound for p in self.by_id.values())

    @property
    def counts(self) -> dict[str, int]:
        """What `NodeInfo` says of places."""
        return {
            "inbound": self.inbound,
            "inbound_limit": self._config.inbound_limit,
            "outbound": self.outbound,
            "target_outbound": self._config.target_outbound,
            "extra": self.extra,
            "max_peers": self._config.max_peers,
        }

    def duplicate(
        self, node_id: bytes, *, outbound: bool, dial_nonce: int, now: float
    ) -> Peer | None:
        """The connection with the same node that a new one replaces; None if there is none.

        Both nodes come to the same result, so that one connection stays: of two directions the
        one that the lower id dialled; of one direction the newest. Two that were dialled at the
        same time may reach the two nodes in different order: of those the one with the greater
        `dial_nonce`, which is that of the dialler's HELLO. Raises `HandshakeError` with
        ALREADY_CONNECTED if the new one has to go; the older one is then asked whether it lives.
        """
        older = self.by_id.get(node_id)
        if older is None:
            return None
        if outbound == older.outbound:
            overlap = now - older.connected_at < self._overlap
            stays = overlap and dial_nonce < older.dial_nonce
        else:
            stays = outbound != (self._own_id < node_id)
        if not stays:
            return older
        older.probe()
        raise HandshakeError(DisconnectCode.ALREADY_CONNECTED, "already connected")

    def full(self, *, outbound: bool, purpose: Purpose = Purpose.FULL) -> bool:
        """Whether there is no place for one more: those who dial us leave some to those whom we
        dial."""
        if purpose is Purpose.EXTRA:
            return self.extra > 0
        total = len(self.by_id) - self.extra
        return total >= self._config.max_peers or (
            not outbound and self.inbound >= self._config.inbound_limit
        )

    def add(self, peer: Peer) -> None:
        """Enter a peer for which there is a place."""
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
