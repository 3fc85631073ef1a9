"""Nodes that keep to themselves: they take places, know only each other, and pass nothing on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final

from ...blockchain.block import Block
from ...errors import NetworkError
from ...network.addresses import to_wire
from ...network.messages import (
    GetPeersMessage,
    HelloMessage,
    MessageType,
    PeerRecord,
    PeersMessage,
    PongMessage,
    Reply,
)
from ...network.p2p import P2PNode
from ...network.peer import Peer
from ...node import FullNode

if TYPE_CHECKING:
    from ..host import Host

__all__ = ["Loner", "flood_addresses", "invented"]

BOAST: Final = 500  # blocks
RETRY: Final = 10.0  # seconds between two attempts to get in, or to add to the fork


def flood_addresses(node: P2PNode, records: Callable[[], Sequence[PeerRecord]]) -> None:
    """Have `node` answer whoever asks for peers with these, as many as it is asked for."""

    async def handler(_: Peer, request: GetPeersMessage) -> Reply:
        peers = tuple(records())[: request.max_peers]
        return PeersMessage(request_id=request.request_id, peers=peers)

    node.register_handler(MessageType.GET_PEERS, handler)


def _boast(node: P2PNode, random: Random) -> None:
    """Have `node` claim a head far above all others."""
    hello, pong = node.make_hello, node.make_pong
    claim = {"best_height": BOAST + random.randrange(BOAST), "best_hash": random.randbytes(32)}

    def false_hello(nonce: int, host: str, port: int) -> HelloMessage:
        return hello(nonce, host, port).replace(**claim)

    def false_pong(nonce: int) -> PongMessage:
        return pong(nonce).replace(**claim)

    node.make_hello = false_hello  # type: ignore[method-assign]
    node.make_pong = false_pong  # type: ignore[method-assign]


def invented(random: Random, count: int) -> list[PeerRecord]:
    """Addresses at which there is nobody, in `count` networks."""
    return [
        PeerRecord(
            node_id=random.randbytes(32),
            ip=to_wire(f"{random.randint(110, 126)}.{number}.{random.randint(1, 250)}.7"),
            port=30303,
            last_seen=0,
        )
        for number in range(1, count + 1)
    ]


class Loner(FullNode):
    """It serves its own chain, follows nobody's, relays no block and dials its victims for ever.

    With a validator's key it makes blocks on its own chain: a fork that is valid, and shorter.
    """

    def __init__(
        self,
        host: Host,
        victims: Sequence[Host],
        others: Sequence[Host],
        random: Random,
        *,
        invented: Sequence[PeerRecord] = (),
        boasts: bool = False,
    ) -> None:
        """`others` and some `invented` ones are the addresses that it tells to whoever asks. If it
        `boasts`, it claims a head that nobody has, and has no headers to show for it."""
        super().__init__(
            None,
            host.world.config,
            listen_host=host.ip,
            listen_port=host.port,
            settings=host.settings,
            identity=host.identity,
            producer_key=host.validator,
            runtime=host.runtime,
            disk=host.mount,
        )
        self._victims = tuple(victims)
        self._others = others  # there may be more by the time it is asked
        self._invented = invented
        self._random = random
        self._attack: asyncio.Task[None] | None = None
        self.p2p.on_new_block = self._ignore
        flood_addresses(self.p2p, self._addresses)
        if boasts:
            _boast(self.p2p, random)

    async def start(self) -> None:
        """Listen, and go for the victims."""
        await self.p2p.start()
        self._attack = asyncio.create_task(self._besiege(), name="siege")

    async def stop(self) -> None:
        """As `FullNode`."""
        if self._attack is not None:
            self._attack.cancel()
            await asyncio.wait([self._attack])
        await super().stop()

    async def _ignore(self, block: Block, peer: Peer) -> Any:
        return None

    def _addresses(self) -> list[PeerRecord]:
        now = int(self.runtime.wall_time())
        found = [
            PeerRecord(node_id=other.node_id, ip=to_wire(other.ip), port=other.port, last_seen=now)
            for other in self._others
        ]
        found += [record.replace(last_seen=now) for record in self._invented]
        return self._random.sample(found, len(found))

    async def _besiege(self) -> None:
        while True:
            for victim in self._victims:
                with suppress(NetworkError):
                    await self.p2p.connect_peer(victim.ip, victim.port)
            if self.producer is not None:
                slot = self.chain.config.slot_of(int(self.runtime.wall_time()))
                if self.producer.is_ours(slot) and slot > (self.producer.last_slot or 0):
                    block = self.producer.produce()
                    await self.p2p.broadcast_block(block)
            await asyncio.sleep(RETRY * self._random.uniform(0.5, 1.5))
