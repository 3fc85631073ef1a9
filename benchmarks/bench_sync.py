"""A whole sync over loopback, peers and the syncing node in processes of their own.

What is timed is the life of the syncing process, its start included (some tenths of a second).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sync_loopback as loopback

BLOCKS = 3000
PEERS = 2
BATCH = 256


@pytest.fixture(scope="module", params=[0, 2], ids=["empty blocks", "2 transfers a block"])
def transfers(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture(scope="module")
def source(transfers: int, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A directory with the chain in it, and the hash of its head."""
    directory = tmp_path_factory.mktemp("sync")
    return directory, loopback.build(directory, BLOCKS, transfers).hash


@pytest.fixture(params=["pure", "compiled"])
def twin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engines that all processes use; they are chosen once per process."""
    name: str = request.param
    monkeypatch.setitem(os.environ, "MODERNTENSOR_PURE", "1" if name == "pure" else "")
    return name


@pytest.fixture
def ports(source: tuple[Path, bytes], twin: str, tmp_path: Path) -> Iterator[list[int]]:
    directory, _ = source
    for name in ("source", "genesis.json"):
        (tmp_path / name).symlink_to(directory / name)
    with loopback.servers(tmp_path, PEERS) as found:
        yield found


def test_sync(
    benchmark: Any, source: tuple[Path, bytes], ports: list[int], tmp_path: Path, transfers: int
) -> None:
    benchmark.group = f"sync of {BLOCKS} blocks with {transfers} transfers each"
    rounds = iter(range(1000))

    def run() -> dict[str, Any]:
        directory = tmp_path / f"round-{next(rounds)}"
        directory.mkdir()
        (directory / "genesis.json").symlink_to(tmp_path / "genesis.json")
        return loopback.run_once(directory, ports, "--batch", BATCH)[-1]

    said = benchmark.pedantic(run, rounds=3)
    assert said["hash"] == source[1].hex()
    benchmark.extra_info["blocks_per_second"] = round(said["blocks"] / said["seconds"])
    benchmark.extra_info["headers_per_second"] = round(said["headers"] / said["header_seconds"])
