"""Fast sync, measured: `python -m benchmarks.fast_sync [--quick] [part ...]`.

Parts: ratio, state, chaos, kills, vanish, serving. All nodes are processes of their own, on
loopback, in encrypted sessions unless `--plaintext`. Writes benchmarks/results/fast_sync.json,
unless it is `--quick`, which only shows that everything runs. Chains are built once and kept in
`--cache`. Exit code 1 where a mark is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks.fast_sync import chaos, kills, ratio, serving, state, vanish  # noqa: E402
from benchmarks.fast_sync.scale import QUICK, WHOLE  # noqa: E402

PARTS: dict[str, ModuleType] = {
    "ratio": ratio,
    "state": state,
    "chaos": chaos,
    "kills": kills,
    "vanish": vanish,
    "serving": serving,
}
RESULT = ROOT / "benchmarks" / "results" / "fast_sync.json"


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all, if none is named")
    parser.add_argument("--quick", action="store_true", help="show that it runs, in 40 s")
    parser.add_argument("--plaintext", action="store_true", help="no encryption between nodes")
    parser.add_argument("--cache", type=Path, help="directory for the chains, to be used again")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else WHOLE
    transport = "plaintext" if arguments.plaintext else "secure"
    found: dict[str, Any] = {}
    missed: list[str] = []
    with ExitStack() as stack:
        cache = arguments.cache or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="moderntensor-"))
        )
        for name in arguments.parts or PARTS:
            part, began = PARTS[name], time.monotonic()
            found[name] = part.measure(scale, cache, transport)
            missed += part.misses(found[name])
            print(f"{name} ({transport}, {time.monotonic() - began:.1f} s)")
            print("\n".join(f"  {line}" for line in part.lines(found[name])), flush=True)
    if not arguments.quick:
        _keep(found, transport)
    print("marks missed: " + (", ".join(missed) or "none"))
    return 0 if arguments.quick or not missed else 1


def _keep(found: dict[str, Any], transport: str) -> None:
    """Replace these parts in the file of results."""
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    told = {
        name: {"machine": machine, "transport": transport, **part} for name, part in found.items()
    }
    RESULT.write_text(json.dumps({**before, **told}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
