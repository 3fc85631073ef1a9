"""Clients that mean harm, or cannot do better: byte by byte, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress

import pytest
from helpers.http_scene import ACCOUNTS, TOKEN, VALIDATORS, Scene, scene
from helpers.sync_nodes import until

from moderntensor.api import limits
from moderntensor.api.rates import Rates
from moderntensor.blockchain.workload import build_chain
from moderntensor.network.sync import SyncPhase

HOST = b"Host: localhost\r\n"


def status_of(answer: bytes) -> int:
    """Of an answer, which must be one of ours."""
    head = answer.partition(b"\r\n\r\n")[0]
    assert head.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")), answer[:200]
    assert b"X-Content-Type-Options: nosniff" in head
    assert b"frame-ancestors 'none'" in head
    assert b"Access-Control-Allow-Origin" not in head
    assert b"aiohttp" not in answer
    return int(head.split(b" ")[1])


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n\r\nHELO\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # TLS
        b"GET /v1/status HTTP/9.9\r\n" + HOST + b"\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET /v1/sta\x00tus HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X%d: 1\r\n" % n for n in range(500)) + b"\r\n",
        b"POST /v1/bans HTTP/1.1\r\n" + HOST + b"Content-Length: -5\r\n\r\n",
        b"POST /v1/bans HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/bans HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nabcde",
    ],
)
async def test_what_is_no_http_is_a_400_and_the_end(served: Scene, request_bytes: bytes) -> None:
    assert status_of(await served.raw(request_bytes)) == 400
    assert (await served.get("/healthz"))["status"] == "alive"


@pytest.mark.parametrize(
    "target",
    [
        b"/page/../__init__.py",
        b"/page/..%2f__init__.py",
        b"/page/%2e%2e%2f__init__.py",
        b"/page/..%5c__init__.py",
        b"/page//etc/passwd",
        b"/page/%2fetc%2fpasswd",
        b"/page/style.css%00.html",
        b"/page/.",
        b"/page/index.html",
        b"/../../../../etc/passwd",
    ],
)
async def test_no_path_leads_out_of_the_page(served: Scene, target: bytes) -> None:
    answer = await served.raw(
        b"GET " + target + b" HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
    )
    assert status_of(answer) in (400, 404)


@pytest.mark.parametrize(
    "target", [b"*", b"localhost:80", b"ftp://x/", b"%", b"/v1/blocks/%", b"//"]
)
async def test_targets_that_are_no_paths(served: Scene, target: bytes) -> None:
    for method in (b"GET", b"OPTIONS", b"CONNECT", b"BREW"):
        answer = await served.raw(
            method + b" " + target + b" HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
        )
        assert status_of(answer) in (400, 404, 405)


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("localhost", True),
        ("LOCALHOST:8645", True),
        ("127.0.0.1:8645", True),
        ("[::1]:8645", True),
        ("10.1.2.3", True),  # a name is what can be made to lead here
        ("evil.example", False),
        ("localhost.evil.example:8645", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("localhost:1.evil", False),
        ("localhost:80:80", False),
        ("[localhost]", False),
        ("[::1", False),
        ("localhost@evil.example", False),
    ],
)
async def test_names_that_are_not_ours(served: Scene, host: str, good: bool) -> None:
    for path in ("/v1/status", "/", "/healthz", "/nowhere"):
        got = await served.ask("GET", path, headers={"Host": host})
        assert (got.status != 403) is good, (path, got)


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost:1/v1/status", "evil.example", 200),
        ("HTTP://127.0.0.1/v1/status", "evil.example", 200),
        ("http://evil.example/v1/status", "localhost", 403),
        ("https://localhost@evil.example/v1/status", "localhost", 403),
        ("http://evil.example?/v1/status", "localhost", 403),
        ("http:///v1/status", "localhost", 400),
    ],
)
async def test_a_target_that_names_a_host_stands_above_the_header(
    served: Scene, target: str, host: str, status: int
) -> None:
    answer = await served.raw(
        f"GET {target} HTTP/1.1\r\nConnection: close\r\nHost: {host}\r\n\r\n".encode()
    )
    assert status_of(answer) == status


async def test_headers_that_never_end(served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderntensor.api.connections.FIRST_REQUEST", 0.3)
    monkeypatch.setattr("moderntensor.api.connections.KEEP_ALIVE", 0.3)

    async def drip(start: bytes) -> bytes:
        reader, writer = await served.connect()
        writer.write(start)
        received = b""
        try:
            while not reader.at_eof():
                writer.write(b"X")
                try:
                    async with asyncio.timeout(0.05):
                        received += await reader.read(65536)
                except TimeoutError:
                    pass
        except ConnectionError:
            pass
        writer.close()
        return received

    whole = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    async with asyncio.timeout(20):
        silent, first, second = await asyncio.gather(
            served.raw(b""), drip(b"GET / HTTP/1.1\r\nA: "), drip(whole + b"GET / HTTP/1.1\r\nA: ")
        )
    assert (silent, first) == (b"", b"")
    assert status_of(second) == 200
    assert not served.api._server.open  # type: ignore[union-attr]


async def test_a_body_that_never_ends(served: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moderntensor.api.server.BODY_TIME", 0.2)
    head = (
        b"POST /v1/bans HTTP/1.1\r\n"
        + HOST
        + b"Authorization: Bearer "
        + TOKEN.encode()
        + b"\r\nContent-Type: application/json\r\n"
    )
    slow = served.raw(head + b"Content-Length: 100\r\n\r\n{")
    endless = served.raw(head + b"Content-Length: 99999999999\r\n\r\n{")
    chunks = b"".join(b"10000\r\n" + bytes(65536) + b"\r\n" for _ in range(6))
    chunked = served.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(slow, endless, chunked)
    assert status_of(answers[0]) == 408
    assert status_of(answers[1]) == 413
    assert not answers[2] or status_of(answers[2]) == 413  # or reset before it was read


async def test_a_thousand_connections_keep_nobody_out(served: Scene) -> None:
    opened = []
    for _ in range(500):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", served.api.port))
        opened.append(one)
        if len(opened) % 50 == 0:
            await asyncio.sleep(0)
    server = served.api._server
    assert server is not None
    await until(lambda: len(server.open) >= limits.MAX_CONNECTIONS - 1)
    assert len(server.open) <= limits.MAX_CONNECTIONS
    assert (await served.get("/v1/status"))["head"]["height"] == 10
    assert len(server.idle) <= len(server.open) <= limits.MAX_CONNECTIONS
    for one in opened:
        one.close()
    await until(lambda: len(server.open) <= 1)


async def test_no_address_takes_all_connections(
    served: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even by requests that never end."""
    monkeypatch.setattr("moderntensor.api.connections.MAX_CONNECTIONS", 6)
    monkeypatch.setattr("moderntensor.api.events.LISTENERS", 100)
    greedy = []
    for _ in range(6):
        reader, writer = await served.connect("127.0.0.3")
        writer.write(b"GET /v1/events HTTP/1.1\r\n" + HOST + b"\r\n")
        await reader.readuntil(b"\r\n\r\n")
        greedy.append((reader, writer))
    assert (await served.get("/v1/sync"))["current_height"] == 10
    server = served.api._server
    assert server is not None
    await until(lambda: len(served.api._context.events.listeners) == 5)
    with suppress(ConnectionError):
        await asyncio.wait_for(greedy[0][0].read(), 20)  # it was the eldest that had to go
    for _, writer in greedy:
        writer.close()


async def test_who_does_not_take_a_large_answer_is_the_first_to_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moderntensor.api.connections.MAX_CONNECTIONS", 2)
    async with scene(blocks=0) as made:
        chain = made.node.chain
        for _ in build_chain(  # one block, 2.8 MB as JSON
            chain,
            validators=VALIDATORS,
            accounts=ACCOUNTS,
            blocks=1,
            transfers_per_block=14,
            data_bytes=100_000,
        ):
            pass
        slow = []
        for _ in range(2):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
            one.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(one, ("127.0.0.1", made.api.port))
            # More than the kernel takes for one socket.
            asked = 20 * (b"GET /v1/blocks/1 HTTP/1.1\r\n" + HOST + b"\r\n")
            await loop.sock_sendall(one, asked)
            slow.append(one)
        server = made.api._server
        assert server is not None
        await until(lambda: made.api._large > 5_000_000)
        assert (await made.get("/v1/status"))["head"]["height"] == 1
        for one in slow:
            one.close()
        await until(lambda: made.api._large == 0)


async def test_pipelined_requests_are_answered_in_order(served: Scene) -> None:
    paths = [b"/v1/blocks/%d" % height for height in range(10)]
    asked = b"".join(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n" for path in paths)
    last = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
    answer = await served.raw(asked + last)
    places = [answer.find(b'{"header":{"height":%d,' % height) for height in range(10)]
    assert places == sorted(places)
    assert places[0] > 0


async def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    async with scene(blocks=0, rate=0.5, burst=3) as made:
        for _ in range(3):
            await made.get("/v1/status")
        got = await made.ask("GET", "/v1/status")
        assert (got.status, got.headers["Retry-After"]) == (429, "2")
        assert "0.5 requests a second" in got.data["detail"]
        assert await made.get("/healthz")  # probes go on


def test_rates_are_bounded_and_by_network_in_ipv6() -> None:
    rates = Rates(10.0, 2, addresses=100)
    assert [rates.admit("2001:db8::1", 0.0), rates.admit("2001:db8::2", 0.0)] == [0, 0]
    assert rates.admit("2001:db8::3", 0.0) == 1
    assert rates.admit("2001:db8:0:1::1", 0.0) == 0
    assert rates.admit("2001:db8::3", 0.1) == 0
    for number in range(1000):
        rates.admit(f"10.0.{number // 250}.{number % 250}", 1.0)
    assert len(rates) == 100


async def test_no_answer_waits_for_the_loop_and_none_holds_it_up(
    served: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads go to worker threads: the loop turns while one hangs there."""

    from moderntensor.api import chain_routes

    hang, entered = threading.Event(), threading.Event()
    real = chain_routes.find_block

    def slow(*args: object, **more: object) -> object:
        entered.set()
        assert hang.wait(20)
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(chain_routes, "find_block", slow)
    waiting = asyncio.create_task(served.get("/v1/headers/1"))
    await until(entered.is_set)
    assert await served.get("/v1/sync")
    assert await served.get("/v1/status")
    hang.set()
    assert (await waiting)["height"] == 1


async def test_what_is_refused_counts_too_but_probes_do_not() -> None:
    async with scene(blocks=0, rate=0.5, burst=3) as made:
        assert [(await made.ask("GET", "/nothing")).status for _ in range(4)] == [404] * 3 + [429]
        assert (await made.ask("GET", "/", headers={"Host": "evil.example"})).status == 429
        for _ in range(5):
            assert (await made.ask("GET", "/healthz")).status == 200
            assert (await made.ask("GET", "/readyz")).status == 503


async def test_the_status_and_probes_do_not_wait_for_the_reads_of_others(pair: Scene) -> None:
    async with pair.reads_filled():
        assert "too many" in await pair.refused(503, "/v1/blocks/head")
        assert (await pair.get("/v1/status"))["head"]["height"] == 10
        await until(lambda: pair.node.sync.status.phase is SyncPhase.FOLLOWING)
        assert (await pair.get("/readyz"))["status"] == "ready"
