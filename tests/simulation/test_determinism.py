"""The same seed gives the same run, byte for byte, whatever the process was before."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest
from helpers import simulated
from helpers.simulated import add_hosts, eventful, make_world

import moderntensor.simulation.scenarios  # noqa: F401 - they register themselves
from moderntensor.simulation import World
from moderntensor.simulation.runtime import seeded
from moderntensor.simulation.scenario import ALL

ROOT = Path(__file__).parents[2]


@cache
def _digest(seed: int) -> str:
    world = make_world(seed)
    world.run(eventful)
    return world.trace.digest()


def test_the_same_seed_gives_the_same_trace_after_garbage(tmp_path: Path) -> None:
    first = make_world(5, record=tmp_path / "trace")
    first.run(eventful)
    garbage = [[bytearray(size % 991), {size: object()}] for size in range(20_000)]
    del garbage[::3]  # holes in the heap: objects get other addresses
    gc.collect()
    assert _digest(5) == first.trace.digest()
    assert sha256((tmp_path / "trace").read_bytes()).hexdigest() == first.trace.digest()


def test_another_seed_gives_another_trace() -> None:
    async def main(world: World) -> None:
        await world.start(add_hosts(world, 2))
        await asyncio.sleep(2)

    digests = []
    for seed in (1, 1, 2):
        world = make_world(seed)
        world.run(main)
        digests.append(world.trace.digest())
    assert digests[0] == digests[1] != digests[2]


def test_the_trace_is_that_of_every_process() -> None:
    """Hashes of text and bytes, and addresses of objects, are other ones in each."""
    child = subprocess.Popen(
        [sys.executable, simulated.__file__, "5", "50000"],
        env={
            **os.environ,
            "PYTHONHASHSEED": "4711",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    ours = _digest(5)
    assert child.communicate()[0].strip() == ours


def test_chance_depends_on_its_parts_alone() -> None:
    assert seeded(1, "a").random() == seeded(1, "a").random()
    assert len({seeded(*parts).random() for parts in ((1, "a"), (1, "b"), (2, "a"))}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ALL))
def test_every_scenario_is_the_same_in_two_processes(name: str) -> None:
    program = (
        "import sys; from moderntensor.simulation import run_scenario;"
        "print(run_scenario(sys.argv[1], 11).trace_hash)"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, name],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for hash_seed in ("1", "2")
    ]
    first, second = (child.communicate()[0].strip() for child in children)
    assert len(first) == 64
    assert first == second
