"""States are served from snapshots, over real sockets, and what is not there is told apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from helpers import state_reference
from helpers.forks import opened
from helpers.pruned import pruned
from helpers.rawpeer import QUIET, until
from helpers.snapshots import INTERVAL, CrowdedMaker, records_of

from moderntensor.backend import merkle
from moderntensor.blockchain import tables
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.snapshots import SnapshotKeeper
from moderntensor.blockchain.snapshots.file import NODE_FLOOR
from moderntensor.config import NodeConfig
from moderntensor.network import serving_state
from moderntensor.network.messages import (
    GetBlockBodiesMessage,
    GetBlocksMessage,
    GetStateMessage,
    GetStateNodesMessage,
    StateMessage,
    StateNodesMessage,
    Status,
)
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer
from moderntensor.node import SNAPSHOTS_DIRECTORY, FullNode
from moderntensor.runtime import Runtime
from moderntensor.storage import MemoryStore

UNKNOWN = b"\xee" * 32
ROOT = (0, bytes(32))


@pytest.fixture(scope="module")
def maker() -> CrowdedMaker:
    return CrowdedMaker()


@pytest.fixture(scope="module")
def chain(maker: CrowdedMaker) -> Blockchain:
    grown = Blockchain(MemoryStore(tables.TABLES), maker.config)
    for block in maker.grow(maker.genesis, 2 * INTERVAL + 1, transfers=1):
        grown.import_block(block)
    return grown


@pytest.fixture
def snapshots(chain: Blockchain) -> Iterator[SnapshotKeeper]:
    keeper = SnapshotKeeper(chain, None, Runtime(1))
    assert keeper.make(lambda: False)
    yield keeper
    keeper.close()


@asynccontextmanager
async def asked(
    chain: Blockchain, snapshots: SnapshotKeeper | None
) -> AsyncIterator[tuple[P2PNode, Peer]]:
    """A node that serves, as another one sees it."""
    server, client = P2PNode(config=QUIET), P2PNode(config=QUIET)
    server.attach_chain(chain, snapshots=snapshots)
    async with server, client:
        yield server, await client.connect_peer("127.0.0.1", server.listen_port)


async def test_accounts_under_a_prefix(
    chain: Blockchain,
    maker: CrowdedMaker,
    snapshots: SnapshotKeeper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ((height, block_hash),) = snapshots.announced
    assert height == 2 * INTERVAL
    state = maker.states[block_hash]
    async with asked(chain, snapshots) as (_, peer):
        assert "state/1" in peer.capabilities
        whole = await peer.request(GetStateMessage(block_hash=block_hash))
        assert isinstance(whole, StateMessage)
        assert (whole.status, whole.accounts[4:]) == (Status.OK, records_of(state))
        assert whole.count == len(state)
        halves = b""
        for prefix in (bytes(32), b"\x80" + bytes(31)):
            half = await peer.request(
                GetStateMessage(block_hash=block_hash, depth=1, prefix=prefix)
            )
            assert isinstance(half, StateMessage)
            halves += half.accounts[4:]
        assert halves == whole.accounts[4:]
        # Nobody is there: the subtree is empty, and whole.
        nobody = b"\xab" * 31 + b"\0"
        empty = await peer.request(GetStateMessage(block_hash=block_hash, depth=248, prefix=nobody))
        assert (empty.status, empty.count) == (Status.OK, 0)
        monkeypatch.setattr(serving_state, "MAX_STATE_ACCOUNTS", len(state) - 1)
        refused = await peer.request(GetStateMessage(block_hash=block_hash))
        assert (refused.status, refused.count) == (Status.TOO_LARGE, 0)


async def test_nodes_of_paths(
    chain: Blockchain,
    maker: CrowdedMaker,
    snapshots: SnapshotKeeper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ((_, block_hash),) = snapshots.announced
    state = maker.states[block_hash]
    keyed = state_reference.keyed({a: state_reference.account(*f) for a, f in state.items()})
    known = {(d, p): node for d, p, node in sorted(state_reference.nodes(keyed, 0, 1))}
    leaf = (255, keyed[0][0][:31] + bytes([keyed[0][0][31] & 0xFE]))
    async with asked(chain, snapshots) as (_, peer):

        async def nodes(*paths: tuple[int, bytes]) -> StateNodesMessage:
            reply = await peer.request(GetStateNodesMessage(block_hash=block_hash, paths=paths))
            assert isinstance(reply, StateNodesMessage)
            return reply

        expected = [
            (n[:32], int.from_bytes(n[32:40], "big"), n[40:72], int.from_bytes(n[72:], "big"))
            for n in known.values()
        ]
        small = [i for i, n in enumerate(expected) if n[1] + n[3] <= NODE_FLOOR]
        most = small[serving_state.COMPUTED_MOST]
        first = await nodes(*known)
        assert (first.status, [*first.nodes]) == (Status.PARTIAL, expected[:most])
        monkeypatch.setattr(serving_state, "COMPUTED_MOST", len(expected))
        found = await nodes(*known)
        assert (found.status, [*found.nodes]) == (Status.OK, expected)
        (top,) = (await nodes(ROOT)).nodes
        header = chain.get_header(block_hash)
        assert header is not None
        assert merkle.state_node(*top) == header.state_root
        some = await nodes(ROOT, leaf, ROOT)
        assert (some.status, some.nodes) == (Status.PARTIAL, (top,))
        none = await nodes(leaf, ROOT)
        assert (none.status, none.nodes) == (Status.NOT_FOUND, ())
        nothing = await nodes()
        assert (nothing.status, nothing.nodes) == (Status.OK, ())


async def test_what_is_not_there(chain: Blockchain, snapshots: SnapshotKeeper) -> None:
    async with asked(chain, snapshots) as (_, peer):
        for block_hash, status in [
            (UNKNOWN, Status.NOT_FOUND),
            (chain.hash_at(INTERVAL + 1), Status.NOT_FOUND),  # there was never one
            (chain.hash_at(INTERVAL), Status.PRUNED),
            (chain.genesis_hash, Status.NOT_FOUND),
        ]:
            assert block_hash is not None
            state = await peer.request(GetStateMessage(block_hash=block_hash))
            nodes = await peer.request(GetStateNodesMessage(block_hash=block_hash, paths=(ROOT,)))
            assert (state.status, nodes.status) == (status, status)
    async with asked(chain, None) as (_, peer):
        assert "state/1" not in peer.capabilities
        state = await peer.request(GetStateMessage(block_hash=chain.head.hash))
        assert state.status == Status.NOT_FOUND


async def test_a_snapshot_that_cannot_be_read_is_not_found(
    chain: Blockchain, maker: CrowdedMaker, tmp_path: Path
) -> None:
    keeper = SnapshotKeeper(chain, tmp_path / "snapshots", Runtime(1))
    assert keeper.make(lambda: False)
    ((_, block_hash),) = keeper.announced
    (path,) = (tmp_path / "snapshots").iterdir()
    async with asked(chain, keeper) as (server, peer):
        assert server.make_pong(1).snapshots == keeper.announced
        with path.open("r+b") as damaged:
            damaged.truncate(5000)
        reply = await peer.request(GetStateMessage(block_hash=block_hash))
        assert reply.status == Status.NOT_FOUND
        assert server.make_pong(1).snapshots == ()
        assert not peer.closed
    keeper.close()


async def test_bodies_that_are_not_here_are_pruned(chain: Blockchain, tmp_path: Path) -> None:
    earliest = INTERVAL
    with opened("memory", tmp_path) as store:
        later = pruned(chain, earliest, store)
        async with asked(later, None) as (server, peer):
            assert (peer.earliest_height, "archive" in peer.capabilities) == (earliest, False)
            assert server.make_pong(1).earliest_height == earliest
            hashes = [chain.hash_at(height) or b"" for height in range(1, earliest + 2)]
            for request, status, count in [
                (GetBlocksMessage(start_height=1, end_height=earliest), Status.PRUNED, 0),
                (GetBlocksMessage(start_height=earliest, end_height=earliest), Status.OK, 1),
                (GetBlocksMessage(start_height=99, end_height=99), Status.NOT_FOUND, 0),
                (GetBlockBodiesMessage(hashes=tuple(hashes)), Status.PRUNED, 0),
                (GetBlockBodiesMessage(hashes=tuple(hashes[-2:])), Status.OK, 2),
                (GetBlockBodiesMessage(hashes=(hashes[-1], hashes[0])), Status.PARTIAL, 1),
                (GetBlockBodiesMessage(hashes=(UNKNOWN,)), Status.NOT_FOUND, 0),
            ]:
                reply = await peer.request(request)
                assert (reply.status, reply.count) == (status, count)


async def test_a_full_node_makes_and_announces_them(
    chain: Blockchain, maker: CrowdedMaker, tmp_path: Path
) -> None:
    settings = NodeConfig(
        listen_host="127.0.0.1", listen_port=0, discovery=False, ping_interval=0.05
    )
    async with FullNode(tmp_path, maker.config, settings=settings) as node:
        for height in range(1, chain.head.height + 1):
            block = chain.get_block(height)
            assert block is not None
            await node.runtime.run_writer(node.chain.import_block, block)
        client = P2PNode(config=settings)
        async with client:
            peer = await client.connect_peer("127.0.0.1", node.p2p.listen_port)
            block_hash = chain.hash_at(2 * INTERVAL) or b""
            await until(lambda: (2 * INTERVAL, block_hash) in peer.snapshots)
            reply = await peer.request(GetStateMessage(block_hash=block_hash))
            assert isinstance(reply, StateMessage)
            assert reply.accounts[4:] == records_of(maker.states[block_hash])
    assert [*(tmp_path / SNAPSHOTS_DIRECTORY).glob("*.snapshot")]
    without = FullNode(None, maker.config, settings=settings.replace(snapshots=False))
    assert without.p2p.make_hello(1, "127.0.0.1", 1).capabilities == (
        "sync/1",
        "relay/1",
        "archive",
    )
    await without.stop()
