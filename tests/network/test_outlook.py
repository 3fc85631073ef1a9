"""Feelers, and the extra peer of a node whose head looks old."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.rawpeer import quiet_node, until
from helpers.sync_nodes import grown

from moderntensor.network import outlook
from moderntensor.network.outlook import EXTRA_TIME, TipWatch, least_useful
from moderntensor.network.p2p import P2PNode
from moderntensor.network.purpose import Purpose

LOOPBACK = "127.0.0.1"


def test_the_age_of_a_head_counts_from_when_it_was_first_seen() -> None:
    tip = TipWatch()
    assert tip.age(b"a", 100.0) == 0.0
    assert tip.age(b"a", 107.0) == 7.0
    assert tip.age(b"b", 109.0) == 0.0
    assert tip.age(b"a", 110.0) == 0.0  # undone: news as well


def outbound(age: float, last_block_at: float | None = None, **changes: Any) -> Any:
    fields: dict[str, Any] = {"outbound": True, "purpose": Purpose.FULL, "owes_us": False}
    fields["connected_at"] = 1000.0 - age
    return SimpleNamespace(**{**fields, "last_block_at": last_block_at, **changes})


def test_the_least_useful_peer_brought_its_last_block_longest_ago() -> None:
    old, lately = outbound(500.0, 600.0), outbound(500.0, 900.0)
    never, newer = outbound(500.0), outbound(400.0)
    assert least_useful([old, lately], 1000.0) is old
    assert least_useful([old, lately, never, newer], 1000.0) is newer
    assert least_useful([old, outbound(400.0, outbound=False)], 1000.0) is old
    assert least_useful([old, outbound(EXTRA_TIME - 1)], 1000.0) is old  # it has just come
    assert least_useful([old, outbound(400.0, owes_us=True)], 1000.0) is old
    assert least_useful([], 1000.0) is None


def test_who_is_first_with_all_news_gets_no_more_than_half_of_the_places() -> None:
    """A feeler finds it whenever it says HELLO with a block that has just been made."""
    peers = [outbound(900.0 - place, 600.0 + place) for place in range(8)]
    honest = peers[:4]
    for n in range(20):
        extra = outbound(60.0 - n, 990.0 + n / 10, purpose=Purpose.EXTRA)
        worst = least_useful([*peers, extra], 1000.0, spared=4)
        assert worst not in (None, extra, *honest)
        peers[peers.index(worst)] = extra
        extra.purpose = Purpose.FULL
    silent = [outbound(900.0), *peers[4:]]  # that it has been here for long is not enough
    assert least_useful([*honest, *silent], 1000.0, spared=4) is silent[0]


async def test_feelers_find_out_which_addresses_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "FEELER_INTERVAL", 0.01)
    async with (
        quiet_node() as good,
        quiet_node() as gone,
        quiet_node(discovery=True, target_outbound=0, redial_interval=0.01) as node,
    ):
        port = gone.listen_port
        await gone.stop()
        for there in (good.listen_port, port, node.listen_port):
            assert node.book.learn(LOOPBACK, there, b"x" * 32, 0, LOOPBACK)
        await until(lambda: node.book.counts["tried"] == 1)
        entry = node.book.get(LOOPBACK, good.listen_port)
        assert entry is not None
        assert entry.tried
        assert entry.node_id == good.node_id
        await until(lambda: (LOOPBACK, node.listen_port) not in node.book)  # it is our own
        await until(lambda: (tested := node.book.get(LOOPBACK, port)) is None or tested.failures)
        await until(lambda: not node.peers and not good.peers)


@pytest.mark.parametrize("known", [True, False])
async def test_who_is_on_another_branch_is_kept_when_a_feeler_finds_it(
    monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Be it known of old: all whom we are connected to may be on one side of a torn network, as in
    seed 600 of the simulated partition."""
    monkeypatch.setattr(outlook, "FEELER_INTERVAL", 0.01)
    async with quiet_node() as there:
        there.attach_chain(grown(2))
        node = P2PNode(config=there.config.replace(discovery=True, target_outbound=0))
        node.attach_chain(grown(2 if known else 1))
        async with node:
            seen: list[Purpose] = []
            node.on_peer_connected.append(lambda peer: seen.append(peer.purpose))
            assert node.book.learn(LOOPBACK, there.listen_port, b"x" * 32, 0, LOOPBACK)
            node.book.succeeded(LOOPBACK, there.listen_port, there.node_id, LOOPBACK)
            entry = node.book.get(LOOPBACK, there.listen_port)
            assert entry is not None and entry.tried
            entry.next_dial, entry.last_success = 0.0, 0
            await until(lambda: entry.last_success)
            await until(lambda: seen == ([] if known else [Purpose.EXTRA]))
            assert len(node.peers) == (0 if known else 1)


@pytest.mark.parametrize("brings_news", [True, False])
async def test_a_node_whose_head_looks_old_tries_one_more_peer(
    monkeypatch: pytest.MonkeyPatch, brings_news: bool
) -> None:
    """And keeps the one that brings news."""
    for name in ("EXTRA_CHECK_INTERVAL", "EXTRA_TIME", "STALE_BLOCKS"):
        monkeypatch.setattr(outlook, name, 0.02)
    chain = grown(1)
    monkeypatch.setattr(type(chain.config), "block_time", 1, raising=False)
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(quiet_node()) for _ in range(2)]
        node = P2PNode(config=first.config.replace(discovery=True, target_outbound=1))
        node.attach_chain(chain)
        await stack.enter_async_context(node)
        kept = await node.connect_peer(LOOPBACK, first.listen_port)
        seen: list[Purpose] = []

        def hear(peer: Any) -> None:
            seen.append(peer.purpose)
            if brings_news:
                peer.last_block_at = node.runtime.loop_time()

        node.on_peer_connected.append(hear)
        assert node.book.learn(LOOPBACK, second.listen_port, b"x" * 32, 0, LOOPBACK)
        await until(lambda: seen)
        assert seen[0] is Purpose.EXTRA
        if brings_news:
            await until(lambda: set(node.table.by_id) == {second.node_id})
            assert kept.closed
            assert node.info.outbound == 1
        else:
            await until(lambda: set(node.table.by_id) == {first.node_id})
            assert not kept.closed
