"""Make docs/images/: the status page of a node that syncs and of one that follows, in both themes
and at phone width.

    python docs/screenshots.py [--out DIRECTORY]

Real nodes on loopback, a real Chromium (CHROMIUM names one that is not on the path), and Playwright
and Pillow: ``pip install playwright pillow``. Takes some two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from PIL import Image
from playwright.async_api import async_playwright

from moderntensor.api import ApiServer
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.state import StateDB
from moderntensor.blockchain.validation import BlockValidator
from moderntensor.blockchain.workload import build_chain, demo_config, demo_keys
from moderntensor.config import NodeConfig
from moderntensor.network.p2p import P2PNode
from moderntensor.node import FullNode

IMAGES: Final = Path(__file__).parent / "images"
MAX_SIZE: Final = 150_000  # bytes of one picture
COLOURS: Final = 128
BLOCKS: Final = 10_000
BLOCK_TIME: Final = 2
SYNCED: Final = 0.4  # share of the chain at which the pictures of a sync are taken
FOLLOW_FOR: Final = 60.0
SETTLE: Final = 5 * BLOCK_TIME  # seconds, as rates are of four slots
PAUSE: Final = 0.002  # seconds for each block: a sync that lasts long enough to be looked at
ACCOUNTS: Final = demo_keys(8)
VALIDATORS: Final = demo_keys(3, "validator")
SETTINGS: Final = NodeConfig(
    listen_host="127.0.0.1",
    listen_port=0,
    discovery=False,
    ping_interval=2.0,
    follow_interval=0.5,
    map_size=1 << 30,
)
# Seconds there and back to each peer; the first of them are dialled, the others dial.
DIALLED: Final = (0.004, 0.011, 0.023, 0.031, 0.048, 0.072, 0.110, 0.240)
DIALLING: Final = (0.007, 0.026, 0.055, 0.090, 0.180)
# (what it shows, theme, width, height or None for the whole page)
PICTURES: Final = (
    ("syncing", "light", 1440, None),
    ("syncing", "dark", 1440, None),
    ("syncing", "dark", 390, 1500),
    ("following", "light", 1440, None),
    ("following", "dark", 1440, None),
    ("following", "light", 390, 1500),
)


def make_chain() -> Blockchain:
    """A chain whose last slot is now."""
    began = int(time.time()) - (BLOCKS + 1) * BLOCK_TIME
    config = demo_config(ACCOUNTS, VALIDATORS, timestamp=began, block_time=BLOCK_TIME)
    chain = BlockValidator(StateDB(None), config).chain
    for _ in build_chain(
        chain, validators=VALIDATORS, accounts=ACCOUNTS, blocks=BLOCKS, transfers=4 * BLOCKS
    ):
        pass
    return chain


def saved(png: bytes, path: Path) -> None:
    """A picture with few colours; raises ValueError for one that is large all the same."""
    with Image.open(io.BytesIO(png)) as picture:
        small = picture.convert("RGB").quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}  {size:,} bytes")
    if size > MAX_SIZE:
        raise ValueError(f"{path}: more than {MAX_SIZE:,} bytes")


# --- the network -------------------------------------------------------------------------------


@asynccontextmanager
async def line(port: int, round_trip: float) -> AsyncIterator[int]:
    """A port that leads to another one on loopback, so far away."""
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            loop.call_later(round_trip / 2, writer.write, data)
        loop.call_later(round_trip / 2, writer.close)

    async def connected(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        far, away = await asyncio.open_connection("127.0.0.1", port)
        for ends in ((near, away), (far, back)):
            task = asyncio.create_task(carry(*ends))
            running.add(task)
            task.add_done_callback(running.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tuple(running):
            task.cancel()


async def serve(chain: Blockchain, stack: AsyncExitStack, bootstrap: list[str]) -> P2PNode:
    node = P2PNode(bootstrap_nodes=bootstrap, config=SETTINGS)
    node.attach_chain(chain)
    return await stack.enter_async_context(node)


def timestamp_of(chain: Blockchain) -> int:
    header = chain.get_header(chain.head.height)
    if header is None:
        raise ValueError("a chain has a header at its head")
    return header.timestamp


async def grow(chain: Blockchain) -> None:
    """A block in every slot, from now on."""
    amounts = cycle((3, 14, 8, 21, 15, 0, 30, 14, 18, 9, 26, 11))
    while True:
        while time.time() >= timestamp_of(chain) + BLOCK_TIME:
            several = next(amounts)
            for _ in build_chain(
                chain,
                validators=VALIDATORS,
                accounts=ACCOUNTS,
                blocks=1,
                transfers_per_block=several,
            ):
                pass
        await asyncio.sleep(0.1)


# --- the pictures ------------------------------------------------------------------------------


async def take(pages: dict[tuple[str, int], Any], what: str, directory: Path) -> None:
    """Take those pictures that show this."""
    for shows, theme, width, height in PICTURES:
        if shows != what:
            continue
        page = pages[theme, width]
        await page.bring_to_front()
        if what == "following":  # the picture before had the machine's attention
            await asyncio.sleep(SETTLE)
        await page.wait_for_selector('#connection[data-state="live"]')
        clip = None if height is None else {"x": 0, "y": 0, "width": width, "height": height}
        png = await page.screenshot(full_page=True, clip=clip, animations="disabled")
        kind = "phone" if width < 600 else "desktop"
        saved(png, directory / f"status-{what}-{kind}-{theme}.png")


async def open_pages(browser: Any, url: str) -> dict[tuple[str, int], Any]:
    """One page for each theme and width."""
    pages = {}
    for _, theme, width, _ in PICTURES:
        if (theme, width) in pages:
            continue
        page = await browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
        )
        await page.goto(url)
        pages[theme, width] = page
    return pages


async def main(directory: Path) -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    chain = make_chain()
    async with AsyncExitStack() as stack, async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        stack.push_async_callback(browser.close)
        known = []
        for round_trip in DIALLED:
            peer = await serve(chain, stack, [])
            port = await stack.enter_async_context(line(peer.listen_port, round_trip))
            known.append(f"127.0.0.1:{port}")
        node = FullNode(None, chain.config, bootstrap_nodes=known, settings=SETTINGS)

        async def take_time(_block: Block) -> None:
            await asyncio.sleep(PAUSE)

        node.sync.on_block_synced = take_time
        await stack.enter_async_context(node)
        for round_trip in DIALLING:
            port = await stack.enter_async_context(line(node.p2p.listen_port, round_trip))
            await serve(chain, stack, [f"127.0.0.1:{port}"])
        api = await stack.enter_async_context(ApiServer(node, port=0))
        pages = await open_pages(browser, f"{api.url}/")
        while node.chain.head.height < SYNCED * BLOCKS:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.2)
        await take(pages, "syncing", directory)
        node.sync.on_block_synced = None
        growing = asyncio.create_task(grow(chain))
        stack.callback(growing.cancel)
        while node.chain.head.height < BLOCKS:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.2)
        pages = await open_pages(browser, f"{api.url}/")
        await asyncio.sleep(FOLLOW_FOR)
        await take(pages, "following", directory)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=IMAGES, help="where the pictures go")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(arguments.out))
