"""Peers to return to after a restart, and the file that they are kept in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.rawpeer import QUIET, quiet_node, until

from moderntensor.errors import StorageError
from moderntensor.network.anchors import (
    ANCHORS,
    ANCHORS_FILE,
    Anchor,
    decode_anchors,
    encode_anchors,
)
from moderntensor.network.identity import NodeIdentity
from moderntensor.network.p2p import P2PNode

LOOPBACK = "127.0.0.1"
SECURE = QUIET.replace(transport="secure", target_outbound=4)
GOOD = {"host": "8.8.8.8", "port": 30303, "node_id": "ab" * 32}


def test_what_is_written_is_read() -> None:
    anchors = [Anchor("8.8.8.8", 1, b"a" * 32), Anchor("2a00::1", 65535, b"b" * 32)]
    assert decode_anchors(encode_anchors(anchors)) == anchors
    assert decode_anchors(encode_anchors([])) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 2000,
        b"{}",
        b"null",
        b'{"version": 2, "anchors": []}',
        b'{"version": 1, "anchors": {}}',
        b'{"version": 1, "anchors": [], "more": 1}',
        b'{"version": 1, "anchors": [NaN]}',
        *(
            json.dumps({"version": 1, "anchors": [entry]}).encode()
            for entry in (
                None,
                {},
                {**GOOD, "more": 1},
                {**GOOD, "host": "boot.example"},
                {**GOOD, "host": "::ffff:8.8.8.8"},
                {**GOOD, "host": 8},
                {**GOOD, "port": 0},
                {**GOOD, "port": 65536},
                {**GOOD, "port": True},
                {**GOOD, "port": "1"},
                {**GOOD, "node_id": "ab"},
                {**GOOD, "node_id": "AB" * 32},
                {**GOOD, "node_id": "zz" * 32},
                {**GOOD, "node_id": None},
            )
        ),
        json.dumps({"version": 1, "anchors": [GOOD] * (ANCHORS + 1)}).encode(),
    ],
)
def test_any_other_content_is_refused(content: bytes) -> None:
    with pytest.raises(StorageError, match="not a file of anchors"):
        decode_anchors(content)


def saved(directory: Path) -> set[bytes]:
    path = directory / ANCHORS_FILE
    return {a.node_id for a in decode_anchors(path.read_bytes())} if path.exists() else set()


def at(node: P2PNode) -> str:
    return f"{LOOPBACK}:{node.listen_port}"


async def test_a_node_returns_to_its_peers_of_before(tmp_path: Path) -> None:
    secure: dict[str, Any] = {"transport": "secure"}
    async with quiet_node(**secure) as one, quiet_node(**secure) as two, quiet_node(**secure) as x:
        async with P2PNode(config=SECURE, data_dir=tmp_path) as node:
            for other in (one, two, x):
                await node.connect_peer(LOOPBACK, other.listen_port)
            # Written while it runs: what was killed has them as well.
            await until(lambda: len(saved(tmp_path)) == 2)
        assert saved(tmp_path) == {one.node_id, two.node_id}  # the first ones
        async with P2PNode(config=SECURE, data_dir=tmp_path) as node:
            await until(lambda: set(node.table.by_id) == {one.node_id, two.node_id})
            # Nobody is there any more, and they are not forgotten.
            await one.stop()
            await two.stop()
            await until(lambda: not node.peers)
        assert saved(tmp_path) == {one.node_id, two.node_id}
        async with P2PNode(config=SECURE, data_dir=tmp_path, bootstrap_nodes=[at(x)]) as node:
            await until(lambda: set(node.table.by_id) == {x.node_id})
        assert saved(tmp_path) > {x.node_id}


_VICTIM = """
import asyncio, sys
from pathlib import Path
from moderntensor.config import NodeConfig
from moderntensor.network.p2p import P2PNode

async def main():
    config = NodeConfig(listen_host="127.0.0.1", listen_port=0)
    async with P2PNode(bootstrap_nodes=sys.argv[2:], config=config, data_dir=Path(sys.argv[1])):
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_node_that_is_killed_returns_to_its_peers(tmp_path: Path) -> None:
    async with quiet_node(transport="secure") as one, quiet_node(transport="secure") as two:
        arguments = [sys.executable, "-c", _VICTIM, str(tmp_path), at(one), at(two)]
        with subprocess.Popen(arguments) as process:  # noqa: ASYNC220
            await until(lambda: len(saved(tmp_path)) == 2)
            process.send_signal(signal.SIGKILL)
        await until(lambda: not one.peers and not two.peers)
        async with P2PNode(config=SECURE, data_dir=tmp_path) as node:  # it is told of nobody
            await until(lambda: set(node.table.by_id) == {one.node_id, two.node_id})


async def test_somebody_else_in_an_anchors_place_is_not_taken_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with quiet_node(transport="secure") as one:
        anchor = Anchor(LOOPBACK, one.listen_port, NodeIdentity.generate().node_id)
        (tmp_path / ANCHORS_FILE).write_bytes(encode_anchors([anchor]))
        with caplog.at_level("INFO", logger="moderntensor"):
            async with P2PNode(config=SECURE, data_dir=tmp_path) as node:
                await until(lambda: "could not return to a peer of the last run" in caplog.text)
                assert not node.peers
        assert not one.peers


async def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / ANCHORS_FILE
    path.write_bytes(b"nonsense")
    async with P2PNode(config=SECURE, data_dir=tmp_path) as node:
        assert node.running
    assert not path.exists()
    assert path.with_name(f"{ANCHORS_FILE}.bad").read_bytes() == b"nonsense"


async def test_a_pipe_in_place_of_the_file_keeps_no_node_from_starting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ANCHORS_FILE)
    async with P2PNode(config=SECURE, data_dir=tmp_path) as node:
        assert node.running
    assert (tmp_path / f"{ANCHORS_FILE}.bad").is_fifo()


async def test_without_a_directory_nothing_is_kept(tmp_path: Path) -> None:
    async with quiet_node(transport="secure") as one, P2PNode(config=SECURE) as node:
        await node.connect_peer(LOOPBACK, one.listen_port)
        assert [anchor.node_id for anchor in node.anchors] == [one.node_id]
    assert not saved(tmp_path)


async def test_a_node_to_start_from_must_be_the_one_that_was_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for transport in ("secure", "plaintext"):
        config = SECURE.replace(transport=transport, bootstrap_redial=0.01)
        async with quiet_node(transport=transport) as one:
            async with P2PNode(bootstrap_nodes=[f"{'ab' * 32}@{at(one)}"], config=config) as node:
                with caplog.at_level("WARNING", logger="moderntensor"):
                    await until(lambda: "could not connect to" in caplog.text)
                assert "another node_id than expected (code 16)" in caplog.text
                caplog.clear()
                assert not node.peers
            named = [f"{one.node_id.hex()}@{at(one)}"]
            async with P2PNode(bootstrap_nodes=named, config=config) as node:
                await until(lambda node=node, one=one: one.node_id in node.table.by_id)
