"""A chain that the command made, for all tests of the command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.command import succeed

BLOCKS = 30


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`chain new` with 30 blocks of 2 transfers, in a past with room for more. Not to change."""
    directory = tmp_path_factory.mktemp("made") / "net"
    options = ("--validators", "2", "--accounts", "4", "--block-time", "1", "--seed", "tests")
    succeed(
        "chain", "new", directory, "--blocks", str(BLOCKS), "--timestamp", "1700000000", *options
    )
    return directory


@pytest.fixture
def net(made: Path, tmp_path: Path) -> Path:
    """A copy of it to do anything with."""
    return Path(shutil.copytree(made, tmp_path / "net"))
