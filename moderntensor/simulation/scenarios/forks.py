"""Floods of competing headers, hidden branches and equivocations, by many of the validators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import combinations
from random import Random
from typing import Final

from ...blockchain.block import BlockHeader
from ...blockchain.chain import Blockchain
from ...blockchain.evidence import MAX_EVIDENCE
from ...blockchain.lookup import HeaderBatch
from ...blockchain.side import MAX_SIDE_BLOCKS
from ...blockchain.tables import CANONICAL, EVIDENCE, PENDING, SIDE, height_key
from ...blockchain.workload import demo_keys
from ...errors import ConfigError
from ...network.offences import Offence
from ...network.peer import Peer
from ...node import FullNode
from ..adversaries import Coalition, Forker
from ..checks import POLL, RECOVERY_INTERVALS, RECOVERY_SECONDS, Checks
from ..host import Host
from ..result import LIVENESS, SAFETY
from ..scenario import scenario
from ..world import World
from .setting import draw_link, make_chain, make_hosts

__all__ = ["forks"]

MARGIN: Final = 4
"""Blocks by which honest heads may differ for a while: who followed a branch that is so much
shorter than what may be undone can leave it again, and one that begins so much deeper is followed
by nobody."""
MISSED: Final = (120, 240, 400)  # slots before the world begins; the hostile ones sign in theirs


@scenario("forks", about="masses of competing headers, hidden branches and equivocations")
async def forks(
    world: World,
    check: Checks,
    *,
    nodes: int = 7,
    seconds: float = 40.0,
    most: int = 20,
) -> None:
    """A quarter to just under a half of the validators are hostile and work together, or the rules
    are open to anybody. They have the slots of a long outage for branches that nobody has seen, and
    tell all nodes or some of such ones, up to `most` blocks longer than the honest chain and down
    to below what is final. In a third of the seeds some are about as deep as may be undone: nodes
    may be left on two chains then, by the rules, must say so, and go on."""
    random = world.random
    everybody, hostile_keys = random.choice(((7, 3), (7, 3), (5, 2), (3, 1), (4, 1), (0, 2)))
    depth = random.choice((16, 16, 24, 32))
    check.splits_allowed = at_the_edge = random.random() < 1 / 3
    keys, _ = make_chain(
        world,
        validators=everybody,
        block_time=1,
        max_reorg=depth,
        missed=random.choice(MISSED),
        anybody=everybody == 0,
    )
    world.link = draw_link(world)
    evil = keys[:hostile_keys] or demo_keys(hostile_keys, "evil")
    good = keys[hostile_keys:] or demo_keys(1, "good")
    if nodes < len(good):
        raise ConfigError(f"forks: {len(good)} honest validators need as many nodes")
    check.expected_errors.append("is on a chain that we cannot follow")  # below what is final
    hosts = make_hosts(world, nodes, good, transport="plaintext", target_outbound=3)
    refusals = _count_refusals(world)
    coalition = Coalition(
        lambda: _highest(world),
        evil,
        world.seeded_random("coalition"),
        lambda block_hash: check.forbid(block_hash, "it leads to no such state"),
    )
    forkers: dict[str, Forker] = {}
    hostile = [
        world.add_host(
            f"forker{number}",
            bootstrap=random.sample(hosts, min(3, len(hosts))),
            honest=False,
            settings={"transport": "plaintext", "target_outbound": 3},
            factory=_maker(coalition, forkers),
        )
        for number in range(3)
    ]
    await world.start([*hosts, *hostile], over=1)
    attack = _Attack(world, check, coalition, depth, most, at_the_edge)
    end = world.now + seconds
    while world.now < end:
        await asyncio.sleep(random.uniform(0.5, 3))
        for host in hostile:
            if host.up and random.random() < 0.7:
                await host.within(attack.burst(forkers[host.name]), "attack")
        _bounded(check)
    honest = {host.ip for host in world.honest}
    heard = sum(
        times
        for forker in forkers.values()
        for (tip, ip), times in forker.served.items()
        if tip in attack.beyond and ip in honest
    )
    await asyncio.sleep(1)  # who leaves with its answer may be gone before anybody can tell of it
    for host in hostile:
        await host.stop()
    # What came when another had answered already, nobody has looked into.
    unread = sum(
        host.node.p2p.traffic.late_replies for host in world.honest if host.node is not None
    )
    if not at_the_edge:
        await check.recovered()
    else:
        await _settled(check, depth, refusals)
    _bounded(check)
    figures = check.metrics
    figures["headers_made"] = float(len(coalition.made))
    figures["equivocations"] = float(coalition.equivocations)
    figures["longer_branches"] = float(attack.longer)
    figures["beyond_finality"] = float(heard)
    figures["finality_refusals"] = float(sum(refusals.values()))
    kept = [len(host.node.chain.evidence()) for host in world.honest if host.node is not None]
    figures["evidence_kept"] = float(max(kept, default=0))
    if heard > unread and not refusals:
        check.violate(SAFETY, "nobody has told of a longer branch below what is final")


class _Attack:
    """What the hostile ones do next, and how often they did it."""

    def __init__(
        self,
        world: World,
        check: Checks,
        coalition: Coalition,
        depth: int,
        most: int,
        at_the_edge: bool,
    ) -> None:
        self._world = world
        self._check = check
        self._coalition = coalition
        self._depth = depth
        self._most = most
        self._edge = at_the_edge
        self._random: Random = world.seeded_random("attack")
        self.longer = 0
        """Branches told to somebody that were longer than the chain, and could be followed."""
        self.beyond: set[bytes] = set()
        """Ends of longer ones, too, that nobody may follow any more."""

    async def burst(self, forker: Forker) -> None:
        """One thing of a drawn kind, told to all peers or to half of them."""
        random, depth = self._random, self._depth
        kind = random.choice(("rivals", "hidden", "hidden", "short", "beyond", "beyond", "false"))
        head = self._coalition.watched().head.height
        peers = list(forker.node.p2p.peers.values())
        if random.random() < 0.3:
            peers = random.sample(peers, (len(peers) + 1) // 2)
        if kind == "rivals":
            for _ in range(random.randint(2, self._most // 2)):
                await forker.announce(self._branch(random.randint(1, 3), 1), peers)
            return
        longest = depth + self._most if self._edge else depth - MARGIN
        below = random.randint(1, max(1, min(head, longest - 1, depth + MARGIN)))
        if kind == "beyond":
            below = depth + MARGIN + random.randint(1, depth)
            longest += 2 * depth
            if head < below:
                return
        length = min(longest, below + random.randint(1, self._most))
        if kind == "short":
            length = random.randint(1, max(1, below // 2))
        false_at = random.randrange(length) if kind == "false" else None
        made = self._branch(below, length, false_at)
        if not made:
            return
        # By less the honest chain may have grown before anybody has asked.
        is_longer = made[-1].height >= self._coalition.watched().head.height + MARGIN
        if kind == "beyond" and not self._edge:
            for header in made:
                self._check.forbid(header.hash, f"it undoes {below} blocks of {depth} at most")
        whole = kind != "beyond" and random.random() < 0.5
        told = await forker.announce(made if whole else made[-1:], peers)
        if told and is_longer and kind == "hidden":
            self.longer += 1
        if is_longer and kind == "beyond":
            self.beyond.add(made[-1].hash)

    def _branch(self, below: int, length: int, false_at: int | None = None) -> list[BlockHeader]:
        return self._coalition.branch(self._world.wall_time(), below, length, false_at=false_at)


def _maker(coalition: Coalition, forkers: dict[str, Forker]) -> Callable[[Host], FullNode]:
    def make(host: Host) -> FullNode:
        node = host.make_node()
        forkers[host.name] = Forker(node, coalition)
        return node

    return make


def _highest(world: World) -> Blockchain:
    chains = [host.node.chain for host in world.honest if host.node is not None]
    return max(chains, key=lambda chain: chain.head.height)


def _count_refusals(world: World) -> dict[str, int]:
    """Host → how often its node has parted, loudly, from who is on a chain too far from its own."""
    counts: dict[str, int] = {}

    def watch(host: Host) -> None:
        def parted(peer: Peer) -> None:
            if peer.offence is Offence.FORKS_TOO_DEEP:
                counts[host.name] = counts.get(host.name, 0) + 1

        if host.honest and host.node is not None:
            host.node.p2p.on_peer_disconnected.append(parted)

    world.on_node.append(watch)
    return counts


# --- what must hold --------------------------------------------------------------------------


async def _settled(check: Checks, depth: int, refusals: dict[str, int]) -> None:
    """As `Checks.recovered`, but for nodes whose chains have left each other further down than
    either may undo: those go on by themselves, and one of each two has told of the other."""
    world = check.world
    began, goal = world.now, _highest(world).head.height + 1
    while True:
        nodes = {host.name: host.node.chain for host in world.honest if host.node is not None}
        apart = [
            pair for pair in combinations(nodes, 2) if not _meets(nodes[pair[0]], nodes[pair[1]])
        ]
        late = [pair for pair in apart if not _is_too_deep(nodes[pair[0]], nodes[pair[1]], depth)]
        if not late and _highest(world).head.height >= goal:
            break
        if world.now - began > RECOVERY_SECONDS + RECOVERY_INTERVALS * world.config.block_time:
            check.violate(LIVENESS, f"could meet, and do not: {late[:4]}, after {apart[:4]}")
            break
        await asyncio.sleep(POLL)
    for one, other in apart:
        if one not in refusals and other not in refusals:
            check.violate(SAFETY, f"{one} and {other} are on two chains, and neither says so")
    check.metrics["apart_at_the_end"] = float(len(apart))


def _meets(one: Blockchain, other: Blockchain) -> bool:
    return one.head.hash == other.head.hash


def _is_too_deep(one: Blockchain, other: Blockchain, depth: int) -> bool:
    low, high = 0, min(one.head.height, other.head.height)
    while low < high:
        middle = (low + high + 1) // 2
        if one.hash_at(middle) == other.hash_at(middle):
            low = middle
        else:
            high = middle - 1
    return min(one.head.height, other.head.height) - low > depth


def _bounded(check: Checks) -> None:
    """Each node keeps no more than it may, and evidence of whatever it holds two headers of."""
    for host in check.world.honest:
        node = host.node
        if node is None:
            continue
        config = node.chain.config
        with node.chain.store.read() as txn:
            beside, pending = txn.range(SIDE), txn.range(PENDING)
            proved = {key for key, _ in txn.range(EVIDENCE)}
            if beside and config.validators and len(proved) < MAX_EVIDENCE:
                lowest, highest = beside[0][0][:8], beside[-1][0][:8]
                stop = height_key(int.from_bytes(highest, "big") + 1)
                line = txn.range(CANONICAL, lowest, stop)
                headers = [raw for _, raw in (*beside, *line, *pending)]
                _proved(check, host, headers, proved)
        if len(beside) > MAX_SIDE_BLOCKS:
            check.violate(SAFETY, f"{host.name} keeps {len(beside)} blocks beside its chain")
        slots = config.slot_of(int(host.wall_time()) + config.rules.max_drift)
        if pending and int.from_bytes(pending[-1][0], "big") > slots:
            check.violate(SAFETY, f"{host.name} has headers ahead of all slots")
        report = node.p2p.budget.report()
        if report.highest > report.total:
            check.violate(SAFETY, f"{host.name} held {report.highest} of {report.total} bytes")
        _note(check, "most_beside", len(beside))
        _note(check, "most_ahead", len(pending))
        _note(check, "most_held", report.highest)


def _proved(check: Checks, host: Host, headers: list[bytes], proved: set[bytes]) -> None:
    seen: dict[bytes, bytes] = {}
    batch = HeaderBatch.join(headers)
    for i in range(len(batch)):
        key = height_key(batch.height(i)) + batch.validator(i)
        if seen.setdefault(key, batch.hash(i)) != batch.hash(i) and key not in proved:
            check.violate(
                SAFETY,
                f"{host.name} has two headers of height {batch.height(i)} by one validator, and no "
                "evidence of it",
            )


def _note(check: Checks, name: str, value: float) -> None:
    before = check.metrics.get(name, 0.0)
    check.metrics[name] = max(before if isinstance(before, float) else 0.0, float(value))
