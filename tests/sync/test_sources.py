"""What is known of peers: whom to follow, whom to ask, and who is of no use."""

from __future__ import annotations

import asyncio

from helpers.sources import StandInPeer, pool_of

from moderntensor.network.messages import DisconnectCode
from moderntensor.network.sync.source import Kind


async def test_claims_rests_and_dismissals_decide_whom_to_follow() -> None:
    low, high = StandInPeer("low", 50), StandInPeer("high", 90)
    pool = pool_of(low, high, follow_interval=0.05)
    claim = pool.best_claim(0)
    assert claim is not None
    assert (claim.height, claim.hash, claim.source.peer) == (90, high.best_hash, high)
    assert pool.best_claim(90) is None
    pool.dismiss(claim.source)
    second = pool.best_claim(0)
    assert second is not None
    assert (second.height, pool.highest_claim()) == (50, 90)  # it may be tried again
    pool.dismiss(claim.source, hopeless=True)
    assert pool.highest_claim() == 50
    pool.rest(second.source, 0.05)
    assert pool.best_claim(0) is None
    assert pool.highest_claim() == 50  # it only rests
    assert await pool.changed(lambda: pool.best_claim(60) is not None, 5)


async def test_a_peer_that_keeps_none_of_its_claims_is_useless() -> None:
    peer = StandInPeer("boaster")
    pool = pool_of(peer)
    source = next(iter(pool))
    for _ in range(2):
        pool.broke_claim(source)
    assert peer.code is None
    pool.broke_claim(source)
    assert peer.code is DisconnectCode.USELESS
    assert len(pool) == 0


async def test_a_peer_whose_bytes_come_all_the_time_is_slow_and_not_silent() -> None:
    quick, slow = StandInPeer("quick"), StandInPeer("slow")
    pool = pool_of(quick, slow, request_timeout=0.02)
    mine, other = (next(s for s in pool if s.peer is peer) for peer in (slow, quick))
    began = pool.now()
    other.useful(Kind.BODIES, began + 1e-6)
    slow.connection.bytes_received = 10**6
    pool.overdue(mine, Kind.BODIES, began, 0)
    pool.part_from_silent()
    assert slow.code is None
    await asyncio.sleep(0.05)
    slow.connection.bytes_received += 10**6
    pool.overdue(mine, Kind.BODIES, pool.now(), 10**6)
    assert slow.code is DisconnectCode.TIMEOUT  # nothing came of it for two requests' time


async def test_ever_new_claims_of_what_cannot_be_followed_bind_nobody() -> None:
    dreamer, honest = StandInPeer("dreamer", 90), StandInPeer("honest", 50)
    pool = pool_of(dreamer, honest, follow_interval=0.05)
    claim = pool.best_claim(0)
    assert claim is not None
    pool.dismiss(claim.source, hopeless=True)
    dreamer.best_height, dreamer.best_hash = 91, b"\1" * 32
    second = pool.best_claim(0)
    assert second is not None
    assert (second.source.peer, pool.highest_claim()) == (honest, 50)
    assert await pool.changed(lambda: pool.highest_claim() == 91, 5)  # looked at again later


async def test_who_has_been_there_longest_leads_every_second_time() -> None:
    """Ever new strangers claim more than anybody: the honest peer is heard all the same."""
    honest = StandInPeer("honest", 50)
    honest.connected_at = -100.0
    pool = pool_of(honest, StandInPeer("liar 1", 10**9), StandInPeer("liar 2", 10**9))
    leaders = []
    for _ in range(4):
        claim = pool.next_claim(7)
        assert claim is not None
        leaders.append(claim.source.peer is honest)
    assert leaders == [False, True, False, True]
    claim = pool.next_claim(8)  # the last one led somewhere
    assert claim is not None
    assert claim.source.peer is not honest


async def test_who_has_delivered_is_not_left_idle_for_who_only_claims() -> None:
    honest = StandInPeer("honest", 50)
    pool = pool_of(*(StandInPeer(f"liar {n}", 10**9) for n in range(5)), honest)
    source = next(source for source in pool if source.peer is honest)
    pool.delivered(source, Kind.HEADERS, 10, 1000, 5.0)
    assert pool.pick(Kind.BODIES, 40, ()) is source
    source.in_flight[Kind.BODIES] += 1
    assert pool.pick(Kind.BODIES, 40, ()) is not source  # the others get their chance


async def test_headers_served_do_not_excuse_bodies_withheld() -> None:
    miser, honest = StandInPeer("miser"), StandInPeer("honest")
    pool = pool_of(miser, honest)
    asked = pool.now()
    sources = {source.peer.address: source for source in pool}
    await asyncio.sleep(0.001)
    pool.delivered(sources["honest"], Kind.BODIES, 1, 100, 0.1)
    pool.delivered(sources["miser"], Kind.HEADERS, 1, 100, 0.1)
    pool.overdue(sources["miser"], Kind.BODIES, asked, 0)
    assert (honest.code, miser.code) == (None, DisconnectCode.TIMEOUT)
