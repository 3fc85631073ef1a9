"""How a line treats packets: `python -m benchmarks.namespaces.probe SETUP`, at both of its ends.

One end answers UDP packets, the other sends `count` of them and notes when each comes back: what
is told of the lines is measured, not assumed.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from statistics import fmean, pstdev
from typing import Any, Final

PORT: Final = 9
INTERVAL: Final = 0.005  # seconds between two packets
_SIZE: Final = 64
_LAST: Final = 0.5  # seconds for the last one to come back


def answer(host: str) -> None:
    """Send back what comes until stdin ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, PORT))
        print(json.dumps("ready"), flush=True)
        while True:
            ready, _, _ = select.select([probe, sys.stdin], (), ())
            if sys.stdin in ready:
                return
            data, sender = probe.recvfrom(_SIZE)
            probe.sendto(data, sender)


def ask(host: str, count: int) -> dict[str, Any]:
    """Round trips in seconds, the share that did not come back, the share that was overtaken."""
    sent: dict[int, float] = {}
    times: list[float] = []
    highest, overtaken = -1, 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, PORT))
        until = time.monotonic() + count * INTERVAL + _LAST
        while (now := time.monotonic()) < until and (len(sent) < count or len(times) < count):
            number = len(sent)
            if number < count and now >= until - _LAST - (count - number) * INTERVAL:
                sent[number] = now
                probe.send(number.to_bytes(4, "big").ljust(_SIZE))
            if select.select([probe], (), (), INTERVAL / 5)[0]:
                number = int.from_bytes(probe.recv(_SIZE)[:4], "big")
                times.append(time.monotonic() - sent[number])
                overtaken += number < highest
                highest = max(highest, number)
    return {
        "packets": count,
        "lost": 1 - len(times) / count,
        "overtaken": overtaken / max(1, len(times)),
        "least": min(times, default=0.0),
        "mean": fmean(times) if times else 0.0,
        "most": max(times, default=0.0),
        "deviation": pstdev(times) if times else 0.0,
    }


if __name__ == "__main__":
    setup = json.loads(sys.argv[1])
    if setup.get("count"):
        print(json.dumps(ask(setup["host"], setup["count"])), flush=True)
    else:
        answer(setup["host"])
