"""What a peer says of itself, in HELLO and since."""

from __future__ import annotations

from .addresses import format_address, from_wire
from .connection import Connection
from .messages import HelloMessage
from .purpose import Purpose

__all__ = ["PeerClaims"]


class PeerClaims:
    """Where a peer is, who it says it is, and what it says it has. Nothing of it is proved here."""

    def __init__(self, connection: Connection, hello: HelloMessage, *, outbound: bool) -> None:
        remote = connection.remote_address or ("?", 0)
        self.host_address: str = remote[0]
        self.address: str = format_address(*remote)
        self.connection = connection
        self.node_id: bytes = hello.node_id
        self.outbound = outbound
        self.purpose = Purpose.FULL
        self.user_agent: str = hello.user_agent
        self.capabilities: frozenset[str] = frozenset(hello.capabilities)
        self.listen_port: int = hello.listen_port
        self.observed_host: str = from_wire(hello.observed_ip)  # where it sees us
        # Where it can be dialled again; 0 where it cannot.
        self.dial_port: int = remote[1] if outbound else hello.listen_port
        self.best_height: int = hello.best_height
        self.best_hash: bytes = hello.best_hash
        self.earliest_height: int = hello.earliest_height
        self.genesis_hash: bytes = hello.genesis_hash
        # How many of our requests it allows at a time.
        self.max_inflight: int = hello.max_inflight
        self.max_per_type: int = hello.max_per_type
        self.snapshots: tuple[tuple[int, bytes], ...] = ()

    @property
    def listen_address(self) -> str | None:
        """Where it says it can be dialled; None if it does not listen."""
        return format_address(self.host_address, self.listen_port) if self.listen_port else None

    def claims(self, height: int, block_hash: bytes) -> None:
        """It has shown this block: if it is its highest, it is its head."""
        if height > self.best_height:
            self.best_height, self.best_hash = height, block_hash
