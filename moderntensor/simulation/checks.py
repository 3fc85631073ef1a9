"""What must hold in every simulation: watched at every change of an honest node's head."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from ..blockchain.block import Block, BlockHeader
from ..blockchain.chain_types import HeadChanged
from ..blockchain.lookup import one
from ..network.offences import Offence
from .oracle import Oracle
from .result import FAILURE, LIVENESS, SAFETY, Metric, propagation, samples
from .watch import Watched

if TYPE_CHECKING:
    from ..blockchain.chain import Blockchain
    from ..network.peer import Peer
    from ..node import FullNode
    from .host import Host
    from .world import World

__all__ = ["RECOVERY_INTERVALS", "RECOVERY_SECONDS", "Checks"]

RECOVERY_SECONDS: Final = 180.0
RECOVERY_INTERVALS: Final = 3
"""All honest nodes are on one head within so many seconds and block intervals after the last
fault."""
POLL: Final = 0.25  # simulated seconds between two looks at all heads
MAX_FOUND: Final = 1000  # violations that are told apart; one would do
MAX_TIMED: Final = 4096  # blocks whose spreading is timed

BLAMELESS: Final = frozenset(
    {
        Offence.SLOW_FRAME,
        Offence.NO_PONG,
        Offence.NOT_READING,
        Offence.OVER_BUDGET,
        Offence.SERVES_NOTHING,
        Offence.USELESS,
        Offence.OTHER_IDENTITY,
    }
)
"""What a broken line or a full house does to a connection; every other offence is one that an
honest node must not be accused of."""


class Checks:
    """Watches the honest nodes of a world, from their making on.

    Safety: what they accept is good by an independent `Oracle` and by nobody's forging; what two
    of them hold for final is one chain; none bans another or drops it for an offence. `violations`
    has a sentence for each breach, `metrics` what is worth a figure. Liveness is what a scenario
    asks for by `recovered`.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[str] = []
        self.metrics: dict[str, Metric] = {}
        self.expected_errors: list[str] = []
        """Parts of what healthy nodes log as errors here: some attacks are to be told loudly."""
        self.splits_allowed = False
        """Whether the rules themselves allow two honest nodes to be final on two chains here, for a
        branch about as deep as one may be has been let loose: counted then, and no breach."""
        self._splits = 0
        self._oracle: Oracle | None = None
        self._watched: dict[str, Watched] = {}
        self._final: dict[int, tuple[bytes, str]] = {}
        self._arrivals: dict[bytes, dict[str, float]] = {}
        self._recoveries: list[float] = []
        self._signed: dict[tuple[bytes, int], bytes] = {}
        self._reorganisations = 0
        self._deepest = 0
        world.on_node.append(self._watch)

    @property
    def oracle(self) -> Oracle:
        """The judge of blocks; the world has its chain by the time of the first call."""
        if self._oracle is None:
            self._oracle = Oracle(self.world.config)
        return self._oracle

    def violate(self, kind: str, sentence: str) -> None:
        """Note a breach; `kind` is SAFETY, LIVENESS or FAILURE of `result`."""
        text = f"{kind}: {sentence} (at {self.world.now:.3f} s)"
        if len(self.violations) < MAX_FOUND and text not in self.violations:
            self.violations.append(text)

    # --- what adversaries and scenarios say ---------------------------------------------------

    def forbid(self, block_hash: bytes, why: str) -> None:
        """An adversary made this block against a rule: no honest node may ever accept it."""
        self.oracle.forbid(block_hash, why)

    def trust_chain(self, chain: Blockchain, addresses: Iterable[bytes]) -> None:
        """The scenario has built `chain` itself, by valid blocks, and these are all accounts that
        it has: what comes after it is judged."""
        head = chain.head
        blocks = {}
        for height in range(head.height + 1):
            header = chain.get_header(height)
            assert header is not None  # noqa: S101
            blocks[header.hash] = (height, header.timestamp)
        accounts = {address: chain.get_funds([address])[0] for address in addresses}
        accounts = {at: funds for at, funds in accounts.items() if funds != (0, 0)}
        self.oracle.trust(blocks, head.hash, accounts)

    # --- safety -------------------------------------------------------------------------------

    def _watch(self, host: Host) -> None:
        """`host` has made a node, which has not started yet."""
        node = host.node
        if not host.honest or node is None:
            return
        watched = self._watched.get(host.name)
        if watched is None:
            watched = self._watched[host.name] = Watched(host)
        watched.reopen(node.chain)
        watched.final = max(0, min(watched.final, watched.news - 1))
        self._accept(watched, node, range(max(1, watched.news), len(watched.path)))
        self._finalise(watched)

        def changed(event: HeadChanged) -> None:
            try:
                self._changed(watched, node, event)
            except Exception as error:  # the chain would only log it
                self.violate(FAILURE, f"the checks of {host.name} ended by {error!r}")

        def parted(peer: Peer) -> None:
            self._parted(host, peer)

        node.chain.subscribe(changed)
        node.p2p.on_peer_disconnected.append(parted)

    def _changed(self, watched: Watched, node: FullNode, event: HeadChanged) -> None:
        name = watched.host.name
        if event.reverted:
            self._reorganisations += 1
            self._deepest = max(self._deepest, len(event.reverted))
        fault = watched.follow(event, node.chain)
        if fault is not None:
            self.violate(SAFETY, f"{name}: {fault}")
        self._accept(watched, node, range(max(1, watched.news), len(watched.path)))
        self._finalise(watched)
        self._arrived(name, event)

    def _accept(self, watched: Watched, node: FullNode, heights: range) -> None:
        """`node` has blocks of these heights on its executed chain."""
        oracle, host = self.oracle, watched.host
        for height in heights:
            block_hash = watched.path[height]
            fault = None
            if not oracle.is_good(block_hash):
                fault = self._judge(node, watched, height)
            if fault is None:
                ahead = oracle.timestamp(block_hash) - watched.latest_clock()
                if ahead > self.world.config.rules.max_drift + 1:
                    fault = f"{ahead:.0f} s ahead of its clock"
            if fault is not None:
                what = f"block {height} {block_hash.hex()[:16]}"
                self.violate(SAFETY, f"{host.name} accepted {what}, which is invalid: {fault}")

    def _judge(self, node: FullNode, watched: Watched, height: int) -> str | None:
        """Have the oracle judge the block of this height, after its ancestors."""
        oracle, path = self.oracle, watched.path
        first = height
        while first > 1 and path[first - 1] not in oracle:
            first -= 1
        fault = None
        for at in range(first, height + 1):
            block = node.chain.get_block(path[at]) or self._elsewhere(path[at])
            if block is None:
                return f"its body is nowhere (of height {at})"
            if block.hash != path[at]:
                return "the chain gives another block for its hash"
            fault = oracle.judge(block)
            if fault is None:
                self._note_signer(block.header)
        return fault

    def _note_signer(self, header: BlockHeader) -> None:
        """An honest validator signs one block in a slot, whatever becomes of it."""
        signer = self._honest_validators().get(header.validator)
        if signer is None:
            return
        slot = self.world.config.slot_of(header.timestamp)
        if self._signed.setdefault((header.validator, slot), header.hash) != header.hash:
            self.violate(SAFETY, f"{signer}, an honest validator, signed two blocks in slot {slot}")

    def _honest_validators(self) -> dict[bytes, str]:
        """Public key → host, of those that no adversary holds as well."""
        held = [(host.validator, host) for host in self.world.hosts if host.validator is not None]
        shared = {key.public_key for key, host in held if not host.honest}
        return {key.public_key: host.name for key, host in held if key.public_key not in shared}

    def _elsewhere(self, block_hash: bytes) -> Block | None:
        for watched in self._watched.values():
            node = watched.host.node
            if node is not None and (block := node.chain.get_block(block_hash)) is not None:
                return block
        return None

    def _finalise(self, watched: Watched) -> None:
        """What lies deeper than a node would undo must be the same everywhere, for good."""
        last = len(watched.path) - 1 - self.world.config.max_reorg_depth
        for height in range(watched.final + 1, last + 1):
            ours = watched.path[height]
            other, who = self._final.setdefault(height, (ours, watched.host.name))
            if other != ours and self.splits_allowed:
                self._splits += 1
            elif other != ours:
                self.violate(
                    SAFETY, f"{watched.host.name} and {who} are final on two chains at {height}"
                )
        watched.final = max(watched.final, last)

    def _parted(self, host: Host, peer: Peer) -> None:
        """`host` has lost a peer."""
        offence = peer.offence
        if offence is None or not peer.dropped_by_us or offence in BLAMELESS:
            return
        if self.splits_allowed and offence is Offence.FORKS_TOO_DEEP:
            return
        other = self.world.host_at(peer.host_address)
        if other is not None and other.honest:
            self.violate(
                SAFETY,
                f"{host.name} dropped {other.name}, an honest node, for {offence.value}: "
                f"{peer.drop_reason}",
            )

    def _look_for_bans(self) -> None:
        for host in self.world.honest:
            if host.node is None:
                continue
            p2p = host.node.p2p
            if not len(p2p.bans):
                continue
            for other in self.world.honest:
                if other is host:
                    continue
                keys = p2p.reputation.keys(other.ip, other.port, other.node_id)
                if p2p.bans.left(keys, other.ip):
                    self.violate(SAFETY, f"{host.name} has banned {other.name}, an honest node")

    def _look_at_books(self) -> None:
        """No evidence against the honest; nothing waits in a pool whose nonce is used."""
        validators = self._honest_validators()
        for host in self.world.honest:
            node = host.node
            if node is None:
                continue
            for proof in node.chain.evidence():
                header = one(proof.first)
                signer = validators.get(header.validator(0))
                if signer is not None:
                    self.violate(
                        SAFETY,
                        f"{host.name} has evidence that {signer}, an honest validator, signed two "
                        f"blocks of height {header.height(0)}",
                    )
            if not node.chain.has_state:
                continue
            waiting = [node.mempool.get(each) for each in node.mempool.hashes()]
            spent = [
                each
                for each in waiting
                if each is not None and each.nonce < node.chain.get_account(each.sender).nonce
            ]
            if spent:
                self.violate(
                    SAFETY, f"{host.name} keeps {len(spent)} transactions whose nonces are used"
                )

    def clock_changes(self, host: Host) -> None:
        """The clock of `host` is about to be set, or has just been."""
        watched = self._watched.get(host.name)
        if watched is not None:
            watched.note_clock()

    # --- liveness -----------------------------------------------------------------------------

    async def recovered(self, *, progress: int = 1, within: float | None = None) -> float:
        """Wait until all honest nodes are on one head, `progress` blocks or more above the highest
        one of now; the seconds that it took.

        A breach, and what was waited, if that takes longer than the bound (`within`: of the
        scenario's own). To be called right after the last fault has been lifted.
        """
        world = self.world
        if within is None:
            within = RECOVERY_SECONDS + RECOVERY_INTERVALS * world.config.block_time
        began = world.now
        goal = progress + max(
            (host.node.chain.head.height for host in world.honest if host.node is not None),
            default=0,
        )
        while not self.on_one_head(goal):
            if world.now - began > within:
                self.violate(LIVENESS, f"not on one head after {within:.0f} s: {self._heads()}")
                break
            await asyncio.sleep(POLL)
        took = world.now - began
        self._recoveries.append(took)
        return took

    def on_one_head(self, least: int = 0) -> bool:
        """Whether all honest hosts run, and their nodes have one head, of this height or more."""
        heads = {
            None if host.node is None else host.node.chain.head.hash for host in self.world.honest
        }
        if len(heads) != 1 or None in heads:
            return False
        first = next(iter(self.world.honest)).node
        return first is not None and first.chain.head.height >= least

    def _heads(self) -> str:
        groups: dict[str, list[str]] = {}
        for host in self.world.honest:
            node = host.node
            head = None if node is None else node.chain.head
            text = "down" if head is None else f"{head.height} {head.hash.hex()[:8]}"
            groups.setdefault(text, []).append(host.name)
        return "; ".join(
            f"{text}: {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
            for text, names in sorted(groups.items())
        )

    # --- figures ------------------------------------------------------------------------------

    def _arrived(self, name: str, event: HeadChanged) -> None:
        for _, block_hash in event.applied:
            times = self._arrivals.get(block_hash)
            if times is None:
                if len(self._arrivals) >= MAX_TIMED:
                    continue
                times = self._arrivals[block_hash] = {}
            times.setdefault(name, self.world.now)

    def finish(self) -> None:
        """The run is at its end, its nodes still up: what is looked at once, and the figures."""
        self._look_for_bans()
        self._look_at_books()
        head = max((len(each.path) - 1 for each in self._watched.values()), default=0)
        seen = 0 if self._oracle is None else len(self._oracle) - 1
        self.metrics.setdefault("blocks", float(head))
        self.metrics.setdefault("blocks_seen", float(seen))
        self.metrics.setdefault("reorganisations", float(self._reorganisations))
        self.metrics.setdefault("deepest_reorganisation", float(self._deepest))
        if self.splits_allowed:
            self.metrics.setdefault("final_splits", float(self._splits))
        if self._recoveries:
            self.metrics.setdefault("recovery_seconds", samples(self._recoveries))
        spread: deque[list[float]] = deque()
        for times in self._arrivals.values():
            first = min(times.values())
            spread.append([time - first for time in times.values()])
        self.metrics.setdefault("block_propagation", propagation(spread, len(self._watched)))
