"""Five nodes under load, restarts and a flaky link: `python -m benchmarks.soak --minutes 30`.

Real processes on loopback. Writes benchmarks/results/soak.json and the table of docs/soak.md,
unless `--out` names another file. Exit code 0 only if at the end all are on one head with every
transaction in it, nothing grew beyond its limit, and every node stopped as it should. Needs
Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.soak import page
from benchmarks.soak.run import run, told


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1, help="of restarts, link and transactions")
    parser.add_argument("--every", type=float, default=60.0, help="seconds from restart to restart")
    parser.add_argument("--out", type=Path, help="the result goes there, and the page stays")
    parser.add_argument("--keep", type=Path, help="an empty directory for data and logs")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="moderntensor-") as name:
        home = (given.keep or Path(name)).resolve()
        home.mkdir(parents=True, exist_ok=True)
        found = asyncio.run(run(home, given.minutes * 60, given.seed, given.every))
    print(told(found))
    (given.out or page.RESULT).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.out is None:
        page.write(found)
    return 0 if all(found["marks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
