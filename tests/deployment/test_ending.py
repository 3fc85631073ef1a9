"""A node that is told to stop does so within the time that the deployment files give it."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.command import Running, running, succeed

pytestmark = pytest.mark.long

GRACE = 10.0  # seconds; what systemd, Compose and Kubernetes are told is twice that and more
BLOCKS = 2000


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("net") / "net"
    succeed("chain", "new", directory, "--blocks", str(BLOCKS), "--transfers", "4")
    return directory


def wait_for_blocks(node: Running) -> None:
    """Until it has executed the first of them."""
    url = node.line_with("HTTP on").split()[2].rstrip(",/")
    while True:
        with urllib.request.urlopen(f"{url}/v1/status") as answer:  # noqa: S310 - of this machine
            if json.load(answer)["head"]["height"]:
                return
        time.sleep(0.05)  # twenty a second are below the limit


def end(node: Running) -> int:
    """Tell it to stop; the block at which it did, in time and with nothing to complain of."""
    began = time.monotonic()
    node.process.send_signal(signal.SIGTERM)
    out, err = node.process.communicate(timeout=GRACE)
    print(f"ended after {time.monotonic() - began:.2f} s")
    assert node.process.returncode == 0, err
    assert not re.search("ERROR|Traceback|never", err), err
    stopped = re.search(r"stopped at block ([\d,]+)", out)
    assert stopped is not None, out
    return int(stopped[1].replace(",", ""))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_it_ends_in_time_under_load(net: Path, tmp_path: Path, loop: str) -> None:
    """One that is in the middle of a sync, then the one that serves it and another."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    serving = ("node", "--genesis", net / "genesis.json", "--listen", "127.0.0.1:0")
    options = (*serving, "--http", "127.0.0.1:0", "--loop", loop)
    with ExitStack() as stack:
        server = stack.enter_context(running(*options, "--data", net / "data"))
        address = server.line_with("listening on").split()[-3].rstrip(",")
        first, _second = (
            stack.enter_context(running(*options, "--data", tmp_path / name, "--peer", address))
            for name in ("first", "second")
        )
        wait_for_blocks(first)
        assert 0 < end(first) < BLOCKS
        assert end(server) == BLOCKS
