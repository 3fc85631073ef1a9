"""The end that is a `P2PNode`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from moderntensor.blockchain.transaction import Transaction
from moderntensor.config import NodeConfig
from moderntensor.network.messages import (
    GetPeersMessage,
    MessageCodec,
    MessageType,
    NewBlockHashesMessage,
    NewTransactionMessage,
    PeersMessage,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer

from .end import HASHES, RECORD, End

_BURST = 1000  # messages between two looks at how much waits to leave
_TOGETHER = 50  # broadcasts in one turn of the loop


class OurEnd(End):
    """Nodes without a chain, whose handlers are Python. In plaintext, as what they are held
    against."""

    TRANSPORT = "plaintext"

    def __init__(self, max_per_type: int = 8, max_peers: int = 50, heartbeat: float = 15.0) -> None:
        super().__init__()
        self._config = NodeConfig(
            listen_host="127.0.0.1",
            listen_port=0,
            discovery=False,
            max_per_type=max_per_type,
            max_peers=max_peers,
            max_inbound=max_peers,
            ping_interval=heartbeat,
            transport=self.TRANSPORT,
            rate_limits=1e6,  # it measures how fast a node is, not how fast a peer may be
        )
        self._nodes: list[P2PNode] = []
        self._peers: list[Peer] = []  # of all nodes

    # --- commands --------------------------------------------------------------------------

    async def listen(self) -> int:
        return (await self._start(listen=True)).listen_port

    async def connect(self, port: int, count: int = 1) -> None:
        """Each connection is another node's."""
        for _ in range(count):
            node = await self._start(listen=False)
            await node.connect_peer("127.0.0.1", port)

    async def dial(self, port: int, count: int) -> float:
        """Connect so many times, one after the other; the seconds that it took."""
        if not self._nodes:
            await self._start(listen=False)
        (node,) = self._nodes
        began = time.monotonic()
        for _ in range(count):
            peer = await node.connect_peer("127.0.0.1", port)
            peer.connection.abort()
            await peer.connection.wait_closed()
        return time.monotonic() - began

    async def stop(self) -> None:
        for node in self._nodes:
            await node.stop()

    # --- what it knows how to do -------------------------------------------------------------

    @property
    def peer_count(self) -> int:
        return len(self._peers)

    async def send_many(self, count: int) -> None:
        (peer,) = self._peers
        for start in range(0, count, _BURST):
            for height in range(start, min(start + _BURST, count)):
                peer.send(NewBlockHashesMessage(hashes=((HASHES[height & 4095], height),)))
            await peer.connection.drained()

    async def ask(self) -> Any:
        return await self._peers[0].request(GetPeersMessage(max_peers=8))

    def said(self, reply: PeersMessage) -> list[Any]:
        (found,) = reply.peers
        return [reply.status, found.node_id.hex(), found.ip.hex(), found.port, found.last_seen]

    def package(self, transaction: Transaction) -> NewTransactionMessage:
        return NewTransactionMessage(transactions=(transaction.encode(),))

    def frame(self, package: NewTransactionMessage) -> bytes:
        return MessageCodec.encode(package)

    async def broadcast_all(self, packages: list[NewTransactionMessage]) -> None:
        (node,) = self._nodes
        for number, message in enumerate(packages, 1):
            await node.broadcast(message)
            if not number % _TOGETHER:
                await asyncio.sleep(0)

    # --- handlers --------------------------------------------------------------------------

    async def _start(self, *, listen: bool) -> P2PNode:
        node = P2PNode(config=self._config.replace(listen=listen))
        node.register_handler(MessageType.NEW_BLOCK_HASHES, self._on_hashes)
        node.register_handler(MessageType.NEW_TRANSACTION, self._on_transaction)
        node.register_handler(MessageType.GET_PEERS, self._on_get_peers)
        node.on_peer_connected.append(self._peers.append)
        node.on_peer_disconnected.append(self._peers.remove)
        self._nodes.append(node)
        await node.start()
        return node

    async def _on_hashes(self, peer: Peer, message: NewBlockHashesMessage) -> None:
        self.count()
        if self.collected is not None:
            ((block_hash, height),) = message.hashes
            self.collected.append([block_hash.hex(), height])

    async def _on_transaction(self, peer: Peer, message: NewTransactionMessage) -> None:
        self.count()
        if self.collected is not None:
            self.collected.append(message.transactions[0].hex())

    async def _on_get_peers(self, peer: Peer, message: GetPeersMessage) -> PeersMessage:
        return PeersMessage(request_id=message.request_id, peers=(RECORD,))


class EncryptedEnd(OurEnd):
    """The same by the transport that nodes use by default."""

    TRANSPORT = "secure"
