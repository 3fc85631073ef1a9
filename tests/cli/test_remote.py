"""`status`, `peers`, `top`, `tx`, `account`: against a real node with --http."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.command import (
    PYTHON,
    Running,
    complaint_of,
    environment,
    printed,
    run_each,
    running,
    succeed,
)

from moderntensor.blockchain.crypto import KeyPair, sha256
from moderntensor.blockchain.key_files import save_key
from moderntensor.cli.devnet import derive_keys

NOBODY = "http://127.0.0.1:1"


class Served(NamedTuple):
    """A node that makes a block each second."""

    url: str
    data: Path
    key: Path
    payer: KeyPair
    process: Running


def start(net: Path, at: str = "127.0.0.1:0") -> tuple[str, ...]:
    return (
        "node",
        *("--data", str(net / "data"), "--genesis", str(net / "genesis.json"), "--http", at),
        *("--validator-key", str(net / "keys" / "validator-0.key"), "--listen", "127.0.0.1:0"),
        "--json",
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    net = tmp_path_factory.mktemp("remote") / "net"
    options = ("--validators", "1", "--accounts", "4", "--block-time", "1", "--seed", "tests")
    succeed("chain", "new", net, "--blocks", "3", *options)
    (payer, *_) = derive_keys(sha256(b"tests"), "account", 4)
    save_key(net / "payer.key", payer)
    with running(*start(net), patience=240) as node:  # for all tests
        url = json.loads(node.line_with('"http"'))["url"]
        node.line_with('"status"')
        yield Served(url, net / "data", net / "payer.key", payer, node)
        code, out, _ = node.stop()
        assert code == 0
        events = [json.loads(line)["event"] for line in (node.said + out).splitlines()]
        assert events[0] == "listening" and events[-2:] == ["stopping", "stopped"]


def test_a_node_from_the_terminal(served: Served) -> None:
    at, token = ("--node", served.url), ("--data", str(served.data))
    host = served.url.removeprefix("http://")  # as --http has it
    payer, payee = served.payer.address.hex(), "0x" + "ab" * 20
    send = ("tx", "send", "--key", served.key, "--to", payee, "--value", "12345", *at, *token)
    status, as_json, sent, nobody, bans, banned, listed, unbanned = run_each(
        [
            ("status", *at),
            ("status", "--json", *at),
            (*send, "--wait", "--json", "--input", "0x00ff"),
            ("peers", *at),
            ("peers", "bans", *at),
            ("peers", "ban", "10.0.0.0/8", "--for", "2h", "--reason", "noisy", *at, *token),
            ("peers", "--node", served.url, "bans"),
            ("peers", "--json", "--node", host, "unban", "10.0.0.0/8", *token),
        ]
    )
    told = json.loads(printed(as_json))
    assert f"node        {told['node_id']}" in printed(status)
    assert told["producing"] and told["chain_id"] == 1
    transaction = json.loads(printed(sent))
    assert transaction["succeeded"] and transaction["height"] > 3
    assert (transaction["value"], transaction["data"]) == ("12345", "00ff")
    assert transaction["sender"] == "0x" + payer
    assert printed(nobody) == "no peers\n"
    assert printed(bans) == "nobody is banned\n"
    assert printed(banned).startswith("banned 10.0.0.0/8 for ")
    assert "noisy" in printed(listed)
    assert json.loads(printed(unbanned)) == {"unbanned": "10.0.0.0/8"}

    shown, account, proved, again, other_chain, late, poor = run_each(
        [
            ("tx", "show", transaction["hash"], *at),
            ("account", "show", payee, *at),
            ("account", "show", payee, "--prove", *at),
            (*send, "--json"),
            (*send, "--chain-id", "2"),
            (*send, "--wait", "--timeout", "0", "--json"),
            (*send, "--value", str(2**127)),
        ]
    )
    assert f"{transaction['height']}, position 0" in printed(shown)
    assert "took effect" in printed(shown)
    assert "balance     12,345\n" in printed(account)
    assert "balance     12,345\n" in printed(proved)
    assert "compare its hash" in printed(proved)
    assert len(json.loads(printed(again))["hash"]) == 64
    assert complaint_of(other_chain).startswith("--chain-id 2: node http")
    assert (late.returncode, json.loads(late.stdout)["height"]) == (1, None)
    assert json.loads(late.stdout)["hash"] in late.stderr
    assert "rule 'balance': the account has " in complaint_of(poor)


def test_what_is_in_the_way_is_one_line_with_a_hint(served: Served, tmp_path: Path) -> None:
    at = ("--node", served.url)
    cases: list[tuple[tuple[str | Path, ...], int, str]] = [
        (("status", "--node", NOBODY), 1, "refused (is it running? moderntensor node --data DIR"),
        (("top", "--node", NOBODY), 1, "--http 127.0.0.1:1; another one: --node URL)"),
        (("status", "--node", served.url.replace("http:", "https:")), 1, "is it http:// rather"),
        (("status", "--node", "nowhere"), 1, "needs a URL such as http://127.0.0.1:8645"),
        (("peers", "drop", "1.2.3.4:5", *at), 1, "(the token is in the node's data directory"),
        (("peers", "unban", "8.8.8.8", *at, "--data", served.data), 1, "404"),
        (("peers", "add", "x", *at, "--token-file", tmp_path / "no"), 1, "token file"),
        (("tx", "show", "00" * 32, *at), 1, "GET /v1/transactions/0000"),
        (("tx", "show", "xy", *at), 2, "HASH"),
        (("account", "show", "12", *at), 2, "ADDRESS"),
        (("account", "show", "00" * 20, "--block", "11" * 32, *at), 1, "not the one trusted"),
        (("statsu",), 2, "Did you mean 'status'"),
    ]
    results = run_each(arguments for arguments, _, _ in cases)
    for (arguments, code, text), result in zip(cases, results, strict=True):
        assert text in complaint_of(result, code=code), arguments


@pytest.mark.parametrize("full", [True, False])
def test_a_transaction_that_stdout_has_no_room_for_is_told_on_stderr(
    served: Served, full: bool
) -> None:
    """Who believed that it failed would pay twice."""
    send = ("tx", "send", "--key", str(served.key), "--to", "ab" * 20, "--node", served.url)
    reading, writing = os.pipe()
    os.close(reading)
    with Path("/dev/full").open("wb") as device, os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [*PYTHON, *send, "--data", str(served.data), "--json"],
            stdout=device if full else closed,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
            check=False,
        )
    assert done.returncode == 1
    reason = "No space left on device" if full else "Broken pipe"
    assert re.fullmatch(
        rf"moderntensor: error: transaction [0-9a-f]{{64}} was handed in, which could not be "
        rf"printed: {reason}\n",
        done.stderr,
    )


def test_top_prints_lines_where_nothing_stays_in_place(served: Served) -> None:
    main, side = pty.openpty()
    command = [*PYTHON, "top", "--node", served.url, "--interval", "0.2", "--count", "2"]
    with subprocess.Popen(
        command, stdin=side, stdout=side, stderr=side, env=environment(TERM="dumb")
    ) as process:
        os.close(side)
        seen = b""
        while seen.count(b" peers") < 2:
            assert select.select([main], [], [], 30)[0], seen
            seen += os.read(main, 65536)
        assert process.wait(30) == 0
    os.close(main)
    # Alone, it waits for nobody.
    assert seen.startswith(b"makes blocks: block ") and b"\x1b" not in seen


def test_top_without_a_terminal_prints_lines(served: Served) -> None:
    options = ("top", "--node", served.url, "--count", "2", "--interval", "0.2")
    lines, as_json = run_each([options, (*options, "--json")])
    first, second = printed(lines).splitlines()
    assert "block" in first and "/s in" in second
    looks = [json.loads(line) for line in printed(as_json).splitlines()]
    assert [look["status"]["chain_id"] for look in looks] == [1, 1]


@pytest.mark.parametrize("columns", [46, pytest.param(120, marks=pytest.mark.long)])
def test_top_on_a_terminal_fits_it_and_ends_with_q(served: Served, columns: int) -> None:
    main, side = pty.openpty()
    size = {"COLUMNS": str(columns), "LINES": "24", "TERM": "xterm"}
    command = [*PYTHON, "top", "--node", served.url, "--interval", "60"]
    with subprocess.Popen(
        command, stdin=side, stdout=side, stderr=subprocess.PIPE, env=environment(**size)
    ) as process:
        os.close(side)
        seen = b""
        while b"q: quit" not in seen:
            assert select.select([main], [], [], 30)[0], seen
            seen += os.read(main, 65536)
        os.write(main, b"q")
        assert process.stderr is not None
        assert process.wait(30) == 0, process.stderr.read()
    os.close(main)
    assert b"head" in seen and b"phase" in seen


@pytest.mark.long
def test_top_goes_on_when_the_node_returns(tmp_path: Path) -> None:
    net = tmp_path / "net"
    options = ("--validators", "1", "--accounts", "4", "--block-time", "1", "--seed", "tests")
    succeed("chain", "new", net, "--blocks", "2", *options)
    with running(*start(net)) as node:
        url = json.loads(node.line_with('"http"'))["url"]
        with running("top", "--json", "--node", url, "--interval", "0.2") as top:
            first = json.loads(top.line_with("status"))
            assert node.stop()[0] == 0
            assert "cannot be reached" in json.loads(top.line_with('"error"'))["error"]
            with running(*start(net, url.removeprefix("http://"))) as again:
                second = json.loads(top.line_with('"status"'))
                assert second["status"]["started_at"] > first["status"]["started_at"]
                assert second["status"]["node_id"] == first["status"]["node_id"]
                again.stop()
