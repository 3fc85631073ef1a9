"""`moderntensor bans`: on a data directory, whether its node runs or not."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.command import complaint_of, printed, run_each, running
from helpers.rawpeer import QUIET, until

from moderntensor.cli import main
from moderntensor.errors import NetworkError
from moderntensor.network import ban_file
from moderntensor.network.messages import DisconnectCode
from moderntensor.network.p2p import P2PNode
from moderntensor.network.peer import Peer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What a node leaves there on its first run."""
    (tmp_path / "node.key").touch()
    return tmp_path


def run_in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """What the command prints as JSON, run in a process that has it loaded."""
    assert main([str(argument) for argument in arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_sets_shows_and_lifts(data: Path) -> None:
    at = ("--data", data)
    nobody, added, network, listed, as_json, lifted, rest = map(
        printed,
        run_each(
            [
                ("bans", "list", *at),
                ("bans", "add", "8.8.8.8", *at, "--for", "2h", "--reason", "noisy"),
                ("bans", "add", "9.9.9.9/16", *at, "--json"),
                ("bans", "list", *at),
                ("bans", "list", *at, "--json"),
                ("bans", "lift", "8.8.8.8", *at),
                ("bans", "list", *at, "--json"),
            ]
        ),
    )
    assert nobody == "nobody is banned\n"
    assert added.startswith("banned 8.8.8.8 until 2")
    assert json.loads(network)["key"] == "9.9.0.0/16"
    first, second = (line.split() for line in listed.splitlines()[1:])
    assert (first[0], second[0]) == ("8.8.8.8", "9.9.0.0/16")
    assert first[1] in {"1h59m", "2h00m"} and "noisy" in first
    rows = json.loads(as_json)
    assert [row["key"] for row in rows] == ["8.8.8.8", "9.9.0.0/16"]
    assert rows[0]["reason"] == "noisy" and 7100 < rows[0]["seconds_left"] <= 7200
    assert lifted == "lifted the ban of 8.8.8.8\n"
    assert [row["key"] for row in json.loads(rest)] == ["9.9.0.0/16"]


def test_nothing_in_the_list_is_taken_for_markup(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for whom, why in (("8.8.8.8", "[/b] [red]x"), ("[fe80::1]:30303", "[link=x]")):
        run_in_process(capsys, "bans", "add", whom, "--data", data, "--reason", why, "--json")
    assert main(["bans", "list", "--data", str(data)]) == 0
    shown = capsys.readouterr().out
    for text in ("[/b] [red]x", "[fe80::1]:30303", "[link=x]"):
        assert text in shown


def test_what_cannot_be_done_is_said_in_one_line(data: Path, tmp_path: Path) -> None:
    at = ("--data", data)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "bans.json").write_text("{")
    cases: list[tuple[tuple[str | Path, ...], int, str]] = [
        (("list", "--data", tmp_path / "nowhere"), 1, "no data directory of a node"),
        (("add", "somebody", *at), 1, "needs an IP address"),
        (("add", "8.8.8.8", *at, "--for", "soon"), 2, "--for"),
        (("add", "8.8.8.8", *at, "--for", "0"), 1, "must last"),
        (("add", "8.8.8.8", *at, "--for", "9999999999d"), 1, "must last"),
        (("add", "8.8.8.8", *at, "--reason", "\x1b[2J"), 1, "printable ASCII"),
        (("lift", "8.8.8.8", *at), 1, "is not banned"),
        (("list", "--data", damaged), 1, "bans: no JSON"),
        (("add", "8.8.8.8", "--data", damaged), 1, "bans: no JSON"),
    ]
    results = run_each([("bans", *arguments) for arguments, _, _ in cases])
    for (arguments, code, text), result in zip(cases, results, strict=True):
        assert text in complaint_of(result, code=code), arguments
    assert (damaged / "bans.json").read_text() == "{"


def test_a_running_node_takes_over_what_the_command_writes(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By node id: both nodes live at one address."""

    monkeypatch.setattr(ban_file, "BANS_WATCH", 0.02)

    async def scenario() -> None:
        config = QUIET.replace(transport="secure", bootstrap_redial=0.05, redial_interval=0.05)
        gone: list[Peer] = []
        async with P2PNode(config=config) as other, P2PNode(config=config, data_dir=data) as node:
            node.on_peer_disconnected.append(gone.append)
            await node.connect_peer("127.0.0.1", other.listen_port)
            whom = other.node_id.hex()
            run_in_process(capsys, "bans", "add", whom, "--data", data, "--json")
            await until(lambda: gone)
            with suppress(NetworkError):  # or its HELLO came first, and what it says to ours later
                turned_away = await other.connect_peer("127.0.0.1", node.listen_port)
                await until(lambda: turned_away.closed)
                assert turned_away.drop_code == DisconnectCode.BANNED
            assert not node.peers
            assert [ban.key for ban in node.list_bans()] == [whom]
            node.ban("8.8.8.8", 3600)
            run_in_process(capsys, "bans", "lift", whom, "--data", data, "--json")
            await until(lambda: [ban.key for ban in node.list_bans()] == ["8.8.8.8"])
            await other.connect_peer("127.0.0.1", node.listen_port)
            await until(lambda: node.peers)
        listed = run_in_process(capsys, "bans", "list", "--data", data, "--json")
        assert [row["key"] for row in listed] == ["8.8.8.8"]

    asyncio.run(scenario())


def test_a_node_in_another_process_parts_from_who_is_banned(
    net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario(port: int) -> None:
        gone: list[Peer] = []
        async with P2PNode(config=QUIET.replace(transport="secure")) as other:
            other.on_peer_disconnected.append(gone.append)
            await other.connect_peer("127.0.0.1", port)
            whom = other.node_id.hex()
            run_in_process(capsys, "bans", "add", whom, "--data", data, "--json")
            await until(lambda: gone)
        assert gone[0].drop_code == DisconnectCode.BANNED

    data = net / "data"
    options = ("--genesis", net / "genesis.json", "--listen", "127.0.0.1:0")
    with running("node", "--data", data, *options) as node:
        line = node.line_with("listening on")
        asyncio.run(scenario(int(line.partition("127.0.0.1:")[2].partition(",")[0])))
        assert node.stop()[0] == 0
