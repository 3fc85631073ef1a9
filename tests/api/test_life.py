"""A server's beginning and end."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import pytest
from helpers.command import ROOT, environment
from helpers.http_scene import Scene, scene
from helpers.sync_nodes import CONFIG, SETTINGS

from moderntensor.api import ApiServer
from moderntensor.errors import ConfigError, NetworkError
from moderntensor.node import FullNode


async def test_nothing_is_left_when_the_node_stops(pair: Scene) -> None:
    own = len(pair.node.chain._listeners) - 1
    before = {task for task in asyncio.all_tasks() if "HTTP" not in task.get_name()}
    held = [await pair.connect() for _ in range(3)]
    held[0][1].write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    held[1][1].write(b"POST /v1/bans HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n")
    await held[0][0].readuntil(b"\r\n\r\n")
    assert pair.node.on_stopping
    async with asyncio.timeout(8):
        await pair.node.stop()
    with pytest.raises(OSError):
        await pair.connect()
    for reader, writer in held:
        await reader.read()
        writer.close()
    await pair.session.close()
    await asyncio.sleep(0)
    assert not pair.node.on_stopping
    assert len(pair.node.chain._listeners) <= own
    left = [task for task in asyncio.all_tasks() - before if "HTTP" in task.get_name()]
    assert not left
    assert not pair.node.p2p.on_peer_connected


async def test_it_can_be_started_again_beside_the_same_node(served: Scene) -> None:
    await served.api.stop()
    await served.api.stop()
    again = ApiServer(served.node, port=0)
    async with again:
        await again.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", again.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"alive" in await reader.read()
        writer.close()


async def test_a_port_in_use_is_said_and_leaves_nothing(served: Scene) -> None:
    second = ApiServer(served.node, port=served.api.port)
    with pytest.raises(NetworkError, match=f"cannot serve HTTP on 127.0.0.1:{served.api.port}"):
        await second.start()
    assert len(served.node.on_stopping) == 1
    await second.stop()


async def test_more_than_loopback_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    node = FullNode(None, CONFIG, settings=SETTINGS)
    with caplog.at_level(logging.WARNING, "moderntensor.api"):
        everywhere = "0.0.0.0"  # noqa: S104 - what is to be warned of
        async with node, ApiServer(node, everywhere, 0, allowed_hosts=["node.example"]) as api:
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(
                b"GET /healthz HTTP/1.1\r\nHost: NODE.example:1\r\nConnection: close\r\n\r\n"
            )
            assert b" 200 " in await reader.readline()
            writer.close()
    assert "without encryption" in caplog.text


async def test_tokens_that_no_header_carries() -> None:
    async with scene(blocks=0) as made:
        for token in ("", "short", "a blank in the middle", "ü" * 32):
            with pytest.raises(ConfigError, match="token"):
                ApiServer(made.node, token=token)


def test_a_missing_extra_is_said_in_one_line() -> None:
    code = (
        "import sys\n"
        "for name in ('aiohttp', 'msgspec', 'prometheus_client'): sys.modules[name] = None\n"
        "import moderntensor, moderntensor.node\n"
        "from moderntensor.errors import ConfigError\n"
        "try:\n    import moderntensor.api\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "HTTP needs the package aiohttp: pip install 'moderntensor[http]'\n"
    assert not done.stderr
