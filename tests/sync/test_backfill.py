"""Bodies below those that a fast sync left out, from real peers in the background."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.command import PATIENCE
from helpers.pruned import bodies_and_indices, pruned
from helpers.sync_nodes import (
    CONFIG,
    SETTINGS,
    connect,
    extend,
    grown,
    new_validator,
    serving,
    syncing,
    until,
)

from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.prepared import PreparedBody
from moderntensor.blockchain.snapshots import SnapshotKeeper
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.tables import BODIES, META, META_EARLIEST, TABLES, height_key
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.errors import InvalidBlockError
from moderntensor.network.budget import Kind as Held
from moderntensor.network.messages import (
    BlockBodiesMessage,
    DisconnectCode,
    GetBlockBodiesMessage,
    MessageType,
    Reply,
    Status,
)
from moderntensor.network.offences import Offence
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.network.sync import SyncManager
from moderntensor.network.sync import backfill as backfill_module
from moderntensor.network.sync.backfill import Backfill
from moderntensor.runtime import Runtime
from moderntensor.storage import MemoryStore, open_store

BLOCKS = 400
EARLIEST = 330


@pytest.fixture(scope="module")
def source() -> Blockchain:
    """Some blocks with transfers, some without."""
    chain = grown(200, 2)
    extend(chain, 100)
    return extend(chain, BLOCKS - 300, 1)


def without(source: Blockchain, earliest: int = EARLIEST) -> Blockchain:
    return pruned(source, earliest, MemoryStore(TABLES))


@asynccontextmanager
async def behind(source: Blockchain, earliest: int = EARLIEST) -> AsyncIterator[SyncManager]:
    """A node that has a chain without its old bodies, and is at its head."""
    store = without(source, earliest).store
    patient = SETTINGS.replace(stall_timeout=20.0)  # nobody is asked twice
    async with syncing(BlockValidator(StateDB(store), CONFIG), settings=patient) as sync:
        yield sync


def backfill_of(sync: SyncManager) -> Backfill:
    return Backfill(sync.context, asyncio.Lock())


def requests_to(node: P2PNode) -> list[GetBlockBodiesMessage]:
    """The requests for bodies that a node gets from now on; it answers them."""
    asked: list[GetBlockBodiesMessage] = []

    async def handler(peer: Peer, request: GetBlockBodiesMessage) -> Reply:
        asked.append(request)
        return await node.server.answer(peer, request)

    node.register_handler(MessageType.GET_BLOCK_BODIES, handler)
    return asked


async def test_all_that_a_full_sync_has_is_there_in_the_end(
    source: Blockchain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "moderntensor.network.sync")
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(source)) for _ in range(3)]
        asked = [requests_to(server) for server in servers]
        sync = await stack.enter_async_context(behind(source))
        chain = sync.chain
        assert chain.earliest_height == EARLIEST
        assert chain.get_block(EARLIEST - 1) is None
        await connect(sync, *servers)
        backfill = backfill_of(sync)
        backfill.start()
        assert backfill.running
        await backfill.wait()
        assert not backfill.running
        assert chain.earliest_height == 0
        assert bodies_and_indices(chain) == bodies_and_indices(source)
        assert all(asked)  # by all peers
        wanted = [one for requests in asked for request in requests for one in request.hashes]
        assert len(wanted) == len(set(wanted)) == 229  # each once, and no empty ones
        assert len(sync.node.peers) == 3
        assert Blockchain(chain.store, CONFIG).earliest_height == 0
        backfill.start()  # nothing is missing
        assert not backfill.running
        # It serves all of it now.
        fresh = await stack.enter_async_context(syncing())
        await connect(fresh, sync.node)
        await fresh.sync()
        assert fresh.chain.head == source.head
    assert "fetching the bodies of the blocks below 330" in caplog.text
    assert "the bodies of all blocks are here, down to the genesis" in caplog.text


async def test_after_a_fast_sync_a_node_gets_all_that_a_full_one_has() -> None:
    config = replace(CONFIG, snapshot_interval=300)
    chain = extend(extend(new_validator(config).chain, 250, 1), 150)
    keeper = SnapshotKeeper(chain, None, Runtime(1))
    assert keeper.make(lambda: False)
    async with AsyncExitStack() as stack:
        servers = [P2PNode(config=SETTINGS) for _ in range(2)]
        for server in servers:
            server.attach_chain(chain, snapshots=keeper)
            await stack.enter_async_context(server)
        full = await stack.enter_async_context(syncing(new_validator(config)))
        fast = await stack.enter_async_context(syncing(new_validator(config)))
        await connect(full, *servers)
        await full.sync()
        # Begun before there are peers: to follow them by itself it would execute all blocks.
        begun = asyncio.create_task(fast.fast_sync(backfill=True, wait_for_peers=30))
        await connect(fast, *servers)
        result = await begun
        assert result.pivot_height == 300
        assert result.blocks == BLOCKS - 300
        await until(lambda: not fast.backfilling)
        assert fast.node.make_pong(1).earliest_height == 0
        assert "archive" in fast.node.make_hello(1, "127.0.0.1", 1).capabilities
        assert bodies_and_indices(fast.chain) == bodies_and_indices(full.chain)
        assert fast.chain.head == full.chain.head


async def test_the_newest_come_first_in_small_commits(
    source: Blockchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill_module, "COMMIT_TRANSACTIONS", 10)
    async with serving(source) as server, behind(source) as sync:
        commits: list[tuple[int, int]] = []
        add = sync.chain.add_old_bodies

        def noted(first: int, bodies: list[object]) -> None:
            add(first, bodies)  # type: ignore[arg-type]
            commits.append((first, len(bodies)))
            assert sync.chain.earliest_height == first

        monkeypatch.setattr(sync.chain, "add_old_bodies", noted)
        await connect(sync, server)
        backfill = backfill_of(sync)
        backfill.start()
        await backfill.wait()
    assert len(commits) > 40
    firsts = [first for first, _ in commits]
    assert firsts == sorted(firsts, reverse=True)
    assert firsts[-1] == 0
    assert sum(count for _, count in commits) == EARLIEST


async def test_pruned_peers_are_neither_blamed_nor_asked_for_what_they_do_not_have(
    source: Blockchain,
) -> None:
    async with AsyncExitStack() as stack:
        empty = await stack.enter_async_context(serving(without(source)))
        some = await stack.enter_async_context(serving(without(source, 130)))
        asked = requests_to(empty)
        sync = await stack.enter_async_context(behind(source))
        await connect(sync, empty, some)
        backfill = backfill_of(sync)
        backfill.start()
        await until(lambda: sync.chain.earliest_height == 130)
        assert backfill.running  # and waits for somebody who has the rest
        whole = await stack.enter_async_context(serving(source))
        await connect(sync, whole)
        await backfill.wait()
        assert bodies_and_indices(sync.chain) == bodies_and_indices(source)
        assert not asked
        assert len(sync.node.peers) == 3
        assert not sync.node.reputation.counts.offences


async def test_a_peer_that_says_too_late_that_it_is_pruned_is_not_blamed(
    source: Blockchain,
) -> None:
    async def answer(peer: Peer, request: GetBlockBodiesMessage) -> Reply:
        return BlockBodiesMessage(request_id=request.request_id, status=Status.PRUNED)

    async with serving(source) as forgetful, serving(source) as server, behind(source) as sync:
        forgetful.register_handler(MessageType.GET_BLOCK_BODIES, answer)
        await connect(sync, forgetful, server)
        backfill = backfill_of(sync)
        backfill.start()
        await backfill.wait()
        assert bodies_and_indices(sync.chain) == bodies_and_indices(source)
        assert len(sync.node.peers) == 2
        assert not sync.node.reputation.counts.offences


async def test_a_liar_is_convicted_and_the_others_finish(source: Blockchain) -> None:
    async def lie(peer: Peer, request: GetBlockBodiesMessage) -> Reply:
        reply = await liar.server.answer(peer, request)
        assert isinstance(reply, BlockBodiesMessage)
        return reply.replace(bodies=reply.bodies[::-1])

    async with serving(source) as liar, serving(source) as server, behind(source) as sync:
        liar.register_handler(MessageType.GET_BLOCK_BODIES, lie)
        codes: list[int | None] = []
        liar.on_peer_disconnected.append(lambda peer: codes.append(peer.drop_code))
        await connect(sync, liar, server)
        backfill = backfill_of(sync)
        backfill.start()
        await backfill.wait()
        assert bodies_and_indices(sync.chain) == bodies_and_indices(source)
        await until(lambda: codes)
        assert codes == [DisconnectCode.BAD_BLOCK]
        assert sync.node.reputation.counts.bans[Offence.BAD_BODY] == 1


async def test_nothing_begins_while_a_sync_has_the_right_to_write(source: Blockchain) -> None:
    async with serving(source) as server, behind(source) as sync:
        asked = requests_to(server)
        await connect(sync, server)
        writing = asyncio.Lock()
        backfill = Backfill(sync.context, writing)
        async with writing:
            backfill.start()
            await asyncio.sleep(0.2)
            assert not asked
            assert sync.chain.earliest_height == EARLIEST
        await backfill.wait()
        assert sync.chain.earliest_height == 0


async def test_a_stop_half_way_leaves_nothing_but_what_is_stored(
    source: Blockchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill_module, "COMMIT_TRANSACTIONS", 5)
    async with serving(source) as server, behind(source) as sync:
        await connect(sync, server)
        before = asyncio.all_tasks()
        backfill = backfill_of(sync)
        backfill.start()
        await until(lambda: sync.chain.earliest_height < 200)
        await backfill.stop()
        await backfill.stop()
        assert not {task.get_name() for task in asyncio.all_tasks() - before}
        at = sync.chain.earliest_height
        assert 0 < at < 200
        assert bodies_and_indices(sync.chain) == bodies_and_indices(without(source, at))
        assert not sync.node.budget.report().by_kind[Held.OLD_BODIES]
        backfill.start()
        await backfill.wait()
        assert bodies_and_indices(sync.chain) == bodies_and_indices(source)


async def test_a_newer_state_moves_where_it_begins(
    source: Blockchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill_module, "COMMIT_TRANSACTIONS", 5)
    async with serving(source) as server, behind(source) as sync:
        await connect(sync, server)
        writing = asyncio.Lock()
        backfill = Backfill(sync.context, writing)
        backfill.start()
        await until(lambda: sync.chain.earliest_height < 250)
        async with writing:  # as a fast sync does when it adopts a state
            with sync.chain.store.write() as txn:
                txn.put(META, META_EARLIEST, height_key(370))
                txn.delete_range(BODIES, height_key(EARLIEST), height_key(370))
            sync.chain.earliest_height = 370
        await backfill.wait()
        assert bodies_and_indices(sync.chain) == bodies_and_indices(source)


async def test_a_block_that_its_validators_should_not_have_signed_ends_it(
    source: Blockchain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is nobody's fault who serves it, and there is nothing to fetch in its place."""

    def refuse(first: int, bodies: list[PreparedBody]) -> None:
        raise InvalidBlockError(first, source.hash_at(first) or b"", "encoding", "of a body")

    async with serving(source) as server, behind(source) as sync:
        monkeypatch.setattr(sync.chain, "add_old_bodies", refuse)
        await connect(sync, server)
        backfill = backfill_of(sync)
        backfill.start()
        with pytest.raises(InvalidBlockError, match="encoding"):
            await backfill.wait()
        assert not backfill.running
        assert sync.chain.earliest_height == EARLIEST
        assert len(sync.node.peers) == 1
    assert "fetching old bodies has ended" in caplog.text


CHILD = """
import asyncio, sys
from helpers.sync_nodes import CONFIG, SETTINGS
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.network.offences import Offence
from moderntensor.network.p2p import P2PNode
from moderntensor.network.sync import SyncManager, backfill

backfill.COMMIT_TRANSACTIONS, backfill.JOBS, backfill.BODIES_PER_JOB = 5, 2, 16

async def main(path, port):
    with StateDB(path) as state_db:
        validator = BlockValidator(state_db, CONFIG)
        node = P2PNode(bootstrap_nodes=[f"127.0.0.1:{port}"], config=SETTINGS)
        async with node, SyncManager(node, validator) as sync:
            work = backfill.Backfill(sync.context, asyncio.Lock())
            print("from", validator.chain.earliest_height, flush=True)
            work.start()
            while work.running:
                print("at", validator.chain.earliest_height, flush=True)
                await asyncio.sleep(0.002)
            await work.wait()
            print("end", validator.chain.earliest_height, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_whoever_is_killed_goes_on_where_he_was(source: Blockchain, tmp_path: Path) -> None:
    with open_store(tmp_path / "chain", TABLES, map_size=1 << 28) as store:
        pruned(source, EARLIEST, store)
    at = EARLIEST
    async with serving(source) as server:
        asked = requests_to(server)
        for kill_below in (200, -1):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-W", "error", "-c", CHILD,
                tmp_path / "chain", str(server.listen_port),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, SEARCH))},
                stdout=subprocess.PIPE,
            )  # fmt: skip
            assert child.stdout is not None
            try:
                async with asyncio.timeout(PATIENCE):
                    async for line in child.stdout:
                        word, height = line.split()
                        if word == b"from":
                            assert int(height) <= at  # nothing that was stored is lost
                        at = int(height)
                        if at < kill_below:
                            break
                    if kill_below < 0:
                        assert await child.wait() == 0
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()
    assert at == 0
    wanted = [one for request in asked for one in request.hashes]
    # Fetched again is what was on its way or waited to be stored: two jobs of 16, and a third.
    assert len(wanted) - len(set(wanted)) <= 3 * 16
    assert len(set(wanted)) == 229
    with open_store(tmp_path / "chain", TABLES, map_size=1 << 28) as store:
        assert bodies_and_indices(Blockchain(store, CONFIG)) == bodies_and_indices(source)


SEARCH = (Path(__file__).parents[2], Path(__file__).parents[1])
