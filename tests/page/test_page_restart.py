"""The page before a node's process that is killed or told to end, and started again."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
from helpers.browser import browser, opened
from helpers.command import Running, running, succeed

from moderntensor.client import Client

pytestmark = pytest.mark.long
LIVE = "() => document.getElementById('connection').dataset.state === 'live'"
SHOWN = """() => {
  const of = (root, field) => [...document.querySelectorAll(`${root} data[data-field="${field}"]`)];
  return JSON.stringify({
    height: of('#tiles', 'head.height')[0].value,
    peers: of('#tiles', 'places.peers')[0].value,
    mempool: of('#tiles', 'mempool.transactions')[0].value,
    database: of('#tiles', 'database_bytes')[0].value,
    node: of('#about', 'node_id')[0].textContent,
    blocks: [...document.querySelectorAll('#blocks tbody tr')].map((row) => row.dataset.hash),
    heights: of('#blocks', 'height').map((each) => each.value),
    transactions: of('#blocks', 'transactions').map((each) => each.value),
    rows: document.querySelectorAll('#peers tbody tr, #traffic tbody tr').length,
  });
}"""


async def answered(client: Client) -> dict[str, object]:
    """What the page has to show by now."""
    status = await client.status()
    headers = await client.headers(limit=12)
    return {
        "height": str(status.head.height),
        "peers": str(status.places.inbound + status.places.outbound),
        "mempool": str(status.mempool.transactions),
        "database": str(status.database_bytes),
        "node": status.node_id,
        "blocks": [each.hash for each in headers],
        "heights": [str(each.height) for each in headers],
        "transactions": [str(each.transactions) for each in headers],
        "rows": 0,
    }


async def port_of(node: Running) -> int:
    line = await asyncio.to_thread(node.line_with, "HTTP on http://127.0.0.1:")
    return int(line.partition("127.0.0.1:")[2].partition(",")[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
async def test_it_recovers_by_itself(tmp_path: Path, number: signal.Signals) -> None:
    """The node makes blocks until it ends, and none after, so that all figures can be compared."""
    net = tmp_path / "net"
    new = ("--validators", "2", "--accounts", "4", "--block-time", "1", "--seed", "page")
    succeed("chain", "new", net, "--blocks", "30", "--timestamp", "1700000000", *new)
    files = ("--data", net / "data", "--genesis", net / "genesis.json")
    node = ("node", *files, "--listen", "127.0.0.1:0", "--http")
    making = ("--validator-key", net / "keys" / "validator-1.key")
    async with browser() as chromium:
        with running(*node, "127.0.0.1:0", *making) as first:
            port = await port_of(first)
            url = f"http://127.0.0.1:{port}"
            async with opened(chromium, url + "/") as page:
                await page.until_following()
                await page.until(LIVE)
                before = int(await page.value("head.height"))
                await page.until(
                    "(low) => Number(document.querySelector('#blocks data').value) > low",
                    max(30, before),
                )
                assert page.errors == []
                await asyncio.to_thread(first.stop, number)
                await page.until("() => !document.getElementById('lost').hidden")
                with running(*node, f"127.0.0.1:{port}") as second:
                    assert await port_of(second) == port
                    await page.until("() => document.getElementById('lost').hidden")
                    await page.until(LIVE)
                    async with Client(url) as client:
                        wanted = await answered(client)
                        assert int(str(wanted["height"])) > 30
                        await page.until(
                            f"(wanted) => ({SHOWN})() === JSON.stringify(wanted)", wanted
                        )
                        assert json.loads(await page.page.evaluate(SHOWN)) == await answered(client)
                    assert "Waiting for peers" in await page.page.locator("#sentence").inner_text()
                    assert all("net::ERR" in error for error in page.errors), page.errors
                    assert page.outside == []
