"""SIGKILL in the middle of a fast sync, again and again: it finishes, and what had been stored is
not fetched again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import fast_child
from helpers.fast_nodes import ACCOUNTS, PIVOT, Place, Served, grown, is_under, state_node
from helpers.sync_nodes import until

from moderntensor.blockchain import tables
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.staging import StateStaging
from moderntensor.network.sync.state_jobs import ACCOUNT_BYTES
from moderntensor.storage import open_store

TESTS = Path(__file__).parents[1]
PEERS = 2
LONGEST = 0.05  # seconds between the last chunk and the kill: the commit may be over, or not


class Lives:
    """A child that is killed and started again, and what it was given in each of its lives."""

    def __init__(self, genesis: Path, directory: Path, ports: list[int], served: Served) -> None:
        self.arguments = [str(genesis), str(directory), *map(str, ports)]
        self.directory = directory
        self.served = served
        self.left = 0  # chunks that it is still given in this life
        self.never = asyncio.Event()
        self.stored_before: list[Place] = []
        self.lost: list[list[Place]] = []  # by life: what it was given and had not stored

    def brake(self) -> asyncio.Event | None:
        """Whether a chunk is to wait until the child is killed, which is for ever."""
        if self.left <= 0:
            return self.never
        self.left -= 1
        return None

    async def start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", fast_child.__file__, *self.arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        )

    async def killed(self, chunks: int, pause: float) -> None:
        """One life: killed once it has been given so many chunks, and a little later."""
        self.left = chunks
        before = len(self.served.chunks)
        child = await self.start()
        try:
            await until(lambda: self.left <= 0 and len(self.served.chunks) >= before + chunks, 60)
            await asyncio.sleep(pause)
        finally:
            child.send_signal(signal.SIGKILL)
            said, _ = await child.communicate()
        assert child.returncode == -signal.SIGKILL, said.decode()
        self.check(self.served.chunks[before:])

    def check(self, given: list[tuple[bytes, Place, int]]) -> None:
        """Nothing that had been stored before this life was asked for in it."""
        places = [place for _, place, _ in given]
        stored = self.stored_before
        for place in places:
            assert not is_under(place, stored), "fetched again"
        missing = self.holes()
        lost = [place for place in places if is_under(place, missing)]
        self.stored_before = [*stored, *(place for place in places if place not in lost)]
        self.lost.append(lost)

    def holes(self) -> list[Place]:
        """What the store lacks."""
        with open_store(self.directory, tables.TABLES) as store:
            staging = StateStaging(store)
            if staging.pivot is None:
                return [(0, bytes(32))]
            return [(hole.depth, hole.prefix) for hole in staging.holes(10_000)]


async def campaign(
    tmp_path: Path, chunks: list[int], pauses: list[float], accounts: int = ACCOUNTS
) -> None:
    chain, keeper = grown(accounts=accounts)
    # The child knows the root of the first state alone: the state is to come from peers.
    genesis = replace(chain.config, alloc={}, state_root=chain.config.genesis_header.state_root)
    assert isinstance(genesis, ChainConfig)
    assert genesis.genesis_hash == chain.genesis_hash
    path = tmp_path / "genesis.json"
    path.write_text(genesis.to_json(), encoding="utf-8")
    served = Served()
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(state_node(chain, keeper, served)) for _ in range(PEERS)
        ]
        ports = [node.listen_port for node in nodes]
        lives = Lives(path, tmp_path / "data", ports, served)
        for node in nodes:
            node.brake = lives.brake
        for count, pause in zip(chunks, pauses, strict=True):
            await lives.killed(count, pause)
        before = len(served.chunks)
        lives.left = sys.maxsize
        child = await lives.start()
        said, _ = await child.communicate()
        assert child.returncode == 0, said.decode()
        assert said.decode().split() == [chain.head.hash.hex(), str(PIVOT + 1)]
        for _, place, _ in served.chunks[before:]:
            assert not is_under(place, lives.stored_before), "fetched again"
    with keeper.lend(served.chunks[0][0]) as snapshot:
        assert snapshot is not None
        total = snapshot.info.accounts
    sizes = {place: count for _, place, count in served.chunks}
    # In one life at most so much is on its way or waits for its commit, and as much is in the
    # commit that the kill came upon.
    most = 2 * max(fast_child.WINDOW_BYTES, max(sizes.values()) * ACCOUNT_BYTES)
    for lost in lives.lost:
        assert sum(sizes[place] for place in set(lost)) * ACCOUNT_BYTES <= most
    # What was stored is all, once. Of what was lost with a life the next one asks again, and not
    # always in the same pieces: by then it may know its peers to be faster, or slower.
    stored = {*lives.stored_before, *(place for _, place, _ in served.chunks[before:])}
    assert not any(is_under(place, stored - {place}) for place in stored)
    assert sum(sizes[place] for place in stored) == total
    again = sum(len(set(lost)) for lost in lives.lost)
    asked = len(served.chunks)
    hedged = asked - again - len(stored)  # asked of a second peer while the first was slow
    assert 0 <= hedged <= len(chunks) + 1


@pytest.mark.long
async def test_three_kills_cost_what_was_in_flight(tmp_path: Path) -> None:
    await campaign(tmp_path, [1, 3, 2], [0.0, LONGEST, LONGEST / 4])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_25_kills_cost_what_was_in_flight(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    chunks = [source.choice((0, 1, 1, 2)) for _ in range(25)]
    pauses = [source.uniform(0, LONGEST) for _ in chunks]
    await campaign(tmp_path, chunks, pauses, accounts=100_000)
