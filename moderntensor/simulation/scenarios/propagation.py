"""How news spread: transactions, and blocks of transactions that every mempool has."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from statistics import median
from typing import Final

from ...blockchain.chain_types import HeadChanged
from ...blockchain.crypto import KeyPair
from ...blockchain.transaction import Transaction
from ...errors import ConfigError
from ...network.messages import MessageType, NewBlockMessage, NewTransactionMessage
from ...network.peer import Peer
from ..checks import Checks
from ..host import Host
from ..lines import Link
from ..result import LIVENESS, propagation, quantile, samples
from ..scenario import scenario
from ..workload import Workload
from ..world import World
from .setting import make_chain

__all__ = ["spreading"]

SHARE: Final = 0.99  # of the nodes that must be reached
HOPS: Final = 6.0  # median hops within which a block does
TRANSACTION_SECONDS: Final = 5.0
REPEATED_SHARE: Final = 0.25  # of the useful bytes of transactions
_HASH: Final = 32


class Spread:
    """Who had what when, and what came for it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._born: dict[bytes, float] = {}
        self._arrived: dict[bytes, list[float]] = {}
        self.blocks: dict[bytes, int] = {}  # hash → transactions
        self.announced_bytes = 0
        self.block_bytes = 0
        world.on_node.append(self._watch)

    def begins(self, item: bytes) -> None:
        """It is at its first host now."""
        self._born[item] = self._world.now
        self._arrived[item] = [0.0]

    def times(self, items: Sequence[bytes]) -> list[list[float]]:
        """Seconds until each host that has it had it, by item."""
        return [self._arrived[item] for item in items]

    def _watch(self, host: Host) -> None:
        node = host.node
        assert node is not None  # noqa: S101 - it has just been made
        node.p2p.gossip.transactions.on_accepted.append(self._accepted)
        node.p2p.register_handler(MessageType.NEW_TRANSACTION, self._on_transactions)
        node.p2p.register_handler(MessageType.NEW_BLOCK, self._on_block)

        def head(event: HeadChanged) -> None:
            for _, block_hash in event.applied:
                self._has(block_hash)

        node.chain.subscribe(head)

    def _has(self, item: bytes) -> None:
        born = self._born.get(item)
        if born is None:
            self.begins(item)
        else:
            self._arrived[item].append(self._world.now - born)

    def _accepted(self, transactions: list[Transaction]) -> None:
        for transaction in transactions:
            self._has(transaction.hash)

    async def _on_transactions(self, _: Peer, message: NewTransactionMessage) -> None:
        self.announced_bytes += _HASH * len(message.announced)

    async def _on_block(self, _: Peer, message: NewBlockMessage) -> None:
        self.block_bytes += len(message.header.encode()) + _HASH * len(message.transaction_ids)


def connect(
    world: World,
    count: int,
    outbound: int,
    latency: float,
    sigma: float,
    keys: Sequence[KeyPair],
) -> tuple[list[Host], float]:
    """Hosts that each dial `outbound` others, drawn, and nobody else; the first ones hold `keys`.
    And the median of what lies between those, one way. ConfigError where there is nothing to spread
    over, or fewer hosts than keys."""
    if count < max(2, len(keys)) or outbound < 1:
        raise ConfigError(f"{count} nodes that dial {outbound} each: nothing spreads over those")
    random = world.random
    validators = [*keys, *[None] * (count - len(keys))]
    hosts = [world.add_host(validator=key) for key in validators]
    drawn: dict[tuple[int, int], float] = {}
    for number, host in enumerate(hosts):
        known = [n for n in range(count) if n != number and (n, number) not in drawn]
        chosen = random.sample(known, min(outbound, len(known)))
        host.bootstrap = [hosts[other] for other in chosen]
        for other in chosen:
            seconds = latency * math.exp(random.gauss(0, sigma))
            drawn[number, other] = seconds
            # Most of what is late on a line is late by the length of the line.
            world.network.set_link(host.ip, hosts[other].ip, Link(seconds, jitter=seconds / 20))
    return hosts, median(drawn.values())


@scenario("propagation", about="how fast blocks and transactions spread, and what that costs")
async def spreading(
    world: World,
    check: Checks,
    *,
    nodes: int = 100,
    outbound: int = 8,
    latency: float = 0.1,
    sigma: float = 0.5,
    transactions: int = 100,
    blocks: int = 3,
    validators: int = 10,
    block_time: int = 12,
) -> None:
    """`blocks` blocks of `transactions` that were handed in all over the network a while before.

    `latency` is the median one-way time of a link in seconds, `sigma` the standard deviation of
    its logarithm. Marks: a block reaches 99 % of the nodes within six median hops (lines have no
    bound here, so that its transfer takes no time), a transaction within 5 s, and the bytes of
    transactions that come again are at most 25 % of those that come first.
    """
    keys, users = make_chain(
        world, validators=validators, accounts=transactions, block_time=block_time
    )
    world.settings = world.settings.replace(
        discovery=False, target_outbound=outbound, max_peers=max(50, 6 * outbound)
    )
    hosts, hop = connect(world, nodes, outbound, latency, sigma, keys)
    spread = Spread(world)
    workload = Workload(world, users, world.random.sample(hosts, min(nodes, transactions)))
    await world.start(hosts, over=block_time / 2)
    # Bootstrap nodes that were not there yet are dialled again; then everybody has its peers.
    await asyncio.sleep(2.5 * block_time - world.now)
    before = [host.bytes_received for host in hosts]
    began = world.now
    for _ in range(blocks):
        await asyncio.sleep(block_time - world.now % block_time + 0.5)
        pause = (block_time / 2 - 1) / transactions
        for number in range(transactions):
            await workload.submit(number)
            spread.begins(workload.submitted[-1].transaction.hash)
            await asyncio.sleep(pause)
    await asyncio.sleep(1.5 * block_time)
    received = [host.bytes_received - old for host, old in zip(hosts, before, strict=True)]
    check.metrics["received_per_second"] = samples(each / (world.now - began) for each in received)
    _judge(check, spread, workload, hosts, hop)
    await check.recovered()


def _judge(
    check: Checks, spread: Spread, workload: Workload, hosts: Sequence[Host], hop: float
) -> None:
    """Write down what was found, and what misses its mark."""
    chains = [host.node.chain for host in hosts if host.node is not None]
    full = []
    for height in range(1, chains[0].head.height + 1):
        block = chains[0].get_block(height)
        if block is not None and 2 * len(block.transactions) > len(workload.submitted) // 4:
            full.append(block)
    handed_in = spread.times([each.transaction.hash for each in workload.submitted])
    spreads = {
        "block": (spread.times([block.hash for block in full]), HOPS * hop),
        "transaction": (handed_in, TRANSACTION_SECONDS),
    }
    for what, (times, most) in spreads.items():
        check.metrics[f"{what}_propagation"] = propagation(times, len(hosts))
        worst = max((_reached(each, len(hosts)) for each in times), default=math.inf)
        if math.isfinite(worst):
            check.metrics[f"{what}_slowest"] = worst
        if worst > most:
            check.violate(LIVENESS, f"a {what} reached 99 % of the nodes in {worst:.2f} s")
    gossips = [host.node.p2p.gossip.transactions for host in hosts if host.node is not None]
    useful = sum(gossip.useful_bytes for gossip in gossips)
    repeated = sum(gossip.repeated_bytes for gossip in gossips)
    share = repeated / useful if useful else math.inf
    if share > REPEATED_SHARE:
        check.violate(LIVENESS, f"bytes of transactions came again: {share:.0%} of the useful ones")
    count = len(hosts)
    check.metrics |= {
        "hop_seconds": hop,
        "blocks": float(len(full)),
        "block_transactions": median(len(block.transactions) for block in full) if full else 0.0,
        "repeated_share": share,
        "transaction_bytes": (useful + repeated) / count,
        "announcement_bytes": spread.announced_bytes / count,
        "block_bytes": spread.block_bytes / count,
    }


def _reached(times: Sequence[float], nodes: int) -> float:
    """Seconds until `SHARE` of the nodes had it."""
    needed = math.ceil(SHARE * nodes - 1e-9)
    return quantile(sorted(times), needed / len(times)) if len(times) >= needed else math.inf
