"""A node that serves competing branches, and tells of them whom it likes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ...blockchain.block import EMPTY_BODY, BlockHeader
from ...errors import NetworkError
from ...network.messages import (
    BlockBodiesMessage,
    GetBlockBodiesMessage,
    GetHeadersMessage,
    HeadersMessage,
    HelloMessage,
    MessageType,
    NewBlockMessage,
    PongMessage,
    Reply,
    Status,
)
from ...network.peer import Peer
from ...network.serving_queue import refusal
from .coalition import Coalition

if TYPE_CHECKING:
    from ...node import FullNode

__all__ = ["Forker"]


KEPT: Final = 3.0  # seconds in which whoever was told of a branch asks for it


class Forker:
    """Serves what a `coalition` has made.

    The node below follows the chain as all do; its claims and answers name a branch that it has
    told of, for `KEPT` seconds at least.
    """

    def __init__(self, node: FullNode, coalition: Coalition) -> None:
        self.node = node
        self.coalition = coalition
        self._tip: BlockHeader | None = None
        self._told_at = 0.0
        self.served: dict[tuple[bytes, str], int] = {}
        """Ends of branches, and IP addresses of who has asked for them → how often headers of it
        were sent."""
        p2p = node.p2p
        p2p.register_handler(MessageType.GET_HEADERS, self._headers)
        p2p.register_handler(MessageType.GET_BLOCK_BODIES, self._bodies)
        hello, pong = p2p.make_hello, p2p.make_pong

        def false_hello(nonce: int, host: str, port: int) -> HelloMessage:
            return hello(nonce, host, port).replace(**self._claim())

        def false_pong(nonce: int) -> PongMessage:
            return pong(nonce).replace(**self._claim())

        p2p.make_hello = false_hello  # type: ignore[method-assign]
        p2p.make_pong = false_pong  # type: ignore[method-assign]

    async def announce(
        self, headers: Iterable[BlockHeader], peers: Iterable[Peer] | None = None
    ) -> int:
        """Tell `peers`, or all, of these, whole; how many peers were told."""
        headers = list(headers)
        now = self.node.runtime.loop_time()
        if headers and (self._tip is None or now - self._told_at > KEPT):
            self._tip, self._told_at = headers[-1], now
        told = list(self.node.p2p.peers.values() if peers is None else peers)
        for header in headers:
            message = NewBlockMessage(header=header)
            for peer in told:
                with suppress(NetworkError):
                    peer.send(message)
        return len(told)

    def _claim(self) -> dict[str, Any]:
        tip = self._tip
        if tip is None or tip.height < self.node.chain.head.height:
            return {}
        return {"best_height": tip.height, "best_hash": tip.hash}

    async def _headers(self, peer: Peer, request: GetHeadersMessage) -> Reply:
        line = self.coalition.line(self._tip)
        if not line or request.stride != 1:
            return await self.node.p2p.server.answer(peer, request)
        found = self._after(line, request)
        if not found:
            return refusal(request, Status.NOT_FOUND)
        sent = line[-1].hash, peer.host_address
        self.served[sent] = self.served.get(sent, 0) + 1
        found = found[: request.max_headers]
        data = len(found).to_bytes(2, "big") + b"".join(header.encode() for header in found)
        return HeadersMessage(request_id=request.request_id, headers=data)

    def _after(self, line: list[BlockHeader], request: GetHeadersMessage) -> list[BlockHeader]:
        """What follows the first header asked about that is of the branch, or below it."""
        start = line[0].height
        if not request.locator:
            return self._from(request.start_height, line)
        heights = {header.hash: header.height for header in line}
        chain = self.coalition.watched()
        for block_hash in request.locator:
            height = heights.get(block_hash)
            if height is None and (known := chain.height_of(block_hash)) is not None:
                height = known if known < start else None
            if height is not None:
                return self._from(height + 1, line)
        return []

    def _from(self, height: int, line: list[BlockHeader]) -> list[BlockHeader]:
        start = line[0].height
        if height >= start:
            return line[height - start :]
        chain = self.coalition.watched()
        between = [chain.get_header(at) for at in range(height, start)]
        if between[-1] is None or between[-1].hash != line[0].previous_hash:
            return []  # those it stood on have been undone
        return [header for header in between if header is not None] + line

    async def _bodies(self, peer: Peer, request: GetBlockBodiesMessage) -> Reply:
        made = self.coalition.made
        if not any(block_hash in made for block_hash in request.hashes):
            return await self.node.p2p.server.answer(peer, request)
        bodies = []
        for block_hash in request.hashes:
            body = EMPTY_BODY if block_hash in made else self.node.chain.body_of(block_hash)
            if body is None:
                break
            bodies.append(body)
        if not bodies:
            return refusal(request, Status.NOT_FOUND)
        status = Status.OK if len(bodies) == len(request.hashes) else Status.PARTIAL
        return BlockBodiesMessage(
            request_id=request.request_id, status=status, bodies=tuple(bodies)
        )
