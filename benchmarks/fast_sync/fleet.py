"""The processes of one run: who serves, who syncs, and how much memory they take meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from benchmarks.fast_sync.chains import GENESIS, Source

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from adversity.control import Child  # noqa: E402

LOOK = 0.02  # seconds between two looks at a sync or at memory
PATIENCE = 600.0  # seconds for one sync


class Fleet:
    """Processes and directories that are gone at the end of the `with` block."""

    def __init__(self, transport: str = "secure") -> None:
        self.transport = transport
        self.servers: list[Child] = []
        self._stack = ExitStack()
        self._made = 0
        self._copied = False

    def __enter__(self) -> Self:
        temporary = tempfile.TemporaryDirectory(prefix="moderntensor-", ignore_cleanup_errors=True)
        self.directory = Path(self._stack.enter_context(temporary))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _child(self, role: str, setup: dict[str, Any]) -> Child:
        self._made += 1
        errors = self.directory / f"{role}-{self._made}.err"
        setup["transport"] = self.transport
        child = Child(f"benchmarks.fast_sync.{role}", setup, errors)
        self._stack.callback(child.kill)
        return child

    def serve(self, *sources: Source, lie: str | None = None, most: int | None = None) -> Child:
        """One more process that serves a copy of the first source, and of the next instead once
        it has served `most` accounts."""
        name = f"server-{len(self.servers)}"
        data = [self.directory / name / str(i) for i in range(len(sources))]
        for source, copy in zip(sources, data, strict=True):
            shutil.copytree(source.data, copy)
        self._copied = True
        setup = {
            "data": [str(copy) for copy in data],
            "genesis": str(Path(sources[0].directory) / GENESIS),
            "lie": lie,
            "most": most,
        }
        self.servers.append(self._child("server", setup))
        return self.servers[-1]

    def syncer(
        self, source: Source, *, fast: bool, name: str | None = None, **more: Any
    ) -> tuple[Child, Path]:
        """A process that syncs from all servers, into a directory that is new unless `name` says
        which."""
        if self._copied:
            os.sync()  # else the commits of who syncs would have to write the copies to the disk
            self._copied = False
        data = self.directory / (name or f"synced-{self._made}")
        setup = {
            "data": str(data),
            "genesis": source.genesis,
            "fast": fast,
            "peers": [server.ready for server in self.servers],
            **more,
        }
        return self._child("syncer", setup), data

    def follower(self, source: Source, **more: Any) -> Child:
        """A whole node on a copy of the source."""
        data = self.directory / f"follower-{self._made}"
        shutil.copytree(source.data, data)
        return self._child("follower", {"data": str(data), "genesis": source.genesis, **more})

    def sync(
        self,
        source: Source,
        *,
        fast: bool,
        watch: Callable[[dict[str, Any]], None] = lambda status: None,
        expected: Source | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """One whole sync by a fresh process: its result, with the memory of both sides.
        AssertionError unless head, state root and every account are the expected ones."""
        syncer, data = self.syncer(source, fast=fast, **more)
        try:
            with memory_of({"syncer": syncer, "server": self.servers[0]}) as memory:
                syncer.ask("begin")
                result = wait_for(syncer, watch)
            compare(syncer, result, expected or source, fast)
            said = syncer.stop()
            assert "Traceback" not in said, said[-4000:]
        finally:
            syncer.kill()
            shutil.rmtree(data, ignore_errors=True)
        return {**result, "memory": memory, "fast": fast}


def wait_for(
    syncer: Child, watch: Callable[[dict[str, Any]], None] = lambda status: None
) -> dict[str, Any]:
    """The result of a sync that was begun; `watch` sees each status on the way."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        status = syncer.ask("status")
        assert status["error"] is None, status["error"]
        if status["result"] is not None:
            return dict(status["result"])
        watch(status)
        time.sleep(LOOK)
    raise AssertionError(f"not done after {PATIENCE:g} s: {status}")


def compare(syncer: Child, result: dict[str, Any], source: Source, fast: bool = True) -> None:
    """AssertionError unless head, state root and every account are the source's, and the state
    was fetched if that was asked for."""
    said = syncer.errors.read_text()[-4000:]
    assert result["pivot"] == (source.snapshot if fast else None), said
    found = result["height"], result["hash"], result["state_root"]
    assert found == (source.height, source.hash, source.state_root), (found, said)
    assert syncer.ask("digest") == [source.accounts, source.digest], "other accounts"


@contextmanager
def memory_of(children: dict[str, Child]) -> Iterator[dict[str, int]]:
    """The most anonymous resident memory of each, in bytes, looked at every now and then."""
    most = {name: child.memory() for name, child in children.items()}
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK):
            for name, child in children.items():
                if child.running:
                    most[name] = max(most[name], child.memory())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def killed(child: Child) -> None:
    """End it by SIGKILL, at once."""
    code = child.signal(signal.SIGKILL)
    assert code == -signal.SIGKILL, code


def total(servers: Sequence[Child], what: str) -> int:
    """How much of something all servers have served so far."""
    return sum(server.ask("served").get(what, 0) for server in servers)
