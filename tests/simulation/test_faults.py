"""Faults add up where they overlap, and all of them end."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from moderntensor.simulation.faults import (
    KINDS,
    Crash,
    Fault,
    Faults,
    OneWay,
    Partition,
    Reset,
    Skew,
    SlowLink,
    draw_faults,
)

NAMES = ["a", "b", "c", "d"]


class ToyHost:
    """Says what is done to it."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = self.ip = name
        self.log = log
        self.up = True
        self.skew, self.drift = 1.0, 0.0
        self._line: Any = "its line"

    @property
    def line(self) -> Any:
        return self._line

    @line.setter
    def line(self, line: Any) -> None:
        self._line = line
        self.log.append(f"line {self.name} {getattr(line, 'up', line)}")

    async def stop(self) -> None:
        self.up = False
        self.log.append(f"stop {self.name}")

    async def crash(self, *, silent: bool = False) -> None:
        self.up = False
        self.log.append(f"crash {self.name} {silent}")

    async def restart(self) -> None:
        assert not self.up
        self.up = True
        self.log.append(f"restart {self.name}")


class ToyNetwork:
    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.blocked: set[tuple[str, str]] = set()

    def block(self, a: str, b: str) -> None:
        self.blocked.add((a, b))
        self.log.append(f"{a}-{b}")

    def unblock_all(self, pairs: list[tuple[str, str]]) -> None:
        for a, b in pairs:
            self.blocked.remove((a, b))
            self.log.append(f"{a}+{b}")

    def reset(self, a: str, b: str | None = None) -> None:
        self.log.append(f"reset {a} {b}")


async def inflict(*schedule: Fault) -> tuple[list[str], ToyNetwork]:
    """What happens, all of it long ago, so that nothing is waited for."""
    log: list[str] = []
    hosts = {name: ToyHost(name, log) for name in NAMES}
    network = ToyNetwork(log)
    world: Any = SimpleNamespace(
        now=1000.0,
        hosts=list(hosts.values()),
        host=hosts.__getitem__,
        network=network,
        trace=SimpleNamespace(fault=lambda *fields: None),
    )

    def clock_changes(host: ToyHost) -> None:
        log.append(f"clock {host.name} {host.skew:g} {host.drift:g}")

    await Faults(world, SimpleNamespace(clock_changes=clock_changes)).run(schedule)  # type: ignore[arg-type]
    assert all(host.up and host.skew == 1.0 and host.drift == 0.0 for host in hosts.values())
    assert not network.blocked
    return log, network


async def test_a_pair_is_apart_until_the_last_fault_between_them_ends() -> None:
    log, _ = await inflict(
        Partition(start=0, end=5, group=frozenset("a")),
        OneWay(start=1, end=9, senders=frozenset("ab"), receivers=frozenset("bc")),
    )
    apart = ["a-b", "a-c", "a-d", "b-a", "c-a", "d-a"]
    assert log[:6] == apart
    assert log[6:7] == ["b-c"]
    assert log[7:11] == ["a+d", "b+a", "c+a", "d+a"]
    assert log[11:] == ["a+b", "a+c", "b+c"]


async def test_a_host_is_down_until_its_last_crash_ends() -> None:
    log, _ = await inflict(
        Crash(start=0, end=5, host="a", silent=True),
        Crash(start=1, end=3, host="a"),
        Crash(start=6, end=7, host="a", orderly=True),
    )
    assert log == ["crash a True", "restart a", "stop a", "restart a"]


async def test_the_others_do_what_they_say() -> None:
    log, _ = await inflict(
        Reset(start=0, end=0, hosts=("a",)),
        Reset(start=1, end=1, hosts=("a", "b")),
        Skew(start=2, end=4, host="c", seconds=-60.0, drift=0.1),
        SlowLink(start=5, end=6, host="d", rate=1000.0),
    )
    assert log == [
        "reset a None",
        "reset a b",
        "clock c 1 0",
        "clock c -60 0.1",
        "clock c -60 0.1",
        "line d 1000.0",
        "line d its line",
    ]


def test_schedules_are_drawn_from_the_seed_alone() -> None:
    def draw(seed: int) -> list[Fault]:
        return draw_faults(Random(seed), NAMES, start=10.0, end=50.0, count=60, longest=30.0)

    drawn = draw(1)
    assert drawn == draw(1) != draw(2)
    assert {type(fault) for fault in drawn} == {Crash, Partition, OneWay, Reset, Skew, SlowLink}
    assert all(10.0 <= fault.start <= fault.end <= 50.0 for fault in drawn)
    assert all(fault.end - fault.start <= 30.0 for fault in drawn)


def test_only_the_kinds_that_are_asked_for() -> None:
    drawn = draw_faults(Random(1), NAMES, start=0, end=9, count=50, kinds=("skew",))
    assert {type(fault) for fault in drawn} == {Skew}
    assert len(KINDS) == 6
    with pytest.raises(ValueError, match="flood"):
        draw_faults(Random(1), NAMES, start=0, end=9, count=1, kinds=("flood",))
