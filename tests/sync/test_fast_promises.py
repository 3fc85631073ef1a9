"""Peers that announce snapshots which they do not serve, beside one that has what it says."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from helpers.fast_nodes import Served, StateNode, same_state
from helpers.sync_nodes import CONFIG, SETTINGS, connect, extend, new_validator, syncing, until

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.snapshots import SnapshotKeeper
from moderntensor.network.messages import PongMessage, Reply, Request, StateMessage, Status
from moderntensor.network.peer import Peer
from moderntensor.network.sync import fast
from moderntensor.runtime import Runtime

INTERVAL = 8
PIVOT = 64
HEIGHT = PIVOT + 6 * INTERVAL + 66  # six newer blocks may have snapshots, and have none
FEW = replace(CONFIG, snapshot_interval=INTERVAL)

Source = tuple[Blockchain, SnapshotKeeper]


@pytest.fixture
def source() -> Source:
    chain = new_validator(FEW).chain
    keeper = SnapshotKeeper(chain, None, Runtime(1))
    extend(chain, PIVOT, transfers=1)
    assert keeper.make(lambda: False)
    extend(chain, HEIGHT - PIVOT)
    return chain, keeper


class Boaster(StateNode):
    """Announces the snapshots at some heights; of none it serves anything."""

    def __init__(self, source: Source, *heights: int, status: Status | None) -> None:
        """`status` of its answers; None: it gives none."""
        super().__init__(*source, Served(), SETTINGS)
        self.promised = [(height, source[0].hash_at(height) or b"") for height in heights]
        self.status = status

    async def answer_state(self, peer: Peer, request: Request) -> Reply:
        if self.status is None:
            await asyncio.Event().wait()
        assert self.status is not None
        return StateMessage(request_id=request.request_id, status=self.status, retry_ms=1)

    def make_pong(self, nonce: int) -> PongMessage:
        return super().make_pong(nonce).replace(snapshots=tuple(self.promised))


@pytest.mark.parametrize("status", [Status.NOT_FOUND, Status.BUSY, None])
async def test_one_among_many_that_has_what_it_announces_is_found(
    source: Source, status: Status | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others each announce a newer one of their own, and one all that there may be."""
    monkeypatch.setattr(fast, "UNSERVED_SECONDS", 0.7)
    chain, keeper = source
    heights = [PIVOT + INTERVAL * n for n in range(1, 6 if status is Status.NOT_FOUND else 3)]
    async with AsyncExitStack() as stack:
        false = [Boaster(source, height, status=status) for height in heights]
        if status is Status.NOT_FOUND:
            false.append(Boaster(source, *heights[:4], status=status))
        honest = StateNode(chain, keeper, Served(), SETTINGS)
        for node in (*false, honest):
            await stack.enter_async_context(node)
        sync = await stack.enter_async_context(syncing(new_validator(FEW)))
        await connect(sync, *false, honest)
        await until(lambda: all(peer.snapshots for peer in sync.node.peers.values()))
        assert len(sync.node.peers) == len(false) + 1
        result = await sync.fast_sync()
        assert result.pivot_height == PIVOT
        assert sync.chain.head == chain.head
        assert same_state(sync.chain, chain)


async def test_who_serves_no_state_may_serve_blocks(source: Source) -> None:
    quick = SETTINGS.replace(sync_give_up=2.0)
    node = Boaster(source, PIVOT, status=Status.BUSY)
    async with node, syncing(new_validator(FEW), settings=quick) as sync:
        await connect(sync, node)
        assert (await sync.fast_sync()).pivot_height is None
        assert sync.chain.head == source[0].head


async def test_ever_new_promises_do_not_make_us_flood_others_with_pings(
    source: Source, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They would answer no more of them, and be thought dead for it."""
    caplog.set_level(logging.INFO, "moderntensor.network.sync")
    monkeypatch.setattr(fast, "ANNOUNCE_SECONDS", 1.0)
    chain = source[0]
    pinged: list[int] = []

    class Restless(Boaster):
        def make_pong(self, nonce: int) -> PongMessage:
            self.promised = [(PIVOT, nonce.to_bytes(32, "big"))]
            pinged.append(nonce)
            return super().make_pong(nonce)

    slow = SETTINGS.replace(ping_interval=60.0)
    empty = SnapshotKeeper(chain, None, Runtime(1))
    async with (
        Restless((chain, empty), status=Status.NOT_FOUND) as node,
        syncing(new_validator(FEW), settings=slow) as sync,
    ):
        await connect(sync, node)
        result = await sync.fast_sync()
        assert (result.pivot_height, sync.chain.head) == (None, chain.head)
        # One when it came, one when it was waited for, and one more at the most.
        assert len(pinged) <= 3

        # Now it has all, and says so.
        caplog.clear()
        assert (await sync.fast_sync()).blocks == 0
        assert "instead of fetching a state: it would save too few of them" in caplog.text
