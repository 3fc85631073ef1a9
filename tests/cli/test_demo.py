"""`moderntensor demo`: the whole, in small."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from helpers.command import PATIENCE, PYTHON, environment, succeed

SMALL = ("demo", "--blocks", "200", "--live-blocks", "1")


def check_summary(text: str) -> None:
    """All four nodes at block 201 with one head and one state root."""
    rows = re.findall(r"(node \d|fresh node) +│ +201 │ ([0-9a-f]{16}) │ ([0-9a-f]{16})", text)
    assert [name for name, _, _ in rows] == ["node 0", "node 1", "node 2", "fresh node"]
    assert len({(head, root) for _, head, root in rows}) == 1
    assert re.search(r"│ headers +│ +200 │ +[\d,]+ │", text)
    assert re.search(r"│ blocks +│ +200 │ +[\d,]+ │", text)
    assert re.search(r"│ transactions +│ +400 │ +[\d,]+ │", text)
    assert re.search(r"│ live blocks +│ +1 │", text)
    assert "all nodes agree" in text


def test_plain_text_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    shown = succeed(*SMALL)
    assert "\x1b" not in shown
    assert "\r" not in shown
    lines = iter(shown.splitlines())  # in this order
    for start in (
        "building 200 signed blocks with 2 transfers each",
        "  200 blocks signed",
        "a fresh node syncs from its peers over TCP, port ",
        "  following: headers 200, blocks 200 of 200 (100%), ",
        "live: ",
        "  block 201 by node ",
        "sync of the fresh node",
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
