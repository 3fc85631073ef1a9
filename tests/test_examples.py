"""Every script in examples/ runs by itself, and does what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"

# Lines that tell that the thing itself happened; each is matched at the start of a line.
EXPECTED = {
    "watch_node": [
        r"node [0-9a-f]{16} is at block \d+",
        r"block \d+ [0-9a-f]{16}, 0 transactions",
    ],
    "node_setup": [
        r"wrote genesis\.json of chain 7",
        r"alice listens on 127\.0\.0\.1:\d+",
        r"  node id    [0-9a-f]{64}",
        r"alice dialled moderntensor/\S+ at 127\.0\.0\.1:\d+",
        r"bob was dialled by [0-9a-f]{16}",
        r"  it can     archive, relay/1, state/1, sync/1",
        r"both nodes have stopped",
    ],
    "broadcast_transaction": [
        r"alice took transaction [0-9a-f]{16}\.\.\. and told 1 peer",
        r"carol hears of 1 transaction",
        r"alice finds it in block \d+, position 0",
        r"  receipt: status 1, gas used 21,000",
        r"  payer 0x[0-9a-f]{40}: balance 957,500, nonce 1",
        r"  payee 0x[0-9a-f]{40}: balance 500, nonce 0",
    ],
    "sync_chain": [
        r"a node serves 1,000 blocks on 127\.0\.0\.1:\d+",
        r"block 250 synced, \d+% of the way",
        r"block 1000 synced, 100% of the way",
        r"sync complete",
        r"phase following, 1 peer, 100%",
        r"1,000 blocks, 1,000 transactions and [\d,]+ bytes, [\d,]+ blocks/s",
        r"both nodes have state root [0-9a-f]{64}",
    ],
    "fast_sync": [
        r"a node at block 1,000 serves the state of block 900 on 127\.0\.0\.1:\d+",
        r"state of block 900: 906 accounts, each proved",
        r"100 of 1,000 blocks executed, head 1,000",
        r"balance [\d,]+, proved with \d+ hashes",
        r"block 1 came in the background, with 2 transactions",
        r"both nodes have state root [0-9a-f]{64}",
    ],
    "sqlite_store": [
        r"block 1 is in chain\.sqlite, [\d,]+ bytes",
        r"opened again: block 1, balance [\d,]+",
    ],
    "peer_discovery": [
        r"bootstrap listens on 127\.0\.0\.1:\d+",
        r"node \d dialled bootstrap",
        r"node \d dialled node \d",
        r"node 1 is connected to bootstrap, node 2, node 3, node 4, node 5",
        r"node 5 is connected to bootstrap, node 1, node 2, node 3, node 4",
        r"everybody found everybody",
    ],
    "chat": [
        r"alice and bob talk",
        r"  bob: <alice> is there any tea\?",
        r"  alice: <bob> ja, Grüntee ☕",
        r"carol comes later and learns of 2 lines",
        r"  carol: <bob> ja, Grüntee ☕",
        r"nobody has been in room coffee: 0 lines",
        r"carol tells 1 of 2 peers, and alice hears it by way of bob",
        r"  alice: <carol> one for me",
        r"dave cannot be asked: does not have the extension 'chat/1'",
    ],
    "message_protocol": [
        r"a record of our own: 0000000000000102000301(aa){32}$",
        r"  refused: Sighting\.peers: 501, at most 500",
        r"PING with nonce 7: 00 00 00 09 01 00 00 00 00 00 00 00 07",
        r"GET_HEADERS has 18 bytes, at most 4096",
        r"  fed 11 bytes: \['PingMessage'\]",
        r"a payload cut short: DecodeError: PingMessage\.nonce: needs 8 bytes",
        r"a type that does not exist: FrameError: ",
        r"a huge PING: frame of type 0x01 announces 16777214 payload bytes",
        r"the handler got NewBlockHashesMessage: block 42",
        r"asked a node without a chain for headers: NOT_FOUND",
    ],
}


# It wants arguments: tests/storage/test_backup.py, docs/howto/operate.md.
TESTED_ELSEWHERE = {"backup"}


def test_every_example_is_tested() -> None:
    tested = {*EXPECTED, *TESTED_ELSEWHERE}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str, tmp_path: Path) -> None:
    """It runs elsewhere than in the tree, leaves nothing there, and complains of nothing."""
    result = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for line in EXPECTED[name]:
        assert re.search(f"^{line}", result.stdout, re.MULTILINE), (line, result.stdout)
    noise = [line for line in result.stderr.splitlines() if "speaks plaintext" not in line]
    assert not noise
    assert not list(tmp_path.iterdir())


def test_a_chat_shows_no_escapes_and_ends_with_an_interrupt() -> None:
    with subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / "chat.py", "--name", "alice"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as chat:
        assert chat.stdin is not None and chat.stdout is not None and chat.stderr is not None
        try:
            assert b"end with Ctrl-D" in chat.stdout.readline()
            chat.stdin.write(b"a\x1b[31mb\n")
            chat.stdin.flush()
            assert chat.stdout.readline() == b"<alice> a?[31mb\n"
            chat.send_signal(signal.SIGINT)
            assert chat.wait(20) == 0  # though nobody ends the line that it reads
            assert not chat.stderr.read()
        finally:
            chat.kill()
