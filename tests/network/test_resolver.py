"""Names of hosts, and a name service that never answers."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from helpers.rawpeer import QUIET, quiet_node, until

from moderntensor.errors import ConnectError, NetworkError
from moderntensor.network.p2p import P2PNode
from moderntensor.network.resolver import RESOLVE_LIMIT, resolve
from moderntensor.runtime import DETACHED_THREADS, Runtime


class NameService:
    """Answers as it is told, or not before it is freed."""

    def __init__(self) -> None:
        self.answers: list[str] | None = None
        self.asked = 0
        self.free = threading.Event()

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked += 1
        if self.answers is None:
            self.free.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "at last")
        kinds = [socket.AF_INET6 if ":" in ip else socket.AF_INET for ip in self.answers]
        return [
            (kind, socket.SOCK_STREAM, 6, "", (ip, port))
            for kind, ip in zip(kinds, self.answers, strict=True)
        ]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameService]:
    service = NameService()
    monkeypatch.setattr(socket, "getaddrinfo", service.getaddrinfo)
    yield service
    service.free.set()
    for thread in threading.enumerate():
        if thread.name == "moderntensor-detached":
            thread.join()


async def test_an_address_needs_no_name_service(service: NameService) -> None:
    runtime = Runtime()
    assert await resolve(runtime, "127.0.0.1", 1) == ["127.0.0.1"]
    assert await resolve(runtime, "::ffff:1.2.3.4", 1) == ["1.2.3.4"]
    assert not service.asked


async def test_a_name_leads_to_all_its_addresses_of_both_kinds(service: NameService) -> None:
    service.answers = ["2a00::1", "8.8.8.8", "8.8.8.8", "9.9.9.9"]
    assert await resolve(Runtime(), "seed.example", 1) == ["2a00::1", "8.8.8.8", "9.9.9.9"]
    service.answers = [f"20.0.0.{i}" for i in range(200)]
    assert len(await resolve(Runtime(), "seed.example", 1)) == RESOLVE_LIMIT


async def test_a_name_service_that_hangs_is_left_alone(service: NameService) -> None:
    runtime = Runtime()
    with pytest.raises(ConnectError, match=r"seed\.example:1: no name service within 0\.01 s"):
        await resolve(runtime, "seed.example", 1, 0.01)
    tasks = [
        asyncio.ensure_future(resolve(runtime, "seed.example", 1))
        for _ in range(DETACHED_THREADS - 1)
    ]
    await until(lambda: service.asked == DETACHED_THREADS)
    with pytest.raises(ConnectError, match="too many calls of the system hang"):
        await resolve(runtime, "seed.example", 1)
    runtime.close()  # waits for none of them
    service.free.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, ConnectError) for result in results)
    service.answers = ["8.8.8.8"]  # there is room again
    assert await resolve(runtime, "seed.example", 1) == ["8.8.8.8"]


async def test_a_node_stops_while_a_look_up_hangs(service: NameService) -> None:
    async with P2PNode(bootstrap_nodes=["seed.example:1"], config=QUIET):
        await until(lambda: service.asked)
    assert not service.free.is_set()


async def test_an_address_that_is_dead_does_not_hide_the_others_of_its_name(
    service: NameService,
) -> None:
    async with quiet_node() as one, quiet_node() as two:
        service.answers = ["127.0.0.77", "127.0.0.1"]
        peer = await one.connect_peer("seed.example", two.listen_port)
        assert peer.node_id == two.node_id


async def test_an_address_of_ourselves_does_not_hide_the_others_of_its_name(
    service: NameService,
) -> None:
    for _ in range(20):  # the port may be taken at the other address
        with suppress(NetworkError):
            async with (
                quiet_node(listen_host="127.0.0.2") as one,
                quiet_node(listen_port=one.listen_port) as two,
            ):
                service.answers = ["127.0.0.2", "127.0.0.1"]
                peer = await one.connect_peer("seed.example", two.listen_port)
                assert peer.node_id == two.node_id
                return
    pytest.fail("no port is free at both addresses, or the second one was never tried")


HANGS = """
import asyncio, socket, threading
from moderntensor.network.resolver import resolve
from moderntensor.runtime import Runtime

def getaddrinfo(*_, **__):
    threading.Event().wait()

async def main():
    runtime = Runtime()
    try:
        await resolve(runtime, "seed.example", 1, 0.01)
    finally:
        runtime.close()

socket.getaddrinfo = getaddrinfo
asyncio.run(main())
"""


def test_a_look_up_that_hangs_does_not_keep_a_process_from_ending() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ConnectError: seed.example:1: no name service" in done.stderr
