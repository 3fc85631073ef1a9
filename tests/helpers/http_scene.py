"""Nodes with an HTTP API on loopback, and ways to ask it: properly, and byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from helpers.sync_nodes import ACCOUNTS, CONFIG, SETTINGS, VALIDATORS, extend, until
from moderntensor.api import ApiServer
from moderntensor.api.limits import READS_WAITING
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.transaction import Transaction
from moderntensor.config import NodeConfig
from moderntensor.network.sync import SyncPhase
from moderntensor.node import FullNode

TOKEN = "t" * 32
BLOCKS = 10
TRANSFERS = 3
__all__ = ["ACCOUNTS", "BLOCKS", "CONFIG", "TOKEN", "TRANSFERS", "VALIDATORS", "Scene", "scene"]


class Answered(NamedTuple):
    """What came back."""

    status: int
    headers: Any
    data: Any


class Scene:
    """A node, its API, and a client."""

    def __init__(self, node: FullNode, api: ApiServer, peer: FullNode | None) -> None:
        self.node = node
        self.api = api
        self._peer = peer
        self.session = aiohttp.ClientSession()

    @property
    def peer(self) -> FullNode:
        assert self._peer is not None
        return self._peer

    async def ask(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answered:
        """One request; its answer's JSON, or text."""
        sent = dict(headers or {})
        if token is not None and method != "GET":
            sent["Authorization"] = f"Bearer {token}"
        url = URL(self.api.url + path, encoded=True)
        async with self.session.request(method, url, json=json, data=data, headers=sent) as got:
            is_json = "json" in got.headers.get("Content-Type", "")
            found = await (got.json(content_type=None) if is_json else got.text())
            return Answered(got.status, got.headers, found)

    async def get(self, path: str, **more: Any) -> Any:
        """What a GET that succeeds answers."""
        got = await self.ask("GET", path, **more)
        assert got.status == 200, got.data
        return got.data

    async def refused(self, status: int, path: str, method: str = "GET", **more: Any) -> str:
        """The detail with which a request is refused."""
        got = await self.ask(method, path, **more)
        assert got.status == status, got
        assert got.headers["Content-Type"] == "application/problem+json"
        assert got.data["status"] == status
        return str(got.data["detail"])

    async def raw(self, data: bytes) -> bytes:
        """All that the server sends for these bytes until it closes."""
        reader, writer = await self.connect()
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), 20)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    async def connect(
        self, source: str = "127.0.0.1"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the API, from an address of this machine."""
        return await asyncio.open_connection(
            "127.0.0.1", self.api.port, local_addr=None if source == "127.0.0.1" else (source, 0)
        )

    @asynccontextmanager
    async def reads_filled(self) -> AsyncIterator[None]:
        """All turns of reads are taken meanwhile, and all places of who waits, by many clients."""
        reads = self.api._context.reads
        for _ in range(reads.turns):
            await reads._turn("held")
        asked = [asyncio.ensure_future(reads.run(f"{n}", int)) for n in range(READS_WAITING)]
        try:
            await until(lambda: reads.waiting == READS_WAITING)
            yield
        finally:
            for _ in range(reads.turns):
                reads._pass_on()
            await asyncio.gather(*asked)


def transfer(node: FullNode, sender: int = 0, ahead: int = 0, **more: Any) -> Transaction:
    """A transfer that the node would admit."""
    key = ACCOUNTS[sender]
    nonce = node.chain.get_account(key.address).nonce + ahead
    return Transaction.create(
        key, chain_id=CONFIG.chain_id, nonce=nonce, to=ACCOUNTS[1].address, value=5, **more
    )


@asynccontextmanager
async def scene(
    *,
    peer: bool = False,
    config: ChainConfig = CONFIG,
    settings: NodeConfig = SETTINGS,
    blocks: int = BLOCKS,
    rate: float = 1e6,
    burst: int = 10**6,
    token: str | None = TOKEN,
) -> AsyncIterator[Scene]:
    """A node with so many blocks; with a `peer`, it has them from that."""
    async with AsyncExitStack() as stack:
        other = None
        node = FullNode(None, config, settings=settings)
        if peer:
            other = FullNode(None, config, settings=settings)
            extend(other.chain, blocks, TRANSFERS)
            await stack.enter_async_context(other)
            known = [f"127.0.0.1:{other.p2p.listen_port}"]
            node.state_db.close()
            node = FullNode(None, config, settings=settings, bootstrap_nodes=known)
        elif blocks:
            extend(node.chain, blocks, TRANSFERS)
        await stack.enter_async_context(node)
        api = ApiServer(node, port=0, token=token, rate=rate, burst=burst)
        await stack.enter_async_context(api)
        made = Scene(node, api, other)
        stack.push_async_callback(made.session.close)
        if other is not None:
            await until(lambda: node.chain.head == other.chain.head)
            await until(lambda: node.sync.status.phase is SyncPhase.FOLLOWING)  # a turn later
        yield made
