"""The nodes: real `moderntensor node` processes on loopback, with data directories and HTTP."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from asyncio.subprocess import Process
from pathlib import Path
from typing import Final

from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.key_files import save_key
from moderntensor.blockchain.workload import DEFAULT_BALANCE, demo_keys
from moderntensor.client import Client
from moderntensor.errors import ClientError

NODES: Final = 5
VALIDATORS: Final = 3
SENDERS: Final = 8
BLOCK_TIME: Final = 2  # seconds
STARTING: Final = 60.0  # seconds until a node answers
STOPPING: Final = 30.0  # seconds that SIGTERM may take
ROOT: Final = Path(__file__).resolve().parent.parent.parent


class Node:
    """One of them, over all its lives."""

    def __init__(self, number: int, home: Path, command: list[str], url: str) -> None:
        self.number = number
        self.life = -1
        self.began = 0.0  # loop time
        self.up = False
        self.log = home / f"node-{number}.log"
        self.client = Client(url, token_file=home / f"node-{number}" / "http.token")
        self._command = command
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """None while it is away."""
        return self._process.pid if self._process is not None and self.up else None

    async def start(self) -> None:
        """Returns when it answers; TimeoutError otherwise."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, cwd=ROOT, stdout=log, stderr=log
            )
        self.life += 1
        async with asyncio.timeout(STARTING):
            while not await self._alive():
                if self._process.returncode is not None:
                    raise RuntimeError(f"node {self.number} ended: see {self.log}")
                await asyncio.sleep(0.1)
        self.began = asyncio.get_running_loop().time()
        self.up = True

    async def stop(self, hard: bool = False) -> bool:
        """Whether it ended as it should: by SIGKILL, or with exit code 0 in time."""
        self.up = False
        if self._process is None:
            return True
        process, self._process = self._process, None
        if process.returncode is not None:
            return False  # by itself
        if hard:
            process.kill()
            await process.wait()
            return True
        process.terminate()
        try:
            async with asyncio.timeout(STOPPING):
                return await process.wait() == 0
        except TimeoutError:
            process.kill()
            await process.wait()
            return False

    async def _alive(self) -> bool:
        try:
            return await self.client.alive()
        except ClientError:
            return False


def make(home: Path) -> tuple[list[Node], tuple[int, int], ChainConfig]:
    """The nodes, not started; port and target of the flaky link; the chain. All dial the first
    node and one other, and the last node meets the first through the link."""
    validators = demo_keys(VALIDATORS, "validator")
    config = ChainConfig(
        chain_id=7,
        timestamp=int(time.time()),
        block_time=BLOCK_TIME,
        validators=tuple(key.public_key for key in validators),
        alloc={key.address: DEFAULT_BALANCE for key in demo_keys(SENDERS)},
    )
    config.save(home / "genesis.json")
    ports = free_ports(2 * NODES + 1)
    listen, http, link = ports[:NODES], ports[NODES:-1], ports[-1]
    nodes = []
    for number in range(NODES):
        first = link if number == NODES - 1 else listen[0]
        command = [sys.executable, "-m", "moderntensor", "node", "--json"]
        command += ["--genesis", str(home / "genesis.json"), "--data", str(home / f"node-{number}")]
        command += ["--listen", f"127.0.0.1:{listen[number]}"]
        command += ["--http", f"127.0.0.1:{http[number]}"]
        for port in {first, listen[number - 1]} - {listen[number]}:
            command += ["--peer", f"127.0.0.1:{port}"]
        if number < VALIDATORS:
            save_key(home / f"validator-{number}.key", validators[number])
            command += ["--validator-key", str(home / f"validator-{number}.key")]
        nodes.append(Node(number, home, command, f"http://127.0.0.1:{http[number]}"))
    return nodes, (link, listen[0]), config


def free_ports(count: int) -> list[int]:
    """Of loopback, none twice."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
