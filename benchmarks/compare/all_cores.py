"""The bare rate of the curve's binding on all cores: one process each, all at once.

    python -m benchmarks.compare.all_cores verify|recover SECONDS

is one of those processes: it says that it is ready, and begins when its stdin ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from btclib_libsecp256k1 import recovery, ssa

from moderntensor.blockchain.crypto import sha256
from moderntensor.blockchain.workload import demo_keys

VERIFY: Final = "verify"
RECOVER: Final = "recover"

SIGNATURES: Final = 256  # different ones, over and over
CALLS: Final = 64  # between looks at the clock


def cores() -> int:
    """How many processes this machine runs at once."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def rate(kind: str, seconds: float) -> float:
    """Calls per second of all processes together, after each has had `seconds`."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", __spec__.name, kind, str(seconds)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(cores())
        ]
        for process in processes:
            stack.callback(process.kill)  # nothing to one that has ended
            assert process.stdout is not None
            process.stdout.readline()
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        total = 0.0
        for process in processes:
            assert process.stdout is not None
            total += float(process.stdout.read())
        return total


def _loop(kind: str, seconds: float) -> float:
    """Calls per second of the binding's function here, each with the bytes that it takes."""
    key = demo_keys(1)[0]
    messages = [sha256(n.to_bytes(4, "big")) for n in range(SIGNATURES)]
    call: Callable[..., object]
    signed: list[tuple[object, ...]]
    if kind == VERIFY:
        call = ssa.verify
        signed = [(message, key.public_key, key.sign(message)) for message in messages]
    else:
        call = recovery.recover
        signed = [
            (message, r + s, v)
            for message in messages
            for v, r, s in [key.sign_recoverable(message)]
        ]
    print("ready", flush=True)
    sys.stdin.read()
    done, at, began = 0, 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds:
        for arguments in signed[at : at + CALLS]:
            call(*arguments)
        done += CALLS
        at = (at + CALLS) % SIGNATURES
    return done / taken


if __name__ == "__main__":
    print(_loop(sys.argv[1], float(sys.argv[2])))
