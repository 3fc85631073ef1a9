"""A server that says what a test wants: for pages with more peers and worse news than a test can
bring about on loopback. What it says is made of the API's own types."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiohttp import web

import moderntensor
from moderntensor.client import model

PAGE = Path(moderntensor.__file__).parent / "api" / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEIGHT = 128_440
NOW = 1_800_000_000


def hexed(*parts: object) -> str:
    """64 hex digits that are always the same."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def peer(number: int, *, outbound: bool, latency: float | None, agent: str) -> model.Peer:
    return model.Peer(
        address=f"203.0.113.{number % 250}:{30_000 + number}",
        node_id=hexed("peer", number),
        outbound=outbound,
        purpose="full",
        user_agent=agent,
        capabilities=[],
        listen_address=None,
        best_height=HEIGHT,
        best_hash=hexed(HEIGHT),
        earliest_height=0,
        latency=latency,
        min_latency=latency,
        connected_for=60.0 * number,
        bytes_sent=1000 * number,
        bytes_received=1_000_000 - number,
        messages_sent=number,
        messages_received=number,
        requests_in_flight=number % 3,
        requests_timed_out=number % 2,
        bytes_held=0,
        score=60.0 if number == 3 else 0.0,
    )


def header(height: int) -> model.Header:
    return model.Header(
        height=height,
        hash=hexed(height),
        timestamp=NOW - 5 * (HEIGHT - height),
        previous_hash=hexed(height - 1),
        state_root=hexed("state"),
        txs_root=hexed("txs"),
        receipts_root=hexed("receipts"),
        validator=hexed("validator", height % 3),
        gas_used=21_000 * (height % 7),
        gas_limit=1_000_000,
        extra_data="",
        signature="",
        transactions=height % 7,
    )


def block() -> model.Block:
    """The newest, with amounts as long as they can be."""
    transactions = [
        model.Transaction(
            hash=hexed("transaction", n),
            sender="0x" + hexed("sender", n)[:40],
            to="0x" + hexed("to", n)[:40] if n else None,
            value=str(2**128 - 1) if n % 2 else "5",
            nonce=n,
            gas_price="1",
            gas_limit=30_000,
            data="",
            size=180,
            height=HEIGHT,
            position=n,
            succeeded=(True, False, None)[n % 3],
            gas_used=21_000,
        )
        for n in range(60)
    ]
    return model.Block(header=header(HEIGHT), size=12_000, transactions=transactions)


def status(peers: list[model.Peer], warnings: list[model.Concern]) -> model.NodeStatus:
    outbound = sum(each.outbound for each in peers)
    return model.NodeStatus(
        version="0.7.0",
        engines="compiled",
        node_id=hexed("us"),
        network_id=1,
        chain_id=1337,
        genesis_hash=hexed("genesis"),
        listen_address="0.0.0.0:30303",
        external_address=None,
        capabilities=["chat/1"],
        started_at=NOW - 3600.0,
        uptime=3600.0,
        phase="following",
        head=model.Head(height=HEIGHT, hash=hexed(HEIGHT), timestamp=NOW, age=2.0),
        block_time=5,
        earliest_height=0,
        has_state=True,
        producing=False,
        places=model.Places(
            inbound=len(peers) - outbound,
            inbound_limit=42,
            outbound=outbound,
            target_outbound=8,
            max_peers=50,
            pending=0,
            known_addresses=400,
        ),
        mempool=model.MempoolSize(transactions=12, bytes=3000, max_bytes=1 << 25),
        database_bytes=1_234_567_890,
        disk_free_bytes=98_000_000_000,
        clock_offset=0.02,
        warnings=warnings,
    )


def sync(**changes: object) -> model.SyncState:
    following = model.SyncState(
        phase="following",
        start_height=HEIGHT,
        header_height=HEIGHT,
        current_height=HEIGHT,
        target_height=HEIGHT,
        progress=1.0,
        eta=0.0,
        headers_per_second=0.0,
        blocks_per_second=0.2,
        transactions_per_second=4.0,
        bytes_received=0,
        peers=8,
        waiting=None,
        pivot_height=None,
        accounts_done=0,
        accounts_total=None,
        accounts_per_second=0.0,
        backfilling=False,
    )
    return msgspec.structs.replace(following, **changes)


@dataclass(slots=True)
class Said:
    """What is served; a test changes it while the page is open."""

    peers: list[model.Peer] = field(default_factory=list)
    warnings: list[model.Concern] = field(default_factory=list)
    sync: model.SyncState = field(default_factory=sync)
    height: int = HEIGHT
    producing: bool = False
    block_time: int = 5
    traffic: list[model.Traffic] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    refuse: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Status and headers by path."""
    events: asyncio.Queue[bytes | None] | None = None
    """What the stream of events is given to send, None for its end; without it there is no place
    for a listener."""
    last_ids: list[str | None] = field(default_factory=list)
    """With which listeners came."""
    hold: asyncio.Event | None = None
    """What the status waits for, if anything."""

    def answer(self, path: str) -> msgspec.Struct | None:
        if path.startswith("v1/blocks/"):
            return block()
        said: dict[str, msgspec.Struct] = {
            "v1/status": self.status(),
            "v1/sync": self.sync,
            "v1/peers": model.PeerList(peers=self.peers),
            "v1/traffic": model.TrafficList(types=self.traffic),
            "v1/headers": model.HeaderList(headers=[header(self.height - n) for n in range(12)]),
        }
        return said.get(path)

    def status(self) -> model.NodeStatus:
        head = model.Head(height=self.height, hash=hexed(self.height), timestamp=NOW, age=2.0)
        return msgspec.structs.replace(
            status(self.peers, self.warnings),
            head=head,
            phase=self.sync.phase,
            producing=self.producing,
            block_time=self.block_time,
        )

    async def stream(
        self, request: web.Request, events: asyncio.Queue[bytes | None]
    ) -> web.StreamResponse:
        self.last_ids.append(request.headers.get("Last-Event-ID"))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        response.force_close()
        await response.prepare(request)
        await response.write(b"retry: 2000\n\n")
        while (data := await events.get()) is not None:
            await response.write(data)
        return response

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.lstrip("/")
        self.asked.append(path)
        if path == "v1/events" and self.events is not None:
            return await self.stream(request, self.events)
        if path == "v1/status" and self.hold is not None:
            await self.hold.wait()
        if path in self.refuse:
            code, extra = self.refuse[path]
            return web.Response(status=code, headers=extra)
        said = self.answer(path)
        headers = {"Content-Security-Policy": POLICY}
        if said is not None:
            body = msgspec.json.encode(said)
            return web.Response(body=body, content_type="application/json", headers=headers)
        name = path.removeprefix("page/") or "index.html"
        if not (PAGE / name).is_file():
            return web.Response(status=503)  # as for one listener too many
        kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        kind = kinds.get(Path(name).suffix, "text/html")
        return web.Response(body=(PAGE / name).read_bytes(), content_type=kind, headers=headers)


@asynccontextmanager
async def saying(said: Said) -> AsyncIterator[str]:
    """Serve it; yields its URL."""
    server = web.Server(said.handle, handler_cancellation=True)  # type: ignore[arg-type]
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
