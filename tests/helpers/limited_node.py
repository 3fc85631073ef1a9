"""A node in a process of its own that tells what it holds: one line of JSON for each line read.

python -m helpers.limited_node BUDGET
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

from moderntensor.network.messages import BlocksMessage, GetBlocksMessage, MessageType
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer

from .rawpeer import QUIET


def anonymous_memory() -> int:
    """Bytes of this process that no file stands behind."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def main(budget: int) -> None:
    async def blocks(_: Peer, request: GetBlocksMessage) -> BlocksMessage:
        return BlocksMessage(request_id=request.request_id, blocks=(bytes(1_900_000),))

    node = P2PNode(config=QUIET.replace(byte_budget=budget))
    node.register_handler(MessageType.GET_BLOCKS, blocks)
    loop = asyncio.get_running_loop()
    highest = 0

    async def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, anonymous_memory())
            await asyncio.sleep(0.01)

    async with node:
        watching = asyncio.ensure_future(watch())
        print(json.dumps({"port": node.listen_port, "memory": anonymous_memory()}), flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            report = node.budget.report()
            said = {
                "held": report.held,
                "highest": report.highest,
                "dropped": report.dropped,
                "peers": len(node.peers),
                "memory": highest,
            }
            print(json.dumps(said), flush=True)
        watching.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
