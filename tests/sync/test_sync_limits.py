"""A sync within the limits of others, and within its own share of the byte budget."""

from __future__ import annotations

import pytest
from helpers.sync_nodes import SETTINGS, connect, grown, serving, syncing

from moderntensor.network import serving as answers
from moderntensor.network.budget import BudgetReport, Kind
from moderntensor.network.sync import blocks as stage


@pytest.mark.parametrize(
    "changes",
    [
        {"max_inflight": 1, "max_per_type": 1},
        {"max_inflight": 2, "max_per_type": 1},
        {"max_inflight": 1, "max_per_type": 8},
    ],
    ids=str,
)
async def test_who_allows_one_request_at_a_time_can_be_synced_from(changes: dict[str, int]) -> None:
    chain = grown(400, transfers=1)
    async with serving(chain, settings=SETTINGS.replace(**changes)) as node, syncing() as sync:
        await connect(sync, node)
        await sync.sync()
        assert sync.chain.head == chain.head
        (peer,) = node.peers.values()
        assert (peer.info.busy_replies, peer.info.messages_refused) == (0, 0)
        assert not node.reputation.counts.offences


async def test_a_small_budget_is_enough_and_kept() -> None:
    chain = grown(600, transfers=3)
    reports: list[BudgetReport] = []
    settings = SETTINGS.replace(byte_budget=32 * 1024 * 1024)
    async with serving(chain, settings=settings) as node, syncing(settings=settings) as sync:
        sync.on_block_synced = lambda _: reports.append(sync.node.budget.report())
        await connect(sync, node)
        await sync.sync()
        assert sync.chain.head == chain.head
        assert any(report.by_kind[Kind.BODIES] for report in reports)
        assert all(report.held <= report.total for report in reports)
        after = sync.node.budget.report()
        assert after.by_kind[Kind.BODIES] == after.by_kind[Kind.HEADERS] == 0


async def test_jobs_end_early_where_blocks_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one job of large blocks does not hold many replies' worth."""
    monkeypatch.setattr(answers, "SOFT_REPLY_LIMIT", 4000)
    monkeypatch.setattr(stage, "JOB_BYTES", 10_000)
    most = 0
    original = stage.BodiesJob.split

    def split(job: stage.BodiesJob) -> stage.BodiesJob | None:
        nonlocal most
        rest = original(job)
        most = max(most, job.held_bytes)
        assert len(job.hashes) == len(job.bodies)
        return rest

    monkeypatch.setattr(stage.BodiesJob, "split", split)
    chain = grown(300, transfers=3)
    async with serving(chain) as one, serving(chain) as two, syncing() as sync:
        await connect(sync, one, two)
        await sync.sync()
        assert sync.chain.head == chain.head
    assert 10_000 <= most < 30_000
