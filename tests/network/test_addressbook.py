"""The address book: what it takes in, where that stands, whom it would dial and whom it tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from helpers.book import OWN_ID, SOMEONE, anyone, far, make_book, public
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor.network.addressbook import AddressBook, KnownAddress
from moderntensor.network.addressbook.tables import NewTable, TriedTable
from moderntensor.network.addresses import netgroup, to_wire
from moderntensor.network.limits import (
    ADDRESS_ANSWER_TIME,
    ADDRESS_BUCKET_SIZE,
    ADDRESS_COLLISIONS,
    ADDRESS_GIVE_UP,
    ADDRESS_HORIZON,
    ADDRESS_NEW_GIVE_UP,
    ADDRESS_PENALTY,
    ADDRESS_REPLACEMENT,
    ADDRESS_SHARE,
    ADDRESS_SHARE_MIN,
    ADDRESS_SOURCES,
    ADDRESS_TEST_WINDOW,
    ADDRESS_UNKNOWN_AGE,
    ADDRESSES_BURST,
    ADDRESSES_PER_SECOND,
    NEW_BUCKETS_PER_ADDRESS,
    NEW_BUCKETS_PER_SOURCE,
    OWN_ADDRESSES,
    TRIED_BUCKETS_PER_GROUP,
)
from moderntensor.network.messages import PeerRecord

LOOPBACK = "127.0.0.1"
SOURCE = "9.9.9.9"


def entry_of(book: AddressBook, host: str, port: int = 1) -> KnownAddress:
    entry = book.get(host, port)
    assert entry is not None
    return entry


def reach(book: AddressBook, hosts: Iterable[str]) -> None:
    """Have addresses told by themselves, dialled and reached."""
    for host in hosts:
        book.learn(host, 1, SOMEONE, 0, host)
        book.succeeded(host, 1, SOMEONE, host)


def rivals(book: AddressBook) -> tuple[KnownAddress, KnownAddress]:
    """A tried address and one that was reached while the first held its place."""
    for number in range(10_000):
        host = far(number)
        reach(book, [host])
        entry = book.get(host, 1)
        if entry is not None and not entry.tried:
            table = book._places.tried
            holder = table.get(table.place(entry))
            assert holder is not None
            return holder, entry
    raise AssertionError("nobody met anybody")


# --- what is dialled when ------------------------------------------------------------------


def test_failures_back_off_and_are_given_up() -> None:
    book, clock = make_book(redial_interval=30.0, redial_max=600.0)
    book.learn("8.8.8.8", 1, SOMEONE, 0, SOURCE)
    reach(book, ["30.0.0.1"])
    waits = []
    for _ in range(ADDRESS_GIVE_UP - 1):
        book.failed("8.8.8.8", 1)
        waits.append(entry_of(book, "8.8.8.8").next_dial - clock.now)
    for number, wait in enumerate(waits):
        middle = min(30.0 * 2**number, 600.0)
        assert 0.75 * middle <= wait <= 1.25 * middle
    # While nobody at all is reached, it is our own line that is down.
    book.failed("8.8.8.8", 1)
    assert ("8.8.8.8", 1) in book
    clock.now += 1.0
    book.succeeded("30.0.0.1", 1, SOMEONE, "30.0.0.1")
    book.failed("8.8.8.8", 1)
    assert ("8.8.8.8", 1) not in book


def test_a_bootstrap_address_is_never_given_up() -> None:
    book, clock = make_book(bootstrap_redial=1.0, bootstrap_redial_max=60.0)
    entry = book.add_bootstrap("boot.example", 1, SOMEONE)
    assert entry.expected_id == SOMEONE
    for _ in range(2000):
        book.failed("boot.example", 1)
    assert 45.0 <= entry.next_dial - clock.now <= 75.0
    assert book.due(clock.now, 1, wanted=anyone) == []
    assert book.next_due(anyone) == entry.next_dial
    clock.now = entry.next_dial
    assert book.due(clock.now, 1, wanted=anyone) == [entry]


def test_one_netgroup_is_dialled_once_but_this_machine_often() -> None:
    book, clock = make_book()
    for host in ("20.1.1.1", "20.1.2.2", "20.1.3.3", "30.1.1.1", "2a00:1::1", "2a00:1:ffff::2"):
        book.learn(host, 1, SOMEONE, 0, host)
    picked = book.due(clock.now, 99, wanted=anyone)
    assert sorted(netgroup(e.host) for e in picked) == ["v4:1401", "v4:1e01", "v6:2a000001"]
    others = book.due(clock.now, 99, wanted=anyone, groups=[netgroup("20.1.9.9")])
    assert sorted(netgroup(e.host) for e in others) == ["v4:1e01", "v6:2a000001"]
    for exempt, count in ((True, 8), (False, 1)):
        local, clock = make_book(exempt_local=exempt)
        kept = [local.learn(LOOPBACK, port, SOMEONE, 0, LOOPBACK) for port in range(1, 9)]
        assert sum(kept) >= 5
        assert len(local.due(clock.now, 99, wanted=anyone)) == count


def test_tried_and_new_addresses_have_equal_chance() -> None:
    book, clock = make_book()
    reach(book, map(far, range(10)))
    for number in range(1000, 4000):
        book.learn(far(number), 1, SOMEONE, 0, far(number + 1))
    clock.now += 3600.0
    counts = book.counts
    assert counts["tried"] >= 9
    assert counts["new"] > 2000
    picked = [book.due(clock.now, 1, wanted=anyone)[0].tried for _ in range(1000)]
    assert 430 < sum(picked) < 570


def test_who_failed_is_chosen_less_but_rather_than_nobody() -> None:
    book, clock = make_book()
    for number in range(8):
        book.learn(far(number), 1, SOMEONE, 0, far(number))
    entries = [entry_of(book, far(number)) for number in range(8)]
    for entry in entries[:4]:
        entry.failures = 8
    first = Counter(book.due(clock.now, 1, wanted=anyone)[0].failures for _ in range(1000))
    assert first[8] < 100
    assert len(book.due(clock.now, 8, wanted=anyone)) == 8
    assert len(book.due(clock.now, 4, wanted=lambda e: e.failures > 0)) == 4


def test_what_is_not_wanted_or_not_due_is_not_chosen() -> None:
    book, clock = make_book()
    for number in range(100):
        book.learn(far(number), 1, SOMEONE, 0, far(number))
    postponed = {entry.key for entry in book.due(clock.now, 50, wanted=anyone)}
    for key in postponed:
        book.postpone(*key, 60.0)
    rest = book.due(clock.now, 99, wanted=lambda e: e.host != far(7))
    assert not postponed & {entry.key for entry in rest}
    assert far(7) not in {entry.host for entry in rest}
    assert book.next_due(lambda e: e.key in postponed) == clock.now + 60.0
    assert book.next_due(anyone) == 0.0
    assert book.next_due(lambda _: False) is None


# --- what is learned -------------------------------------------------------------------------


def test_peers_that_say_where_we_are_cannot_take_an_address_from_us() -> None:
    book, _ = make_book()
    book.add_bootstrap("30.0.0.1", 7)
    book.met("30.0.0.2", 7, SOMEONE)
    book.learn("30.0.0.3", 7, SOMEONE, 0, "30.0.0.3")
    for number in range(1, 5):
        book.seems_own(f"30.0.0.{number}", 7)
    assert [(f"30.0.0.{number}", 7) in book for number in range(1, 5)] == [True, True, False, False]
    assert not book.learn("30.0.0.4", 7, SOMEONE, 0, "30.0.0.3")
    book.is_own("30.0.0.1", 7)  # we have met ourselves there
    assert ("30.0.0.1", 7) not in book


def test_what_no_node_can_be_at_is_not_learned() -> None:
    book, _ = make_book()
    book.is_own("30.0.0.1", 7)
    for host, port, node_id, source in (
        ("8.8.8.8", 0, SOMEONE, SOURCE),
        ("8.8.8.8", 1, OWN_ID, SOURCE),
        ("30.0.0.1", 7, SOMEONE, SOURCE),
        ("0.0.0.0", 1, SOMEONE, SOURCE),  # noqa: S104
        ("224.0.0.1", 1, SOMEONE, SOURCE),
        ("240.0.0.1", 1, SOMEONE, SOURCE),
        ("192.0.2.1", 1, SOMEONE, SOURCE),
        ("2001:db8::1", 1, SOMEONE, SOURCE),
        ("::", 1, SOMEONE, SOURCE),
        ("10.0.0.1", 1, SOMEONE, SOURCE),
        (LOOPBACK, 1, SOMEONE, SOURCE),
        ("2002:7f00:1::", 1, SOMEONE, LOOPBACK),
        ("name.example", 1, SOMEONE, SOURCE),
    ):
        assert not book.learn(host, port, node_id, 0, source), host
    assert not len(book)
    assert book.learn("30.0.0.1", 8, SOMEONE, 0, SOURCE)
    assert book.learn("::ffff:8.8.8.8", 1, SOMEONE, 0, SOURCE)
    assert not book.learn("8.8.8.8", 1, SOMEONE, 0, SOURCE)
    assert ("8.8.8.8", 1) in book


def test_ages_are_judged() -> None:
    book, clock = make_book()
    now = int(clock.now)
    for host, told, seen in (
        ("20.1.0.1", now - 100, now - 100 - ADDRESS_PENALTY),
        ("20.2.0.1", now + 60, now - ADDRESS_PENALTY),
        ("20.3.0.1", 2**64 - 1, now - ADDRESS_UNKNOWN_AGE - ADDRESS_PENALTY),
        ("20.4.0.1", 0, now - ADDRESS_UNKNOWN_AGE - ADDRESS_PENALTY),
    ):
        assert book.learn(host, 1, SOMEONE, told, SOURCE)
        assert entry_of(book, host).last_seen == seen
    assert not book.learn("20.5.0.1", 1, SOMEONE, now - int(ADDRESS_HORIZON), SOURCE)
    assert book.learn("20.6.0.1", 1, SOMEONE, now - 5, "20.6.0.1")
    assert entry_of(book, "20.6.0.1").last_seen == now - 5


def test_an_id_that_is_told_is_not_believed() -> None:
    book, _ = make_book()
    book.learn("8.8.8.8", 1, SOMEONE, 0, SOURCE)
    assert entry_of(book, "8.8.8.8").node_id is None
    book.met("8.8.8.8", 1, SOMEONE)
    assert entry_of(book, "8.8.8.8").node_id == SOMEONE


def test_one_group_may_tell_so_much_and_no_more() -> None:
    book, clock = make_book()
    record = PeerRecord(node_id=SOMEONE, ip=bytes(16), port=1, last_seen=0)
    told = 0

    def tell(count: int, source: str) -> int:
        nonlocal told
        told += count
        numbers = range(told - count, told)
        before = len(book)
        book.learn_records([record.replace(ip=to_wire(far(n))) for n in numbers], source)
        return len(book) - before

    # Some find their place taken: the buckets that one group reaches are 1,024 places.
    assert 500 < tell(5000, "66.6.0.1") <= ADDRESSES_BURST
    # Another address of the same group, so also a new connection, has nothing left either.
    assert tell(100, "66.6.7.7") == 0
    clock.now += 100.0 / ADDRESSES_PER_SECOND
    assert 20 < tell(1000, "66.6.0.1") <= 101
    assert tell(10, "67.0.0.1") > 5
    for number in range(2 * ADDRESS_SOURCES):
        book.learn("8.8.8.8", number % 65535 + 1, SOMEONE, 0, far(number))
    assert len(book._intake._allowances) == ADDRESS_SOURCES


def test_own_addresses_are_bounded_and_forgotten_in_turn() -> None:
    book, _ = make_book()
    book.add_bootstrap("20.0.0.1", 1)
    for number in range(OWN_ADDRESSES + 1):
        book.is_own("20.0.0.1", number + 1)
    assert ("20.0.0.1", 1) not in book
    assert book.learn("20.0.0.1", 1, SOMEONE, 0, SOURCE)
    assert not book.learn("20.0.0.1", 2, SOMEONE, 0, SOURCE)


# --- where it stands ---------------------------------------------------------------------------


def places_of(book: AddressBook, entry: KnownAddress) -> set[tuple[int, int]]:
    """The places of an entry in both tables, found by looking at each."""
    found = set()
    for table in (book._places.new, book._places.tried):
        for bucket in table.buckets():
            first = bucket * ADDRESS_BUCKET_SIZE
            found |= {
                (id(table), place)
                for place in range(first, first + ADDRESS_BUCKET_SIZE)
                if table.get(place) is entry
            }
    return found


def test_one_source_reaches_few_buckets_of_new_ones() -> None:
    book, clock = make_book()
    for number in range(8_000):
        clock.now += 1.0 / ADDRESSES_PER_SECOND
        book.learn(far(number), 1, SOMEONE, 0, "66.6.0.1")
    buckets = book._places.new.buckets()
    assert len(buckets) <= NEW_BUCKETS_PER_SOURCE
    assert len(book) <= NEW_BUCKETS_PER_SOURCE * ADDRESS_BUCKET_SIZE
    assert len(book) > 0.9 * NEW_BUCKETS_PER_SOURCE * ADDRESS_BUCKET_SIZE


def test_one_group_reaches_few_buckets_of_either_table() -> None:
    book, _ = make_book()
    for number in range(2000):
        book.learn(public(number), 1, SOMEONE, 0, public(number))
    assert len(book._places.new.buckets()) == 1  # one group that told of one group
    reach(book, map(public, range(2000)))
    tried = book._places.tried.buckets()
    assert 1 <= len(tried) <= TRIED_BUCKETS_PER_GROUP
    assert book.counts["tried"] <= TRIED_BUCKETS_PER_GROUP * ADDRESS_BUCKET_SIZE


def test_an_address_has_a_few_places_at_most() -> None:
    book, clock = make_book()
    for number in range(3000):
        clock.now += 1.0
        book.learn("8.8.8.8", 1, SOMEONE, int(clock.now), far(number))
    entry = entry_of(book, "8.8.8.8")
    assert len(entry.sources) == len(places_of(book, entry)) == NEW_BUCKETS_PER_ADDRESS
    book.succeeded("8.8.8.8", 1, SOMEONE, "8.8.8.8")
    assert entry.tried
    assert len(places_of(book, entry)) == 1
    assert not len(book._places.new)


@settings(max_examples=20)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_the_key_alone_decides_where_an_address_stands(key: bytes, other: bytes) -> None:
    entries = [KnownAddress(far(number), 1) for number in range(40)]

    def places(secret: bytes) -> list[tuple[int, int]]:
        new = NewTable(secret, lambda e: netgroup(e.host))
        tried = TriedTable(secret, lambda e: netgroup(e.host))
        return [(new.place(e, "v4:0909"), tried.place(e)) for e in entries]

    assert places(key) == places(key)
    assert (places(key) == places(other)) == (key == other)


def test_a_good_address_is_not_displaced_a_terrible_one_is() -> None:
    book, clock = make_book()
    for number in range(2000):
        clock.now += 10.0
        book.learn(public(number), 1, SOMEONE, int(clock.now), SOURCE)
    held = set(book._places.entries)
    assert len(held) == ADDRESS_BUCKET_SIZE

    def tell_more() -> set[tuple[str, int]]:
        for number in range(2000, 3000):
            clock.now += 10.0
            book.learn(public(number), 1, SOMEONE, int(clock.now), SOURCE)
        return set(book._places.entries)

    assert tell_more() == held
    for entry in book._places.entries.values():
        entry.failures = ADDRESS_NEW_GIVE_UP
    assert not tell_more() & held
    assert len(book) == ADDRESS_BUCKET_SIZE


def test_what_makes_an_address_terrible() -> None:
    wall, now = 1e9, 5e5
    seen = int(wall) - 3600
    good = KnownAddress("8.8.8.8", 1, last_seen=seen)
    assert not good.is_terrible(wall, now)
    month = int(wall - ADDRESS_HORIZON) - 1
    week = int(wall) - 8 * 86400
    for terrible in (
        KnownAddress("8.8.8.8", 1, last_seen=month),
        KnownAddress("8.8.8.8", 1, last_seen=int(wall) + 3600),
        KnownAddress("8.8.8.8", 1, last_seen=seen, failures=ADDRESS_NEW_GIVE_UP),
        KnownAddress("8.8.8.8", 1, last_seen=seen, last_success=week, failures=ADDRESS_GIVE_UP),
    ):
        assert terrible.is_terrible(wall, now)
        terrible.last_try = now - 30.0
        assert not terrible.is_terrible(wall, now)
    reached = KnownAddress("8.8.8.8", 1, last_seen=seen, last_success=seen, failures=50)
    assert not reached.is_terrible(wall, now)


# --- test before evict -------------------------------------------------------------------------


def test_an_old_address_that_answers_keeps_its_place() -> None:
    book, clock = make_book()
    holder, newcomer = rivals(book)
    # Reached a moment ago, it needs no test.
    assert book.next_feeler(clock.now, wanted=lambda e: e.tried) is None
    clock.now += ADDRESS_REPLACEMENT + 1.0
    book.succeeded(*newcomer.key, SOMEONE, newcomer.host)
    assert book.next_feeler(clock.now, wanted=lambda e: e.tried) is holder
    book.succeeded(*holder.key, SOMEONE, holder.host)
    assert book.next_feeler(clock.now, wanted=lambda e: e.tried) is None
    assert holder.tried
    assert not newcomer.tried
    assert newcomer.key in book


def test_an_old_address_that_fails_makes_room() -> None:
    book, clock = make_book()
    holder, newcomer = rivals(book)
    clock.now += ADDRESS_REPLACEMENT + 1.0
    book.succeeded(*newcomer.key, SOMEONE, newcomer.host)
    assert book.next_feeler(clock.now, wanted=anyone) is holder
    book.failed(*holder.key)
    assert newcomer.tried
    assert not holder.tried
    assert holder.key in book
    assert len(places_of(book, holder)) == len(places_of(book, newcomer)) == 1


@pytest.mark.parametrize("connected", [False, True])
def test_who_cannot_be_tested_in_time_makes_room_but_not_who_is_connected(connected: bool) -> None:
    book, clock = make_book()
    holder, newcomer = rivals(book)
    clock.now += ADDRESS_REPLACEMENT + 1.0
    book.succeeded(*newcomer.key, SOMEONE, newcomer.host)
    clock.now += ADDRESS_TEST_WINDOW + 1.0
    book.next_feeler(clock.now, wanted=lambda _: not connected)
    assert newcomer.tried is not connected
    assert holder.tried is connected


def test_those_that_wait_for_a_test_are_bounded() -> None:
    book, clock = make_book()
    reach(book, map(far, range(2000)))
    assert len(list(book._places.disputes())) == ADDRESS_COLLISIONS
    clock.now += ADDRESS_REPLACEMENT + 1.0
    for newcomer, holder in book._places.disputes():
        book._places.remove(holder)
        assert newcomer.key in book
    assert not list(book._places.disputes())
    # Nobody waits: a feeler goes to a new one.
    feeler = book.next_feeler(clock.now, wanted=anyone)
    assert feeler is not None
    assert not feeler.tried


# --- what is told ------------------------------------------------------------------------------


def test_only_those_that_we_met_are_told_and_only_where_they_mean_something() -> None:
    book, _ = make_book()
    book.learn("8.8.8.8", 1, SOMEONE, 0, SOURCE)
    assert book.sample(10, SOURCE) == []
    book.met("8.8.4.4", 2, SOMEONE)
    book.met(LOOPBACK, 3, SOMEONE)
    book.add_bootstrap("name.example", 4)
    book.succeeded("name.example", 4, SOMEONE, "20.0.0.1")
    (record,) = book.sample(10, SOURCE)
    assert (record.ip, record.port, record.node_id) == (to_wire("8.8.4.4"), 2, SOMEONE)
    assert len(book.sample(10, LOOPBACK)) == 2


def test_asking_again_tells_nothing_more() -> None:
    book, clock = make_book()
    for number in range(1000):
        book.met(far(number), 1, SOMEONE)
    known = book.counts["met"]
    seen: set[bytes] = set()
    for _ in range(100):
        told = book.sample(51, SOURCE)
        assert len(told) == 51
        seen |= {record.ip for record in told}
    assert ADDRESS_SHARE_MIN <= len(seen) <= ADDRESS_SHARE * known
    for number in range(1000, 1100):
        book.met(far(number), 1, SOMEONE)
    assert {r.ip for r in book.sample(250, SOURCE)} == seen
    clock.now += ADDRESS_ANSWER_TIME
    assert {r.ip for r in book.sample(250, SOURCE)} != seen


def test_a_young_book_tells_of_those_that_come_later_too() -> None:
    book, _ = make_book()
    for number in range(ADDRESS_SHARE_MIN):
        book.met(LOOPBACK, number + 1, SOMEONE)
        assert len(book.sample(250, LOOPBACK)) == len(book)
    for number in range(ADDRESS_SHARE_MIN, 5 * ADDRESS_SHARE_MIN):
        book.met(LOOPBACK, number + 1, SOMEONE)
        told = {record.port for record in book.sample(250, LOOPBACK)}
        assert len(told) >= min(ADDRESS_SHARE_MIN, len(book))
    assert max(told) > 2 * ADDRESS_SHARE_MIN


# --- names ---------------------------------------------------------------------------------------


def test_a_name_and_where_it_led_share_their_fate() -> None:
    book, clock = make_book()
    entry = book.add_bootstrap("boot.example", 1)
    book.succeeded("boot.example", 1, SOMEONE, "8.8.8.8")
    book.postpone("8.8.8.8", 1, 600.0)
    assert entry.next_dial == clock.now + 600.0
    assert book.get("8.8.8.8", 1) is entry


def test_all_addresses_of_a_name_are_candidates() -> None:
    book, clock = make_book()
    name = book.add_bootstrap("boot.example", 1)
    book.resolved("boot.example", 1, ["8.8.8.8"])  # nothing that the name does not give
    book.resolved("other.example", 1, ["20.0.0.1", "30.0.0.1"])
    assert len(book) == 1
    book.resolved("boot.example", 1, ["8.8.8.8", "2a00::1", "30.0.0.1"])
    assert len(book.due(clock.now, 9, wanted=anyone)) == len(book) == 4
    book.succeeded("boot.example", 1, SOMEONE, "2a00::1")
    entry = book._places.entries["2a00::1", 1]
    assert entry.tried
    book.parted("2a00::1", 1)
    assert min(entry.next_dial, name.next_dial) > clock.now
    expecting, _ = make_book()
    expecting.add_bootstrap("boot.example", 1, SOMEONE)
    expecting.resolved("boot.example", 1, ["8.8.8.8", "30.0.0.1"])
    assert len(expecting) == 1  # one node is meant, which only the name leads to
