"""`moderntensor node --http`: served from the command line, and ended in order."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

from helpers.command import complaint_of, run_each, running

LOOPBACK = ("--listen", "127.0.0.1:0")


def ask(port: int, request: str) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), 20)
    one.sendall(f"{request} HTTP/1.1\r\nHost: node.example\r\n\r\n".encode())
    return one


def test_it_serves_and_ends_with_listeners(net: Path, tmp_path: Path) -> None:
    arguments = ("node", "--data", net / "data", "--genesis", net / "genesis.json", *LOOPBACK)
    token = tmp_path / "token"
    http = ("--http", "127.0.0.1:0", "--http-allow-host", "node.example")
    with running(*arguments, *http, "--http-token-file", token) as node:
        line = node.line_with("HTTP on http://127.0.0.1:")
        assert str(token) in line.replace("\n", "")
        assert token.stat().st_mode & 0o777 == 0o600
        port = int(line.partition("127.0.0.1:")[2].partition(",")[0])
        with ask(port, "GET /v1/status") as one:
            answer = one.recv(65536).partition(b"\r\n\r\n")[2]
            assert json.loads(answer)["head"]["height"] == 30
        listeners = [ask(port, "GET /v1/events") for _ in range(10)]
        idle = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(10)]
        assert all(b" 200 " in one.recv(4096) for one in listeners)
        began = time.monotonic()
        code, out, err = node.stop()
        assert time.monotonic() - began < 10  # what orchestrators wait before they kill
        for one in (*listeners, *idle):
            one.close()
    assert (code, err) == (0, "")
    assert out.endswith("stopping\nstopped at block 30\n")


def test_what_cannot_be_served(made: Path, tmp_path: Path) -> None:
    start = ("node", "--data", tmp_path / "data", "--genesis", made / "genesis.json", *LOOPBACK)
    odd = tmp_path / "token"
    odd.write_text("short")
    odd.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        results = run_each(
            (
                (*start, "--http", "nowhere"),
                (*start, "--http-token-file", odd),
                (*start, "--http", "127.0.0.1:0", "--http-token-file", odd),
            )
        )
        assert "--http" in complaint_of(results[0], code=2)
        assert "--http" in complaint_of(results[1], code=2)
        assert "16 to 256" in complaint_of(results[2])
        (busy,) = run_each(((*start, "--http", address),))
    assert busy.returncode == 1
    assert f"cannot serve HTTP on {address}" in busy.stderr
