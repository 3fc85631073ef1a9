"""What the API says of a node that was given nobody to make the blocks with."""

from __future__ import annotations

from helpers.http_scene import BLOCKS, CONFIG, VALIDATORS
from helpers.sync_nodes import SETTINGS, extend, until

from moderntensor.api import ApiServer, concerns
from moderntensor.client import Client
from moderntensor.network.sync import SyncPhase
from moderntensor.node import FullNode


async def test_who_makes_the_blocks_alone_waits_for_nobody() -> None:
    alone = FullNode(None, CONFIG, settings=SETTINGS, producer_key=VALIDATORS[0])
    async with alone as node, ApiServer(node, port=0) as api, Client(api.url) as client:
        await until(lambda: node.sync.status.phase is SyncPhase.WAITING)
        assert node.sync.status.waiting
        await node.runtime.run_writer(extend, node.chain, BLOCKS)
        sync, status = await client.sync(), await client.status()
        assert sync.waiting is None
        assert BLOCKS <= sync.current_height <= sync.header_height <= sync.target_height
        assert sync.current_height > node.sync.status.current_height
        assert not {"sync_waiting", "no_peers"} & {each.code for each in status.warnings}


async def test_who_only_follows_is_told_to_wait() -> None:
    async with FullNode(None, CONFIG, settings=SETTINGS) as node:
        await until(lambda: node.sync.status.phase is SyncPhase.WAITING)
        found = concerns.concerns(
            node, uptime=concerns.ALONE_FOR, age=0.0, has_state=True, disk_free=None
        )
        assert {each.code for each in found} == {"sync_waiting", "no_peers"}
