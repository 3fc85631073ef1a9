"""One end of a stream, in a process of its own: orders as JSON lines in, answers out.

python -m benchmarks.compare.streams.end sender|receiver MODULE
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from typing import Any

from .work import Receiver, Sender, messages


def _say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


async def _order() -> Any:
    """The next order; None at the end. A thread waits for it, so that the loop goes on."""
    line = await asyncio.to_thread(sys.stdin.readline)
    return json.loads(line) if line else None


async def _send(sender: Sender) -> None:
    _say(port=await sender.listen())
    while (order := await _order()) is not None:
        some = messages(order["size"])
        began = time.process_time()
        await sender.send(some, order["count"])
        _say(busy=time.process_time() - began)


async def _receive(receiver: Receiver) -> None:
    await receiver.connect((await _order())["port"])
    _say(connected=True)
    while (order := await _order()) is not None:
        began = time.process_time()
        _say(ready=True)
        receipt = await receiver.receive(order["size"], order["count"], keep=order["keep"])
        _say(
            busy=time.process_time() - began,
            rate=receipt.rate,
            count=receipt.count,
            size=receipt.size,
            digest=receipt.digest,
        )


def main() -> None:
    side, name = sys.argv[1:]
    module = importlib.import_module(f".{name}", __package__)
    if side == "sender":
        asyncio.run(_send(module.Sender()))
    else:
        asyncio.run(_receive(module.Receiver()))


if __name__ == "__main__":
    main()
