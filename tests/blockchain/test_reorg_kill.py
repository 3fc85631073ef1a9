"""SIGKILL in the middle of a reorganisation: it has happened as a whole then, or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import apply_blocks
from helpers.forks import VALIDATORS, ChainMaker, bodies_of, check_books, opened

import moderntensor
from moderntensor import backend
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.prepared import prepare_body
from moderntensor.blockchain.state import StateDB

MAKER = ChainMaker(VALIDATORS)
TRUNK = MAKER.run(MAKER.genesis, 10, transfers=2)
OLD = [*TRUNK, *MAKER.run(TRUNK[-1], 12, transfers=2)]
NEW = [*TRUNK, *MAKER.run(TRUNK[-1], 13, gap=2, transfers=3, value=7)]

POINTS = ("undo_to", "record", "apply", "finish", "committed", "told")

# For each point a process that kills itself once this step of a reorganisation is done: the old
# branch undone, the first block of the new one recorded, all of them applied, all written but not
# committed, committed, told.
CHILD = """
import os, signal, sys
from pathlib import Path
from helpers import apply_blocks
from helpers.forks import bodies_of, headers_of, opened
from moderntensor.blockchain.branch import BranchWriter
from moderntensor.blockchain.chain import Blockchain
from moderntensor.blockchain.genesis import ChainConfig
from moderntensor.blockchain.prepared import prepare_body

directory, *points = sys.argv[1:]
directory, fork = Path(directory), 10
new = list(apply_blocks.read_blocks(directory / "blocks"))[fork:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def dying(owner, name):
    method = getattr(owner, name)
    def call(*arguments, **options):
        method(*arguments, **options)
        die()
    setattr(owner, name, call)

def reorganise(point):
    with opened("lmdb", directory, point) as store:
        chain = Blockchain(store, ChainConfig.load(directory / "genesis.json"))
        chain.add_headers(headers_of(new))
        bodies = [prepare_body(body) for body in bodies_of(new)]
        if point == "committed":
            chain._announce = die
        elif point == "told":
            chain.subscribe(die)
        else:
            dying(BranchWriter, point)
        chain.apply_bodies(fork + 1, bodies)

for point in points:
    child = os.fork()
    if not child:
        try:
            reorganise(point)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -signal.SIGKILL:
        sys.exit(f"{point}: {status}")
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of stores, named after the point at which a reorganisation was cut off."""
    directory = tmp_path_factory.mktemp("killed")
    apply_blocks.write_blocks(directory / "blocks", NEW)
    MAKER.config.save(directory / "genesis.json")
    with opened("lmdb", directory, POINTS[0]) as store:
        chain = Blockchain(store, MAKER.config)
        for block in OLD:
            chain.import_block(block)
    for point in POINTS[1:]:
        shutil.copytree(directory / POINTS[0], directory / point)
    package = Path(moderntensor.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", CHILD, directory, *POINTS],
        env={
            **os.environ,
            "PYTHONPATH": f"{package}{os.pathsep}{package / 'tests'}",
            "MODERNTENSOR_PURE": "1" if backend.NAME == "pure" else "0",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_the_old_branch_or_the_new_one(point: str, killed: Path) -> None:
    whole = NEW if point in ("committed", "told") else OLD
    with opened("lmdb", killed, point) as store:
        chain = Blockchain(store, MAKER.config)
        assert chain.head.hash == whole[-1].hash
        assert StateDB(store).root == whole[-1].header.state_root
        assert [chain.hash_at(height + 1) for height in range(len(whole))] == [
            block.hash for block in whole
        ]
        check_books(chain)
        if whole is OLD:  # and nothing keeps it from happening now
            assert chain.header_head.hash == NEW[-1].hash
            bodies = [prepare_body(body) for body in bodies_of(NEW[10:])]
            chain.apply_bodies(11, bodies)
            assert chain.head.hash == NEW[-1].hash
            check_books(chain)
