"""The rounds: suppliers, a fresh node for each sample, who watches it, and what came out."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from moderntensor import backend

from .ratios import Ratio
from .watchers import Page, Scraper, Script, Watcher, chromium

ROOT: Final = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import sync_loopback as loopback  # noqa: E402

PATIENCE: Final = 600.0  # seconds that a sync may take
ENDING: Final = 30.0  # seconds until a node has stopped
CHAIN: Final = "chain.json"  # written last: without it the rest is not complete


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of running the node, and how much of the plain rate it may cost."""

    http: bool = False
    page: bool = False
    most: float = 0.0


PLAIN: Final = "plain"
ARMS: Final = {
    PLAIN: Arm(),
    "metrics": Arm(http=True, most=0.02),
    "all": Arm(http=True, page=True, most=0.05),
}
SAYS: Final = {
    PLAIN: "without HTTP",
    "metrics": "HTTP, metrics scraped",
    "all": "HTTP, metrics scraped, the page open, and a program that asks and listens alike",
}


@dataclass(frozen=True, slots=True)
class Chain:
    """What is synced."""

    directory: Path
    height: int
    hash: str
    transfers: int


def chain(directory: Path, blocks: int, transfers: int) -> Chain:
    """The chain in that directory, made there if it is not. SystemExit if it is another one."""
    about = directory / CHAIN
    if not about.exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        head = loopback.build(directory, blocks, transfers)
        said = {"height": head.height, "hash": head.hash.hex(), "transfers": transfers}
        about.write_text(json.dumps(said), encoding="utf-8")
    found = Chain(directory, **json.loads(about.read_text(encoding="utf-8")))
    if (found.height, found.transfers) != (blocks, transfers):
        raise SystemExit(f"{directory} has {found.height} blocks of {found.transfers} transfers")
    return found


@contextmanager
def suppliers(chain: Chain, home: Path, count: int, ends: list[dict[str, Any]]) -> Iterator[Any]:
    """Processes that serve copies of it; their ports. What they say at their end is in `ends`."""
    for name in ("source", "genesis.json"):
        (home / name).symlink_to((chain.directory / name).resolve())
    with loopback.servers(home, count, ends) as ports:
        os.sync()  # else the first commits would have to write the copies to the disk
        yield ports


def split(together: bool) -> tuple[set[int], set[int]] | None:
    """Processors of the node, and those of everybody else; None if all share all."""
    if together or not hasattr(os, "sched_getaffinity"):
        return None
    here = sorted(os.sched_getaffinity(0))
    half = len(here) // 2
    return (set(here[:half]), set(here[half:])) if half else None


class Rounds:
    """Takes samples; `found` has them by arm, in the order of the rounds."""

    def __init__(
        self,
        chain: Chain,
        home: Path,
        ports: Sequence[int],
        processors: set[int] | None,
        every: float,
    ) -> None:
        """Every `every` seconds metrics are scraped, where an arm says so."""
        self.found: dict[str, list[dict[str, Any]]] = {}
        self._chain, self._home, self._ports = chain, home, ports
        self._processors, self._every = processors, every
        self._log = home / "node.log"
        self._made = 0

    async def run(self, arms: Sequence[str], rounds: int) -> str:
        """A sample of each arm a round, beginning with another arm each time; who looked at the
        page. What is sampled before them is not counted."""
        async with chromium() as (browser, name):
            await self._sample(PLAIN, browser)
            for number in range(rounds):
                first = number % len(arms)
                for arm in (*arms[first:], *arms[:first]):
                    sample = await self._sample(arm, browser)
                    self.found.setdefault(arm, []).append(sample)
                    print(f"  round {number + 1}, {arm}: {said(sample)}", flush=True)
        return name if browser is not None else f"a script in its place: {name}"

    async def _sample(self, name: str, browser: Any) -> dict[str, Any]:
        arm = ARMS[name]
        self._made += 1
        data = self._home / f"node-{self._made}"
        try:
            async with self._node(data, arm.http) as process, AsyncExitStack() as looking:
                watchers = []
                for watcher in self._watchers(arm, (await self._line(process))["url"], browser):
                    watchers.append(await looking.enter_async_context(watcher))
                for watcher in watchers:
                    watcher.begin()
                assert process.stdin is not None
                process.stdin.write(b"begin\n")
                found = await self._line(process)
                counts = {
                    f"{type(watcher).__name__} {number}": watcher.counts
                    for number, watcher in enumerate(watchers, 1)
                }
                if found["hash"] != self._chain.hash or found["peers"] != len(self._ports):
                    raise RuntimeError(f"it ended elsewhere, or without a peer: {found}")
                for watcher in watchers:
                    await watcher.caught_up(self._chain.height)
        finally:
            await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)
        rate = self._chain.height / found["seconds"]
        return {**found, "rate": rate, "counts": counts}

    def _watchers(self, arm: Arm, url: str, browser: Any) -> Iterator[Watcher]:
        if arm.http:
            yield Scraper(url, self._every)
        if arm.page:
            yield Script(url)
            yield Script(url) if browser is None else Page(browser, f"{url}/")

    @asynccontextmanager
    async def _node(self, data: Path, http: bool) -> Any:
        """A fresh node in a process of its own; AssertionError unless it ends well."""
        genesis = str(self._chain.directory / "genesis.json")
        setup = {"data": str(data), "genesis": genesis, "http": http, "ports": list(self._ports)}
        with self._log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"{__package__}.node", json.dumps(setup)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
                cwd=ROOT,
            )
        try:
            if self._processors is not None:
                os.sched_setaffinity(process.pid, self._processors)  # and so of all its threads
            yield process
            assert process.stdin is not None
            process.stdin.close()
            async with asyncio.timeout(ENDING):
                code = await process.wait()
            told = self._told()
            assert code == 0 and "Traceback" not in told, told
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _line(self, process: Process) -> dict[str, Any]:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"the node ended with {await process.wait()}: {self._told()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def _told(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-4000:]


def said(sample: dict[str, Any]) -> str:
    """One sample for people."""
    seen = ", ".join(
        f"{name} {counts['answers']:.0f} answers"
        + (f" and {counts['failures']:.0f} failures" if counts["failures"] else "")
        + (f" (slowest {counts['slowest'] * 1000:.0f} ms)" if "slowest" in counts else "")
        for name, counts in sample["counts"].items()
    )
    return (
        f"{sample['rate']:,.0f} blocks/s in {sample['seconds']:.1f} s, "
        f"processor {sample['processor']:.2f} s, {sample['loop']:.2f} of it the loop's and "
        f"{sample['others']:.2f} others'"
        f"{'; ' if seen else ''}{seen}"
    )


def judged(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Each arm's rate and processor time beside the plain node's, and what its own work takes: what
    the loop and, for others than the sync, worker threads take more, as a share of all. A mark is
    missed where that is over it, or where the rate is, in all but a fortieth of the resamples;
    nothing costs little where nobody is answered."""
    costs = {}
    for arm, samples in found.items():
        if arm == PLAIN:
            continue
        rate, processor = (
            Ratio.of([s[figure] for s in samples], [s[figure] for s in found[PLAIN]])
            for figure in ("rate", "processor")
        )
        work, plain = (
            median(s["loop"] + s["others"] for s in of) for of in (samples, found[PLAIN])
        )
        most = ARMS[arm].most
        whole = median(s["processor"] for s in found[PLAIN])
        own = (work - plain) / whole
        asked = [sum(c["answers"] for c in s["counts"].values()) / s["seconds"] for s in samples]
        failures = sum(int(c["failures"]) for s in samples for c in s["counts"].values())
        slowest = [c.get("slowest", 0.0) for s in samples for c in s["counts"].values()]
        costs[arm] = {
            "rate": asdict(rate),
            "processor": asdict(processor),
            "work": own,
            "most": most,
            "met": own <= most and 1 - rate.high <= most and not failures,
            "requests_per_second": median(asked),
            "failures": failures,
            "slowest_answer": max(slowest, default=0.0),
        }
    return costs


def machine() -> str:
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"{backend.NAME} engines"
    )
