"""A node that syncs once it is told to, and says what that took:
`python -m benchmarks.api_cost.node SETUP`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from moderntensor.config import NodeConfig
from moderntensor.node import FullNode

MAP_SIZE: Final = 8 << 30


async def run(setup: dict[str, Any]) -> None:
    """A line with the URL on stdout (null without HTTP), a line from stdin, the sync, a line with
    what it took; then as it is until stdin ends."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    settings = NodeConfig(
        listen_host="127.0.0.1", listen_port=0, discovery=False, map_size=MAP_SIZE
    )
    node = FullNode(Path(setup["data"]), setup["genesis"], settings=settings)
    ended: asyncio.Future[tuple[float, float, float]] = loop.create_future()

    def now() -> tuple[float, float, float]:
        """Seconds of the clock, of all threads' processor time, and of the loop's."""
        return loop.time(), time.process_time(), time.thread_time()

    def synced() -> None:
        if not ended.done():
            ended.set_result(now())

    node.sync.on_sync_complete = synced
    async with AsyncExitStack() as running:
        await running.enter_async_context(node)
        url = None
        if setup["http"]:
            # Who is asked for no HTTP loads none of it.
            from moderntensor.api import ApiServer

            url = (await running.enter_async_context(ApiServer(node, port=0))).url
        say(url=url)
        await commands.readline()
        began = now()
        for port in setup["ports"]:
            await node.p2p.connect_peer("127.0.0.1", port)
        seconds, processor, of_loop = (b - a for a, b in zip(began, await ended, strict=True))
        head = node.chain.head
        say(
            seconds=seconds,
            processor=processor,
            loop=of_loop,
            height=head.height,
            hash=head.hash.hex(),
            peers=len(node.p2p.peers),
        )
        await commands.read()


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
