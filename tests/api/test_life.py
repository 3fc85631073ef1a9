"""A server's beginning and end."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading

import pytest
from helpers.command import ROOT, environment
from helpers.http_scene import TOKEN, Scene, scene
from helpers.sync_nodes import CONFIG, SETTINGS, until

from moderntensor.api import ApiServer
from moderntensor.blockchain.chain_queries import BlockMissing
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


async def test_requests_end_with_their_clients(
    served: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asks, leaves and asks again has one place at most; and nothing is left of it, however
    slow the store is when the server stops."""
    may_go_on = threading.Event()

    def slow(*_: object, **__: object) -> BlockMissing:
        may_go_on.wait(60)
        return BlockMissing()

    monkeypatch.setattr("moderntensor.api.chain_routes.find_block", slow)
    monkeypatch.setattr("moderntensor.api.server.REQUEST_TIME", 60.0)  # not by that
    reads = served.api._context.reads
    clients = []
    for _ in range(10):
        _, writer = await served.connect()
        writer.write(b"GET /v1/blocks/head HTTP/1.1\r\nHost: localhost\r\n\r\n")
        clients.append(writer)
    try:
        await until(lambda: reads.waiting == 10 - reads.turns)
        for writer in clients[:7]:
            writer.close()
        await until(lambda: reads.waiting <= 3)  # who has its turn may be among them or not
        for writer in clients:
            writer.close()
        stopping = asyncio.ensure_future(served.api.stop())
        await asyncio.sleep(0.1)
    finally:
        may_go_on.set()
    await stopping
    assert reads.waiting == 0
    left = [getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks()]
    places = [code.co_filename for code in left if code is not None]
    assert not [at for at in places if "aiohttp" in at or f"{os.sep}api{os.sep}reads" in at]
    assert not caplog.records


async def test_what_a_client_has_begun_to_change_is_done_without_it(
    served: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(*_: object, **__: object) -> None:
        begun.set()
        await may_go_on.wait()
        done.set()
        raise NetworkError("nobody is there")

    monkeypatch.setattr(served.node.p2p, "connect_peer", slow)
    body = b'{"address": "127.0.0.1:1"}'
    _, writer = await served.connect()
    writer.write(
        b"POST /v1/peers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await begun.wait()
    writer.close()
    server = served.api._server
    assert server is not None
    await until(lambda: not server.open)
    may_go_on.set()
    async with asyncio.timeout(10):
        await done.wait()


async def test_a_client_that_leaves_in_its_body_is_no_failure(
    served: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await served.connect()
    writer.write(
        b"POST /v1/bans HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n\r\n{{".encode()
    )
    server = served.api._server
    assert server is not None
    await until(lambda: bool(server.open) and not server.idle)
    writer.close()
    await until(lambda: not server.open and not server._tasks)
    assert not caplog.records


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


async def test_what_is_no_host_is_said(served: Scene) -> None:
    with pytest.raises(NetworkError, match=r"cannot serve HTTP on two\.\.dots:0: not a host name"):
        await ApiServer(served.node, "two..dots", 0).start()


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
