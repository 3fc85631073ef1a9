"""What all ends have in common: the records that travel, and counting what has come."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from abc import ABC, abstractmethod
from hashlib import sha256
from pathlib import Path
from typing import Any

from moderntensor.blockchain.transaction import Transaction
from moderntensor.network.messages import PeerRecord

HASHES = tuple(i.to_bytes(4, "big") * 8 for i in range(1, 4097))
"""More than any peer remembers, so that none is ever known already."""

RECORD = PeerRecord(node_id=b"\x11" * 32, ip=b"\x22" * 16, port=30303, last_seen=1_700_000_000)
"""What each reply carries: 58 bytes."""

_DATA = 886  # bytes of a transaction's data, for 1 KiB in all
_PATIENCE = 60.0


def _transaction(nonce: int) -> Transaction:
    """1 KiB; nobody here looks at its signature."""
    return Transaction(
        chain_id=1,
        nonce=nonce,
        to=b"\x33" * 20,
        value=10**18,
        gas_price=10**9,
        gas_limit=100_000,
        data=nonce.to_bytes(2, "big") * (_DATA // 2),
        v=nonce % 2,
        r=b"\x44" * 32,
        s=b"\x05" * 32,
    )


class End(ABC):
    """One end of the comparison's connections; its coroutine methods are the commands."""

    def __init__(self) -> None:
        self.collected: list[Any] | None = None
        self._got = 0
        self._wanted = 0
        self._complete = asyncio.Event()
        self._at = 0.0
        self._prepared: list[Any] = []
        self._nonce = 0

    # --- commands --------------------------------------------------------------------------

    @abstractmethod
    async def listen(self) -> int:
        """Accept connections; the port."""

    @abstractmethod
    async def connect(self, port: int, count: int = 1) -> None:
        """Open connections to another end in this machine."""

    @abstractmethod
    async def stop(self) -> None:
        """Close everything."""

    async def ready(self, peers: int) -> None:
        """Wait until so many are connected."""
        async with asyncio.timeout(_PATIENCE):
            while self.peer_count < peers:  # noqa: ASYNC110  another process is waited for
                await asyncio.sleep(0.01)

    async def usage(self) -> dict[str, float]:
        """The anonymous resident memory of this process in bytes, and the seconds of a core that
        it has used."""
        seconds = time.process_time()
        gc.collect()
        status = Path("/proc/self/status").read_text(encoding="ascii")  # noqa: ASYNC240
        kib = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
        assert kib is not None
        return {"memory": 1024.0 * int(kib[1]), "seconds": seconds}

    async def expect(self, count: int, collect: bool = False) -> None:
        """So many messages will come from now on."""
        self._got, self._wanted = 0, count
        self._complete.clear()
        self.collected = [] if collect else None

    async def arrived(self) -> float:
        """Wait for the last of them; when it came (`time.monotonic`, which all processes share)."""
        async with asyncio.timeout(_PATIENCE):
            await self._complete.wait()
        return self._at

    async def contents(self) -> list[Any]:
        """What has come since `expect(collect=True)`."""
        return self.collected or []

    async def flood(self, count: int) -> float:
        """Send so many small messages; when the first was sent."""
        began = time.monotonic()
        await self.send_many(count)
        return began

    async def exchange(self, count: int, outstanding: int) -> float:
        """Ask so many times, never more than `outstanding` at once; the seconds that it took."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for turn in range(outstanding):
                group.create_task(self._ask_again(count // outstanding, turn))
        return time.monotonic() - began

    async def prepare(self, count: int) -> None:
        """Make as many transactions as the next `broadcast` shall send: none is sent twice."""
        nonces = range(self._nonce, self._nonce + count)
        self._prepared = [self.package(_transaction(nonce)) for nonce in nonces]
        self._nonce += count

    async def on_the_wire(self) -> list[Any]:
        """What is prepared as one peer reads it: how many bytes, and their SHA-256."""
        data = b"".join(map(self.frame, self._prepared))
        return [len(data), sha256(data).hexdigest()]

    async def broadcast(self) -> float:
        """Send what is prepared to every peer; when the first was sent."""
        began = time.monotonic()
        await self.broadcast_all(self._prepared)
        return began

    async def answer(self) -> list[Any]:
        """What the reply to a request says."""
        return self.said(await self.ask())

    # --- what each end knows how to do -------------------------------------------------------

    @property
    @abstractmethod
    def peer_count(self) -> int:
        """How many are connected."""

    async def send_many(self, count: int) -> None:
        """Send small messages to the one peer, as fast as the library's own interface lets."""
        raise NotImplementedError

    async def ask(self) -> Any:
        """One request and its reply."""
        raise NotImplementedError

    def said(self, reply: Any) -> list[Any]:
        """What a reply says: status, node_id, ip, port, last_seen."""
        raise NotImplementedError

    def package(self, transaction: Transaction) -> Any:
        """A transaction in the form in which a program of this kind holds it."""
        raise NotImplementedError

    def frame(self, package: Any) -> bytes:
        """The bytes of one of those on the wire."""
        raise NotImplementedError

    async def broadcast_all(self, packages: list[Any]) -> None:
        """Send transactions to every peer, as one writes that with this library."""
        raise NotImplementedError

    # --- helpers ---------------------------------------------------------------------------

    def count(self) -> None:
        """A handler was called with a message that was expected."""
        self._got += 1
        if self._got == self._wanted:
            self._at = time.monotonic()
            self._complete.set()

    async def _ask_again(self, count: int, turn: int) -> None:
        for _ in range(count):
            await self.ask()
