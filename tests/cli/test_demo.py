"""`moderntensor demo`: the whole, in small."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from helpers.command import PATIENCE, PYTHON, environment, succeed

SMALL = ("demo", "--blocks", "200", "--transfers", "2", "--live-blocks", "1")
NAMES = ["node 0", "node 1", "node 2", "full sync", "fast sync"]


def check_summary(text: str) -> None:
    """All five nodes at block 201 with one head, one state root and the same accounts: the 100 of
    the beginning, the 200 that transfers made, and the three of the validators."""
    rows = re.findall(
        r"│ (node \d|full sync|fast sync) +│ +201 │ ([0-9a-f]{16}) │ ([0-9a-f]{16}) │ +303 │", text
    )
    assert [name for name, _, _ in rows] == NAMES
    assert len({(head, root) for _, head, root in rows}) == 1
    assert re.search(r"│ headers checked +│ +200 │ +200 │", text)
    # The state after block 101: half of what the transfers made up to there.
    assert re.search(r"│ accounts proved +│ +0 │ +204 │", text)
    assert re.search(r"│ blocks executed +│ +200 │ +99 │", text)
    assert re.search(r"│ transactions executed +│ +400 │ +198 │", text)
    assert re.search(r"^fast sync (was|took) \d+\.\d times as (fast|long)", text, re.MULTILINE)
    assert "1 live block, each on every node after" in text
    assert "all nodes agree, in every account" in text


def test_plain_text_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    shown = succeed(*SMALL)
    assert "\x1b" not in shown
    assert "\r" not in shown
    lines = iter(shown.splitlines())  # in this order
    for start in (
        "building 200 signed blocks with 2 transfers each, which make 200 accounts",
        "  200 blocks signed",
        "each of the 3 nodes has a snapshot of the state at block 101",
        "full sync: a fresh node executes all blocks, over TCP, port ",
        "  following: headers 200, blocks 200 of 200 (100%), ",
        "fast sync: another node fetches the state, with proofs, over TCP, port ",
        "  following: headers 200, accounts 204 of 204 proved, blocks 200 of 200 (100%), ",
        "live: ",
        "  block 201 by node ",
        "the two syncs",
        "where the nodes stand",
    ):
        assert any(line.startswith(start) for line in lines), (start, shown)
    assert "with our transaction" in shown
    check_summary(shown)
    assert not list(tmp_path.iterdir())


def test_a_panel_on_a_terminal() -> None:
    mine, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [*PYTHON, *SMALL],
            env=environment(TERM="xterm", COLUMNS="100", LINES="30"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            shown = read_all(mine).decode()
            assert process.wait(PATIENCE) == 0, shown
    finally:
        os.close(mine)
    assert "─ building the chain ─" in plain(shown)
    assert "─ sync: " in plain(shown)
    assert re.search(r"accounts +━+ +204 of 204", plain(shown))
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is back
    check_summary(plain(shown))
    assert "Traceback" not in shown
    assert "WARNING" not in shown


def read_all(terminal: int) -> bytes:
    """What a child writes until it closes its end."""
    data = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux says so when the last writer has gone
            return data
        if not piece:
            return data
        data += piece


def plain(text: str) -> str:
    """Without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
