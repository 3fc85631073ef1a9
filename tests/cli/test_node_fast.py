"""`moderntensor node` with --fast, --backfill and --trusted-head, and what it says meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import typer
from helpers.command import running
from helpers.fast_nodes import Served, StateNode
from helpers.sync_nodes import CONFIG, SETTINGS, extend, new_validator, until

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.snapshots import SnapshotKeeper
from moderntensor.cli import node as command
from moderntensor.cli.node import status_line
from moderntensor.network.messages import Reply, Request
from moderntensor.network.peer import Peer
from moderntensor.network.sync import SyncPhase
from moderntensor.node import FullNode
from moderntensor.runtime import Runtime

BLOCKS = 30  # of the chain that the command made
LOOPBACK = ("--listen", "127.0.0.1:0")
PIVOT = 64
FEW = replace(
    CONFIG,
    alloc={**CONFIG.alloc, **{sha256(b"%d" % n).digest()[:20]: n + 1 for n in range(300)}},
    snapshot_interval=PIVOT,
)


class SlowNode(StateNode):
    """Answers for a state when `opened` is set."""

    opened: asyncio.Event

    async def answer_state(self, peer: Peer, request: Request) -> Reply:
        await self.opened.wait()
        return await super().answer_state(peer, request)


def source() -> tuple[Blockchain, SnapshotKeeper]:
    chain = extend(new_validator(FEW).chain, PIVOT, transfers=1)
    keeper = SnapshotKeeper(chain, None, Runtime(1))
    assert keeper.make(lambda: False)
    return extend(chain, 70, transfers=1), keeper


@pytest.mark.parametrize("bare", [False, True])
async def test_a_full_node_begins_with_a_state_and_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], bare: bool
) -> None:
    """Told so, or because the chain has no other beginning."""
    chain, keeper = source()
    config = FEW
    if bare:
        config = replace(FEW, alloc={}, state_root=FEW.genesis_header.state_root)
    async with SlowNode(chain, keeper, Served(), SETTINGS) as server:
        server.opened = asyncio.Event()
        node = FullNode(
            None,
            config,
            bootstrap_nodes=[f"127.0.0.1:{server.listen_port}"],
            settings=SETTINGS.replace(fast_sync=not bare, backfill=True, bootstrap_redial=0.05),
        )
        run = asyncio.ensure_future(command.run(node))
        await until(lambda: node.sync.status.phase is SyncPhase.STATE)
        line = status_line(node)
        assert line.startswith("state: block 0 (")
        assert f"state of block {PIVOT}" in line
        assert ("its accounts are not here yet" in line) == bare
        assert command.interval(node.sync.status) == command.STATE_INTERVAL
        server.opened.set()
        await until(lambda: node.chain.head == chain.head)
        await until(lambda: node.chain.earliest_height == 0)
        assert "not here yet" not in status_line(node)
        assert command.interval(node.sync.status) == command.STATUS_INTERVAL
        node.request_stop()
        await run
    printed = capsys.readouterr().out
    assert f"began with the state of block {PIVOT}, proved by its header" in printed
    assert f"synced to block {PIVOT + 70}" in printed


def test_the_part_of_a_line_for_a_state() -> None:
    node = FullNode(None, FEW, settings=SETTINGS)
    meter = node.sync._meter
    meter.state_begins(PIVOT, 0, None)
    assert command.state_part(node.sync.status) == f", state of block {PIVOT}"
    meter.state_progress(0, 2000)
    meter.state_progress(1500, 2000)
    part = command.state_part(node.sync.status)
    assert part.startswith(f", state of block {PIVOT}: 1,500 of 2,000 accounts, ")
    assert "accounts/s, " in part
    node.state_db.close()
    node.runtime.close()


def test_the_options_reach_the_node(net: Path, tmp_path: Path) -> None:
    """There is no snapshot of so short a chain: blocks are executed, under the trusted head."""
    genesis = net / "genesis.json"
    stored = FullNode(net / "data", genesis)
    known = stored.chain.hash_at(BLOCKS - 5)
    stored.state_db.close()
    assert known is not None
    with running("node", "--data", net / "data", "--genesis", genesis, *LOOPBACK) as server:
        address = server.line_with("listening on").split()[-3].rstrip(",")
        with running(
            *("--log-level", "info", "node", "--data", tmp_path / "fresh", "--genesis", genesis),
            *(*LOOPBACK, "--peer", address, "--fast", "--backfill"),
            *("--trusted-head", f"{BLOCKS - 5}:0x{known.hex()}"),
        ) as client:
            client.line_with(f"synced to block {BLOCKS}")
            assert client.process.stderr is not None
            line = next(x for x in client.process.stderr if "executing all blocks" in x)
            assert "it would save too few of them" in line
            assert client.stop()[0] == 0
        assert server.stop()[0] == 0


@pytest.mark.parametrize("head", ["5", "5:12", "-5:" + "00" * 32, "x:" + "00" * 32, ""])
def test_what_is_no_trusted_head(head: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a height, a colon and the 64 hex digits"):
        command._block(head)
