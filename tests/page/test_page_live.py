"""The page before a real node with real peers: while it syncs, follows and is started anew."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import Opened, browser, opened
from helpers.sync_nodes import CONFIG, SETTINGS, extend, grown, serving, until

from moderntensor.api import ApiServer
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.client import Client, model
from moderntensor.network.p2p import P2PNode
from moderntensor.node import FullNode

pytestmark = pytest.mark.long
HOSTILE = "<script>alert(1)</script>"
SMALL = SETTINGS.replace(map_size=64 << 20, bootstrap_redial=0.2)
BLOCKS = 1500
PAUSE = 0.006  # seconds that each block takes, so that the sync can be watched


@asynccontextmanager
async def peers_of(chain: Blockchain, count: int) -> AsyncIterator[list[P2PNode]]:
    """Nodes that serve the chain; the last says something hostile of itself."""
    async with AsyncExitStack() as stack:
        nodes = []
        for number in range(count):
            settings = SETTINGS.replace(user_agent=HOSTILE) if number == count - 1 else SETTINGS
            nodes.append(await stack.enter_async_context(serving(chain, settings=settings)))
        yield nodes


def watched(nodes: list[P2PNode], data: Path | None = None) -> FullNode:
    """A node that takes its time over each block."""
    known = [f"127.0.0.1:{node.listen_port}" for node in nodes]
    node = FullNode(data, CONFIG, bootstrap_nodes=known, settings=SMALL)

    async def take_time(_block: Block) -> None:
        await asyncio.sleep(PAUSE)

    node.sync.on_block_synced = take_time
    return node


class Heard:
    """The heights that were told, to the page by answers and to whoever listens by events."""

    def __init__(self) -> None:
        self.heights: set[str] = set()
        self.heads: set[str] = set()

    @asynccontextmanager
    async def by(self, running: Any, api: ApiServer) -> AsyncIterator[Opened]:
        """The page, with all that is told from before its first question on."""
        self._overhear(api)
        async with opened(running, api.url + "/", theme="dark", before=self._listen) as page:
            yield page

    def _overhear(self, api: ApiServer) -> None:
        events = api._context.events
        publish = events.publish

        def heard(event: model.Event) -> None:
            if isinstance(event, model.SyncEvent):
                self.heights.add(str(event.sync.current_height))
            elif isinstance(event, model.HeadEvent):
                self.heads.add(str(event.header.height))
            publish(event)

        events.publish = heard  # type: ignore[method-assign]

    async def _listen(self, page: Any) -> None:

        async def answer(route: Any) -> None:
            response = await route.fetch()
            said = await response.json()
            if "current_height" in said:
                self.heights.add(str(said["current_height"]))
            else:
                head = said["head"] if "head" in said else said["headers"][0]
                self.heads.add(str(head["height"]))
            await route.fulfill(response=response)

        await page.route(re.compile(r"/v1/(status|sync|headers)\b"), answer)


async def test_it_shows_what_the_node_says_while_it_syncs() -> None:
    source = grown(BLOCKS, 1)
    heard = Heard()
    async with (
        browser() as running,
        peers_of(source, 3) as nodes,
        watched(nodes) as node,
        ApiServer(node, port=0) as api,
        Client(api.url) as client,
        heard.by(running, api) as page,
    ):
        shown: list[tuple[str, str]] = []
        await page.until("() => document.querySelector('[data-field=\"sync.progress\"]')?.value")
        while node.chain.head != source.head:
            before = await client.sync()
            await page.page.wait_for_timeout(700)
            pair = await page.page.evaluate(
                "() => ['sync.current_height', 'head.height'].map((name) =>"
                ' document.querySelector(`data[data-field="${name}"]`).getAttribute("value"))'
            )
            after = await client.sync()
            assert int(pair[0]) <= after.current_height
            assert before.start_height <= int(pair[0])
            shown.append((pair[0], pair[1]))
        assert len({height for height, _ in shown}) >= 3  # it was seen to move
        await page.until_following()
        head = (await client.status()).head
        assert head.height == BLOCKS
        await page.until_value("head.height", head.height)
        for height, at_head in shown:
            assert height in heard.heights
            assert at_head in heard.heads

        # What does not change any more is the same, to the last digit.
        traffic = {each.type: each for each in (await client.traffic()).types}
        bodies = page.page.locator('#traffic tr[data-type="BLOCK_BODIES"] data')
        await page.until(
            "(wanted) => document.querySelector('#traffic tr[data-type=\"BLOCK_BODIES\"] data')"
            "?.getAttribute('value') === wanted",
            str(traffic["BLOCK_BODIES"].bytes_received),
        )
        assert await bodies.nth(1).get_attribute("value") == str(
            traffic["BLOCK_BODIES"].messages_received
        )
        listed = await client.peers()
        await page.until(
            "(n) => document.querySelectorAll('#peers tbody tr').length === n", len(listed)
        )
        for peer in listed:
            row = page.page.locator(f'#peers tr[data-address="{peer.address}"]')
            agent = row.locator('data[data-field="user_agent"]')
            assert await agent.inner_text() == peer.user_agent
            height = row.locator('data[data-field="best_height"]')
            assert await height.get_attribute("value") == str(peer.best_height)
        assert HOSTILE in {peer.user_agent for peer in listed}
        await page.until(
            "(hash) => document.querySelector('#blocks tbody tr').dataset.hash === hash", head.hash
        )
        about = await page.page.locator('#about data[data-field="node_id"]').inner_text()
        assert about == node.p2p.node_id.hex()
        words = await page.page.locator("main").inner_text()
        assert not {"undefined", "NaN", "[object"} & set(words.replace(",", " ").split())
        assert page.errors == []
        assert page.outside == []


async def test_new_blocks_come_at_once_and_open_to_their_transactions() -> None:
    source = grown(20, 1)
    async with (
        browser() as running,
        peers_of(source, 1) as nodes,
        watched(nodes) as node,
        ApiServer(node, port=0) as api,
        Client(api.url) as client,
        opened(running, api.url + "/") as page,
    ):
        await until(lambda: node.chain.head == source.head)
        await page.until_following()
        await page.until_value("head.height", 20)
        extend(source, 1, 3)
        await until(lambda: node.chain.head == source.head)
        await page.until_value("head.height", 21)
        await page.until(
            "() => document.querySelector('#blocks [data-field=\"height\"]').value === '21'"
        )
        top = page.page.locator("#blocks tbody tr").first
        assert await top.locator('[data-field="transactions"]').get_attribute("value") == "3"
        await top.click()
        await page.until("() => document.querySelectorAll('.transactions tbody tr').length === 3")
        block = await client.block("head")
        rows = page.page.locator(".transactions tbody tr")
        hashes = [await row.get_attribute("data-hash") for row in await rows.all()]
        assert hashes == [each.hash for each in block.transactions]
        outcomes = [(await row.locator("td").last.inner_text()) for row in await rows.all()]
        assert all("took effect" in outcome for outcome in outcomes)

        extend(source, 2)  # what is open stays open, and stays where it belongs
        await page.until(
            "() => document.querySelector('#blocks [data-field=\"height\"]').value === '23'"
        )
        heights = page.page.locator('#blocks [data-field="height"]')
        values = [int(await each.get_attribute("value") or 0) for each in await heights.all()]
        assert values == sorted(set(values), reverse=True)
        assert await page.page.locator(".transactions tbody tr").count() == 3
        assert page.errors == []


async def test_it_survives_a_restart_of_the_node(tmp_path: Path) -> None:
    source = grown(30, 1)
    async with (
        browser() as running,
        peers_of(source, 2) as nodes,
        AsyncExitStack() as first,
    ):
        node = await first.enter_async_context(watched(nodes, tmp_path))
        api = await first.enter_async_context(ApiServer(node, port=0))
        async with opened(running, api.url + "/") as page:
            await page.until_following()
            await page.until("() => document.getElementById('connection').dataset.state === 'live'")
            assert page.errors == []
            await first.aclose()
            await page.until("() => !document.getElementById('lost').hidden")
            assert "does not answer" in await page.page.locator("#lost-text").inner_text()
            await page.page.wait_for_timeout(4000)
            tries = len(page.errors)
            assert tries <= 5  # the browser logs each: there are few
            assert all("net::ERR" in error for error in page.errors), page.errors
            extend(source, 5)
            async with (
                watched(nodes, tmp_path) as again,
                ApiServer(again, port=api.port),
            ):
                await page.page.locator("#retry").click()
                await page.until(
                    "() => document.getElementById('connection').dataset.state === 'live'"
                )
                await until(lambda: again.chain.head == source.head)
                await page.until_value("head.height", 35)
                await page.until("() => document.querySelector('#blocks data')?.value === '35'")
                assert not await page.page.locator("#lost").is_visible()
                await page.until("() => document.querySelectorAll('#peers tbody tr').length === 2")
                for rows, key in (("#blocks", "data-hash"), ("#peers", "data-address")):
                    found = await page.page.locator(f"{rows} tbody tr").all()
                    names = [await row.get_attribute(key) for row in found]
                    assert len(names) == len(set(names)) > 0
                flow = await page.page.locator(".chart .summary").last.inner_text()
                assert "No values" in flow or "over" in flow
                assert all("net::ERR" in error for error in page.errors), page.errors
                assert page.outside == []
