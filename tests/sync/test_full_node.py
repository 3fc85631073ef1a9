"""One object from a directory and a genesis file: it syncs, follows, produces, and ends cleanly."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.forks import SetClock
from helpers.sync_nodes import ACCOUNTS, CONFIG, SETTINGS, VALIDATORS, extend, grown, serving, until

from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.transaction import Transaction
from moderntensor.blockchain.workload import demo_config, demo_keys
from moderntensor.errors import ConfigError, NetworkError, StorageError, ValidationError
from moderntensor.node import FullNode

SMALL = SETTINGS.replace(map_size=64 << 20, bootstrap_redial=0.05)


async def test_it_syncs_by_itself_and_keeps_what_it_has(tmp_path: Path) -> None:
    genesis = tmp_path / "genesis.json"
    CONFIG.save(genesis)
    source = grown(250, 1)
    async with serving(source) as server:
        known = [f"127.0.0.1:{server.listen_port}"]
        async with FullNode(
            tmp_path / "data", genesis, bootstrap_nodes=known, settings=SMALL
        ) as node:
            await until(lambda: node.chain.head == source.head)
            extend(source, 2)
            await until(lambda: node.chain.head == source.head)
            node_id = node.p2p.node_id
    reopened = FullNode(tmp_path / "data", genesis, settings=SMALL)
    assert reopened.chain.head == source.head
    assert reopened.p2p.node_id == node_id
    await reopened.stop()


async def test_without_a_state_it_tries_again_with_pauses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its chain is too short to fetch one, which is found out at once."""
    bare = replace(CONFIG, alloc={}, state_root=CONFIG.genesis_header.state_root)
    caplog.set_level(logging.INFO, "moderntensor.node")
    async with serving(grown(3)) as server:
        known = [f"127.0.0.1:{server.listen_port}"]
        async with FullNode(None, bare, bootstrap_nodes=known, settings=SMALL) as node:
            await until(lambda: "can only be fetched" in caplog.text)
            loop = asyncio.get_running_loop()
            began, before = loop.time(), len(caplog.records)
            await asyncio.sleep(SMALL.follow_interval)
            pauses = (loop.time() - began) / SMALL.follow_interval
            assert len(caplog.records) - before <= pauses + 1
            assert node.chain.head.height == 0


async def test_producers_and_a_follower_agree_and_a_transfer_is_included() -> None:
    clock = SetClock(0.0)
    config = demo_config(ACCOUNTS, VALIDATORS, timestamp=1_000_000, block_time=1)
    clock.now = config.timestamp + 0.5
    nodes: list[FullNode] = []
    for key in (*VALIDATORS, None):
        known = [f"127.0.0.1:{node.p2p.listen_port}" for node in nodes]
        node = FullNode(
            None, config, bootstrap_nodes=known, settings=SMALL, producer_key=key, runtime=clock
        )
        await node.start()
        nodes.append(node)
    await until(lambda: all(len(node.p2p.peers) == 2 for node in nodes))
    transfer = Transaction.create(
        ACCOUNTS[0], chain_id=config.chain_id, nonce=0, to=ACCOUNTS[1].address, value=5
    )
    await nodes[2].p2p.broadcast_transaction(transfer)

    def agreed_height() -> int:
        heads = {node.chain.head for node in nodes}
        return heads.pop().height if len(heads) == 1 else -1

    for _ in range(4):
        clock.now += 1
        before = nodes[2].chain.head.height
        await until(lambda at=before: agreed_height() > at)
    assert nodes[2].chain.get_transaction(transfer.hash) is not None
    assert all(transfer.hash not in node.mempool for node in nodes)
    for node in nodes:
        await node.stop()
    clock.close()


async def test_run_until_stopped_ends_when_told() -> None:
    node = FullNode(None, CONFIG, settings=SMALL)
    before = asyncio.all_tasks()
    running = asyncio.ensure_future(node.run_until_stopped())
    await until(lambda: node.p2p.running)
    node.request_stop()
    await running
    assert asyncio.all_tasks() <= before
    with pytest.raises(StorageError, match="stopped"):
        await node.start()
    await node.stop()  # idempotent


async def test_what_it_cannot_use_is_named(tmp_path: Path) -> None:
    stranger = demo_keys(1, "stranger")[0]
    with pytest.raises(ValidationError, match="not among the validators"):
        FullNode(None, CONFIG, producer_key=stranger, settings=SMALL)
    with pytest.raises(ConfigError):
        FullNode(None, tmp_path / "missing.json", settings=SMALL)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        FullNode(tmp_path / "file", CONFIG, settings=SMALL)
    first = FullNode(tmp_path / "data", CONFIG, settings=SMALL)
    with pytest.raises(StorageError):
        FullNode(tmp_path / "data", CONFIG, settings=SMALL)
    await first.stop()


async def test_a_port_in_use_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(grown(1)) as server:
        await asyncio.sleep(0.05)  # the server's own tasks have begun
        before = asyncio.all_tasks()
        node = FullNode(tmp_path / "data", CONFIG, listen_port=server.listen_port, settings=SMALL)
        with pytest.raises(NetworkError, match="cannot listen"):
            await node.start()
        assert asyncio.all_tasks() <= before
        again = FullNode(tmp_path / "data", CONFIG, settings=SMALL)  # the lock was released
        await again.stop()


def test_the_genesis_file_gives_the_same_chain(tmp_path: Path) -> None:
    CONFIG.save(tmp_path / "genesis.json")
    assert ChainConfig.load(tmp_path / "genesis.json").genesis_hash == CONFIG.genesis_hash
