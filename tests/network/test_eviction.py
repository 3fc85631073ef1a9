"""Who makes room: the merits, one by one, and what an attacker cannot do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moderntensor.network.eviction import Candidate, select_to_evict

KEY = b"k" * 16


def crowd(count: int, *, groups: int = 1, first: int = 0, since: float = 1000.0) -> list[Candidate]:
    """Peers without merits, each younger than the one before, of some netgroups in turn."""
    return [
        Candidate(number=first + i, netgroup=f"crowd{i % groups}", connected_at=since + i)
        for i in range(count)
    ]


def evicted_in_turn(candidates: list[Candidate], count: int) -> list[Candidate]:
    """Who goes first, second and so on while nobody comes in their place."""
    left, gone = list(candidates), []
    for _ in range(count):
        victim = select_to_evict(left, KEY)
        assert victim is not None
        left.remove(victim)
        gone.append(victim)
    return gone


def test_nobody_is_there_and_a_single_one_stays() -> None:
    assert select_to_evict([], KEY) is None
    assert select_to_evict(crowd(1), KEY) is None


def test_the_youngest_of_the_largest_netgroup_goes() -> None:
    few = [replace(c, netgroup="few") for c in crowd(3, first=100, since=5000.0)]
    many = crowd(60)
    assert select_to_evict([*few, *many], KEY) == many[-1]
    # Between equally large groups the youngest of all.
    pair = [Candidate(1, "a", 1.0), Candidate(2, "b", 2.0)]
    assert select_to_evict(pair, KEY) == pair[1]


@pytest.mark.parametrize(
    ("merit", "places"),
    [
        ({"min_latency": 0.001}, 8),
        ({"last_transaction_at": 9999.0}, 4),
        ({"last_block_at": 9999.0}, 4),
    ],
    ids=["latency", "transactions", "blocks"],
)
def test_a_merit_protects_so_many(merit: dict[str, float], places: int) -> None:
    """The same as the others in all else, and younger than they are."""
    rest = [
        replace(c, min_latency=1.0, last_transaction_at=1.0, last_block_at=1.0) for c in crowd(60)
    ]
    worthy = [replace(c, **merit) for c in crowd(places, first=500, since=9000.0)]
    assert not set(evicted_in_turn([*rest, *worthy], 20)) & set(worthy)
    plain = crowd(places, first=500, since=9000.0)
    assert select_to_evict([*rest, *plain], KEY) in plain  # the merit it was


def test_some_netgroups_are_protected_and_only_the_key_tells_which() -> None:
    candidates = crowd(40, groups=40)
    victims = {select_to_evict(candidates, bytes([key]) * 16) for key in range(64)}
    assert len(victims) > 1
    assert victims <= set(candidates[-5:])  # the youngest, but for those of four netgroups


def test_who_has_been_here_longest_stays() -> None:
    candidates = crowd(40, groups=40)
    assert not set(evicted_in_turn(candidates, 10)) & set(candidates[:10])


# --- for any candidates ------------------------------------------------------------------------

moments = st.none() | st.floats(0.0, 1e6)


@st.composite
def tables(draw: st.DrawFn, groups: int = 12) -> list[Candidate]:
    count = draw(st.integers(0, 60))
    return [
        Candidate(
            number=number,
            netgroup=f"g{draw(st.integers(0, groups - 1))}",
            connected_at=draw(st.floats(0.0, 1e6)),
            min_latency=draw(moments),
            last_transaction_at=draw(moments),
            last_block_at=draw(moments),
        )
        for number in range(count)
    ]


@settings(max_examples=25)
@given(tables(), st.randoms(use_true_random=False))
def test_of_two_or_more_one_goes_whatever_their_order(table: list[Candidate], random: Any) -> None:
    """A table that protects everyone could be filled once and for all."""
    mixed = list(table)
    random.shuffle(mixed)
    victim = select_to_evict(table, KEY)
    assert victim == select_to_evict(mixed, KEY)
    assert (victim in table) if len(table) > 1 else victim is None


@st.composite
def sieges(draw: st.DrawFn) -> tuple[list[Candidate], list[Candidate]]:
    """Honest peers of as many netgroups, and an attacker who holds all other places: younger,
    but quicker, and with more news than any of them."""
    places = draw(st.integers(8, 60))
    honest = crowd(draw(st.integers(1, places // 4)), since=0.0)
    honest = [replace(c, netgroup=f"honest{c.number}") for c in honest]
    groups = draw(st.integers(1, 200))
    attackers = [
        replace(
            c,
            netgroup=f"attacker{c.number % groups}",
            min_latency=draw(moments),
            last_transaction_at=draw(moments),
            last_block_at=draw(moments),
        )
        for c in crowd(places - len(honest), first=1000)
    ]
    return honest, attackers


@settings(max_examples=25)
@given(sieges(), st.integers(1, 40), st.binary(min_size=16, max_size=16))
def test_however_often_an_attacker_comes_again_the_eldest_stay(
    siege: tuple[list[Candidate], list[Candidate]], knocks: int, key: bytes
) -> None:
    honest, attackers = siege
    table = [*honest, *attackers]
    for number in range(knocks):
        victim = select_to_evict(table, key)
        assert victim is not None
        assert victim not in honest
        table.remove(victim)
        again = replace(victim, number=5000 + number, connected_at=5000.0 + number, min_latency=0.0)
        table.append(again)


@given(st.integers(1, 3), st.integers(40, 60), st.data())
def test_one_party_of_few_netgroups_displaces_itself_and_not_the_newest_honest(
    groups: int, places: int, data: st.DataObject
) -> None:
    """Honest ones that have just come, one of each netgroup, without any merit."""
    newcomers = data.draw(st.integers(1, places // 6))
    honest = [
        replace(c, netgroup=f"honest{c.number}")
        for c in crowd(newcomers, first=9000, since=100_000.0)
    ]
    attackers = [
        replace(c, netgroup=f"attacker{c.number % groups}", min_latency=0.0, last_block_at=1.0)
        for c in crowd(places - newcomers)
    ]
    assert select_to_evict([*honest, *attackers], KEY) in attackers
