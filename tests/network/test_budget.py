"""What peers can make a node hold, counted and bounded as a whole."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.extended import BLOBS, Blob, Client, node_with
from helpers.rawpeer import RawPeer, quiet_node, until

from moderntensor.config import NodeConfig
from moderntensor.errors import ConfigError, PeerBusyError
from moderntensor.network.budget import PEER_BASE, SHARE_LEAST, Account, ByteBudget, Kind, caps_of
from moderntensor.network.messages import (
    BlocksMessage,
    DisconnectCode,
    GetBlocksMessage,
    GetPeersMessage,
    Message,
    MessageType,
    NewTransactionMessage,
    PeersMessage,
    PingMessage,
    Status,
)
from moderntensor.network.peer import Peer

MIB = 1024 * 1024
TESTS = Path(__file__).parent.parent
NEW_BLOCK_CAP = 2 * MIB


class Holder:
    """As much of a peer as the budget looks at."""

    def __init__(self, budget: ByteBudget, name: str, *, outbound: bool = False) -> None:
        self.address = name
        self.outbound = outbound
        self.owes_us = False
        self.left = False
        self.account: Account = budget.open(self)

    def make_room(self) -> None:
        self.left = True
        self.account.close()


# --- shares ------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [32 * MIB, 96 * MIB, 256 * MIB, 1024 * MIB])
def test_the_shares_fit_into_the_budget(total: int) -> None:
    config = NodeConfig(byte_budget=total)
    budget = ByteBudget(config)
    assert sum(budget.caps.values()) + budget.peers < total
    assert budget.caps[Kind.MEMPOOL] <= config.mempool_bytes
    assert budget.caps[Kind.BODIES] <= config.sync_window_bytes
    assert SHARE_LEAST <= budget.share < budget.inbound < budget.peers


def test_a_large_budget_leaves_settings_as_they_are_and_a_small_one_does_not() -> None:
    config = NodeConfig()
    assert caps_of(config)[Kind.MEMPOOL] == config.mempool_bytes
    assert caps_of(config)[Kind.BODIES] == config.sync_window_bytes
    small = caps_of(config.replace(byte_budget=32 * MIB))
    assert small[Kind.MEMPOOL] == small[Kind.BODIES] == 8 * MIB
    assert caps_of(config.replace(mempool_bytes=MIB))[Kind.MEMPOOL] == MIB
    with pytest.raises(ConfigError, match="byte_budget"):
        NodeConfig(byte_budget=32 * MIB - 1)


# --- accounts ----------------------------------------------------------------------------------


def test_what_is_held_is_reported_by_kind_and_by_peer() -> None:
    budget = ByteBudget(NodeConfig())
    one, two = Holder(budget, "one"), Holder(budget, "two", outbound=True)
    one.account.hold(Kind.INBOX, 1000)
    one.account.hold(Kind.INBOX, 600)
    two.account.hold(Kind.SENDING, 50)
    budget.watch(Kind.MEMPOOL, lambda: 7)
    with budget.watching(Kind.BODIES, lambda: 9):
        assert budget.report().by_kind[Kind.BODIES] == 9
    report = budget.report()
    assert report.by_peer == {"one": PEER_BASE + 600, "two": PEER_BASE + 50}
    assert report.by_kind[Kind.INBOX] == 600
    assert report.by_kind[Kind.MEMPOOL] == 7
    assert report.by_kind[Kind.BODIES] == 0
    assert report.held == 2 * PEER_BASE + 657
    assert report.highest == 2 * PEER_BASE + 1000
    one.account.part(40)
    assert budget.report().by_peer["one"] == 40
    one.account.close()
    one.account.close()
    one.account.hold(Kind.INBOX, 5)
    assert budget.report().by_peer == {"two": PEER_BASE + 50}
    assert (budget.held_by_peers, budget.held_by_inbound) == (PEER_BASE + 50, 0)


def test_the_greatest_has_to_go_and_inbound_ones_first() -> None:
    budget = ByteBudget(NodeConfig())
    far = Holder(budget, "far", outbound=True)
    small, great = Holder(budget, "small"), Holder(budget, "great")
    far.account.hold(Kind.FRAMES, budget.peers // 2)
    small.account.hold(Kind.FRAMES, budget.peers // 8)
    great.account.hold(Kind.FRAMES, budget.peers // 4)
    assert not great.left
    small.account.hold(Kind.FRAMES, budget.peers // 5)
    small.account.hold(Kind.INBOX, budget.peers // 10)
    assert [holder.left for holder in (far, small, great)] == [False, True, False]
    assert budget.dropped == 1
    assert budget.held_by_peers <= budget.peers


def test_who_is_served_does_not_have_to_go_for_those_who_send_half_frames() -> None:
    budget = ByteBudget(NodeConfig())
    honest = [Holder(budget, f"honest {number}") for number in range(10)]
    for holder in honest:
        holder.account.hold(Kind.KNOWN, MIB)
        holder.account.hold(Kind.SENDING, 2 * MIB)
    while budget.dropped < 10:
        Holder(budget, "hostile").account.hold(Kind.FRAMES, NEW_BLOCK_CAP - MIB // 2)
    assert not any(holder.left for holder in honest)
    assert budget.held_by_inbound <= budget.inbound


def test_inbound_peers_leave_a_part_to_those_whom_we_dialled() -> None:
    budget = ByteBudget(NodeConfig())
    near = [Holder(budget, str(number)) for number in range(4)]
    for holder in near:
        holder.account.hold(Kind.FRAMES, budget.inbound // 4)
    assert sum(holder.left for holder in near) == 1
    far = Holder(budget, "far", outbound=True)
    far.account.hold(Kind.FRAMES, budget.peers - budget.inbound)
    assert sum(holder.left for holder in near) == 1
    assert not far.left


def test_who_owes_us_a_reply_goes_after_those_who_do_not() -> None:
    budget = ByteBudget(NodeConfig())
    asked, other = Holder(budget, "asked"), Holder(budget, "other")
    asked.owes_us = True
    asked.account.hold(Kind.FRAMES, budget.inbound * 2 // 3)
    other.account.hold(Kind.FRAMES, budget.inbound // 2)
    assert (asked.left, other.left) == (False, True)


def test_a_peer_over_its_share_is_refused_first_and_sooner_when_all_hold_much() -> None:
    budget = ByteBudget(NodeConfig())
    one = Holder(budget, "one", outbound=True)
    one.account.hold(Kind.FRAMES, 4 * MIB)  # half a frame does not go away by waiting
    one.account.hold(Kind.SENDING, budget.share)
    assert not one.account.over
    one.account.hold(Kind.INBOX, 1)
    assert one.account.over
    one.account.hold(Kind.SENDING, budget.share // 2)
    assert not one.account.over
    others = [Holder(budget, str(number), outbound=True) for number in range(9)]
    for holder in others:
        holder.account.hold(Kind.FRAMES, budget.peers // 11)
    one.account.hold(Kind.SENDING, budget.peers // 9)
    assert one.account.over
    assert not one.left


# --- on connections ----------------------------------------------------------------------------


async def test_half_a_frame_is_counted_while_it_is_there() -> None:
    async with quiet_node() as node:
        async with await RawPeer.meet(node) as raw:
            peer = node.peers[raw.address]
            raw.write((NEW_BLOCK_CAP + 1).to_bytes(4, "big") + b"\x21" + bytes(MIB))
            await until(lambda: node.budget.report().by_kind[Kind.FRAMES] >= MIB)
            assert peer.info.bytes_held >= MIB + PEER_BASE
        await until(lambda: not node.budget.report().by_peer)
        assert node.budget.report().held == 0


async def test_messages_that_wait_are_counted_as_objects() -> None:
    async with quiet_node() as node, await RawPeer.meet(node) as raw:
        gate = asyncio.Event()

        async def handler(_: Peer, __: Message) -> None:
            await gate.wait()

        node.register_handler(MessageType.NEW_TRANSACTION, handler)
        hashes = tuple(number.to_bytes(32, "big") for number in range(2000))
        raw.send(NewTransactionMessage(announced=hashes), NewTransactionMessage(announced=hashes))
        peer = node.peers[raw.address]
        await until(lambda: node.budget.report().by_kind[Kind.INBOX] > 2.5 * 32 * 2000)
        gate.set()
        await until(lambda: node.budget.report().by_kind[Kind.INBOX] == 0)
        assert not peer.closed


async def test_replies_that_nobody_reads_are_counted_and_then_bounded() -> None:
    """Each peer is held up by itself; all of them together stay within the budget."""
    async with quiet_node(byte_budget=32 * MIB) as node:

        async def blocks(_: Peer, request: GetBlocksMessage) -> BlocksMessage:
            return BlocksMessage(request_id=request.request_id, blocks=(bytes(1_900_000),))

        node.register_handler(MessageType.GET_BLOCKS, blocks)
        raws = []
        for number in range(20):
            raw = await RawPeer.meet(node, node_id=bytes([number + 1]) * 32)
            raws.append(raw)
            for request in range(1, 9):
                raw.send(GetBlocksMessage(request_id=request, start_height=1, end_height=1))
        budget = node.budget
        await until(lambda: budget.dropped or budget.report().by_kind[Kind.SENDING] > 4 * MIB)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert budget.held_by_peers <= budget.peers
            assert budget.report().held <= 32 * MIB
        assert budget.report().by_kind[Kind.SENDING] > 0
        for raw in raws:
            raw.writer.transport.abort()


async def test_a_peer_over_its_share_is_told_busy_and_not_read_from_until_it_is_not() -> None:
    async with quiet_node() as node, await RawPeer.meet(node) as raw:
        peer = node.peers[raw.address]
        await raw.read(PingMessage)
        size = node.budget.share + 1
        peer._serving.bytes += size  # as if so much waited
        peer.settle()
        assert peer._reading.paused
        raw.send(GetPeersMessage(request_id=1))
        asked = asyncio.ensure_future(peer.request(GetPeersMessage()))
        request = await raw.read(GetPeersMessage)  # who is asked is read from in any case
        assert (await raw.read(PeersMessage)).status == Status.BUSY
        raw.send(PeersMessage(request_id=request.request_id))
        await asked
        peer._serving.bytes -= size
        peer.settle()
        assert not peer._reading.paused
        raw.send(GetPeersMessage(request_id=2))
        assert (await raw.read(PeersMessage)).status == Status.OK


async def test_nobody_has_to_go_for_handlers_that_hang() -> None:
    """The peers send no more than they may; what is too much is discarded, and they are not."""
    go = asyncio.Event()

    async def see(_: Peer, message: Blob) -> None:
        await go.wait()

    async with (
        node_with(BLOBS, rate_limits=1000.0, byte_budget=32 << 20, max_inbound=32) as node,
        AsyncExitStack() as stack,
    ):
        node.register_handler(Blob.TYPE, see)
        clients = [
            await stack.enter_async_context(
                await Client.meet(node, speaks=("blobs/1",), number=number)
            )
            for number in range(1, 25)
        ]
        for _ in range(64):
            for client in clients:
                client.send(Blob(data=bytes(4096)))
            await asyncio.sleep(0)
        for client in clients:
            client.send(PingMessage(nonce=1))
            await client.read_kind(MessageType.PONG)
        assert len(node.peers) == len(clients)
        report = node.budget.report()
        assert report.dropped == 0
        assert report.by_kind[Kind.EXTENSIONS] > report.peers_cap // 4  # it was put to the test
        go.set()
        await until(lambda: not node.budget.report().by_kind[Kind.EXTENSIONS])


async def test_who_allows_no_requests_is_asked_none() -> None:
    for hello in ({"max_inflight": 0}, {"max_per_type": 0}):
        async with quiet_node() as node, await RawPeer.meet(node, **hello) as raw:
            with pytest.raises(PeerBusyError, match="allows no requests"):
                await node.peers[raw.address].request(GetPeersMessage())


# --- the whole ---------------------------------------------------------------------------------


class Told:
    """A node in another process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.listen_port = 0

    async def line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return said

    async def report(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return await self.line()


@asynccontextmanager
async def limited_node(budget: int) -> AsyncIterator[Told]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "helpers.limited_node", str(budget)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS), *sys.path))},
    )
    try:
        told = Told(process)
        told.listen_port = (await told.line())["port"]
        yield told
        assert process.stdin is not None
        process.stdin.close()
        assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
@pytest.mark.long
async def test_thirty_who_hold_all_they_can_stay_within_the_budget() -> None:
    """Half frames of the largest type that is admitted unasked, and replies never read."""
    budget = 96 * MIB
    async with limited_node(budget) as node:
        honest = await RawPeer.meet(node, node_id=b"\xee" * 32)  # type: ignore[arg-type]
        raws = []
        for number in range(30):
            raw = await RawPeer.meet(node, node_id=bytes([number + 1]) * 32)  # type: ignore[arg-type]
            raws.append(raw)
            if number % 2:
                raw.write(
                    (NEW_BLOCK_CAP + 1).to_bytes(4, "big") + b"\x21" + bytes(NEW_BLOCK_CAP - 1)
                )
            else:
                for request in range(1, 9):
                    raw.send(GetBlocksMessage(request_id=request, start_height=1, end_height=1))
        said = await node.report()
        for number in range(100):
            honest.send(GetPeersMessage(request_id=number + 1))
            while not isinstance(message := await honest.read_any(), PeersMessage):
                assert message is not None
            said = await node.report()
            assert said["held"] <= budget
            if said["dropped"] and number > 20:
                break
        assert said["highest"] <= budget
        assert said["dropped"] > 0
        assert said["memory"] <= budget + 64 * MIB
        codes = []
        for raw in raws[1::2]:
            if raw.reader.at_eof() or raw.writer.is_closing():
                codes.append(await raw.read_goodbye())
        assert set(codes) <= {DisconnectCode.LIMITS, None}
        for raw in raws:
            raw.writer.transport.abort()
        await honest.close()
