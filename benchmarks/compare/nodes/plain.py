"""The end that people write first: JSON over asyncio streams."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import Any

from moderntensor.blockchain.transaction import Transaction

from ..plain.codec import PlainTransaction, encode_frame, to_plain
from ..plain.peer import PlainNode, PlainPeer
from .end import HASHES, RECORD, End

_NEWS, _REQUEST, _REPLY, _TRANSACTION = 0x22, 0x30, 0x31, 0x20
_ADDRESS = {
    "node_id": RECORD.node_id.hex(),
    "ip": RECORD.ip.hex(),
    "port": RECORD.port,
    "last_seen": RECORD.last_seen,
}


class PlainEnd(End):
    """A `PlainNode` that listens, or one that has dialled as often as it was told."""

    def __init__(self) -> None:
        super().__init__()
        self._node = PlainNode(self._handle)
        self._seen: set[bytes] = set()  # transactions

    # --- commands --------------------------------------------------------------------------

    async def listen(self) -> int:
        await self._node.start()
        return self._node.port

    async def connect(self, port: int, count: int = 1) -> None:
        for _ in range(count):
            await self._node.connect("127.0.0.1", port)

    async def stop(self) -> None:
        for peer in self._node.peers:
            peer.writer.close()
        while self._node.peers:  # noqa: ASYNC110  the node tells nobody when they are gone
            await asyncio.sleep(0.01)
        await self._node.stop()

    # --- what it knows how to do -------------------------------------------------------------

    @property
    def peer_count(self) -> int:
        return len(self._node.peers)

    async def send_many(self, count: int) -> None:
        (peer,) = self._node.peers
        for height in range(count):
            await peer.send_json(_NEWS, {"hash": HASHES[height & 4095].hex(), "height": height})

    async def ask(self) -> dict[str, Any]:
        (peer,) = self._node.peers
        return await peer.request(_REQUEST, {"max_peers": 8})

    def said(self, reply: dict[str, Any]) -> list[Any]:
        (found,) = reply["peers"]
        return [reply["status"], *found.values()]

    def package(self, transaction: Transaction) -> dict[str, Any]:
        return vars(to_plain(transaction, PlainTransaction))

    def frame(self, package: dict[str, Any]) -> bytes:
        return encode_frame(_TRANSACTION, json.dumps(package).encode())

    async def broadcast_all(self, packages: list[dict[str, Any]]) -> None:
        for message in packages:
            await self._node.broadcast(_TRANSACTION, message)

    # --- handlers --------------------------------------------------------------------------

    async def _handle(self, peer: PlainPeer, kind: int, payload: bytes) -> None:
        if kind == _TRANSACTION:
            transaction = PlainTransaction.decode(payload)
            self._seen.add(sha256(payload).digest())
            self.count()
            if self.collected is not None:
                self.collected.append(_encoded(transaction))
            return
        message = json.loads(payload)
        if kind == _NEWS:
            self.count()
            if self.collected is not None:
                self.collected.append([message["hash"], message["height"]])
        elif kind == _REQUEST:
            reply = {"request_id": message["request_id"], "status": 0, "peers": [_ADDRESS]}
            await peer.send_json(_REPLY, reply)
        elif kind == _REPLY:
            peer.replied(message)


def _encoded(plain: PlainTransaction) -> str:
    """As the others encode it, to compare what has come."""
    values = {
        name: bytes.fromhex(value) if isinstance(value, str) else value
        for name, value in vars(plain).items()
    }
    return Transaction(**values).encode().hex()
