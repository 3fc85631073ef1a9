"""The worker process: `python -m benchmarks.compare.nodes.run END SETTINGS`.

Each line of standard input is a command, `[name, arguments]` in JSON: the coroutine method of the
end that it names is awaited and what it returns is written as one line to standard output.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import resource
import sys

from .loop import UnpacedLoop

ENDS = {
    "moderntensor": ("ours", "OurEnd"),
    "moderntensor, encrypted": ("ours", "EncryptedEnd"),
    "moderntensor, uncounted": ("uncounted", "UncountedEnd"),
    "aiohttp": ("websockets", "AiohttpEnd"),
    "plain": ("plain", "PlainEnd"),
    "crowd": ("crowd", "Crowd"),
    "readers": ("readers", "Readers"),
    "raw sockets": ("raw", "RawEnd"),
    "TLS": ("tls", "TlsEnd"),
}


async def _serve(end: object) -> None:
    loop = asyncio.get_running_loop()
    try:
        # The reading thread sleeps in the kernel while anything is timed.
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            name, arguments = json.loads(line)
            result = await getattr(end, name)(**arguments)
            print(json.dumps(result), flush=True)
    finally:
        await end.stop()  # type: ignore[attr-defined]


def main() -> None:
    """Serve commands until standard input ends."""
    module, name = ENDS[sys.argv[1]]
    end = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.collect()
    gc.freeze()  # what the imports left is no part of what is timed
    with asyncio.Runner(loop_factory=UnpacedLoop) as runner:
        runner.run(_serve(end(**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
