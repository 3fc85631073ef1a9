"""Who serves a sync in what way: honest, slow, silent or false, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from ...errors import ConfigError
from ...network.messages import DisconnectCode, MessageType
from ...network.offences import Offence
from ...network.peer import Peer
from ...node import FullNode
from ..adversaries import Liar, Lie, Met, busy, false_replies, never, slow
from ..checks import Checks
from ..host import Host
from ..lines import Line
from ..result import SAFETY
from ..world import World

__all__ = ["Cast", "FalseReply", "draw_parts"]

Kinds = tuple[MessageType, ...]


@dataclass(frozen=True, slots=True)
class FalseReply:
    """A lie, told after so many replies that could have been one, and the code to part with."""

    lie: Lie
    after: int
    code: DisconnectCode


def draw_parts(world: World, *, peers: int, stalling: int, lying: int, slow_ones: int) -> list[str]:
    """What each of the peers plays, in any order; the rest are honest. ConfigError for none."""
    honest = peers - stalling - lying - slow_ones
    if honest < 1:
        raise ConfigError("one peer at least is honest")
    parts = ["stalls"] * stalling + ["lies"] * lying + ["slow"] * slow_ones + ["honest"] * honest
    world.random.shuffle(parts)
    return parts


class Cast:
    """Makes the servers, watches how the client parts from them, and judges that."""

    def __init__(
        self,
        check: Checks,
        served: tuple[Kinds, ...],
        draw_lie: Callable[[Random], FalseReply],
        *,
        grace: float = 2.0,
    ) -> None:
        """`served`: all types of requests of the sync, and parts of them that one may be silent
        to. `grace`: seconds for a lie to be on its way and looked at."""
        self._check = check
        self._served = served
        self._draw_lie = draw_lie
        self._grace = grace
        self._client: Host | None = None
        self._began = 0.0  # the client's last life: what was on its way to an earlier one is lost
        self._liars: dict[str, tuple[Liar, DisconnectCode]] = {}
        self._stallers: dict[str, Met] = {}
        self._slow: dict[str, Met] = {}
        self._lines: list[str] = []  # those who are slow by their line
        self._convicted: dict[str, Offence] = {}
        self._left: dict[str, float] = {}  # when the client had them no more, first
        self._late: dict[str, int] = {}  # replies that came too late, of connections that ended

    def serve(self, number: int, part: str) -> Host:
        """One more server. How it plays its part is drawn by its number alone."""
        world, name = self._check.world, f"{part}{number}"
        random = world.seeded_random("part", number)

        def make(host: Host) -> FullNode:
            node = host.make_node()
            if part == "stalls":
                self._stallers[name] = self._stall(node, random)
            elif part == "lies":
                drawn = self._draw_lie(random)
                liar = false_replies(node.p2p, drawn.lie, after=drawn.after)
                self._liars[name] = liar, drawn.code
            elif part == "slow" and line is None:
                self._slow[name] = slow(node.p2p, self._served[0], seconds=random.uniform(1, 10))
            return node

        line = None
        if part == "slow" and random.random() < 0.5:
            line = Line(up=random.choice((2_000.0, 10_000.0, 30_000.0)))
            self._lines.append(name)
        # A slow one is honest, but what it is dropped for as a bottleneck is nobody's offence.
        return world.add_host(name, line=line, honest=part in ("honest", "slow"), factory=make)

    def _stall(self, node: FullNode, random: Random) -> Met:
        kinds = random.choice(self._served)
        after = random.choice((0, 0, 1, 2, 5))
        if random.random() < 0.25:
            return busy(node.p2p, kinds, after=after)
        return never(node.p2p, kinds, after=after)

    def watch(self, client: Host) -> None:
        """From now on note whom `client` parts from; it has not begun."""
        self._client = client
        world = self._check.world

        def parted(peer: Peer) -> None:
            offence, host = peer.offence, world.host_at(peer.host_address)
            if host is None:
                return
            self._left.setdefault(host.name, world.now)
            self._late[host.name] = self._late.get(host.name, 0) + peer.late_replies
            if offence is not None and peer.dropped_by_us and host.name in self._liars:
                self._convicted.setdefault(host.name, offence)

        def made(host: Host) -> None:
            if host is client and host.node is not None:
                self._began = world.now
                host.node.p2p.on_peer_disconnected.append(parted)

        world.on_node.append(made)

    def _unread(self, server: Host) -> int:
        """How many replies of `server` came when the client had no use for them any more, since
        another had answered: nobody looks into those."""
        node = None if self._client is None else self._client.node
        peer = node.p2p.table.by_id.get(server.node_id) if node is not None else None
        return self._late.get(server.name, 0) + (0 if peer is None else peer.late_replies)

    def judge(self) -> None:
        """Who lied and was heard is convicted, of what it did; who was not met shows in the
        figures."""
        check, heard = self._check, 0
        world, client = check.world, self._client
        latest = world.now - self._grace - 4 * world.link.latency
        for name, (liar, code) in self._liars.items():
            times = [] if client is None else liar.told.get(client.node_id, [])
            times = [time for time in times if time > self._began]
            heard += bool(times)
            offence = self._convicted.get(name)
            if offence is not None and offence.code == code:
                continue
            if offence is not None and offence.points:
                was = f"{offence.value}: {offence.code.name}"
                check.violate(SAFETY, f"{name} lied ({code.name}) and was convicted of {was}")
                continue
            due = min(latest, self._left.get(name, world.now) - self._grace)
            if sum(time < due for time in times) > self._unread(world.host(name)):
                check.violate(SAFETY, f"{name} lied ({code.name}), was heard, and goes free")
        check.metrics["liars_heard"] = float(heard)
        check.metrics["liars_convicted"] = float(len(self._convicted))
        check.metrics["liars_not_met"] = float(len(self._liars) - heard)
        check.metrics["stallers_not_met"] = float(
            sum(not met.times for met in self._stallers.values())
        )
        check.metrics["slow_not_met"] = float(
            sum(not world.host(name).bytes_sent for name in self._lines)
            + sum(not met.times for met in self._slow.values())
        )
