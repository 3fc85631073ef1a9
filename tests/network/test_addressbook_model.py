"""Anything that may happen to an address book, in any order: its bounds and promises hold."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from helpers.book import OWN_ID, TurnedClock, far
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moderntensor.config import NodeConfig
from moderntensor.network.addressbook import AddressBook, KnownAddress
from moderntensor.network.addressbook.tables import Table
from moderntensor.network.addresses import Scope, netgroup, scope
from moderntensor.network.limits import (
    ADDRESS_BUCKET_SIZE,
    ADDRESS_COLLISIONS,
    NEW_BUCKETS,
    NEW_BUCKETS_PER_ADDRESS,
    OWN_ADDRESSES,
    TRIED_BUCKETS,
)

# Few enough that they meet again, in groups of four; and what no node may be dialled at.
HOSTS = st.sampled_from(
    [
        *(f"20.{number >> 2}.0.{number & 3}" for number in range(12)),
        *(f"2a00:{number >> 2}::{number & 3}" for number in range(4)),
        *("127.0.0.1", "10.0.0.1", "fd00::1"),
        *("0.0.0.0", "192.0.2.1", "2002:7f00:1::", "name"),  # noqa: S104
    ]
)
PORTS = st.integers(0, 2)
IDS = st.sampled_from([bytes([number]) * 32 for number in range(4)] + [OWN_ID])


class BookModel(RuleBasedStateMachine):
    """A small model: who is ours, who is connected, whom we have met."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = TurnedClock()
        self.config = NodeConfig()
        self.book = self.new_book()
        self.own: dict[tuple[str, int], None] = {}
        self.connected: set[tuple[str, int]] = set()
        self.met: set[tuple[str, int]] = set()

    def teardown(self) -> None:
        self.clock.close()
        shutil.rmtree(self.directory)

    def new_book(self) -> AddressBook:
        return AddressBook(self.config, self.clock, OWN_ID, self.directory)

    def free(self, entry: KnownAddress) -> bool:
        return entry.key not in self.connected

    @rule(host=HOSTS, port=PORTS, node_id=IDS, age=st.integers(-(10**6), 10**7), source=HOSTS)
    def learn(self, host: str, port: int, node_id: bytes, age: int, source: str) -> None:
        self.book.learn(host, port, node_id, max(0, int(self.clock.now) - age), source)

    @rule(number=st.integers(0, 20_000), source=HOSTS)
    def learn_many(self, number: int, source: str) -> None:
        for more in range(40):
            self.book.learn(far(number + more), 7, b"z" * 32, int(self.clock.now), source)

    @rule(host=HOSTS, port=PORTS, node_id=IDS)
    def meet(self, host: str, port: int, node_id: bytes) -> None:
        self.book.met(host, port, node_id)
        self.met.add((host, port))

    @rule(host=HOSTS.filter(lambda host: scope(host) is not Scope.NOWHERE), port=st.integers(1, 2))
    def bootstrap(self, host: str, port: int) -> None:
        if (host, port) not in self.own:
            self.book.add_bootstrap(host, port)

    @rule(host=HOSTS, port=PORTS)
    def ours(self, host: str, port: int) -> None:
        self.book.is_own(host, port)
        self.own.pop((host, port), None)
        self.own[host, port] = None
        if len(self.own) > OWN_ADDRESSES:
            del self.own[next(iter(self.own))]

    @rule(count=st.integers(0, 9), good=st.lists(st.booleans(), min_size=9, max_size=9))
    def dial(self, count: int, good: list[bool]) -> None:
        now, groups = self.clock.now, {"v4:1400"}
        chosen = self.book.due(now, count, wanted=self.free, groups=groups)
        assert len(chosen) <= count
        told = [netgroup(e.host) for e in chosen if not e.bootstrap and scope(e.host) is PUBLIC]
        assert len(set(told)) == len(told)
        assert not groups & set(told)
        for entry, reached in zip(chosen, good, strict=False):
            self.check_choice(entry)
            self.outcome(entry, reached)

    @rule(reached=st.booleans())
    def feel(self, reached: bool) -> None:
        entry = self.book.next_feeler(self.clock.now, wanted=self.free)
        if entry is not None:
            assert not entry.bootstrap
            self.check_choice(entry)
            self.outcome(entry, reached)

    def check_choice(self, entry: KnownAddress) -> None:
        assert entry.next_dial <= self.clock.now
        assert entry.key not in self.connected
        assert entry.key not in self.own
        assert entry.bootstrap or scope(entry.host) in (Scope.LOOPBACK, Scope.PRIVATE, PUBLIC)
        assert entry.bootstrap or entry.port

    def outcome(self, entry: KnownAddress, reached: bool) -> None:
        if reached:
            self.book.succeeded(*entry.key, b"q" * 32, entry.host)
            self.connected.add(entry.key)
            self.met.add(entry.key)
        else:
            self.book.failed(*entry.key)

    @precondition(lambda self: self.connected)
    @rule(data=st.data())
    def part(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.connected)))
        self.connected.discard(key)
        self.book.parted(*key)

    @rule(seconds=st.sampled_from([1.0, 60.0, 3600.0, 86400.0, 40 * 86400.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(asker=HOSTS, count=st.integers(0, 60))
    def tell(self, asker: str, count: int) -> None:
        told = self.book.sample(count, asker)
        assert len(told) <= count
        assert len({(r.ip, r.port) for r in told}) == len(told)

    @rule()
    def restart(self) -> None:
        async def again() -> AddressBook:
            await self.book.save()
            book = self.new_book()
            for key in self.own:
                book.is_own(*key)
            await book.load()
            return book

        before = self.book
        self.book = asyncio.run(again())
        self.connected.clear()
        if not before._changed and before._places.entries and not before._bootstrap:
            assert self.book._places.entries.keys() == before._places.entries.keys()

    @invariant()
    def everybody_has_a_right_place(self) -> None:
        places = self.book._places
        found = Counter(self.stand_in(places.new)) + Counter(self.stand_in(places.tried))
        assert found.keys() == set(places.entries.values())
        for entry, count in found.items():
            assert count == (1 if entry.tried else len(entry.sources))
            assert entry.tried is not bool(entry.sources)
            assert count <= NEW_BUCKETS_PER_ADDRESS
            assert places.entries[entry.key] is entry
        assert len(places.new.buckets()) <= NEW_BUCKETS
        assert len(places.tried.buckets()) <= TRIED_BUCKETS
        assert len(list(places.disputes())) <= ADDRESS_COLLISIONS

    def stand_in(self, table: Table) -> list[KnownAddress]:
        assert all(count <= ADDRESS_BUCKET_SIZE for count in table.buckets().values())
        return list(table.draw(self.clock.random))

    @invariant()
    def nobody_is_there_who_should_not_be(self) -> None:
        places = self.book._places
        for entry in places.entries.values():
            assert entry.key not in self.own
            assert entry.key not in self.book._bootstrap
            assert entry.port
        for key, entry in places.met.items():
            assert entry.met
            assert key in self.met
            assert self.book.get(*key) is not None


PUBLIC = Scope.PUBLIC
TestBookModel = BookModel.TestCase
TestBookModel.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
