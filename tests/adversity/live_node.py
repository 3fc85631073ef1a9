"""The node under attack, as a user runs it: `python -m adversity.live_node SETUP`."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter, deque
from hashlib import sha256
from pathlib import Path
from typing import Any

from adversity import scene, state_scene
from adversity.control import obey
from moderntensor.blockchain import state_slots, tables
from moderntensor.blockchain.block import Block
from moderntensor.blockchain.transaction import Transaction
from moderntensor.config import NodeConfig
from moderntensor.node import FullNode
from moderntensor.runtime import Runtime

# Seconds by which time moves at once, and that others get at least to answer what fell due
# meanwhile. A PONG or a reply of an honest peer must not be overtaken: it is waited for, however
# slow the machine is, up to `PATIENCE`.
STEP, BREATH, PATIENCE = 4.0, 0.01, 20.0
HOSTILE = "hostile/1"  # the user agent of those who are not waited for
LINES = 20_000  # log lines that are kept


class TurnedClock(Runtime):
    """A wall clock that commands set forward and back."""

    ahead = 0.0

    def wall_time(self) -> float:
        return super().wall_time() + self.ahead


class Keeper(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: deque[str] = deque(maxlen=LINES)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        self.lines.append(f"{record.levelname} {record.getMessage()}")
        if record.exc_info:
            print(self.format(record), file=sys.stderr, flush=True)


class Live:
    """What a test may ask of the node."""

    def __init__(self, node: FullNode, clock: TurnedClock, log: Keeper) -> None:
        self.node, self.clock, self.log = node, clock, log
        self._ahead = 0.0
        loop: Any = asyncio.get_running_loop()
        self._real = loop.time
        loop.time = lambda: self._real() + self._ahead

    async def advance(self, seconds: float) -> float:
        """Durations that have begun come to their end so much sooner."""
        left = seconds
        while left > 0:
            self._ahead += min(left, STEP)
            left -= STEP
            await asyncio.sleep(BREATH)
            deadline = self._real() + PATIENCE
            while self._owed() and self._real() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(BREATH / 4)
        return self._ahead

    def _owed(self) -> bool:
        """Whether an honest peer has still to answer us."""
        return any(
            peer._heartbeat._ping is not None or peer.owes_us
            for peer in self.node.p2p.peers.values()
            if peer.user_agent != HOSTILE
        )

    def wall(self, ahead: float) -> float:
        """The wall clock jumps to so many seconds from the true time."""
        self.clock.ahead = ahead
        return ahead

    def state(self) -> dict[str, Any]:
        node = self.node
        return {
            "height": node.chain.head.height,
            "hash": node.chain.head.hash.hex(),
            "header_height": node.chain.header_head.height,
            "syncing": node.sync.syncing,
            "accounts_done": node.sync.status.accounts_done,
            "tasks": len(asyncio.all_tasks()),
            "task_names": Counter(task.get_name() for task in asyncio.all_tasks()),
            "log_lines": self.log.count,
            "mempool": len(node.mempool),
            "open": len(node.p2p.gate),
            "evidence": len(node.chain.evidence()),
            "side_blocks": self._side_blocks(),
            "peers": {
                address: {
                    "node_id": peer.node_id.hex(),
                    "outbound": peer.outbound,
                    "best_height": peer.best_height,
                    "user_agent": peer.user_agent,
                }
                for address, peer in node.p2p.peers.items()
            },
        }

    def _side_blocks(self) -> int:
        with self.node.chain.store.read() as txn:
            return txn.count(tables.SIDE)

    def stored_state(self) -> str:
        """A digest of all accounts that the chain's state has, as `OwnTree.digest`."""
        whole = sha256()
        with self.node.chain.store.read() as txn:
            table, start = state_slots.active(txn).accounts, b""
            while rows := txn.range(table, start, limit=1024):
                for key, record in rows:
                    whole.update(key + record)
                start = rows[-1][0] + b"\0"
        return whole.hexdigest()

    def bans(self) -> list[str]:
        return [str(ban) for ban in self.node.p2p.list_bans()]

    def budget(self) -> int:
        """Bytes that are held because of peers."""
        return self.node.p2p.budget.report().held

    def book(self) -> int:
        return len(self.node.p2p.book)

    def knows(self, host: str, port: int) -> bool:
        """Whether an address is in the book."""
        return (host, port) in self.node.p2p.book

    def lines(self, last: int) -> list[str]:
        return list(self.log.lines)[-last:]

    def invalid(self, block_hash: str) -> bool:
        return self.node.chain.is_invalid(bytes.fromhex(block_hash))

    async def pool_add(self, raw: str) -> bool:
        tx = Transaction.decode(bytes.fromhex(raw))
        return bool(await self.clock.run(self.node.mempool.add, tx))

    async def connect(self, host: str, port: int, node_id: str | None = None) -> str:
        """Dial; what came of it."""
        expected = None if node_id is None else bytes.fromhex(node_id)
        try:
            await self.node.p2p.connect_peer(host, port, node_id=expected)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "connected"


async def run(setup: dict[str, Any]) -> None:
    log = Keeper()
    logging.getLogger("moderntensor").addHandler(log)
    logging.getLogger("moderntensor").setLevel(logging.INFO)
    logging.getLogger("asyncio").addHandler(log)
    clock = TurnedClock(2)
    settings = NodeConfig(**setup["settings"])
    config = (state_scene if setup["with_state"] else scene).maker().config
    node = FullNode(
        Path(setup["data_dir"]),
        config,
        settings=settings,
        runtime=clock,
        bootstrap_nodes=setup["bootstrap"],
    )
    async with node:
        for block in map(bytes.fromhex, setup["blocks"]):
            await clock.run_writer(node.chain.import_block, Block.decode(block))
        live = Live(node, clock, log)
        await obey(
            {
                "advance": live.advance,
                "bans": live.bans,
                "book": live.book,
                "budget": live.budget,
                "connect": live.connect,
                "invalid": live.invalid,
                "knows": live.knows,
                "lines": live.lines,
                "pool_add": live.pool_add,
                "state": live.state,
                "stored_state": live.stored_state,
                "wall": live.wall,
            },
            {
                "port": node.p2p.listen_port,
                "node_id": node.p2p.node_id.hex(),
                "height": node.chain.head.height,
            },
        )
    clock.close()


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
