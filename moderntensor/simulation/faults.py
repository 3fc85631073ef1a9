"""Faults: a small vocabulary, and schedules of them drawn from a seed, all lifted in the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from .lines import Line

if TYPE_CHECKING:
    from .checks import Checks
    from .host import Host
    from .world import World

__all__ = [
    "Crash",
    "Fault",
    "Faults",
    "OneWay",
    "Partition",
    "Reset",
    "Skew",
    "SlowLink",
    "draw_faults",
]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """From `start` to `end`, simulated seconds since the world began."""

    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Crash(Fault):
    """The host's process is killed, or its power gone (`silent`), and started again at the end;
    `orderly` stops it as an operator would."""

    host: str
    silent: bool = False
    orderly: bool = False


@dataclass(frozen=True, kw_only=True)
class Partition(Fault):
    """Nothing passes between this group and the others, either way."""

    group: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class OneWay(Fault):
    """Nothing passes from `senders` to `receivers`."""

    senders: frozenset[str]
    receivers: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Reset(Fault):
    """At the start all connections of a host end by a reset, or of two those between them."""

    hosts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Skew(Fault):
    """The host's wall clock is `seconds` ahead (behind if negative), `drift` more each second."""

    host: str
    seconds: float
    drift: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SlowLink(Fault):
    """The host's lines carry `rate` bytes/s each way."""

    host: str
    rate: float


@dataclass
class Faults:
    """Inflicts faults on a world. Those that overlap add up: a pair of hosts is apart until the
    last fault between them has ended, a host down until its last crash has."""

    world: World
    check: Checks
    _blocked: Counter[tuple[str, str]] = field(default_factory=Counter)
    _down: Counter[str] = field(default_factory=Counter)
    _clocks: dict[str, tuple[float, float]] = field(default_factory=dict)  # before any fault
    _lines: dict[str, Line | None] = field(default_factory=dict)  # likewise

    async def run(self, schedule: Sequence[Fault]) -> None:
        """All of `schedule`; returns when the last fault was lifted."""
        steps = [(fault.start, 0, i, True) for i, fault in enumerate(schedule)]
        steps += [(fault.end, 1, i, False) for i, fault in enumerate(schedule)]
        for at, _, i, begins in sorted(steps):
            if at > self.world.now:
                await asyncio.sleep(at - self.world.now)
            fault = schedule[i]
            self.world.trace.fault("begins" if begins else "ends", _shown(fault))
            if begins:
                await self._begin(fault)
            else:
                await self._lift(fault)

    async def _begin(self, fault: Fault) -> None:
        network = self.world.network
        match fault:
            case Crash():
                await self._stop(fault)
            case Partition():
                self._block(_across(self._names(), fault.group))
            case OneWay():
                self._block(_pairs(fault.senders, fault.receivers))
            case Reset():
                network.reset(*map(self._ip, fault.hosts))
            case Skew():
                host = self._host(fault.host)
                self._clocks.setdefault(host.name, (host.skew, host.drift))
                self.check.clock_changes(host)
                host.skew, host.drift = fault.seconds, fault.drift
                self.check.clock_changes(host)
            case SlowLink():
                host = self._host(fault.host)
                self._lines.setdefault(host.name, host.line)
                host.line = Line(fault.rate, fault.rate)

    async def _lift(self, fault: Fault) -> None:
        match fault:
            case Crash():
                self._down[fault.host] -= 1
                if not self._down[fault.host]:
                    await self._host(fault.host).restart()
            case Partition():
                self._unblock(_across(self._names(), fault.group))
            case OneWay():
                self._unblock(_pairs(fault.senders, fault.receivers))
            case Skew():
                host = self._host(fault.host)
                self.check.clock_changes(host)
                host.skew, host.drift = self._clocks[host.name]
            case SlowLink():
                self._host(fault.host).line = self._lines[fault.host]

    async def _stop(self, fault: Crash) -> None:
        self._down[fault.host] += 1
        host = self._host(fault.host)
        if not host.up:
            return
        if fault.orderly:
            await host.stop()
        else:
            await host.crash(silent=fault.silent)

    def _block(self, pairs: list[tuple[str, str]]) -> None:
        for pair in pairs:
            self._blocked[pair] += 1
            if self._blocked[pair] == 1:
                self.world.network.block(self._ip(pair[0]), self._ip(pair[1]))

    def _unblock(self, pairs: list[tuple[str, str]]) -> None:
        over = []
        for pair in pairs:
            self._blocked[pair] -= 1
            if not self._blocked[pair]:
                over.append((self._ip(pair[0]), self._ip(pair[1])))
        self.world.network.unblock_all(over)

    def _names(self) -> list[str]:
        return [host.name for host in self.world.hosts]

    def _host(self, name: str) -> Host:
        return self.world.host(name)

    def _ip(self, name: str) -> str:
        return self.world.host(name).ip


def _shown(fault: Fault) -> str:
    """The same text whatever the order of a set."""
    shown = []
    for name, value in vars(fault).items():
        text = ",".join(sorted(value)) if isinstance(value, frozenset) else str(value)
        shown.append(f"{name}={text}")
    return f"{type(fault).__name__} {' '.join(shown)}"


def _pairs(senders: frozenset[str], receivers: frozenset[str]) -> list[tuple[str, str]]:
    return [(a, b) for a in sorted(senders) for b in sorted(receivers) if a != b]


def _across(names: Sequence[str], group: frozenset[str]) -> list[tuple[str, str]]:
    others = frozenset(names) - group
    return _pairs(group, others) + _pairs(others, group)


KINDS: Final = ("crash", "partition", "one_way", "reset", "skew", "slow")


def draw_faults(
    random: Random,
    names: Sequence[str],
    *,
    start: float,
    end: float,
    count: int,
    kinds: Sequence[str] = KINDS,
    longest: float = 120.0,
) -> list[Fault]:
    """`count` faults between `start` and `end`, each up to `longest` seconds; the shares of the
    kinds, their times, lengths and victims are all drawn. ValueError for an unknown kind."""
    weights = [random.random() + 0.05 for _ in kinds]
    faults = []
    for _ in range(count):
        begin = random.uniform(start, end)
        until = min(end, begin + random.uniform(0.05, 1.0) ** 2 * longest)
        kind = random.choices(kinds, weights)[0]
        faults.append(_draw(random, kind, names, begin, until))
    return faults


def _draw(random: Random, kind: str, names: Sequence[str], start: float, end: float) -> Fault:
    host = random.choice(names)
    match kind:
        case "crash":
            return Crash(
                start=start,
                end=end,
                host=host,
                silent=random.random() < 0.4,
                orderly=random.random() < 0.2,
            )
        case "partition":
            size = random.randint(1, max(1, len(names) // 2))
            return Partition(start=start, end=end, group=frozenset(random.sample(names, size)))
        case "one_way":
            size = random.randint(1, max(1, len(names) // 3))
            chosen = frozenset(random.sample(names, size))
            others = frozenset(names) - chosen
            pair = (chosen, others) if random.random() < 0.5 else (others, chosen)
            return OneWay(start=start, end=end, senders=pair[0], receivers=pair[1])
        case "reset":
            return Reset(
                start=start, end=start, hosts=tuple(random.sample(names, random.choice((1, 2))))
            )
        case "skew":
            seconds = random.choice((-1, 1)) * random.uniform(1, 12) ** 2
            drift = random.uniform(-0.01, 0.01)
            return Skew(start=start, end=end, host=host, seconds=seconds, drift=drift)
        case "slow":
            return SlowLink(start=start, end=end, host=host, rate=random.uniform(2_000, 50_000))
    raise ValueError(f"no kind of fault {kind!r}")
