"""A node that syncs once it is told to, and says what that took:
`python -m benchmarks.api_cost.node SETUP`."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from moderntensor.config import NodeConfig
from moderntensor.node import FullNode
from moderntensor.runtime import Runtime

MAP_SIZE: Final = 8 << 30
P = ParamSpec("P")
T = TypeVar("T")


class Counted(Runtime):
    """Counts the processor time of what is done on worker threads, but for a sync's own bulk."""

    def __init__(self) -> None:
        super().__init__()
        self.others = 0.0
        self._lock = threading.Lock()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if isinstance(function, _Bulk):
            return await super().run(function, *args, **kwargs)

        def timed() -> T:
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.thread_time() - began
                with self._lock:
                    self.others += took

        return await super().run(timed)

    async def run_bulk(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await super().run_bulk(_Bulk(function), *args, **kwargs)


class _Bulk:
    """What was handed in as bulk."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)


async def run(setup: dict[str, Any]) -> None:
    """A line with the URL on stdout (null without HTTP), a line from stdin, the sync, a line with
    what it took; then as it is until stdin ends."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    settings = NodeConfig(
        listen_host="127.0.0.1", listen_port=0, discovery=False, map_size=MAP_SIZE
    )
    runtime = Counted()
    node = FullNode(Path(setup["data"]), setup["genesis"], settings=settings, runtime=runtime)
    ended: asyncio.Future[tuple[float, float, float, float]] = loop.create_future()

    def now() -> tuple[float, float, float, float]:
        """Seconds of the clock, of all threads' processor time, of the loop's, and of what others
        than the sync have worker threads do."""
        return loop.time(), time.process_time(), time.thread_time(), runtime.others

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
        taken = zip(began, await ended, strict=True)
        seconds, processor, of_loop, others = (b - a for a, b in taken)
        head = node.chain.head
        say(
            seconds=seconds,
            processor=processor,
            loop=of_loop,
            others=others,
            height=head.height,
            hash=head.hash.hex(),
            peers=len(node.p2p.peers),
        )
        await commands.read()


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
