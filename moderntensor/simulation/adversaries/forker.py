"""A node that makes competing headers and branches in masses."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final

from ...blockchain.block import EMPTY_BODY, BlockHeader
from ...blockchain.crypto import KeyPair
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
from ...node import FullNode

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Forker"]

MAX_MADE: Final = 4096  # headers of its own that it remembers and serves


class Forker:
    """Makes empty blocks with `key` in its slots, on any parent, and serves what it made.

    The node below follows the chain as all do; its claims and answers name the latest branch.
    """

    def __init__(
        self, node: FullNode, key: KeyPair, random: Random, on_invalid: Callable[[bytes], None]
    ) -> None:
        """`on_invalid` is told the hash of each block that it makes against a rule."""
        self.node = node
        self.key = key
        self._random = random
        self._on_invalid = on_invalid
        self.made: dict[bytes, BlockHeader] = {}
        self.equivocations = 0
        self._signed: dict[int, bytes] = {}
        self._tip: BlockHeader | None = None
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

    def branch(self, depth: int, length: int, *, false: bool = False) -> list[BlockHeader]:
        """Up to `length` headers on the block `depth` below the head, in slots that `key` may
        sign until now; with `false` the first has a state root that nothing leads to."""
        chain, config = self.node.chain, self.node.chain.config
        parent = chain.get_header(max(0, chain.head.height - depth))
        if parent is None:
            return []
        last = config.slot_of(int(self.node.runtime.wall_time()))
        slot = config.slot_of(parent.timestamp) + 1
        made: list[BlockHeader] = []
        while slot <= last and len(made) < length:
            if config.validator_at(slot) in (None, self.key.public_key):
                parent = self._sign(parent, slot, false=false and not made, bad=false)
                made.append(parent)
            slot += 1
        if made:
            self._tip = made[-1]
        return made

    def rivals(self, count: int) -> list[BlockHeader]:
        """`count` blocks on one parent in one slot."""
        made = []
        for _ in range(count):
            made += self.branch(self._random.randint(1, 4), 1)
        return made

    async def announce(self, headers: list[BlockHeader]) -> None:
        """Tell all peers of these, whole."""
        for header in headers:
            await self.node.p2p.broadcast(NewBlockMessage(header=header))

    def _sign(self, parent: BlockHeader, slot: int, *, false: bool, bad: bool) -> BlockHeader:
        config = self.node.chain.config
        root = self._random.randbytes(32) if false else parent.state_root
        header = BlockHeader(
            height=parent.height + 1,
            timestamp=config.timestamp + slot * config.block_time,
            previous_hash=parent.hash,
            state_root=root,
            validator=self.key.public_key,
            gas_limit=config.gas_limit,
            extra_data=self._random.randbytes(8),
        ).sign(self.key)
        if bad:
            self._on_invalid(header.hash)
        if header.height in self._signed:
            self.equivocations += 1
        self._signed[header.height] = header.hash
        self.made[header.hash] = header
        if len(self.made) > MAX_MADE:
            del self.made[next(iter(self.made))]
        return header

    def _claim(self) -> dict[str, Any]:
        tip = self._tip
        if tip is None or tip.height < self.node.chain.head.height:
            return {}
        return {"best_height": tip.height, "best_hash": tip.hash}

    def _line(self) -> list[BlockHeader]:
        """The latest branch down to where it leaves the chain, lowest first."""
        line: list[BlockHeader] = []
        header = self._tip
        while header is not None:
            line.append(header)
            header = self.made.get(header.previous_hash)
        return line[::-1]

    async def _headers(self, peer: Peer, request: GetHeadersMessage) -> Reply:
        line = self._line()
        if not line or not request.locator or request.stride != 1:
            return await self.node.p2p.server.answer(peer, request)
        chain = self.node.chain
        known = {header.hash for header in line}
        for block_hash in request.locator:
            if block_hash in known:
                start = next(i for i, header in enumerate(line) if header.hash == block_hash) + 1
                found = line[start:]
                break
            height = chain.height_of(block_hash)
            if height is not None and height < line[0].height:
                between = (chain.get_header(at) for at in range(height + 1, line[0].height))
                found = [header for header in between if header is not None] + line
                break
        else:
            return refusal(request, Status.NOT_FOUND)
        found = found[: request.max_headers]
        data = len(found).to_bytes(2, "big") + b"".join(header.encode() for header in found)
        return HeadersMessage(request_id=request.request_id, headers=data)

    async def _bodies(self, peer: Peer, request: GetBlockBodiesMessage) -> Reply:
        if not any(block_hash in self.made for block_hash in request.hashes):
            return await self.node.p2p.server.answer(peer, request)
        bodies = []
        for block_hash in request.hashes:
            body = EMPTY_BODY if block_hash in self.made else self.node.chain.body_of(block_hash)
            if body is None:
                break
            bodies.append(body)
        if not bodies:
            return refusal(request, Status.NOT_FOUND)
        status = Status.OK if len(bodies) == len(request.hashes) else Status.PARTIAL
        return BlockBodiesMessage(
            request_id=request.request_id, status=status, bodies=tuple(bodies)
        )
